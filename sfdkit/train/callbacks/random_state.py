"""Random number generators of all processes in checkpoints."""

from __future__ import annotations

import random
from typing import Any

import lightning as L
import torch

from sfdkit.ranks import ranks

KEY = "random_state"


class RandomState(L.Callback):
    """Seeds each process differently, and stores and restores the random states of all of them.

    Lightning seeds all processes alike and stores no state: dropout would be the same on all of them, and a resumed
    training would draw other numbers than an uninterrupted one. A training that is resumed with another number of
    processes starts from new seeds.
    """

    def __init__(self) -> None:
        self.restored: list[dict[str, Any]] | None = None

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Store the states of torch and Python of every process."""
        version, numbers, gauss = random.getstate()
        state: dict[str, Any] = {"torch": torch.get_rng_state(), "python": [version, list(numbers), gauss]}
        if pl_module.device.type == "cuda":
            state["cuda"] = torch.cuda.get_rng_state(pl_module.device)
        here = ranks()
        checkpoint[KEY] = here.gather({here.rank: state})

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keep the states until training starts."""
        self.restored = checkpoint.get(KEY)

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Set the state; on_train_start would be too late, as the loaders' iterators exist by then."""
        rank, states = trainer.global_rank, self.restored
        self.restored = None
        if states is None or len(states) != trainer.world_size:  # Lightning has seeded all processes alike
            if rank:
                seed = torch.initial_seed() + rank
                torch.manual_seed(seed)
                random.seed(seed)
            return
        torch.set_rng_state(states[rank]["torch"].cpu())
        version, numbers, gauss = states[rank]["python"]
        random.setstate((version, tuple(numbers), gauss))
        if pl_module.device.type == "cuda" and "cuda" in states[rank]:
            torch.cuda.set_rng_state(states[rank]["cuda"].cpu(), pl_module.device)
