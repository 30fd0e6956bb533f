"""What happens at which step: the learning rate, and logging."""

from __future__ import annotations

import math
from typing import Any


def cosine_with_warmup(step: int, warmup_steps: int, progress: float, floor: float = 0.01) -> float:
    """Return the factor of the learning rate: linear warm-up, then half a cosine down to ``floor``.

    Args:
        step: Steps done.
        warmup_steps: Length of the warm-up.
        progress: Share of the whole training that is done, 0 … 1.
        floor: Factor at the end.
    """
    ramp = min(1.0, (step + 1) / max(1, warmup_steps))
    return ramp * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, max(0.0, progress)))))


def logs_step(trainer: Any) -> bool:
    """Whether Lightning writes this step's values to the loggers; at others no number needs to leave the device."""
    every = trainer.log_every_n_steps
    return every > 0 and (trainer.fit_loop.total_batch_idx + 1) % every == 0
