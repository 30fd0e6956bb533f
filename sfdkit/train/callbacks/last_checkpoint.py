"""One checkpoint that is always the newest."""

from __future__ import annotations

from typing import Any

import lightning as L

from sfdkit.errors import ConfigError


class LastCheckpoint(L.Callback):
    """Writes one checkpoint over the other, every so many steps and at the end of the training.

    Lightning's ``ModelCheckpoint`` writes a second file beside ``last.ckpt`` and, when it goes by steps, leaves out the
    end of a training whose length is no multiple of them.

    Args:
        path: The checkpoint.
        every: Steps from one to the next.

    Raises:
        ConfigError: ``every`` is less than 1.
    """

    def __init__(self, path: str, every: int = 100) -> None:
        if every < 1:
            raise ConfigError(f"LastCheckpoint: every is {every}; give a number of steps of at least 1")
        self.path = path
        self.every = every
        self._written = -1

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write when it is time."""
        if trainer.global_step % self.every == 0:
            self._write(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the end."""
        self._write(trainer)

    def _write(self, trainer: L.Trainer) -> None:
        if trainer.global_step not in (0, self._written):
            self._written = trainer.global_step
            trainer.save_checkpoint(self.path)
