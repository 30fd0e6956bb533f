"""The progress of a training in a file, for other processes."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import lightning as L
from jsonargparse.typing import NonNegativeFloat
from lightning.pytorch.utilities import rank_zero_only

from sfdkit.files import atomic_write
from sfdkit.train.task import AnimationTask


class ProgressFile(L.Callback):
    """Keeps a small json file with ``step``, ``steps`` of the whole training, ``loss`` and ``left``, in seconds.

    ``steps`` is null where only ``max_time`` ends the training.

    Args:
        path: The file; it appears whole or not at all.
        every: Seconds between two writes.
    """

    def __init__(self, path: str, every: NonNegativeFloat = 2.0) -> None:
        self.path = Path(path)
        self.every = every
        self._last = self._began = 0.0
        self._from: float | None = None

    @rank_zero_only
    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock."""
        self._began, self._from = time.monotonic(), None

    @rank_zero_only
    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write when it is time."""
        if time.monotonic() - self._last >= self.every:
            self._write(trainer, pl_module)

    @rank_zero_only
    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the end."""
        self._write(trainer, pl_module)

    def _write(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, AnimationTask)
        self._last = time.monotonic()
        done = pl_module.progress.at(trainer.global_step)
        self._from = done if self._from is None else self._from
        made = done - self._from
        left = (self._last - self._began) * (1 - done) / made if made > 0 else None
        loss = trainer.callback_metrics.get("loss")
        state = {
            "step": trainer.global_step,
            "steps": trainer.max_steps if trainer.max_steps > 0 else None,
            "loss": None if loss is None else float(loss),
            "left": None if left is None else round(max(0.0, left), 1),
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(self.path) as part:
            part.write_text(json.dumps(state) + "\n", encoding="utf-8")
