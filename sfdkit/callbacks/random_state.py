"""Random state in checkpoints."""

from __future__ import annotations

import random
from typing import Any

import lightning as L
import torch

KEY = "random_state"


class RandomState(L.Callback):
    """Stores torch's and Python's random state in checkpoints and restores it before the loaders are made.

    Lightning stores none; without it a resumed training draws other numbers than one that was not interrupted.
    """

    def __init__(self) -> None:
        self.restored: dict[str, Any] | None = None

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Store the state of the rank that saves."""
        version, numbers, gauss = random.getstate()
        state: dict[str, Any] = {"torch": torch.get_rng_state(), "python": [version, list(numbers), gauss]}
        if torch.cuda.is_available():
            state["cuda"] = torch.cuda.get_rng_state(pl_module.device) if pl_module.device.type == "cuda" else None
        checkpoint[KEY] = state

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Remember the state until training starts."""
        self.restored = checkpoint.get(KEY)

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Set the state; on_train_start would be too late, as the loaders' iterators exist by then."""
        if self.restored is None:
            return
        torch.set_rng_state(self.restored["torch"].cpu())
        version, numbers, gauss = self.restored["python"]
        random.setstate((version, tuple(numbers), gauss))
        if pl_module.device.type == "cuda" and self.restored.get("cuda") is not None:
            torch.cuda.set_rng_state(self.restored["cuda"].cpu(), pl_module.device)
        self.restored = None
