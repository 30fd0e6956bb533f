"""Difference of image gradients."""

from __future__ import annotations

from torch import Tensor

from sfdkit.losses.term import LossTerm


def total_variation(image: Tensor) -> Tensor:
    """Return the mean absolute difference between neighbouring pixels of B C H W, over both directions."""
    horizontal = (image[..., :, 1:] - image[..., :, :-1]).abs().mean()
    vertical = (image[..., 1:, :] - image[..., :-1, :]).abs().mean()
    return (horizontal + vertical) / 2


class GradientLoss(LossTerm):
    """L1 between the horizontal and vertical finite differences of two images: it rewards sharp edges."""

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Return the mean of both directions for B 3 H W in [0, 1]."""
        return total_variation(prediction - target)
