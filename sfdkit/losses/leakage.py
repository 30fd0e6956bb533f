"""Leakage: the share of the motion coefficients that tells people apart rather than movements."""

from __future__ import annotations

import torch
from torch import Tensor

from sfdkit.losses.term import LossTerm
from sfdkit.ranks import mean_over_ranks

USUAL_SHARE = 0.02
"""Share of a batch in the running mean of the variance."""
FLOOR = 0.1
"""Least divisor, as a share of that running mean."""


class Leakage(LossTerm):
    """Intraclass correlation of motion coefficients: what frames of one clip have in common, against all variance.

    If motion coefficients say nothing of the person, two frames of a clip far apart in time are as different as frames
    of two people, and the covariance of coefficients between frames of the same clip is zero. It is estimated without
    bias from the ``S`` frames that each row of a batch holds, as in a one-way analysis of variance
    (https://doi.org/10.1037/0033-2909.86.2.420), so that small batches push the right way on average.

    A pose that a person keeps through a whole clip counts as leakage too. Where clips are short against the movements
    there may be next to no variance to divide by, and the gradient would drown those of the other terms. The divisor
    therefore has a floor that follows a running mean of the variance over batches and ranks.

    Args:
        together: Take the share of all coefficients' variance together instead of the mean of each one's share. Under a
            price on information (:class:`sfdkit.losses.rate.Rate`) coefficients that say nothing have no variance, so
            that those count which move the face. Without that price a coefficient that the generator does not heed
            could hide the others' leakage by its own variance.
    """

    usual: Tensor
    """Running mean of the coefficients' mean variance; 0 before the first batch."""

    def __init__(self, together: bool = False) -> None:
        super().__init__()
        self.together = together
        self.register_buffer("usual", torch.zeros(()))

    def forward(self, motion: Tensor) -> Tensor:
        """Return the share: up to 1, and 0 where people do not differ.

        It falls below 0 where movements swing around a middle within short clips: -0.13 for the true factors of puppets
        in clips of 8 frames at 2 per second.

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
        """Return the running mean of the variance, in training with this batch's in it."""
        if self.training:
            now = mean_over_ranks(total.mean())
            followed = torch.where(self.usual > 0, self.usual.lerp(now, USUAL_SHARE), now)
            self.usual.copy_(torch.where(now.isfinite(), followed, self.usual))
        return self.usual
