"""Exponential moving average (EMA) of the animator's weights."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import lightning as L
import torch
from jsonargparse.typing import ClosedUnitInterval
from torch import Tensor, nn

from sfdkit.checkpoint import EMA_KEY
from sfdkit.errors import CheckpointError
from sfdkit.model.animator import FaceAnimator
from sfdkit.train.task import AnimationTask

COUNT = "n_averaged"
"""Key of the number of updates; the weights' keys begin with ``module.``, as in torch's own ``AveragedModel``."""


class WeightEMA(L.Callback):
    """Keeps an EMA of the animator's weights, and validates, tests and predicts with it.

    Lightning's own averaging copies the whole module, discriminator and metrics included; this one the animator alone.
    The EMA starts as the weights after the first step. Its decay at update ``n``, counted from 0, is ``min(decay,
    (1 + n) / (10 + n))``, so that it follows early steps faster. The count is kept on the host, which waits for
    no GPU.

    Args:
        decay: Fraction of the EMA that a step keeps; 0 makes it equal to the weights.
    """

    def __init__(self, decay: ClosedUnitInterval = 0.999) -> None:
        self.decay = decay
        self.average: FaceAnimator | None = None
        self.updates = 0
        self.restored: dict[str, Tensor] | None = None
        self.last_step = 0

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Copy the animator."""
        assert isinstance(pl_module, AnimationTask)
        if self.average is None:
            self.average = deepcopy(pl_module.animator).requires_grad_(False)

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Load a checkpoint's EMA, and move it to the device."""
        self._ready(pl_module)

    def _ready(self, pl_module: L.LightningModule) -> FaceAnimator:
        assert self.average is not None
        if self.restored is not None:
            weights = {k.removeprefix("module."): v for k, v in self.restored.items() if k != COUNT}
            self.average.load_state_dict(weights)
            self.updates = int(self.restored[COUNT])
            self.restored = None
        return self.average.to(pl_module.device)

    @torch.no_grad()
    def update(self, animator: nn.Module) -> None:
        """Update the EMA of weights and buffers; integer buffers are copied."""
        assert self.average is not None
        moving: tuple[list[Tensor], list[Tensor]] = ([], [])
        copied: tuple[list[Tensor], list[Tensor]] = ([], [])
        for mine, theirs in zip(_tensors(self.average), _tensors(animator), strict=True):
            own, new = moving if self.updates and torch.is_floating_point(mine) else copied
            own.append(mine)
            new.append(theirs)
        if moving[0]:
            torch._foreach_lerp_(*moving, 1 - min(self.decay, (1 + self.updates) / (10 + self.updates)))
        if copied[0]:
            torch._foreach_copy_(*copied)
        self.updates += 1

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Update after each generator step."""
        assert isinstance(pl_module, AnimationTask)
        if trainer.global_step != self.last_step:
            self.last_step = trainer.global_step
            self.update(pl_module.animator)

    @torch.no_grad()
    def _swap(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        average = self._ready(pl_module)
        assert isinstance(pl_module, AnimationTask)
        if self.updates:
            for mine, theirs in zip(_tensors(average), _tensors(pl_module.animator), strict=True):
                kept = mine.clone()
                mine.copy_(theirs)
                theirs.copy_(kept)

    on_validation_epoch_start = on_validation_epoch_end = _swap
    on_test_epoch_start = on_test_epoch_end = _swap
    on_predict_epoch_start = on_predict_epoch_end = _swap

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Store the EMA beside the weights."""
        if self.average is not None:
            weights = {f"module.{name}": value.clone() for name, value in self.average.state_dict().items()}
            checkpoint[EMA_KEY] = {COUNT: torch.tensor(self.updates), **weights}

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keep a checkpoint's EMA until the training starts.

        Raises:
            CheckpointError: The checkpoint holds none.
        """
        if EMA_KEY not in checkpoint:
            raise CheckpointError(
                f"the checkpoint holds no average of the weights ({EMA_KEY}); it was not written by sfdkit"
            )
        self.restored = checkpoint[EMA_KEY]
        self.last_step = int(checkpoint["global_step"])


def _tensors(module: nn.Module) -> list[Tensor]:
    """Return parameters and buffers, in a fraction of the time of ``parameters()``, which counts at each step."""
    held = [tensor for part in module.modules() for tensor in (*part._parameters.values(), *part._buffers.values())]
    return [tensor for tensor in held if tensor is not None]
