"""What a training says of itself: a summary at its start, its speed, and its statistics in the checkpoint."""

from __future__ import annotations

import time
from typing import Any

import lightning as L
from jsonargparse.typing import NonNegativeInt
from lightning.pytorch.callbacks import ModelCheckpoint, TQDMProgressBar
from lightning.pytorch.utilities import rank_zero_info

from sfdkit.checkpoint import KEY, SCHEMA
from sfdkit.train.schedule import logs_step
from sfdkit.train.task import AnimationTask


class RunSummary(L.Callback):
    """Prints how many parameters each part has, and where logs and checkpoints go."""

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Print the summary; all ranks must ask for the folder."""
        folder = str(trainer.log_dir or trainer.default_root_dir).rstrip("/")
        sizes = {name: sum(p.numel() for p in part.parameters()) for name, part in pl_module.named_children()}
        lines = ["parameters: " + ", ".join(f"{name} {size:,}" for name, size in sizes.items() if size)]
        if not trainer.fast_dev_run:  # type: ignore[attr-defined]
            writers = (c for c in trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint))
            kept = [str(c.dirpath) for c in writers if c.save_last or c.save_top_k]
            lines.append(f"logs and config.yaml in {folder}" + (f"; checkpoints in {', '.join(kept)}" if kept else ""))
        rank_zero_info("\n".join(lines))


class TrainingStatistics(L.Callback):
    """Counts driven frames and seconds of a training, resumes included, and stores them in its checkpoints.

    Seconds leave out set-up and validation. Each validation logs them as ``val/seconds``, so that its metrics can be
    plotted against time. ``train/images_per_second`` is the mean since it was last logged: the device works behind the
    host, so the time of a single step means nothing.
    """

    def __init__(self) -> None:
        self.frames = 0
        self.seconds = 0.0
        self.images_per_second = 0.0
        self._since = 0.0
        self._logged = 0, 0.0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock."""
        self._since = time.perf_counter()
        self._logged = self.frames, self.seconds

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the batch on all ranks."""
        count = batch["driving"].shape[0] * batch["driving"].shape[1] * trainer.world_size
        now = time.perf_counter()
        self.frames += count
        self.seconds += now - self._since
        self._since = now
        self.images_per_second = (self.frames - self._logged[0]) / max(1e-9, self.seconds - self._logged[1])
        if logs_step(trainer):
            self._logged = self.frames, self.seconds
            pl_module.log("train/images_per_second", self.images_per_second, on_step=True, on_epoch=False)

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Log the seconds of training before this validation."""
        if trainer.state.fn == "fit":
            pl_module.log("val/seconds", self.seconds, on_step=False, on_epoch=True, sync_dist=True)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Restart the clock."""
        self._since = time.perf_counter()

    def summary(self, trainer: L.Trainer) -> dict[str, float]:
        """Return steps, seconds, frames and frames per second so far."""
        return {
            "steps": trainer.global_step,
            "seconds": round(self.seconds, 2),
            "frames": self.frames,
            "images_per_second": round(self.frames / max(1e-9, self.seconds), 2),
            "world_size": trainer.world_size,
        }

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Store the statistics and what is needed to rebuild the animator."""
        assert isinstance(pl_module, AnimationTask)
        train = self.summary(trainer)
        module = getattr(trainer, "datamodule", None)
        if module is not None and hasattr(module, "train_identities"):
            train["identities"] = module.train_identities
        checkpoint[KEY] = {"schema": SCHEMA, "train": train, **pl_module.experiment}

    def state_dict(self) -> dict[str, Any]:
        """Return the counts."""
        return {"frames": self.frames, "seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the counts."""
        self.frames, self.seconds = int(state_dict["frames"]), float(state_dict["seconds"])


class TrainingProgress(TQDMProgressBar):
    """Progress bar with the loss and images per second.

    It reads both when it is redrawn. Values logged with ``prog_bar=True`` are read after each step, for which the host
    waits for the device.

    Args:
        refresh_rate: Steps between two redraws.
    """

    def __init__(self, refresh_rate: NonNegativeInt = 10) -> None:
        super().__init__(refresh_rate)

    def get_metrics(self, trainer: L.Trainer, pl_module: L.LightningModule) -> dict[str, Any]:
        """Return what the bar shows."""
        items = super().get_metrics(trainer, pl_module)
        items.pop("v_num", None)
        if (loss := trainer.callback_metrics.get("loss")) is not None:
            items["loss"] = float(loss)
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, TrainingStatistics) and callback.images_per_second:
                items["images/s"] = f"{callback.images_per_second:.0f}"
        return items  # type: ignore[return-value]
