"""Distortions of generated pictures, put into true ones: what a feature network learns to see.

Legend: ``B`` pictures, ``H W`` pixels, ``N`` distortions.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

DISTORTIONS: tuple[str, ...] = ("double", "blur", "checkerboard", "specks", "noise")
"""In the order in which they are put in."""

_SHARE = 0.4
"""Pictures that have one of the distortions."""
_GROUPS = 4
"""Parts of a batch, each with a shift of its own for the double edges."""
_BINOMIAL = (1.0, 4.0, 6.0, 4.0, 1.0)


def distort(images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Distort parts of pictures.

    Double edges are a second copy, shifted by up to 4 pixels; blur has a standard deviation of up to 2 pixels, or below
    0 sharpens; checkerboards and stripes have a period of two pixels and any colour; specks are single pixels or
    squares of two by two; noise is grey or coloured.

    Args:
        images: B 3 H W in [0, 1]; H and W are even.
        generator: Draws kinds, places and strengths.

    Returns:
        The distorted pictures, and B N H W: the strength of each distortion in each place, of the order of 1.
    """
    strengths = []
    for put in (_double, _blur, _checkerboard, _specks, _noise):
        where = _places(images, generator)
        images, strength = put(images, where, generator)
        strengths.append(strength)
    return images.clamp(0, 1), torch.cat(strengths, 1)


def _places(images: Tensor, generator: torch.Generator) -> Tensor:
    """Return where a distortion is: B 1 H W in [0, 1], everywhere in some pictures and nowhere in most."""
    count = len(images)
    field = F.interpolate(torch.randn(count, 1, 5, 5, generator=generator), size=images.shape[2:], mode="bicubic")
    everywhere = _each(count, generator) < 0.3
    patches = torch.where(everywhere, torch.ones_like(field), (6 * field - 1).sigmoid())
    return patches * (_each(count, generator) < _SHARE)


def _each(count: int, generator: torch.Generator, low: float = 0.0, high: float = 1.0) -> Tensor:
    return low + (high - low) * torch.rand(count, 1, 1, 1, generator=generator)


def _colours(count: int, generator: torch.Generator) -> Tensor:
    """Return B 3 1 1 of length 1: grey in a third of the pictures, and otherwise of any hue."""
    colours = torch.randn(count, 3, 1, 1, generator=generator)
    grey = _each(count, generator) < 1 / 3
    return F.normalize(torch.where(grey, torch.ones_like(colours), colours), dim=1) * 3**0.5


def _double(images: Tensor, where: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    shifted = [
        part.roll((int(dy), int(dx)), (2, 3))
        for part in images.chunk(_GROUPS)
        for dy, dx in [torch.randint(-4, 5, (2,), generator=generator)]
    ]
    share = where * _each(len(images), generator, 0.15, 0.6)
    return images + share * (torch.cat(shifted) - images), 3 * share


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


def _checkerboard(images: Tensor, where: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    count, _, height, width = images.shape
    y, x = torch.arange(height)[:, None], torch.arange(width)
    signs = torch.stack([1 - 2 * (parity % 2) for parity in (x + y, x + 0 * y, y + 0 * x)]).float()
    kind = torch.randint(3, (count,), generator=generator)
    strength = where * _each(count, generator, 0.02, 0.25)
    return images + strength * signs[kind, None] * _colours(count, generator), 8 * strength


def _specks(images: Tensor, where: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    count, channels, height, width = images.shape
    density = _each(count, generator, 0.02, 0.2)
    coarse = F.interpolate(torch.rand(count, 1, height // 2, width // 2, generator=generator), size=(height, width))
    fine = torch.rand(count, 1, height, width, generator=generator)
    hit = torch.where(_each(count, generator) < 0.3, coarse, fine) < density
    strength = where * _each(count, generator, 0.05, 0.5)
    values = torch.randn(count, channels, height, width, generator=generator)
    return images + strength * hit * values, 5 * strength * density.sqrt()


def _noise(images: Tensor, where: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    count = len(images)
    strength = where * _each(count, generator, 0.01, 0.1)
    values = torch.randn(images.shape, generator=generator)
    values = torch.where(_each(count, generator) < 0.5, values[:, :1], values)
    return images + strength * values, 15 * strength
