"""Exponential moving average of the animator's weights."""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from sfdkit.checkpoint import AVERAGE_KEY
from sfdkit.errors import CheckpointError
from sfdkit.task import AnimationTask

Tensors = tuple[Tensor, ...] | list[Tensor]


class WeightAverage(L.Callback):
    """Keeps an exponential moving average of the animator alone, and validates, tests and predicts with it.

    Lightning's own averaging copies the whole module, discriminator and metrics included; this one a second animator.
    The average follows early steps faster: its decay at update ``n`` is ``min(decay, (1 + n) / (10 + n))``.

    Args:
        decay: Share of the average that a step keeps, 0 … 1; 0 makes the average equal to the weights.
    """

    def __init__(self, decay: float = 0.999) -> None:
        self.decay = decay
        self.average: AveragedModel | None = None
        self.restored: dict[str, Tensor] | None = None
        self.last_step = 0

    def _blend(self, average: Tensors, current: Tensors, updates: Tensor | int) -> None:
        """Move the averages towards the current values; whole numbers are copied."""
        n = float(updates)
        share = 1 - min(self.decay, (1 + n) / (10 + n))
        if torch.is_floating_point(average[0]):
            torch._foreach_lerp_(average, current, share)
        else:
            torch._foreach_copy_(average, current)

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Make the second animator."""
        assert isinstance(pl_module, AnimationTask)
        if self.average is None:
            self.average = AveragedModel(pl_module.animator, multi_avg_fn=self._blend, use_buffers=True)
            self.average.requires_grad_(False)

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Place the average on the device."""
        self._ready(pl_module)

    def _ready(self, pl_module: L.LightningModule) -> AveragedModel:
        assert self.average is not None
        if self.restored is not None:
            self.average.load_state_dict(self.restored)
            self.restored = None
        return self.average.to(pl_module.device)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Update after each generator step."""
        assert self.average is not None and isinstance(pl_module, AnimationTask)
        if trainer.global_step != self.last_step:
            self.last_step = trainer.global_step
            self.average.update_parameters(pl_module.animator)

    def _swap(self, pl_module: L.LightningModule) -> None:
        average = self._ready(pl_module)
        assert isinstance(pl_module, AnimationTask)
        if int(average.n_averaged) == 0:
            return
        with torch.no_grad():
            for mine, theirs in zip(_tensors(average.module), _tensors(pl_module.animator), strict=True):
                kept = mine.clone()
                mine.copy_(theirs)
                theirs.copy_(kept)

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Validate with the average."""
        self._swap(pl_module)

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Give the weights back."""
        self._swap(pl_module)

    def on_test_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Test with the average."""
        self._swap(pl_module)

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Give the weights back."""
        self._swap(pl_module)

    def on_predict_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Predict with the average."""
        self._swap(pl_module)

    def on_predict_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Give the weights back."""
        self._swap(pl_module)

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Store the average beside the weights."""
        if self.average is not None:
            checkpoint[AVERAGE_KEY] = {name: value.clone() for name, value in self.average.state_dict().items()}

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Take the average back from a checkpoint.

        Raises:
            CheckpointError: The checkpoint holds none.
        """
        if AVERAGE_KEY not in checkpoint:
            raise CheckpointError(
                f"the checkpoint holds no average of the weights ({AVERAGE_KEY}); it was not written by sfdkit"
            )
        self.restored = checkpoint[AVERAGE_KEY]
        self.last_step = int(checkpoint["global_step"])


def _tensors(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]
