"""Everything that a GPU should be asked, in at most ten minutes: ``make gpu`` or ``python -m benchmarks.gpu``.

The parts are ``peak`` (products of large matrices), ``drive`` (milliseconds per driven frame), ``tests`` (those marked
gpu), ``train`` (pictures per second, memory and utilisation) and ``puppets`` (a training, what share of it waited for
data, and its evaluation). Each runs in a process of its own: what fails or takes too long is noted, and the rest goes
on. A table is printed, and ``results.json`` in the output folder holds all figures; it is written after each part.

It needs no installation, only the libraries, and is run from the root of the repository. ``--device cpu --minutes 1``
tries all of it in tiny sizes on a machine without a GPU; those figures mean nothing.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import itertools
import json
import os
import platform
import re
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from sfdkit.files import atomic_write

ROOT = Path(__file__).parent.parent
ORDER = ("peak", "drive", "tests", "train", "puppets")
GRACE = {"cuda": 5.0, "cpu": 90.0}
"""Seconds that a part may take longer than it was given; a rehearsal may start as slowly as it likes."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the parts, or one of them as a process of its own; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0, help="for all parts together (10)")
    parser.add_argument("--only", nargs="+", choices=ORDER, help="parts to run; all by default")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1, or cpu to try without a GPU")
    parser.add_argument("--output", default="runs/gpu", help="folder for the results")
    parser.add_argument("--part", choices=ORDER, help=argparse.SUPPRESS)
    parser.add_argument("--until", type=float, help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    if asked.device != "cpu" and not torch.cuda.is_available():
        build = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
        print(
            f"benchmarks.gpu: no GPU is visible to torch {torch.__version__} ({build}); run it where there is one, "
            "or try it with --device cpu --minutes 1",
            file=sys.stderr,
        )
        return 2
    if not 0 < asked.minutes < 1e4:
        parser.error(f"--minutes {asked.minutes:g}: give a number above 0")
    os.chdir(ROOT)
    folder = Path(asked.output)
    folder.mkdir(parents=True, exist_ok=True)
    if asked.part:
        return run_part(asked.part, torch.device(asked.device), asked.until, folder)
    return run_all(asked.only or ORDER, asked.device, 60 * asked.minutes, folder)


def run_part(name: str, device: torch.device, until: float, folder: Path) -> int:
    """Measure one part, and write its rows as they come; ``until`` is when it should have ended, in Unix time."""
    from benchmarks.gpu_parts import PARTS, Plan

    plan = Plan(device, max(1.0, until - time.time()), folder, time.monotonic())
    rows: list[dict[str, Any]] = []
    for row in PARTS[name][1](plan):
        rows.append(row)
        write_json(folder / f"{name}.json", rows)
    return 0


def run_all(names: Sequence[str], device: str, seconds: float, folder: Path) -> int:
    """Run the parts one after the other, each with its share of the time and what the others left of theirs."""
    from benchmarks.gpu_parts import PARTS

    began = time.monotonic()
    results: dict[str, Any] = {"about": about(torch.device(device)), "minutes": seconds / 60, "parts": {}}
    results["about"]["missing_packages"] = missing_packages()
    print(describe(results["about"]))
    total = sum(PARTS[name][0] for name in names)
    given = -GRACE["cuda"]
    for name in (name for name in ORDER if name in names):
        given += seconds * PARTS[name][0] / total
        limit = max(1.0, given - (time.monotonic() - began))
        print(f"\n{name} (at most {limit:.0f} s)", flush=True)
        results["parts"][name] = part = run_child(name, device, limit, folder)
        write_json(folder / "results.json", results)
        print(table(part["rows"]))
        if part["problem"]:
            print(f"  {part['problem']}")
    results["seconds"] = round(time.monotonic() - began, 1)
    write_json(folder / "results.json", results)
    bad = [name for name, part in results["parts"].items() if part["problem"] or failed_tests(part["rows"])]
    print(
        f"\n{results['seconds']:.0f} s; wrote {folder / 'results.json'}" + (f"; look at {', '.join(bad)}" * bool(bad))
    )
    return 1 if bad else 0


def run_child(name: str, device: str, limit: float, folder: Path) -> dict[str, Any]:
    """Run one part in a process of its own, with all that it starts, and return its rows and what went wrong."""
    rows, log = folder / f"{name}.json", folder / f"{name}.log"
    rows.unlink(missing_ok=True)
    kind = torch.device(device).type
    command = [sys.executable, "-m", "benchmarks.gpu", "--part", name, "--device", kind]
    grace = GRACE[kind]
    command += ["--until", f"{time.time() + limit:.1f}", "--output", str(folder)]
    began, problem = time.monotonic(), ""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", **only(torch.device(device))}
    with log.open("w") as output:
        child = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, cwd=ROOT, env=environment, start_new_session=True
        )
        try:
            status = child.wait(limit + grace)
            if status:
                problem = f"ended with status {status}: {last_line(log)} ({log})"
        except subprocess.TimeoutExpired:
            problem = f"stopped after {limit + grace:.0f} s, which is its time; what it had measured is kept ({log})"
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
    measured = json.loads(rows.read_text()) if rows.is_file() else []
    return {"seconds": round(time.monotonic() - began, 1), "problem": problem, "rows": measured}


def only(device: torch.device) -> dict[str, str]:
    """Return the environment in which the GPU that was named, as in ``cuda:1``, is the only one; else nothing."""
    if device.index is None:
        return {}
    visible = [word for word in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if word]
    return {"CUDA_VISIBLE_DEVICES": visible[device.index] if visible else str(device.index)}


def last_line(log: Path) -> str:
    """Return the last line of a log that says something."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][:300] if lines else "it said nothing"


def failed_tests(rows: Sequence[dict[str, Any]]) -> bool:
    """Whether a row is of a test that failed."""
    return any(row.get("result") in ("failed", "error") for row in rows)


def about(device: torch.device) -> dict[str, Any]:
    """Return what the figures should be read with."""
    from sfdkit import __version__

    found: dict[str, Any] = {
        "sfdkit": __version__,
        "device": str(device),
        "name": platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "cores": os.cpu_count(),
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found |= {"name": properties.name, "gpus": torch.cuda.device_count(), "cuda": torch.version.cuda}
        found |= {"memory_gib": round(properties.total_memory / 2**30, 1), "cudnn": torch.backends.cudnn.version()}
    return found


def missing_packages() -> list[str]:
    """Return the packages that sfdkit depends on, or pytest, that are not installed."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = [re.match(r"[\w.-]+", line)[0] for line in project["dependencies"]]  # type: ignore[index]
    installed = {distribution.metadata["Name"].lower() for distribution in importlib.metadata.distributions()}
    return [name for name in [*names, "pytest"] if name.lower() not in installed]


def describe(found: dict[str, Any]) -> str:
    """Return a line about the machine."""
    text = f"{found['name']}, torch {found['torch']}, Python {found['python']}, {found['cores']} cores"
    if "gpus" in found:
        text += f", {found['gpus']} GPU of {found['memory_gib']} GiB, CUDA {found['cuda']}"
    else:
        text += "; a rehearsal: these figures say nothing about a GPU"
    if found["missing_packages"]:
        text += f"\nnot installed: {', '.join(found['missing_packages'])}; parts that need them fail"
    return text


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Lay rows out, those that begin with the same two keys in one table."""
    lines = []
    for _, group in itertools.groupby(rows, key=lambda row: list(row)[:2]):
        alike = list(group)
        heads = list(dict.fromkeys(key for row in alike for key in row))
        cells = [heads, *([_text(row.get(key)) for key in heads] for row in alike)]
        widths = [max(len(line[k]) for line in cells) for k in range(len(heads))]
        lines += ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in cells]
    return "\n".join(f"  {line}" for line in lines) if lines else "  nothing was measured"


def _text(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) and abs(value) < 1000 else str(value)


def write_json(path: Path, value: object) -> None:
    """Write a file that is whole at any time."""
    with atomic_write(path) as part:
        part.write_text(json.dumps(value, indent=1) + "\n")


if __name__ == "__main__":
    raise SystemExit(main())
