"""Writing checkpoints so that a reader, and a run that is killed, finds whole ones only."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from sfdkit.errors import CheckpointError


class AtomicCheckpoints(TorchCheckpointIO):
    """Writes beside the place, flushes to the disk, then renames.

    Lightning writes to the folder for temporary files and moves the result, which copies it where that folder is on
    another disk: a run killed at that moment leaves half a ``last.ckpt`` and no good one.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a checkpoint; a folder that is no local one is left to Lightning.

        Raises:
            CheckpointError: It cannot be written, for example because the disk is full; what was there before stays.
        """
        if "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        target = Path(path)
        partial = target.with_name(f".{target.name}.partial")  # the name that a killed run left is used again
        data = io.BytesIO()
        torch.save(checkpoint, data)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                with partial.open("wb") as file:
                    file.write(data.getbuffer())
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(partial, target)
            finally:
                partial.unlink(missing_ok=True)
        except OSError as error:
            good = sorted(target.parent.glob("*.ckpt"), key=lambda file: file.stat().st_mtime)
            last = f"the last good one is {good[-1]}" if good else "there is none yet"
            raise CheckpointError(
                f"cannot write the checkpoint {target}: {error.strerror}; {last}. Free space or fix the folder, and "
                "go on with --ckpt_path"
            ) from error
