"""The checkpoints of a training: when they are written, and that they appear whole or not at all."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.utilities.cloud_io import get_filesystem
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.utilities.exceptions import SIGTERMException

from sfdkit.errors import CheckpointError, ConfigError
from sfdkit.files import atomic_write

LATEST = ("last", "hpc")
"""Values of ``--ckpt_path`` for a checkpoint of the run's own folder, see ``Trainer.fit``."""


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint to a file beside it, flushes that to the disk, and renames it.

    Lightning writes to the folder for temporary files and moves the result, which copies it where that folder is on
    another disk: a run killed at that moment leaves half a ``last.ckpt`` and no good one.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a checkpoint; remote folders are left to Lightning.

        Raises:
            CheckpointError: It cannot be written, for example because the disk is full; an earlier file stays.
        """
        if "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        target = Path(path)
        data = io.BytesIO()  # torch reports a full disk as an error of its own
        torch.save(checkpoint, data)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(target) as part, part.open("wb") as file:
                file.write(data.getbuffer())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            good = sorted(target.parent.glob("*.ckpt"), key=lambda file: file.stat().st_mtime)
            last = f"the last good one is {good[-1]}" if good else "there is none yet"
            raise CheckpointError(
                f"cannot write the checkpoint {target}: {error.strerror}; {last}. Free space or fix the folder, and "
                "resume with --ckpt_path"
            ) from error


class RunCheckpoints(ModelCheckpoint):
    """Lightning's checkpoints, with ``last.ckpt`` as the state at the end, however the training ended.

    Lightning does not save the end of a training where it saves by steps, nor what came after the last save when Ctrl-C
    or SIGTERM ends it; here a training in one process saves then, without the batch that was interrupted. With several
    processes the last save stays, since saving waits for all of them and the others may not have been interrupted.
    """

    def refuse_old_run(self, trainer: L.Trainer, ckpt_path: str | None, resumes: bool = False) -> None:
        """Refuse to overwrite the checkpoints of an earlier training, before anything is written.

        All processes ask and get the same answer, since none writes a checkpoint before all of them train.

        Args:
            trainer: Not running yet.
            ckpt_path: The checkpoint that the training resumes from.
            resumes: Whether it resumes without being told, as a job that Slurm has requeued.

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
        found = sorted(Path(str(file)).name for file in inside)
        names = [name for name in found if name.endswith(self.FILE_EXTENSION) and not name.startswith(".")]
        if not names or (ckpt_path is not None and _parent(ckpt_path) == _parent(f"{folder}/{names[0]}")):
            return
        last = f"{self.CHECKPOINT_NAME_LAST}{self.FILE_EXTENSION}"
        raise ConfigError(
            f"{folder} holds the checkpoints of an earlier training, which this one would write over; to resume it "
            f"add --ckpt_path {folder}/{last if last in names else names[-1]}; to begin another one name its folders: "
            "--checkpoint.dirpath runs/NAME/checkpoints --trainer.logger.init_args.name NAME"
        )

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Find the folder and, before a training, create it, so that a wrong one fails now and not after hours.

        Raises:
            ConfigError: It cannot be created.
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
        """Save when it is time, and after the last step: a finished epoch cannot be resumed.

        Between the batches of a step nothing is saved: their gradients are in no checkpoint.
        """
        if getattr(pl_module, "summed_batches", 0):
            return
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        if trainer.should_stop or 0 < trainer.max_steps <= trainer.global_step:
            self._save_end(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save the end, unless that has just been saved."""
        self._save_end(trainer)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Save before an interruption ends the training; not during a validation, which swaps in the EMA."""
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
