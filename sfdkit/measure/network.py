"""The network that reads puppets: landmarks, pose, expression and who it is, from one small trunk.

Legend: ``B`` pictures, ``L`` landmarks, ``E`` expression values, ``Z`` dimensions of the embedding, ``P`` soft points.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sfdkit.model.blocks import identity_grid, resize
from sfdkit.puppets.landmarks import LANDMARKS

POSE: tuple[str, ...] = ("yaw", "pitch", "roll")
"""In degrees, signed as in :class:`sfdkit.puppets.factors.MotionFactors`."""
EXPRESSION: tuple[str, ...] = ("mouth_open", "smile", "blink", "gaze_x", "gaze_y", "brows")
"""In the units of :class:`sfdkit.puppets.factors.MotionFactors`."""
EMBEDDING_SIZE = 32
SIDE = 64
"""Pixels of the pictures the trunk sees; larger ones are shrunk, smaller ones are seen as they are."""

_POSE_SPREAD = 15.0
"""Degrees that the network calls 1."""
_FINE, _WIDE = 40, 48
_POINTS, _VALUES = 24, 6


class Read(NamedTuple):
    """What the network reads."""

    landmarks: Tensor
    """B L 2: x and y, from -1 to 1 across the picture, as in :func:`sfdkit.model.blocks.identity_grid`."""
    pose: Tensor
    """B 3 in degrees."""
    expression: Tensor
    """B E."""
    embedding: Tensor
    """B Z of length 1."""


def _conv(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
    )


class _Residual(nn.Module):
    """Convolutions with a path around them."""

    def __init__(self, channels: int, depth: int) -> None:
        super().__init__()
        self.body = nn.Sequential(*(_conv(channels, channels) for _ in range(depth)))

    def forward(self, x: Tensor) -> Tensor:
        """Map B C H W to B C H W."""
        return x + self.body(x)


class PuppetNetwork(nn.Module):
    """A convolutional trunk whose soft points say where things are and whose values at the points say what is there.

    Each point is a heat map that was softmaxed over the picture: its expected coordinates place it finer than a pixel
    (integral regression, https://arxiv.org/abs/1711.08229), and the features seen under the map describe it. Both,
    with an average over the whole picture, go through one hidden layer to all results; the embedding has its own.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = _conv(12, 20)
        self.fine = nn.Sequential(_conv(20, _FINE, 2), _Residual(_FINE, 1))
        self.middle = nn.Sequential(_conv(_FINE, _WIDE, 2), _Residual(_WIDE, 2))
        self.coarse = nn.Sequential(_conv(_WIDE, 64, 2), _conv(64, _WIDE))
        self.from_middle = nn.Conv2d(_WIDE, _FINE, 1)
        self.from_coarse = nn.Conv2d(_WIDE, _FINE, 1)
        self.heat = nn.Conv2d(_FINE, _POINTS, 1)
        self.value = nn.Conv2d(_FINE, _POINTS * _VALUES, 1)
        nn.init.normal_(self.heat.weight, std=0.4)  # peaks from the start: a flat map's centre tells nothing
        summary = _POINTS * (2 + _VALUES) + _WIDE
        self.geometry = nn.Sequential(nn.BatchNorm1d(summary), nn.Linear(summary, 112), nn.ReLU())
        self.where = nn.Linear(112 + 2 * _POINTS, 2 * len(LANDMARKS))
        self.what = nn.Linear(112, len(POSE) + len(EXPRESSION))
        self.who = nn.Sequential(
            nn.BatchNorm1d(summary), nn.Linear(summary, 80), nn.ReLU(), nn.Linear(80, EMBEDDING_SIZE)
        )
        self.to(memory_format=torch.channels_last)  # a quarter faster on a CPU

    def forward(self, images: Tensor) -> Read:
        """Read pictures B 3 R R in [0, 1]."""
        points, summary = self._look(images)
        hidden = self.geometry(summary)
        where = self.where(torch.cat([hidden, points], 1)).unflatten(1, (len(LANDMARKS), 2))
        pose, expression = self.what(hidden).split([len(POSE), len(EXPRESSION)], 1)
        return Read(where, pose * _POSE_SPREAD, expression, F.normalize(self.who(summary), dim=1))

    def embed(self, images: Tensor) -> Tensor:
        """Return who it is, B Z of length 1, for pictures B 3 H W in [0, 1] of any size; with gradients to them."""
        return F.normalize(self.who(self._look(images)[1]), dim=1)

    def _look(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the points' coordinates, B 2P, and all that is known of the pictures."""
        x = resize(images, _seen(images.shape[2]), _seen(images.shape[3])) * 4 - 2
        x = F.pixel_unshuffle(x, 2).contiguous(memory_format=torch.channels_last)
        fine = self.fine(self.stem(x))
        middle = self.middle(fine)
        coarse = self.coarse(middle)
        size = fine.shape[2:]
        fine = F.relu(fine + _grow(self.from_middle(middle), size) + _grow(self.from_coarse(coarse), size))
        heat = self.heat(fine).flatten(2).softmax(2)
        grid = identity_grid(size[0], size[1], heat).flatten(2)[0]
        points = torch.einsum("bpk,ck->bpc", heat, grid).flatten(1)
        value = self.value(fine).flatten(2).unflatten(1, (_POINTS, _VALUES))
        values = torch.einsum("bpk,bpvk->bpv", heat, value).flatten(1)
        return points, torch.cat([points, values, coarse.mean((2, 3))], 1)


def _seen(pixels: int) -> int:
    return max(min(pixels, SIDE) // 2 * 2, 2)


def _grow(x: Tensor, size: torch.Size) -> Tensor:
    return F.interpolate(x, size=(size[0], size[1]), mode="bilinear", align_corners=False)


def landmarks_to_pixels(landmarks: Tensor, resolution: int) -> Tensor:
    """Turn coordinates from -1 to 1 across the picture into pixels, whole numbers at the middle of pixels."""
    return (landmarks + 1) * (resolution / 2) - 0.5
