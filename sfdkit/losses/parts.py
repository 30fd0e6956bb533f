"""The small parts of a face: an error inside boxes round them, and points that must be read from the descriptors.

Legend: ``F`` results, ``L`` points of a set, ``R`` pixels of a side, ``N`` identity and ``M`` motion coefficients.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sfdkit.losses.term import LossTerm
from sfdkit.points import PointSet, part_boxes, within_parts
from sfdkit.ranks import mean_over_ranks

HIDDEN = 192
"""Width of the head's hidden layer."""
LEAST_DEVIATION = 0.005
"""What a coordinate's standard deviation is taken for at least, in halves of the picture or of the face."""
MOMENTUM = 0.02
"""Weight of a batch in the running statistics."""


class PartsLoss(LossTerm):
    """Mean absolute error inside soft boxes round each eye with its brow and round the mouth.

    Each box counts alike, whatever its area: in the mean over a picture of 64 pixels a perfect blink or smile gains a
    hundredth of a decibel at most, so nothing learns it. Results with a box whose points are not known are left out of
    that box's mean.

    Args:
        points: The set that batches bring.
    """

    def __init__(self, points: PointSet) -> None:
        super().__init__()
        self.points = points

    def forward(self, prediction: Tensor, target: Tensor, points: Tensor) -> Tensor:
        """Return the mean over boxes.

        Args:
            prediction: F 3 R R in [0, 1].
            target: F 3 R R.
            points: F L 2 in [-1, 1], of the targets; not a number where they are not known.
        """
        boxes = part_boxes(points, self.points, target.shape[-1])
        area = boxes.sum((2, 3))
        error = (boxes * (prediction - target).abs().mean(1, keepdim=True)).sum((2, 3)) / (area + 1)
        return error.sum() / (area > 0).sum().clamp(min=1)


class PointsLoss(LossTerm):
    """Error of points of the face that a head reads from (a, b), in standard deviations over faces.

    Where lids, irises, brows and lips are is then in the descriptors, free to use for the generator. The head is for
    training alone. It reads each point's place in the picture, and the places of the points of each small part within
    the part, upright and relative to the size of the face (:func:`sfdkit.points.within_parts`). Every coordinate counts
    by its own deviation: the way of a closing lid is a hundredth of that of a turning head.

    Args:
        points: The set that batches bring.
        code_size: ``N + M``.
    """

    mean: Tensor
    """C: running mean of each coordinate that is read."""
    square: Tensor
    """C: its running mean square; 0 before the first batch."""

    def __init__(self, points: PointSet, code_size: int) -> None:
        super().__init__()
        self.points = points
        count = 2 * (len(points.names) + sum(len(part) for part in points.parts))
        self.head = nn.Sequential(nn.Linear(code_size, HIDDEN), nn.LeakyReLU(0.2), nn.Linear(HIDDEN, count))
        self.register_buffer("mean", torch.zeros(count))
        self.register_buffer("square", torch.zeros(count))

    def forward(self, identity: Tensor, motion: Tensor, points: Tensor) -> Tensor:
        """Return the mean absolute error.

        Args:
            identity: F N, of the sources.
            motion: F M, of the driving views.
            points: F L 2 in [-1, 1], of the targets; not a number where they are not known.
        """
        truth = torch.cat([points.flatten(1), within_parts(points, self.points).flatten(1)], 1)
        known = ~truth.isnan()
        truth = truth.nan_to_num()
        if self.training:
            self._follow(truth, known)
        deviation = (self.square - self.mean.square()).clamp(min=LEAST_DEVIATION**2).sqrt()
        error = (self.head(torch.cat([identity, motion], 1)) - (truth - self.mean) / deviation).abs()
        places = 2 * len(self.points.names)
        return (_mean(error[:, :places], known[:, :places]) + _mean(error[:, places:], known[:, places:])) / 2

    @torch.no_grad()
    def _follow(self, truth: Tensor, known: Tensor) -> None:
        """Let a batch join the running statistics."""
        first = self.square.sum() == 0
        for kept, values in ((self.mean, truth), (self.square, truth.square())):
            now = mean_over_ranks((values * known).sum(0) / known.sum(0).clamp(min=1))
            kept.copy_(torch.where(first, now, kept.lerp(now, MOMENTUM)))


def _mean(error: Tensor, known: Tensor) -> Tensor:
    """Return the mean over what is known; 0 where nothing is."""
    return (error * known).sum() / known.sum().clamp(min=1)
