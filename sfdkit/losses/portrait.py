"""Portraits: faces that a head for training alone draws from the descriptors, without the source's picture.

Legend: ``B`` rows, ``K`` driving frames of each, ``S = 1 + K``, ``N`` identity and ``M`` motion coefficients, ``L``
points of a set, ``R`` pixels of a side.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sfdkit.losses.parts import PartsLoss
from sfdkit.losses.term import LossTerm
from sfdkit.model.blocks import resize
from sfdkit.points import PointSet

SIZE = 32
"""Height and width of the portraits: on fewer pixels glasses are a shade, and more cost time."""
CHANNELS = (96, 64, 48, 32)
"""Channels of the head's maps of 4 x 4, 8 x 8, 16 x 16 and 32 x 32."""


class PortraitLoss(LossTerm):
    """Mean absolute error of small pictures that a head draws from (a, b) alone.

    The generator sees the source, so it has little use for what the identity code says of it. Here the code is all
    there is: what tells people apart in a small picture, such as skin, hair, a beard or glasses, lowers the error as
    soon as the code holds it. Where points of the face are known, the errors in boxes round eyes, brows and mouth
    count once more (:class:`~sfdkit.losses.parts.PartsLoss`). The motion coefficients are taken as they are: the term
    shapes the identity code only.

    Args:
        points: The set that batches bring.
        code_size: ``N + M``.
    """

    def __init__(self, points: PointSet, code_size: int) -> None:
        super().__init__()
        self.parts = PartsLoss(points)
        first, *others = CHANNELS
        layers: list[nn.Module] = [nn.Linear(code_size, first * 16), nn.Unflatten(1, (first, 4, 4)), nn.LeakyReLU(0.2)]
        for inputs, outputs in zip(CHANNELS, others, strict=False):
            layers += [nn.Upsample(scale_factor=2.0), nn.Conv2d(inputs, outputs, 3, padding=1), nn.LeakyReLU(0.2)]
        self.head = nn.Sequential(*layers, nn.Conv2d(CHANNELS[-1], 3, 3, padding=1), nn.Sigmoid())

    def forward(self, identity: Tensor, motion: Tensor, target: Tensor, points: Tensor | None = None) -> Tensor:
        """Return the error of a portrait of each row, in the pose of its first driving frame.

        Args:
            identity: B N, of the sources.
            motion: B S M, of the source and the driving views.
            target: B*K 3 R R in [0, 1].
            points: B*K L 2 in [-1, 1], of the targets; not a number where they are not known. None: of no picture.
        """
        drawn = self.head(torch.cat([identity, motion[:, 1].detach()], 1))
        each = len(target) // len(identity)
        wanted = resize(target[::each], SIZE)
        error = (drawn - wanted).abs().mean()
        return error if points is None else error + self.parts(drawn, wanted, points[::each])
