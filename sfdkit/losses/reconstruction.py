"""Multi-scale L1."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from sfdkit.losses.term import LossTerm


class MultiScaleL1(LossTerm):
    """Mean absolute difference, averaged over an image pyramid: the terms ``l1``, ``warp`` and ``cycle``.

    They differ in what is compared: the result, the warped source before painting, each with the target; and a face
    driven by another and then back again, with the first one.

    Args:
        scales: Number of scales, the full one included; stops early where a side would fall under 8 pixels.
    """

    def __init__(self, scales: int = 3) -> None:
        super().__init__()
        self.scales = scales

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Return the mean over scales for B 3 H W in [0, 1]."""
        difference = prediction - target
        values = [difference.abs().mean()]
        while len(values) < self.scales and min(difference.shape[2:]) >= 16:
            difference = F.avg_pool2d(difference, 2)
            values.append(difference.abs().mean())
        return sum(values[1:], values[0]) / len(values)
