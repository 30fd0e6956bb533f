"""Squared error."""

from __future__ import annotations

from torch import Tensor

from sfdkit.losses.term import LossTerm


class SquaredError(LossTerm):
    """Mean squared difference: it weighs large errors, such as a misplaced head, more than L1 does."""

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Return the mean for B 3 H W in [0, 1]."""
        return (prediction - target).square().mean()
