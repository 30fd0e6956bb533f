"""The machine that measures: what it is, and how fast it can be at best."""

from __future__ import annotations

import platform
import re
import resource
import sys
from collections.abc import Callable
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import torch

from sfdkit.bench.timing import Spread, time_in_turn
from sfdkit.device import wait_for

_LONG = 0.02
"""Seconds of a product of matrices that need not be larger: some processors emulate bfloat16 slowly."""
_LIBRARIES = ("torch", "onnxruntime", "numpy", "lightning")


class Roofline(NamedTuple):
    """What this device reaches at best, measured (https://doi.org/10.1145/1498765.1498785)."""

    flops: float
    """Operations per second of a product of large matrices."""
    bandwidth: float
    """Bytes per second that a copy of a large array reads and writes."""

    def seconds(self, gmac: float, moved: float) -> float:
        """Return the least time of ``gmac`` billions of multiply-accumulates that move so many bytes."""
        return max(2e9 * gmac / self.flops, moved / self.bandwidth)


def measure_roofline(device: torch.device, dtype: torch.dtype) -> Roofline:
    """Measure a large product of matrices and a large copy on a device, in a type."""
    side, largest, count = 256, *((8192, 1 << 28) if device.type == "cuda" else (1024, 1 << 25))
    while True:
        a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
        product = _seconds(partial(torch.matmul, a, b, out=torch.empty_like(a)), device)
        if side == largest or product > _LONG:
            break
        side *= 2
    start = torch.randn(count // 4, device=device)
    copy = _seconds(partial(torch.empty_like(start).copy_, start), device)
    return Roofline(2 * side**3 / product, 2 * count / copy)


def _seconds(run: Callable[[], object], device: torch.device) -> float:
    def whole() -> None:
        run()
        wait_for(device)

    (taken,) = time_in_turn([{"run": whole}], repeats=8, warm_up=2)
    return Spread.of(taken["run"]).median


def peak_memory(device: torch.device) -> float:
    """Return the most memory in MB so far: of the GPU that torch took, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Return what figures of speed need beside them: device, threads, versions."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    about = {"device": device.type, "name": name, "threads": torch.get_num_threads(), "python": sys.version.split()[0]}
    for library in ("sfdkit", *_LIBRARIES):
        try:
            about[library] = version(library)
        except PackageNotFoundError:
            continue
    return about


def _processor() -> str:
    try:
        found = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:  # not Linux
        found = None
    return found[1].strip() if found else platform.processor() or platform.machine()
