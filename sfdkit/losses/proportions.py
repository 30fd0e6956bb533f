"""Proportions: what the motion coefficients tell about the size and shape of a person's own face."""

from __future__ import annotations

import torch
from torch import Tensor

from sfdkit.losses.term import LossTerm
from sfdkit.points import PointSet, take
from sfdkit.ranks import mean_of_known, mean_over_ranks

MOMENTUM = 0.1
"""Weight of a batch in the running covariance."""
SIZE_MOMENTUM = 0.02
"""The same in the running mean and deviation of the distances."""


class Proportions(LossTerm):
    """Covariance of motion coefficients with distances between points of the face in *other* frames of the clip.

    A large head near the camera and a small one far away look alike to a mean over pixels, and in self-reenactment it
    pays to take one for the other, as source and driver are the same person. In cross-reenactment the driver's size
    then replaces the source's. How large a person's face is on average, and how broad, high and wide-eyed, the other
    frames of the clip tell; a coefficient that measures motion alone has no covariance with it.

    The squared covariance of a batch would mostly be chance. Its running mean over batches is used in place of one of
    the two factors, so that the gradient is right on average.

    Args:
        points: The set that batches bring.
        motion_size: ``M``.
    """

    covariance: Tensor
    """Q M: running covariance of the distances, in their standard deviations, with the coefficients."""
    mean: Tensor
    """Q: running mean of the distances."""
    square: Tensor
    """Q: their running mean square; 0 before the first batch."""

    def __init__(self, points: PointSet, motion_size: int) -> None:
        super().__init__()
        self.points = points
        count = len(points.between)
        self.register_buffer("covariance", torch.zeros(count, motion_size))
        self.register_buffer("mean", torch.zeros(count))
        self.register_buffer("square", torch.zeros(count))

    def forward(self, motion: Tensor, points: Tensor) -> Tensor:
        """Return twice the product of covariance and running covariance, over the variance of the coefficients.

        Args:
            motion: B S M, coefficients of S >= 2 frames of each of B clips.
            points: B S L 2 in [-1, 1], of the same frames; not a number where they are not known.
        """
        frames = motion.shape[1]
        first, second = (take(points, numbers) for numbers in self.points.ends)
        sizes = (first - second).norm(dim=-1).clamp(min=1e-3).log()  # B S Q
        others = (sizes.sum(1, keepdim=True) - sizes) / (frames - 1)  # B S Q, without the frame itself
        known = ~others.isnan()
        others = others.nan_to_num()
        deviation = self._follow(others, known)
        apart = torch.where(known, (others - self.mean) / deviation, 0.0)
        centred = motion - motion.mean((0, 1))
        now = torch.einsum("bsq,bsm->qm", apart, centred) / known.sum((0, 1)).clamp(min=1)[:, None]
        if self.training:
            new = mean_over_ranks(now.detach())
            # a batch that is not finite, whose step is skipped, leaves no trace
            self.covariance.copy_(
                torch.where(new.isfinite().all(), self.covariance.lerp(new, MOMENTUM), self.covariance)
            )
        variance = centred.square().mean((0, 1)).sum().detach() + 1e-6
        return (2 * now - self.covariance).mul(self.covariance).sum() / variance / len(now)

    @torch.no_grad()
    def _follow(self, sizes: Tensor, known: Tensor) -> Tensor:
        """Return the standard deviation of the distances, in training updated with this batch."""
        if self.training:
            first = self.square.sum() == 0
            for kept, values in ((self.mean, sizes), (self.square, sizes.square())):
                now = mean_of_known(values, known, kept)
                kept.copy_(torch.where(first, now, kept.lerp(now, SIZE_MOMENTUM)))
        return (self.square - self.mean.square()).clamp(min=1e-6).sqrt()
