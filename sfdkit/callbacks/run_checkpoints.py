"""The checkpoints of a training."""

from __future__ import annotations

from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException


class RunCheckpoints(ModelCheckpoint):
    """Lightning's checkpoints, with ``last.ckpt`` as the state at the end, however the training ended.

    Lightning leaves the end out where it saves by steps, and whatever came after the last save where Ctrl-C or SIGTERM
    ends one process; the batch that was in work then is not seen again. With several processes an interruption keeps
    the last save, since the others may not have been interrupted and would be waited for.
    """

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save when it is time, and after the last step: later the epoch counts as done and cannot be gone on with."""
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        if trainer.should_stop or 0 < trainer.max_steps <= trainer.global_step:
            self._save_end(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save the end, unless that has just been done."""
        self._save_end(trainer)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Save what was reached before an interruption; not in a validation, in the average's weights."""
        if not isinstance(exception, KeyboardInterrupt | SIGTERMException):
            super().on_exception(trainer, pl_module, exception)
        elif trainer.training and trainer.world_size == 1:
            self._save_end(trainer)

    def _save_end(self, trainer: L.Trainer) -> None:
        if self.save_last and trainer.global_step not in (0, self._last_global_step_saved):
            self._save_last_checkpoint(trainer, self._monitor_candidates(trainer))
