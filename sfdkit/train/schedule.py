"""The learning rate schedule, and how far a training is."""

from __future__ import annotations

import math
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Timer

CLOCK_EVERY = 10
"""Steps between two broadcasts of the first process's clock."""


def cosine_with_warmup(step: int, warmup_steps: int, progress: float, floor: float = 0.01) -> float:
    """Return the learning rate's factor: linear warm-up, times half a cosine from 1 down to ``floor``.

    Args:
        step: Steps done.
        warmup_steps: Length of the warm-up.
        progress: Fraction of the whole training that is done, 0 … 1.
        floor: Factor at the end.
    """
    ramp = min(1.0, (step + 1) / max(1, warmup_steps))
    return ramp * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, max(0.0, progress)))))


def logs_step(trainer: Any) -> bool:
    """Whether Lightning writes this step's values to the loggers; at other steps no value needs to leave the device."""
    every = trainer.log_every_n_steps
    return every > 0 and (trainer.fit_loop.total_batch_idx + 1) % every == 0


class Progress:
    """How far a training is: by its steps, or by ``trainer.max_time`` if more of that is over."""

    def __init__(self) -> None:
        self.total_steps = float("inf")
        self.time_share = 0.0
        self._clock_read = False

    def begin(self, trainer: L.Trainer, accumulate_grad_batches: int) -> None:
        """Count the steps of the training that ``trainer`` begins."""
        batches, epochs = trainer.num_training_batches, trainer.max_epochs
        steps = float("inf") if trainer.max_steps == -1 else float(trainer.max_steps)
        if epochs is not None and epochs > 0 and math.isfinite(batches):
            steps = min(steps, float(math.ceil(batches / accumulate_grad_batches) * epochs))
        self.total_steps, self.time_share, self._clock_read = steps, 0.0, False

    def read_clock(self, trainer: L.Trainer) -> None:
        """Update the fraction of ``max_time`` that is over; all processes must call it at the same steps.

        The time is the first process's: with their own clocks the processes would use different learning rates, and
        their weights would diverge.
        """
        timers = [c for c in trainer.callbacks if isinstance(c, Timer)]  # type: ignore[attr-defined]
        left = timers[0].time_remaining("train") if timers else None
        if left is None:
            return
        if trainer.world_size == 1 or trainer.fit_loop.total_batch_idx % CLOCK_EVERY == 0 or not self._clock_read:
            spent = timers[0].time_elapsed("train")
            self.time_share = trainer.strategy.broadcast(spent / max(1e-6, spent + left))
            self._clock_read = True

    def at(self, step: int) -> float:
        """Return the fraction of the training that is done after ``step`` steps, 0 … 1."""
        return max(step / self.total_steps, self.time_share)
