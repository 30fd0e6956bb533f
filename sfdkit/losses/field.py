"""Regularisation of flow and mask."""

from __future__ import annotations

from torch import Tensor

from sfdkit.losses.gradient import total_variation
from sfdkit.losses.term import LossTerm


class Smoothness(LossTerm):
    """Mean absolute difference of the flow between neighbouring pixels, in pixels."""

    def forward(self, flow: Tensor) -> Tensor:
        """Return the mean for B 2 H W offsets in units of half the picture."""
        return total_variation(flow * (flow.shape[3] / 2))


class Painting(LossTerm):
    """Fraction of the image that is painted and not warped."""

    def forward(self, mask: Tensor) -> Tensor:
        """Return the mean of ``1 - mask`` for B 1 H W in [0, 1]."""
        return 1 - mask.mean()
