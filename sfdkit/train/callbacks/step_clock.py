"""Where the time of a training step goes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import lightning as L
import torch

from sfdkit.device import wait_for
from sfdkit.train.task import AnimationTask

PARTS = ("wait for data", "forward", "loss terms", "backward", "rest")
"""What a step is split into; the rest is the transfer, the discriminator, the optimisers and the averages."""


class StepClock(L.Callback):
    """Times the parts of each step of a training in this process.

    Args:
        warm_up: Steps that do not count.
    """

    def __init__(self, warm_up: int) -> None:
        self.warm_up = warm_up
        self.steps: list[dict[str, float]] = []
        self.rows = 0
        """Targets of a step."""
        self._parts: dict[str, float] = {}
        self._end = self._number = 0.0
        self._device = torch.device("cpu")

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Wrap what the task calls in each step."""
        assert isinstance(pl_module, AnimationTask)
        self._device = pl_module.device
        pl_module.take_step = self._timed("forward", pl_module.take_step)  # type: ignore[method-assign]
        pl_module.objective.forward = self._timed("loss terms", pl_module.objective.forward)  # type: ignore[method-assign]
        pl_module.manual_backward = self._timed("backward", pl_module.manual_backward)  # type: ignore[method-assign]
        self._end = time.perf_counter()

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Note how long the batch was waited for, its transfer and augmentation on the device included."""
        wait_for(self._device)
        self._parts = {"wait for data": time.perf_counter() - self._end}
        self.rows = batch["driving"].shape[0] * batch["driving"].shape[1]

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Note the step."""
        wait_for(self._device)
        now = time.perf_counter()
        parts, whole = self._parts, now - self._end
        parts["rest"] = whole - sum(parts.values())
        parts["step"] = whole
        self._end = now
        self._number += 1
        if self._number > self.warm_up:
            self.steps.append({name: parts.get(name, 0.0) for name in (*PARTS, "step")})

    def _timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            out = function(*args, **kwargs)
            wait_for(self._device)
            self._parts[name] = self._parts.get(name, 0.0) + time.perf_counter() - start
            return out

        return run
