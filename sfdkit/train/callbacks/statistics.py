"""What a training did: steps, seconds, pictures per second; shown in the progress bar and kept in the checkpoint."""

from __future__ import annotations

import time
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import TQDMProgressBar

from sfdkit.checkpoint import KEY, SCHEMA
from sfdkit.train.schedule import logs_step
from sfdkit.train.task import AnimationTask


class TrainingStatistics(L.Callback):
    """Counts driven frames and seconds over all parts of a training; stores them and the experiment in the checkpoint.

    Seconds run from the first step to the last and leave out set-up and validation; a resumed training goes on
    counting. Each validation logs them as ``val/seconds``, so that its figures can be drawn against time.
    ``train/images_per_second`` is the mean since it was last logged: a device works on while the host counts, so a
    single step says nothing.
    """

    def __init__(self) -> None:
        self.frames = 0
        self.seconds = 0.0
        self.rate = 0.0
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
        self.rate = (self.frames - self._logged[0]) / max(1e-9, self.seconds - self._logged[1])
        if logs_step(trainer):
            self._logged = self.frames, self.seconds
            pl_module.log("train/images_per_second", self.rate, on_step=True, on_epoch=False)

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Log the seconds of training before this validation."""
        if trainer.state.fn == "fit":
            pl_module.log("val/seconds", self.seconds, on_step=False, on_epoch=True, sync_dist=True)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Go on with the clock."""
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
        """Go on counting from a checkpoint."""
        self.frames, self.seconds = int(state_dict["frames"]), float(state_dict["seconds"])


class TrainingProgress(TQDMProgressBar):
    """Progress bar with the loss and pictures per second.

    It reads both when it is drawn: a value logged for the bar is read after each step, and then the host waits for the
    device.

    Args:
        refresh_rate: Steps from one drawing to the next.
    """

    def __init__(self, refresh_rate: int = 10) -> None:
        super().__init__(refresh_rate)

    def get_metrics(self, trainer: L.Trainer, pl_module: L.LightningModule) -> dict[str, Any]:
        """Return what the bar shows."""
        items = super().get_metrics(trainer, pl_module)
        items.pop("v_num", None)
        if (loss := trainer.callback_metrics.get("loss")) is not None:
            items["loss"] = float(loss)
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, TrainingStatistics) and callback.rate:
                items["images/s"] = f"{callback.rate:.0f}"
        return items  # type: ignore[return-value]
