"""The small parts of a face: an error inside boxes round them, and points that must be read from the descriptors.

Legend: ``F`` results, ``L`` points of a set, ``R`` pixels of a side, ``N`` identity and ``M`` motion coefficients.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sfdkit.losses.term import LossTerm
from sfdkit.points import PointSet, part_boxes

HIDDEN = 192
"""Width of the head's hidden layer."""
WITHIN = 2.0
"""Weight of the places within each part, where that of all places in the picture is 1."""


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
    """Distance of points of the face that a head reads from (a, b) from those of the target.

    Where lids, brows and lips are is then in the descriptors, and free to use for the generator. The head is for
    training alone. Places are compared in the picture, and within each small part relative to its middle, where a
    closed lid is more than a small share of the way that a head moves.

    Args:
        points: The set that batches bring.
        code_size: ``N + M``.
    """

    def __init__(self, points: PointSet, code_size: int) -> None:
        super().__init__()
        self.points = points
        self.head = nn.Sequential(
            nn.Linear(code_size, HIDDEN), nn.LeakyReLU(0.2), nn.Linear(HIDDEN, 2 * len(points.names))
        )

    def forward(self, identity: Tensor, motion: Tensor, points: Tensor) -> Tensor:
        """Return the mean distance along an axis, in halves of the picture.

        Args:
            identity: F N, of the sources.
            motion: F M, of the driving views.
            points: F L 2 in [-1, 1], of the targets; not a number where they are not known.
        """
        read = self.head(torch.cat([identity, motion], 1)).unflatten(1, (-1, 2))
        found = _mean_distance(read, points)
        for numbers in self.points.parts:
            of_part, truth = read[:, numbers], points[:, numbers]
            centred = of_part - of_part.mean(1, keepdim=True), truth - truth.mean(1, keepdim=True)
            found = found + WITHIN * _mean_distance(*centred)
        return found


def _mean_distance(read: Tensor, truth: Tensor) -> Tensor:
    """Return the mean absolute difference where the truth is known."""
    known = ~truth.isnan()
    return ((read - truth.nan_to_num()).abs() * known).sum() / known.sum().clamp(min=1)
