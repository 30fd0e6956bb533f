"""The checkpoints of a training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
from lightning.fabric.utilities.cloud_io import get_filesystem
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException

from sfdkit.errors import ConfigError

LATEST = ("last", "hpc")
"""Words for a checkpoint of the run's own folder, see ``Trainer.fit``."""


class RunCheckpoints(ModelCheckpoint):
    """Lightning's checkpoints, with ``last.ckpt`` as the state at the end, however the training ended.

    Lightning leaves the end out where it saves by steps, and whatever came after the last save where Ctrl-C or SIGTERM
    ends one process; the batch that was in work then is not seen again. With several processes an interruption keeps
    the last save, since the others may not have been interrupted and would be waited for.
    """

    def refuse_old_run(self, trainer: L.Trainer, ckpt_path: str | None, resumes: bool = False) -> None:
        """Refuse to write over the checkpoints of an earlier training, before anything is written.

        All processes ask, and all get the same answer: none writes a checkpoint before all of them train, and none is
        left waiting for one that has ended.

        Args:
            trainer: Not running yet.
            ckpt_path: What the training goes on from.
            resumes: Whether it goes on without being told, as a job that Slurm has put into its queue again.

        Raises:
            ConfigError: The folder holds checkpoints, and ``ckpt_path`` is none of them.
        """
        if resumes or ckpt_path in LATEST or not self._writes(trainer):
            return
        given = self.dirpath
        super().setup(trainer, trainer.lightning_module, "validate")  # finds the folder, as far as loggers know it yet
        folder, self.dirpath = str(self.dirpath), given
        files = get_filesystem(folder)
        inside = files.ls(folder, detail=False) if files.isdir(folder) else []
        names = sorted(name for name in (Path(str(file)).name for file in inside) if name.endswith(self.FILE_EXTENSION))
        if not names or (ckpt_path is not None and _parent(ckpt_path) == _parent(f"{folder}/{names[0]}")):
            return
        last = f"{self.CHECKPOINT_NAME_LAST}{self.FILE_EXTENSION}"
        raise ConfigError(
            f"{folder} holds the checkpoints of an earlier training, which this one would write over; to go on with it "
            f"add --ckpt_path {folder}/{last if last in names else names[-1]}; to begin another one name its folders: "
            "--checkpoint.dirpath runs/NAME/checkpoints --trainer.logger.init_args.name NAME"
        )

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Find the folder and, before a training, make it: one that cannot be made must not be found out after hours.

        Raises:
            ConfigError: It cannot be made.
        """
        super().setup(trainer, pl_module, stage)
        folder = str(self.dirpath)
        if stage == "fit" and trainer.is_global_zero and self._writes(trainer):
            try:
                get_filesystem(folder).makedirs(folder, exist_ok=True)
            except OSError as error:
                raise ConfigError(f"checkpoint.dirpath {folder} cannot be made: {error.strerror or error}") from error

    def _writes(self, trainer: L.Trainer) -> bool:
        return bool(self.save_last or self.save_top_k) and not trainer.fast_dev_run  # type: ignore[attr-defined]

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
        if self.save_last and trainer.global_step and not self._should_skip_saving_checkpoint(trainer):
            self._save_last_checkpoint(trainer, self._monitor_candidates(trainer))


def _parent(file: str) -> str:
    """Return the folder of a file, a local one as an absolute path without links."""
    return file.rpartition("/")[0] if "://" in file else str(Path(file).resolve().parent)
