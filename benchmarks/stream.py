"""How fast a folder of shards is read and decoded, beside other loaders on the same clips.

``python -m benchmarks.stream --folder ADDRESS`` prints a table.

Each measurement runs in a fresh process, so that memory and caches do not mix. Loaders take turns, in the opposite
order every second time, since a machine that others use as well changes its speed over minutes; medians are reported.
"""

from __future__ import annotations

import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import torch
from jsonargparse import auto_cli
from jsonargparse.typing import NonNegativeInt, PositiveFloat, PositiveInt

from benchmarks.stream_peers import COPIES, OURS, PEERS, Job, Measurement, job_text, missing, processes
from sfdkit.config.parser import OneLineParser
from sfdkit.data.shards.index import index_clips, load_index
from sfdkit.errors import ConfigError, DataError, SfdkitError, did_you_mean
from sfdkit.files import require_apart
from sfdkit.storage import Storage

SCHEMA = "sfdkit.bench/1"
_ROOT = Path(__file__).parents[1]
_PERIOD = 0.1  # seconds between two looks at the memory
_LIMIT = 300.0  # seconds that a measurement may take longer than it was to measure
_WARMED = "Files of this machine come from its memory once they were read."


class Figures(TypedDict):
    """One loader with one number of workers."""

    mb_per_second: float
    """10^6 bytes of shards whose clips were consumed."""
    clips_per_second: float
    pairs_per_second: float
    """Pairs of a source and a driving frame."""
    first_batch_seconds: float
    peak_mb: float
    """10^6 bytes, all processes together."""
    cpu_seconds_per_1000_pairs: float


class Result(TypedDict):
    """Medians of the repetitions, and each of them."""

    loader: str
    workers: int
    median: Figures
    runs: list[Figures]


class Report(TypedDict):
    """What ``--output`` holds."""

    schema: str
    machine: dict[str, Any]
    folder: str
    clips: int
    shards: int
    settings: dict[str, Any]
    results: list[Result]
    not_measured: dict[str, str]
    """Loader, or loader and number of workers, to the reason."""


class Memory(NamedTuple):
    """The most memory that was seen, in bytes."""

    total: int
    """Of all processes together."""
    main: int
    """Of the first process, without what it reads from files (programs, libraries)."""
    worker: int
    """Of the largest other process, counted in the same way."""


@dataclass
class _Watch:
    """Looks at the memory of a process and of all its descendants until it is told to stop."""

    pid: int

    def __post_init__(self) -> None:
        self.peak = Memory(0, 0, 0)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(_PERIOD):
            seen = {pid: _memory(pid, line.rss) for pid, line in processes(self.pid).items()}
            others = [own for pid, (_, own) in seen.items() if pid != self.pid]
            now = Memory(
                sum(total for total, _ in seen.values()), seen.get(self.pid, (0, 0))[1], max(others, default=0)
            )
            self.peak = Memory(*(max(pair) for pair in zip(self.peak, now, strict=True)))

    def stop(self) -> Memory:
        self._stop.set()
        self._thread.join()
        return self.peak


def _memory(pid: int, rss: int) -> tuple[int, int]:
    """Return the bytes of a process, and those of them that no file stands behind.

    What several processes share is divided among them where the system tells it.
    """
    try:
        lines = (line.split() for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines())
        sizes = {words[0]: 1024 * int(words[1]) for words in lines if len(words) == 3}
        return sizes["Pss:"], sizes["Pss_Anon:"] + sizes["Pss_Shmem:"]
    except (OSError, KeyError):
        return (rss, rss) if not os.path.exists("/proc/self/smaps_rollup") else (0, 0)


def run(job: Job) -> tuple[dict[str, Any], Memory]:
    """Do a job in a process of its own.

    Returns:
        Its answer, which is a :class:`Measurement` as a dictionary or has the key ``error``, and its memory.
    """
    paths = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.stream_peers", job_text(job)],
            env={**os.environ, "PYTHONPATH": paths},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # so that workers end with it
        )
        watch = _Watch(process.pid)
        try:
            status: int | None = process.wait(_LIMIT + job.seconds)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            memory = watch.stop()
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        log.seek(0)
        lines = log.read().decode(errors="replace").splitlines()
    if status is None:
        return {"error": f"it did not end within {_LIMIT + job.seconds:.0f} s", "ours": False}, memory
    for line in reversed(lines):  # loaders may say good-bye after the answer
        with suppress(ValueError):
            if isinstance(answer := json.loads(line), dict):
                return answer, memory
    return {"error": f"its process ended with status {status}: {lines[-1] if lines else ''}", "ours": False}, memory


def stream(
    folder: str,
    workers: str = "0,1,2",
    against: str = "",
    batch_size: PositiveInt = 16,
    rows_per_clip: PositiveInt = 4,
    driving: PositiveInt = 2,
    seconds: PositiveFloat = 5.0,
    batches: NonNegativeInt = 0,
    repeats: PositiveInt = 3,
    output: str | None = None,
) -> None:
    """Measure how fast a folder of shards is read and decoded, in training mode.

    Nothing is done with the batches, so the figures are the most that a training can get. The first batches do not
    count for the throughput. Other loaders read the same clips, choose and decode frames by the same functions, and
    take turns with the kit's own; litdata and mosaicml read a copy, which is made before.

    Args:
        folder: A folder with an index.json: a path, or an address.
        workers: Numbers of worker processes to measure, for example 0,1,2.
        against: Loaders to compare with, of webdataset, litdata and mosaicml; webdataset reads local folders and http,
            the others local folders.
        batch_size: Rows in a batch.
        rows_per_clip: Rows that a clip gives.
        driving: Driving frames of a row, thus pairs.
        seconds: Length of each measurement.
        batches: Length of each measurement in batches, in place of --seconds.
        repeats: Measurements of each loader and number of workers, of which the median counts.
        output: A json file to write everything to as well.
    """
    if output is not None:
        require_apart(output, folder=folder)
    counts = _numbers(workers)
    peers = _peers(against)
    job = Job(OURS, folder, "", False, 0, batch_size, rows_per_clip, driving, seconds, batches)
    report = compare(job, counts, peers, repeats)
    print(_table(report))
    if output is not None:
        Storage(Path(output).absolute().parent).write(Path(output).name, json.dumps(report, indent=1).encode() + b"\n")


def _numbers(workers: str) -> list[int]:
    try:
        counts = [int(word) for word in workers.split(",")]
    except ValueError:
        counts = [-1]
    if min(counts) < 0:
        raise ConfigError(f"--workers is {workers!r}: give numbers from 0, such as 0,1,2")
    return list(dict.fromkeys(counts))


def _peers(against: str) -> list[str]:
    names = [name.strip() for name in against.split(",") if name.strip()]
    for name in names:
        if name not in PEERS:
            raise ConfigError(
                f"--against {name!r}: there is no such loader.{did_you_mean(name, PEERS)} "
                f"Give some of {', '.join(PEERS)}"
            )
    return list(dict.fromkeys(names))


def compare(job: Job, workers: Sequence[int], peers: Sequence[str], repeats: int) -> Report:
    """Measure the kit's loader and others.

    Args:
        job: What to read, and how long.
        workers: Numbers of workers.
        peers: Other loaders, keys of :data:`benchmarks.stream_peers.PEERS`.
        repeats: Measurements of each.

    Raises:
        DataError: The kit's own loader could not be measured.
    """
    storage = Storage(job.folder)
    index = load_index(storage)
    clips, size = index_clips(index), sum(entry["bytes"] for entry in index["shards"])
    reasons = {name: reason for name in peers if (reason := missing(name, job.folder))}
    runs: dict[tuple[int, str], list[Figures]] = {}
    with tempfile.TemporaryDirectory(prefix="sfdkit-bench-") as temporary:
        jobs = [replace(job, loader=OURS)]
        for name in peers:
            theirs = replace(job, loader=name, copy=str(Path(temporary) / name))
            if name not in reasons and name in COPIES:
                answer, _ = run(replace(theirs, prepare=True))
                if "error" in answer:
                    reasons[name] = f"its copy cannot be made ({answer['error']})"
            if name not in reasons:
                jobs.append(theirs)
        for count in workers:
            for repeat in range(repeats):
                for one in jobs if repeat % 2 == 0 else jobs[::-1]:
                    where = f"{one.loader}, {count} workers"
                    if where in reasons:
                        continue
                    answer, memory = run(replace(one, workers=count, seed=repeat))
                    if "error" not in answer:
                        figures = _figures(one, Measurement(**answer), memory, size / clips)
                        runs.setdefault((count, one.loader), []).append(figures)
                    elif one.loader == OURS:
                        raise DataError(f"the measurement with {count} workers failed: {answer['error']}")
                    else:
                        reasons[where] = answer["error"]
    return Report(
        schema=SCHEMA,
        machine={
            "system": f"{platform.system()} {platform.machine()}",
            "processors": os.cpu_count(),
            "python": platform.python_version(),
            "torch": torch.__version__,
        },
        folder=storage.show(),
        clips=clips,
        shards=len(index["shards"]),
        settings={
            "batch_size": job.batch_size,
            "rows_per_clip": job.rows_per_clip,
            "driving": job.driving,
            "resolution": index["resolution"],
            "repeats": repeats,
            **({"batches": job.batches} if job.batches else {"seconds": job.seconds}),
        },
        results=[
            Result(loader=loader, workers=count, median=_median(figures), runs=figures)
            for (count, loader), figures in runs.items()
        ],
        not_measured=reasons,
    )


def _figures(job: Job, measured: Measurement, memory: Memory, clip_bytes: float) -> Figures:
    clips = measured.rows / job.rows_per_clip
    pairs = measured.rows * job.driving
    return Figures(
        mb_per_second=clips * clip_bytes / 1e6 / measured.seconds,
        clips_per_second=clips / measured.seconds,
        pairs_per_second=pairs / measured.seconds,
        first_batch_seconds=measured.first_batch,
        peak_mb=memory.total / 1e6,
        cpu_seconds_per_1000_pairs=1000 * measured.cpu_seconds / pairs,
    )


def _median(runs: Sequence[Figures]) -> Figures:
    median = {name: statistics.median(run[name] for run in runs) for name in runs[0]}  # type: ignore[literal-required]
    return Figures(**median)  # type: ignore[typeddict-item]


def _table(report: Report) -> str:
    settings = report["settings"]
    lines = [
        f"{report['folder']}: {report['shards']} shards, {report['clips']} clips at {settings['resolution']} pixels; "
        f"{settings['rows_per_clip']} rows per clip, {settings['driving']} driving frames per row, batches of "
        f"{settings['batch_size']}; median of {settings['repeats']}",
        f"{'loader':<12}{'workers':>8}{'MB/s':>9}{'clips/s':>10}{'pairs/s':>10}{'first batch s':>15}{'peak MB':>9}"
        f"{'CPU s/1000 pairs':>18}",
    ]
    for result in sorted(report["results"], key=lambda result: (result["workers"], result["loader"] != OURS)):
        figures = result["median"]
        lines.append(
            f"{result['loader']:<12}{result['workers']:>8}{figures['mb_per_second']:>9.2f}"
            f"{figures['clips_per_second']:>10.1f}{figures['pairs_per_second']:>10.0f}"
            f"{figures['first_batch_seconds']:>15.3f}{figures['peak_mb']:>9.0f}"
            f"{figures['cpu_seconds_per_1000_pairs']:>18.2f}"
        )
    lines += [f"{name}: not measured, {reason}" for name, reason in report["not_measured"].items()]
    return "\n".join([*lines, _WARMED])


if __name__ == "__main__":
    try:
        auto_cli(stream, as_positional=False, parser_class=OneLineParser, prog="benchmarks.stream")
    except SfdkitError as error:
        raise SystemExit(f"error: {error}") from None
