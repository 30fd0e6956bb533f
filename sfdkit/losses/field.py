"""Priors on flow and mask."""

from __future__ import annotations

from torch import Tensor

from sfdkit.losses.term import LossTerm


class Smoothness(LossTerm):
    """Mean absolute difference of the flow between neighbouring pixels, in pixels: neighbours move alike."""

    def forward(self, flow: Tensor) -> Tensor:
        """Return the mean for B 2 H W offsets in units of half the picture."""
        pixels = flow * (flow.shape[3] / 2)
        horizontal = (pixels[..., :, 1:] - pixels[..., :, :-1]).abs().mean()
        vertical = (pixels[..., 1:, :] - pixels[..., :-1, :]).abs().mean()
        return (horizontal + vertical) / 2


class Painting(LossTerm):
    """Share of the picture that is painted: what can be warped should be."""

    def forward(self, mask: Tensor) -> Tensor:
        """Return the mean of ``1 - mask`` for B 1 H W in [0, 1]."""
        return 1 - mask.mean()
