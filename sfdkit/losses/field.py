"""Regularisation of flow and mask."""

from __future__ import annotations

import torch.nn.functional as F
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


class PointFlow(LossTerm):
    """Mean distance between where the flow leads points of the target's face and where the source has them."""

    def forward(self, flow: Tensor, targets: Tensor, sources: Tensor) -> Tensor:
        """Return the mean, in halves of the picture, over the points that are known in both; 0 without any.

        Args:
            flow: B*K 2 R R.
            targets: B*K L 2 in [-1, 1], points of the targets; not a number where they are not known.
            sources: B*K L 2, those of the pictures that were warped.
        """
        known = (targets + sources).isfinite().all(2)
        at = targets.nan_to_num()
        led = F.grid_sample(flow, at[:, :, None], padding_mode="border", align_corners=False)[..., 0].transpose(1, 2)
        away = (at + led - sources.nan_to_num()).square().sum(2).add(1e-8).sqrt()
        return (away * known).sum() / known.sum().clamp(min=1)
