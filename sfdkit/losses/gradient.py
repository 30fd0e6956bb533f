"""Difference of image gradients."""

from __future__ import annotations

from torch import Tensor

from sfdkit.losses.term import LossTerm


class GradientLoss(LossTerm):
    """Mean absolute difference of horizontal and vertical finite differences: asks for sharp edges in their place."""

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Return the mean of both directions for B 3 H W in [0, 1]."""
        difference = prediction - target
        horizontal = (difference[..., :, 1:] - difference[..., :, :-1]).abs().mean()
        vertical = (difference[..., 1:, :] - difference[..., :-1, :]).abs().mean()
        return (horizontal + vertical) / 2
