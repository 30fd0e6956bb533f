"""Choosing the device and the precision, and setting up a GPU.

``python -m sfdkit.device precision`` prints the value for ``--trainer.precision`` that suits this machine, and
``python -m sfdkit.device processes`` the arguments of ``sfdkit fit`` for a training on all its cores.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch

from sfdkit.errors import ConfigError

_BFLOAT16_FLAGS = ("avx512_bf16", "amx_bf16")
"""Flags of CPUs with bfloat16 units; others emulate it slowly."""


def choose_device(device: str) -> torch.device:
    """Return the device of that name; ``auto`` prefers CUDA, then MPS, then the CPU.

    Raises:
        ConfigError: There is no such device.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        chosen = torch.device(device)
        torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"device: {device!r} cannot be used here ({reason}); use auto, cpu, cuda or cuda:1"
        ) from error
    return chosen


def training_precision(cpu_flags: str | None = None) -> str:
    """Return the precision in which this machine trains fastest: ``bf16-mixed`` or ``32-true``.

    Args:
        cpu_flags: Of the CPU, as in /proc/cpuinfo, which is read by default.
    """
    if torch.cuda.is_available():
        pays = torch.cuda.is_bf16_supported(including_emulation=False)
    elif torch.accelerator.is_available():
        pays = False
    else:
        pays = any(flag in (_read_cpu_flags() if cpu_flags is None else cpu_flags) for flag in _BFLOAT16_FLAGS)
    return "bf16-mixed" if pays else "32-true"


def _read_cpu_flags() -> str:
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:  # not Linux
        return ""


def training_processes(cpu_flags: str | None = None) -> str:
    """Return arguments of ``sfdkit fit``: two processes of one thread each, on two cores or more without accelerator.

    They train faster than one process of two threads, except in bfloat16: there they take 1.1 times as long.

    Args:
        cpu_flags: Of the CPU, as in /proc/cpuinfo, which is read by default.
    """
    if torch.accelerator.is_available() or (os.cpu_count() or 1) < 2 or training_precision(cpu_flags) == "bf16-mixed":
        return ""
    return "--config experiments/trainer/cpu2.yaml --data.init_args.batch_size 8"


def wait_for(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def prepare(device: torch.device) -> None:
    """Set up a GPU for a training, whose images all have one size: cuDNN benchmarking, and TF32 in convolutions.

    Convolutions are 98.8 to 99.8 % of the operations at 64 to 256 pixels. Matrix products stay in float32, which the
    orthonormal basis needs.
    """
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True
        torch.backends.cudnn.allow_tf32 = True
        torch.set_float32_matmul_precision("highest")


if __name__ == "__main__":
    print({"precision": training_precision, "processes": training_processes}[sys.argv[1]]())
