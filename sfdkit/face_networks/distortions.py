"""What a feature network learns to see in pictures, and what it learns to overlook.

Legend: ``B`` pictures, ``H W`` pixels, ``N`` distortions.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

DISTORTIONS: tuple[str, ...] = ("double", "blur")
"""In the order in which they are put in."""

_SHARE = 0.6
"""Pictures that have one of the distortions."""
_GROUPS = 8
"""Parts of a batch, each with a shift of its own for the double edges."""
_BINOMIAL = (1.0, 4.0, 6.0, 4.0, 1.0)


def distort(images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Distort parts of pictures as a generator does that cannot know where a feature is.

    Double edges are a second copy, shifted by up to 4 pixels; blur has a standard deviation of up to 2 pixels, or below
    0 sharpens.

    Args:
        images: B 3 H W in [0, 1].
        generator: Draws places and strengths.

    Returns:
        The distorted pictures, and B N H W: the strength of each distortion in each place, of the order of 1.
    """
    images, double = _double(images, _places(images, generator), generator)
    images, blur = _blur(images, _places(images, generator), generator)
    return images.clamp(0, 1), torch.cat([double, blur], 1)


def _places(images: Tensor, generator: torch.Generator) -> Tensor:
    """Return where a distortion is: B 1 H W in [0, 1], everywhere in some pictures and nowhere in others."""
    count = len(images)
    field = F.interpolate(torch.randn(count, 1, 5, 5, generator=generator), size=images.shape[2:], mode="bicubic")
    everywhere = _each(count, generator) < 0.3
    patches = torch.where(everywhere, torch.ones_like(field), (6 * field - 1).sigmoid())
    return patches * (_each(count, generator) < _SHARE)


def _each(count: int, generator: torch.Generator, low: float = 0.0, high: float = 1.0) -> Tensor:
    return low + (high - low) * torch.rand(count, 1, 1, 1, generator=generator)


def _double(images: Tensor, where: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    copies = [
        part.roll((int(dy), int(dx)), (2, 3))
        for part in images.chunk(_GROUPS)
        for dy, dx in [torch.randint(-4, 5, (2,), generator=generator)]
    ]
    difference = torch.cat(copies) - images
    share = where * _each(len(images), generator, 0.15, 0.6)
    share = share * (difference != 0).flatten(1).any(1)[:, None, None, None]  # the shift may be none
    return images + share * difference, 3 * share


def soften(images: Tensor) -> Tensor:
    """Blur B C H W by a binomial filter, whose standard deviation is a pixel; borders are reflected."""
    line = images.new_tensor(_BINOMIAL) / sum(_BINOMIAL)
    flat = F.pad(images.flatten(0, 1)[:, None], (2, 2, 2, 2), mode="reflect")
    flat = F.conv2d(F.conv2d(flat, line.view(1, 1, 1, 5)), line.view(1, 1, 5, 1))
    return flat.view_as(images)


def _blur(images: Tensor, where: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    once = soften(images)
    twice = soften(soften(soften(once)))
    level = where * _each(len(images), generator, -0.8, 2.0)
    return images + level.clamp(max=1) * (once - images) + (level - 1).clamp(min=0) * (twice - once), level


def disturb(images: Tensor, generator: torch.Generator) -> Tensor:
    """Put faint noise, specks, checkerboards or stripes, and blotches of colour into pictures.

    A network that these change much can be cheated with them: a generator would draw them to come nearer to the
    features of a sharp picture.

    Args:
        images: B 3 H W in [0, 1].
        generator: Draws them.
    """
    count, channels, height, width = images.shape
    noise = torch.randn(images.shape, generator=generator)
    noise = torch.where(_each(count, generator) < 0.5, noise[:, :1], noise)
    hit = torch.rand(count, 1, height, width, generator=generator) < _each(count, generator, 0.0, 0.1)
    specks = hit * torch.randn(count, channels, height, width, generator=generator)
    y, x = torch.arange(height)[:, None], torch.arange(width)
    boards = torch.stack([1.0 - 2 * (parity % 2) for parity in (x + y, x + 0 * y, y + 0 * x)])
    board = boards[torch.randint(len(boards), (count,), generator=generator), None]
    colour = torch.randn(count, channels, 1, 1, generator=generator)
    blotches = soften(torch.randn(images.shape, generator=generator))
    blotches = 3.6 * (blotches - blotches.mean(1, keepdim=True))  # of the strength of the noise before it was softened
    parts = ((noise, 0.05), (specks, 0.2), (board * colour, 0.06), (blotches, 0.06))
    for part, most in parts:
        images = images + part * _each(count, generator, -most, most).clamp(min=0)
    return images.clamp(0, 1)
