"""Leakage: the share of the motion coefficients' variance that lies between clips, and tells people apart."""

from __future__ import annotations

import torch
from torch import Tensor

from sfdkit.losses.term import LossTerm
from sfdkit.ranks import mean_over_ranks

MOMENTUM = 0.02
"""Weight of a batch in the running mean of the variance."""
FLOOR = 0.1
"""Least divisor, as a share of that running mean."""


class Leakage(LossTerm):
    """Intraclass correlation of motion coefficients: covariance between frames of one clip, over all variance.

    If motion coefficients do not depend on the person, two frames of a clip far apart in time differ as much as frames
    of two people, and the covariance of coefficients between frames of the same clip is zero. It is estimated without
    bias from the ``S`` frames in each row of a batch, as in a one-way analysis of variance
    (https://doi.org/10.1037/0033-2909.86.2.420), so that the gradient of small batches is right on average.

    A pose that a person keeps through a whole clip counts as leakage too. Clips in which little moves have little
    variance to divide by, and the gradient would exceed those of the other terms. The divisor therefore has a floor, a
    share of the running mean of the variance over batches and ranks.

    Args:
        together: Divide the sums over all coefficients instead of averaging each one's share, so that coefficients
            with a large variance count most. Use it with the weight ``kl``
            (:class:`sfdkit.losses.kl.KLDivergence`), which takes the variance of coefficients that carry no
            information: without it, a coefficient that the generator ignores could hide the others' leakage behind its
            own variance.
    """

    running_mean: Tensor
    """Running mean of the coefficients' mean variance; 0 before the first batch."""

    def __init__(self, together: bool = False) -> None:
        super().__init__()
        self.together = together
        self.register_buffer("running_mean", torch.zeros(()))

    def forward(self, motion: Tensor) -> Tensor:
        """Return the share: up to 1, and 0 where people do not differ.

        It is below 0 where movements oscillate around a mean within short clips: -0.13 for the true factors of puppets
        in clips of 8 frames at 2 fps.

        Args:
            motion: B S M, coefficients of S >= 2 frames of each of B clips; 0 for a single clip or frame, where nothing
                can be estimated.
        """
        clips, frames = motion.shape[:2]
        centred = motion - motion.mean((0, 1))
        squares = centred.square()
        total = squares.mean((0, 1))
        if self.together:
            total = total.mean()
        floor = FLOOR * self._follow(total) + 1e-6
        if clips < 2 or frames < 2:
            return motion.new_zeros(())
        between = (centred.sum(1).square() - squares.sum(1)).mean(0) / (frames * (frames - 1))
        return ((between.mean() if self.together else between) / total.maximum(floor)).mean()

    @torch.no_grad()
    def _follow(self, total: Tensor) -> Tensor:
        """Return the running mean of the variance, in training updated with this batch."""
        if self.training:
            now = mean_over_ranks(total.mean())
            followed = torch.where(self.running_mean > 0, self.running_mean.lerp(now, MOMENTUM), now)
            self.running_mean.copy_(torch.where(now.isfinite(), followed, self.running_mean))
        return self.running_mean
