"""Images and histograms in TensorBoard."""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
from jsonargparse.typing import PositiveInt
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor

from sfdkit.media.tensors import flow_to_rgb, image_grid
from sfdkit.train.task import AnimationTask


class Pictures(L.Callback):
    """Logs a grid (source, driving view, target, result, mask, flow) and histograms of the coefficients.

    Args:
        every: Training steps between two grids; validation logs one of its first batch as well.
        rows: Largest number of rows of a grid.
    """

    def __init__(self, every: PositiveInt = 500, rows: PositiveInt = 8) -> None:
        self.every = every
        self.rows = rows
        self.logged = -1

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log at the first step and then every ``every`` steps."""
        step = trainer.global_step
        if step != self.logged and (step == 1 or step % self.every == 0):
            self.logged = step
            self._log(trainer, pl_module, batch, "train")

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Log the first batch."""
        if batch_idx == 0 and not trainer.sanity_checking:
            self._log(trainer, pl_module, batch, "val")

    def _log(self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, stage: str) -> None:
        assert isinstance(pl_module, AnimationTask)
        if not isinstance(trainer.logger, TensorBoardLogger) or not trainer.is_global_zero:
            return
        training = pl_module.animator.training
        pl_module.animator.eval()
        part = {k: v[: self.rows] for k, v in batch.items() if isinstance(v, Tensor)}
        part["driving"] = part["driving"][:, :1]
        if "driving_view" in part:
            part["driving_view"] = part["driving_view"][:, :1]
        with torch.no_grad(), trainer.precision_plugin.forward_context():
            result, motion, target = pl_module.render(part)  # type: ignore[arg-type]
            own = pl_module.animator.describe(part["source"])
        pl_module.animator.train(training)
        grid = image_grid(
            {
                "source": part["source"],
                "driving view": part.get("driving_view", part["driving"])[:, 0],
                "target": target,
                "result": result.image.float(),
                "mask": result.mask.float().expand(-1, 3, -1, -1),
                "flow": flow_to_rgb(result.flow.float()),
            }
        )
        writer = trainer.logger.experiment
        writer.add_image(f"{stage}/faces", grid, trainer.global_step)
        motion = motion if pl_module.last_motion is None or stage != "train" else pl_module.last_motion
        writer.add_histogram(f"{stage}/motion coefficients", motion.float().cpu(), trainer.global_step)
        writer.add_histogram(f"{stage}/identity coefficients", own.identity.float().cpu(), trainer.global_step)
