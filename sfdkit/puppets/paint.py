"""Anti-aliased masks ("stencils") and colours.

Legend: ``B`` pictures, ``H W`` samples. A colour is B 3 1 1, a picture B 3 H W, a stencil (how much paint) B H W.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

RGB = tuple[float, float, float]


def cover(inside: Tensor, pixel: Tensor) -> Tensor:
    """Return a stencil with an edge one pixel wide from a distance that is positive inside."""
    return (inside / pixel + 0.5).clamp(0, 1)


def stroke(distance: Tensor, half_width: Tensor | float, pixel: Tensor) -> Tensor:
    """Return a stencil of a line; lines thinner than a pixel become paler, not wider.

    Args:
        distance: B H W, to the middle of the line, of either sign.
        half_width: Of the line, in the same units.
        pixel: B 1 1.
    """
    shown = torch.maximum(torch.as_tensor(half_width, device=pixel.device, dtype=pixel.dtype), 0.5 * pixel)
    return cover(shown - distance.abs(), pixel) * (half_width / shown)


def ramp(value: Tensor, start: Tensor | float, stop: Tensor | float) -> Tensor:
    """Return 0 at ``start`` and 1 at ``stop`` with a smooth rise between."""
    t = ((value - start) / (stop - start)).clamp(0, 1)
    return t * t * (3 - 2 * t)


def bell(square: Tensor) -> Tensor:
    """Return about exp(-square), which is 0 from 4 on.

    A true exponential is many times slower on a CPU, because its far tails are subnormal numbers.
    """
    root = (1 - 0.25 * square).clamp(min=0).square()
    return root * root


def blob(x: Tensor, y: Tensor, width: Tensor | float, height: Tensor | float) -> Tensor:
    """Return a bell of height 1 around the origin of x and y."""
    x, y = x / width, y / height
    return bell(x * x + y * y)


def lay(picture: Tensor, colour: Tensor, stencil: Tensor) -> Tensor:
    """Return the picture with a colour (or another picture) laid over it through a stencil."""
    return torch.lerp(picture, colour.expand_as(picture), stencil[:, None])


def palette(position: Tensor, stops: Sequence[RGB]) -> Tensor:
    """Return colours along a line of colours.

    Args:
        position: B 1 1, 0 to 1.
        stops: Colours at even distances.
    """
    table = torch.tensor(stops, dtype=position.dtype, device=position.device)
    place = position.reshape(-1).clamp(0, 1) * (len(stops) - 1)
    low = place.floor().clamp(max=len(stops) - 2).long()
    return torch.lerp(table[low], table[low + 1], (place - low)[:, None])[:, :, None, None]


def hsv(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    """Return colours from hue (in turns), saturation and value, each B 1 1."""
    channels = []
    for start in (5.0, 3.0, 1.0):
        k = (start + 6 * hue) % 6
        channels.append(value - value * saturation * torch.minimum(k, 4 - k).clamp(0, 1))
    return torch.stack(channels, dim=1)


def mix(first: Tensor, second: Tensor, share: Tensor | float) -> Tensor:
    """Return a colour between two colours; ``share`` is B 1 1."""
    weight = share[:, None] if isinstance(share, Tensor) else torch.as_tensor(share, device=first.device)
    return first + (second - first) * weight
