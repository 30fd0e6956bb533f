"""A learned template that stands in for a source, so that a face can be drawn from its code alone.

Legend: ``B`` rows, ``R`` resolution of the generator.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sfdkit.model.blocks import resize

FINEST_MAP = 32
"""Height and width of the finest learned map: finer detail is the generator's to paint."""
PICTURE_SIZE = 64
"""The most height and width of the learned picture."""


class Template(nn.Module):
    """A picture and feature maps that are learned, the same for every face, and moved by the flow as a source's are.

    A generator that paints from a constant has to invent where things are; maps that move with the face tell it. The
    constant at the start is that of StyleGAN (https://arxiv.org/abs/1812.04948), the flow is the animator's own.

    Args:
        resolution: ``R``.
        sizes: Heights and widths of the generator's levels.
        channels: Channels of the generator's levels.
    """

    def __init__(self, resolution: int, sizes: Sequence[int], channels: Sequence[int]) -> None:
        super().__init__()
        self.resolution = resolution
        self.shapes = tuple(zip(channels, sizes, sizes, strict=True))
        size = min(PICTURE_SIZE, resolution)
        self.picture = nn.Parameter(torch.full((3, size, size), 0.5))
        self.maps = nn.ParameterList(torch.zeros(shape) for shape in self.shapes if shape[1] <= FINEST_MAP)

    def forward(self, rows: int) -> tuple[Tensor, list[Tensor]]:
        """Return the picture, B 3 R R in [0, 1], and a map for each level of the generator, for B = ``rows``."""
        picture = resize(self.picture.clamp(0.0, 1.0)[None], self.resolution)
        zeros = [self.picture.new_zeros(shape) for shape in self.shapes[len(self.maps) :]]
        maps = [each.expand(rows, -1, -1, -1) for each in (*self.maps, *zeros)]
        return picture.expand(rows, -1, -1, -1), maps
