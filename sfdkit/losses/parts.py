"""The small parts of a face: an error inside boxes round them, and points that must be read from the descriptors.

Legend: ``F`` results, ``L`` points of a set, ``R`` pixels of a side, ``N`` identity and ``M`` motion coefficients.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sfdkit.losses.term import LossTerm
from sfdkit.points import PointSet, part_boxes, within_parts
from sfdkit.ranks import mean_of_known

HIDDEN = 192
"""Width of the head's hidden layer."""
LEAST_DEVIATION = 0.005
"""What a coordinate's standard deviation is taken for at least, in halves of the picture or of the face."""
OUTLIER = 3.0
"""Standard deviations from which an error counts by its size."""
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
        error = (boxes * (prediction - target).abs().mean(1, keepdim=True)).sum((2, 3)) / area.clamp(min=1)
        return error.sum() / (area > 0).sum().clamp(min=1)


class PointsLoss(LossTerm):
    """Error of points of the face that a head reads from (a, b), in standard deviations.

    Where lids, irises, brows and lips are is then in the descriptors, free to use for the generator. The head is for
    training alone. It reads each point's place in the picture, and the places of the points of each small part within
    the part, upright and relative to the size of the face (:func:`sfdkit.points.within_parts`).

    Half of the value is the error of the coordinates, in their deviations over faces; the other half that of their
    changes between the frames of a clip, in the deviations of these changes. Faces differ more than they move: without
    the second half the head learns shapes of eyes for long before a blink. Errors count by their square up to
    :data:`OUTLIER`, and by their size beyond: a mean of sizes would be content with the usual, which is an open eye.

    Args:
        points: The set that batches bring.
        code_size: ``N + M``.
    """

    weight: Tensor
    """C: of each coordinate that is read, see :attr:`sfdkit.points.PointSet.part_weights`."""
    mean: Tensor
    """C: running mean of each coordinate."""
    variance: Tensor
    """2 C: running variances over faces, and between frames of a clip; 0 before the first batch."""

    def __init__(self, points: PointSet, code_size: int) -> None:
        super().__init__()
        self.points = points
        weights = torch.tensor([1.0] * len(points.names) + list(points.part_weights)).repeat_interleave(2)
        count = len(weights)
        self.head = nn.Sequential(nn.Linear(code_size, HIDDEN), nn.LeakyReLU(0.2), nn.Linear(HIDDEN, count))
        self.register_buffer("weight", weights, persistent=False)
        self.register_buffer("mean", torch.zeros(count))
        self.register_buffer("variance", torch.zeros(2, count))

    def forward(self, identity: Tensor, motion: Tensor, points: Tensor) -> Tensor:
        """Return the mean error.

        Args:
            identity: B N, of the sources.
            motion: B S M, of the source and the driving views of each clip.
            points: B S L 2 in [-1, 1], of source and targets; not a number where they are not known.
        """
        rows, frames = motion.shape[:2]
        flat = points.flatten(0, 1)
        truth = torch.cat([flat.flatten(1), within_parts(flat, self.points).flatten(1)], 1).view(rows, frames, -1)
        known = ~truth.isnan()
        moved = truth - truth.mean(1, keepdim=True)
        whole = known.all(1, keepdim=True).expand_as(known)
        truth, moved = truth.nan_to_num(), moved.nan_to_num()
        if self.training:
            self._follow(truth, known, moved, whole)
        codes = torch.cat([identity[:, None].expand(-1, frames, -1), motion], 2)
        deviation, of_moves = self.variance.clamp(min=LEAST_DEVIATION**2).sqrt()
        read = self.head(codes)
        places = _error(read, (truth - self.mean) / deviation, known * self.weight)
        changes = (read - read.mean(1, keepdim=True)) * (deviation / of_moves)
        moves = _error(changes, moved / of_moves, whole * self.weight)
        return (places + moves) / 2

    @torch.no_grad()
    def _follow(self, truth: Tensor, known: Tensor, moved: Tensor, whole: Tensor) -> None:
        """Let a batch join the running statistics."""
        first = self.variance.sum() == 0
        mean = mean_of_known(truth, known, self.mean)
        self.mean.copy_(torch.where(first, mean, self.mean.lerp(mean, MOMENTUM)))
        over_faces = mean_of_known((truth - self.mean).square(), known, self.variance[0])
        now = torch.stack([over_faces, mean_of_known(moved.square(), whole, self.variance[1])])
        self.variance.copy_(torch.where(first, now, self.variance.lerp(now, MOMENTUM)))


def _error(read: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
    """Return the weighted mean error; 0 where no weight is left."""
    error = F.huber_loss(read, truth, reduction="none", delta=OUTLIER)
    return (error * weight).sum() / weight.sum().clamp(min=1)
