"""Writing the results of ``sfdkit predict``."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torchvision.utils import save_image

from sfdkit.types import Generated


class PredictionWriter(L.Callback):
    """Writes an image per clip: the source, then target above result for every driving frame.

    Its name is the clip's key. Mixed folders of shards can have the same keys: the second clip of a key gets ``-2``,
    and with several processes the rank as well.

    Args:
        folder: Output folder; ``None``: ``predictions`` in the trainer's log folder.
    """

    def __init__(self, folder: str | None = None) -> None:
        self.folder = folder
        self._target = Path(folder or "predictions")
        self._suffix = ""
        self._written: Counter[str] = Counter()

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Remember the folder; all ranks must ask for it."""
        log_dir = trainer.log_dir or trainer.default_root_dir
        self._target = Path(self.folder or Path(log_dir) / "predictions")
        roots = getattr(getattr(trainer, "datamodule", None), "roots", None)
        apart = trainer.world_size > 1 and (roots is None or len(roots) > 1)
        self._suffix = f"-rank{trainer.global_rank}" if apart else ""
        self._written.clear()

    def on_predict_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Write one image per clip."""
        assert isinstance(outputs, Generated)
        self._target.mkdir(parents=True, exist_ok=True)
        driving: Tensor = batch["driving"]
        images = outputs.image.view(*driving.shape[:2], *outputs.image.shape[1:]).float().clamp(0, 1)
        for row, key in enumerate(batch["key"]):
            above = [batch["source"][row], *driving[row]]
            below = [batch["source"][row], *images[row]]
            self._written[key] += 1
            again = f"-{self._written[key]}" if self._written[key] > 1 else ""
            path = self._target / f"{key}{again}{self._suffix}.png"
            save_image([*above, *below], path, nrow=len(above), padding=2, pad_value=1.0)

    def on_predict_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Print how many images all processes wrote."""
        written = torch.tensor(self._written.total(), device=pl_module.device)
        total = int(trainer.strategy.reduce(written, reduce_op="sum"))
        if trainer.is_global_zero:
            print(f"wrote {total} pictures to {self._target}")
