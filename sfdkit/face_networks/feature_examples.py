"""Windows of puppets' pictures to train a feature network on.

Legend: ``B`` windows, ``S`` their side, ``L`` landmarks, ``h w`` a grid of places.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from sfdkit.face_networks.puppet_examples import Examples, mirror

WINDOW = 32
"""S in pixels."""

_REACH = 4
"""Most pixels of the stored picture by which a second window is moved."""
_ON_FACE = 0.7
"""Share of the windows that lie around a landmark."""
_SPREAD = 10.0
"""Standard deviation of their middles around it, in pixels of the stored picture."""


class Windows(NamedTuple):
    """Two windows of each picture, at most a few pixels apart and equally sharp: what a loss should put up with."""

    first: Tensor
    """B 3 S S in [0, 1]."""
    moved: Tensor
    """The same of the second windows, in other light."""
    landmarks: Tensor
    """B L 2 in the first window, from 0 to 1 across it; outside, if that is where they are."""


def draw_windows(examples: Examples, count: int, halved: bool, generator: torch.Generator) -> Windows:
    """Draw windows; half of the pictures are mirrored, and all are recoloured.

    Args:
        examples: Pictures that are larger than twice the window.
        count: B.
        halved: Whether the pictures are halved, by the mean over two by two pixels, as from a renderer of half the
            resolution. The second window is then up to two pixels away in steps of half a pixel, otherwise up to four.
        generator: Draws them.
    """
    rows = torch.randint(len(examples.images), (count,), generator=generator)
    stored, points, pose, expression = (column[rows] for column in examples[:4])
    mirrored = torch.rand(count, generator=generator) < 0.5
    chosen = mirror(Examples(stored, points, pose, expression, 1), mirrored)
    images, side = chosen.images, chosen.images.shape[3]
    span = WINDOW * 2 if halved else WINDOW
    landmarks = (chosen.landmarks + 1) * (side / 2)
    named = landmarks[torch.arange(count), torch.randint(landmarks.shape[1], (count,), generator=generator)]
    near = named - span / 2 + _SPREAD * torch.randn(count, 2, generator=generator)
    anywhere = side * torch.rand(count, 2, generator=generator) - span / 2
    corner = torch.where(torch.rand(count, 1, generator=generator) < _ON_FACE, near, anywhere)
    corner = corner.long().clamp(_REACH, side - span - _REACH)
    step = torch.randint(-_REACH, _REACH + 1, (count, 2), generator=generator)
    parts = []
    for place in (corner, corner + step):
        cuts = [image[:, y : y + span, x : x + span] for image, (x, y) in zip(images, place.tolist(), strict=True)]
        part = torch.stack(cuts).float() / 255
        parts.append(F.avg_pool2d(part, 2) if halved else part)
    first, moved = _recolour(torch.stack(parts), generator)
    gain, offset = 2 * torch.rand(2, count, 1, 1, 1, generator=generator) - 1
    moved = (moved * (1 + 0.15 * gain) + 0.08 * offset).clamp(0, 1)
    return Windows(first, moved, (landmarks - corner[:, None]) / span)


def _recolour(images: Tensor, generator: torch.Generator) -> Tensor:
    """Swap channels in some pictures and change the colours of all: 2 B 3 S S, both windows alike."""
    count = images.shape[1]
    order = torch.rand(count, 3, generator=generator).argsort(1)
    order = torch.where(torch.rand(count, 1, generator=generator) < 0.3, order, torch.arange(3))
    images = images.gather(2, order[None, :, :, None, None].expand_as(images))
    gain, offset = 2 * torch.rand(2, count, 3, 1, 1, generator=generator) - 1
    return (images * (1 + 0.25 * gain) + 0.1 * offset).clamp(0, 1)


def heat_maps(landmarks: Tensor, places: int) -> Tensor:
    """Return B L h w in [0, 1]: bells around the landmarks, a place wide.

    Args:
        landmarks: B L 2, from 0 to 1 across the window.
        places: h and w.
    """
    middles = (torch.arange(places) + 0.5) / places
    distances = (landmarks[..., None] - middles) * places
    x, y = torch.exp(-(distances**2)).unbind(2)
    return y[..., :, None] * x[..., None, :]
