"""Writes what ``sfdkit predict`` renders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
from torch import Tensor
from torchvision.utils import save_image

from sfdkit.types import Generated


class PredictionWriter(L.Callback):
    """Writes each predicted clip as a row of pictures: source, then target above result for every driving frame.

    Args:
        folder: Where to; ``None``: ``predictions`` in the trainer's log folder.
    """

    def __init__(self, folder: str | None = None) -> None:
        self.folder = folder
        self.written = 0

    def _target(self, trainer: L.Trainer) -> Path:
        return Path(self.folder or Path(trainer.log_dir or trainer.default_root_dir) / "predictions")

    def on_predict_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Write one picture per clip, named by its key."""
        assert isinstance(outputs, Generated)
        folder = self._target(trainer)
        folder.mkdir(parents=True, exist_ok=True)
        driving: Tensor = batch["driving"]
        images = outputs.image.view(*driving.shape[:2], *outputs.image.shape[1:]).float().clamp(0, 1)
        for row, key in enumerate(batch["key"]):
            above = [batch["source"][row], *driving[row]]
            below = [batch["source"][row], *images[row]]
            save_image([*above, *below], folder / f"{key}.png", nrow=len(above), padding=2, pad_value=1.0)
            self.written += 1

    def on_predict_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Say what was written."""
        if trainer.is_global_zero:
            print(f"wrote {self.written} pictures to {self._target(trainer)}")
