"""Finding what makes the host wait for the device in a training step."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch.overrides import TorchFunctionMode

from tests.running import fit

ROOT = Path(__file__).parents[2]
READING = {"item", "tolist", "nonzero", "cpu", "numpy", "masked_select", "unique"}
READING |= {"__bool__", "__float__", "__int__", "__index__", "__array__", "__contains__", "allclose", "equal"}
MAKING = {"tensor", "as_tensor", "scalar_tensor"}
HOST = ("sfdkit/data/", "torch/utils/data/", "torch/optim/", "torch/amp/", "torch/random.py")
"""Whose tensors are on the host: pictures being read, counters of optimisers, what augmentation draws."""


class _Watch(TorchFunctionMode):
    """Notes the calls that would wait for a device if the tensors were on one."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, options = getattr(function, "__name__", ""), kwargs or {}
        made = name in MAKING and options.get("device") is not None
        if made or name in READING or (name == "__getitem__" and _by_mask(args[1])):
            frame, files = sys._getframe(1), []
            while frame is not None:
                files.append(f"{frame.f_code.co_filename}:{frame.f_lineno}")
                frame = frame.f_back  # type: ignore[assignment]
            if not any(part in file for file in files for part in HOST):
                own = next((f for f in files if str(ROOT / "sfdkit") in f), files[0])
                self.calls.append(f"{name} at {own.removeprefix(str(ROOT) + '/')}")
        return function(*args, **options)


def _by_mask(index: Any) -> bool:
    parts = index if isinstance(index, tuple) else (index,)
    return any(isinstance(part, torch.Tensor) and part.dtype == torch.bool for part in parts)


class NoWaiting(L.Callback):
    """Fails where a step of some makes the host wait: on a GPU by torch itself, elsewhere by what is called.

    Args:
        first: Batches before the watch begins; the first ones set things up.
        last: The last batch that is watched.
    """

    calls: list[str] | None = None
    """What was found, of the last watch that ended; torch raises on a GPU."""

    def __init__(self, first: int = 3, last: int = 7) -> None:
        self.first, self.last = first, last
        self._watch: _Watch | None = None
        self._seen = 0

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._seen += 1
        if self._seen == self.first:
            NoWaiting.calls = None
            if pl_module.device.type == "cuda":
                torch.cuda.set_sync_debug_mode("error")
            self._watch = _Watch()
            self._watch.__enter__()
        elif self._seen == self.last:
            self._end()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self._end()

    def _end(self) -> None:
        if torch.cuda.is_available():
            torch.cuda.set_sync_debug_mode("default")
        if self._watch is not None:
            self._watch.__exit__(None, None, None)
            NoWaiting.calls, self._watch = self._watch.calls, None


def waits(data: Path, run: Path, accelerator: str, *extra: str) -> list[str]:
    """Train the model of puppets64.yaml in mixed precision, all its terms counting, and return what made it wait."""
    plain = (
        "--trainer.callbacks+=tests.train.waiting.NoWaiting",
        f"--trainer.accelerator={accelerator}",
        "--trainer.devices=1",
        "--trainer.precision=bf16-mixed",
        "--trainer.log_every_n_steps=100",
        "--trainer.limit_val_batches=0",
        "--trainer.max_time=null",
        "--data.init_args.batch_size=4",
        "--data.init_args.driving_per_source=2",
        "--data.init_args.rows_per_clip=1",
        "--model.starts={}",
    )
    NoWaiting.calls = None
    fit(data, run, *plain, *extra, steps=9, files=("puppets64.yaml",))
    assert NoWaiting.calls is not None
    return NoWaiting.calls
