"""The network that reads puppets: landmarks, pose, expression and identity embedding from one small trunk.

Legend: ``B`` pictures, ``L`` landmarks, ``E`` expression values, ``Z`` dimensions of the embedding, ``P`` soft points,
``S`` side of a part of the face in samples.
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
"""Degrees per unit of the network's output."""
_FINE, _WIDE, _HIDDEN = 40, 48, 96
_POINTS, _VALUES = 24, 5

_GRID = 20
"""Samples along each side of a part."""
_EYE_REACH, _MOUTH_REACH = 0.5, 0.62
"""Half the side of a part, in units of the face."""
_TO_BROWS = 0.12
"""From the middle of an eye up to that of its part, which holds the brow too, in units of the face."""


def _rows(side: str, *names: str) -> list[int]:
    return [LANDMARKS.index(f"{side}{name}") for name in names]


_EYES = [_rows(side, "eye_outer", "eye_inner", "eye_upper", "eye_lower") for side in ("left_", "right_")]
_MOUTH = [*_rows("left_", "mouth_corner"), *_rows("right_", "mouth_corner")]


class Read(NamedTuple):
    """The network's outputs."""

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
    """A convolutional trunk with soft-argmax points, and a second stage on crops of both eyes and the mouth.

    Each point is a heat map with a softmax over the picture: its expected coordinates are finer than a pixel (integral
    regression, https://arxiv.org/abs/1711.08229), and its weighted mean of features describes it. Both, with an average
    over the whole picture, go through one hidden layer to landmarks and pose, and through another to the embedding.
    Eyes and mouth are then cropped by the landmarks, upright and of one size; the crops give the expression, whose
    traces are a pixel wide, and a correction of the landmarks.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = _conv(12, 20)
        self.fine = nn.Sequential(_conv(20, _FINE, 2), _Residual(_FINE, 1))
        self.middle = nn.Sequential(_conv(_FINE, _WIDE, 2), _Residual(_WIDE, 2))
        self.coarse = nn.Sequential(_conv(_WIDE, _WIDE, 2), _conv(_WIDE, _WIDE))
        self.from_middle = nn.Conv2d(_WIDE, _FINE, 1)
        self.from_coarse = nn.Conv2d(_WIDE, _FINE, 1)
        self.heat = nn.Conv2d(_FINE, _POINTS, 1)
        self.value = nn.Conv2d(_FINE, _POINTS * _VALUES, 1)
        nn.init.normal_(self.heat.weight, std=0.4)  # peaks from the start: a flat map's centre tells nothing
        summary = _POINTS * (2 + _VALUES) + _WIDE
        self.geometry = nn.Sequential(nn.BatchNorm1d(summary), nn.Linear(summary, _HIDDEN), nn.ReLU())
        self.where = nn.Linear(_HIDDEN + 2 * _POINTS, 2 * len(LANDMARKS))
        self.pose = nn.Linear(_HIDDEN, len(POSE))
        self.eye, self.mouth = _part(), _part()
        self.parts = nn.Sequential(nn.Linear(_HIDDEN + 3 * 32, 64), nn.ReLU())
        self.expression = nn.Linear(64, len(EXPRESSION))
        self.correction = nn.Linear(64, 2 * len(LANDMARKS))
        nn.init.zeros_(self.correction.weight)
        self.who = nn.Sequential(
            nn.BatchNorm1d(summary), nn.Linear(summary, 72), nn.ReLU(), nn.Linear(72, EMBEDDING_SIZE)
        )
        self.to(memory_format=torch.channels_last)  # a quarter faster on a CPU

    def forward(self, images: Tensor) -> Read:
        """Read pictures B 3 R R in [0, 1]."""
        images = self._seen(images)
        points, summary = self._look(images)
        hidden = self.geometry(summary)
        where = self.where(torch.cat([hidden, points], 1)).unflatten(1, (len(LANDMARKS), 2))
        frame = face_frame(where.detach())
        left, right, mouth = (where[:, rows].detach().mean(1) for rows in (*_EYES, _MOUTH))
        up = _TO_BROWS * frame[:, :, 1]
        left, right = (cut(images, eye - up, frame, _EYE_REACH) for eye in (left, right))
        mouth = cut(images, mouth, frame, _MOUTH_REACH)
        left, right = self.eye(torch.cat([left, right.flip(3)])).chunk(2)
        parts = self.parts(torch.cat([hidden, left, right, self.mouth(mouth)], 1))
        where = where + self.correction(parts).unflatten(1, (len(LANDMARKS), 2)) @ frame.transpose(1, 2)
        pose = self.pose(hidden) * _POSE_SPREAD
        return Read(where, pose, self.expression(parts), F.normalize(self.who(summary), dim=1))

    def embed(self, images: Tensor) -> Tensor:
        """Return the embedding B Z of length 1 of pictures B 3 H W in [0, 1] of any size; with gradients to them."""
        return F.normalize(self.who(self._look(self._seen(images))[1]), dim=1)

    @staticmethod
    def _seen(images: Tensor) -> Tensor:
        """Return the trunk's input for pictures in [0, 1]."""
        height, width = (max(min(pixels, SIDE) // 2 * 2, 2) for pixels in images.shape[2:])
        return resize(images, height, width) * 4 - 2

    def _look(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the points' coordinates, B 2P, and the features of the pictures."""
        x = F.pixel_unshuffle(images, 2).contiguous(memory_format=torch.channels_last)
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


def _part() -> nn.Sequential:
    """Return the encoder of a part of the face, B 3 S S to 32 features; instance norm removes colour and light."""
    last = (_GRID + 3) // 4
    return nn.Sequential(
        nn.InstanceNorm2d(3),
        _conv(3, 16),
        _conv(16, 20, 2),
        _conv(20, 20, 2),
        nn.Flatten(),
        nn.Linear(20 * last * last, 32),
        nn.ReLU(),
    )


def face_frame(landmarks: Tensor) -> Tensor:
    """Return the face's axes in the picture, B 2 2 (columns: to the right and down), of the length of its unit.

    The axes follow the line of the eyes; the unit is the mean of the distance between the eyes and of that from between
    the eyes to the mouth.

    Args:
        landmarks: B L 2, from -1 to 1 across the picture.
    """
    left, right = (landmarks[:, rows].mean(1) for rows in _EYES)
    across, along = right - left, landmarks[:, _MOUTH].mean(1) - (left + right) / 2
    unit = (across.norm(dim=1) + along.norm(dim=1)).clamp(min=0.1) / 2
    x = F.normalize(across, dim=1) * unit[:, None]
    return torch.stack([x, torch.stack([-x[:, 1], x[:, 0]], 1)], 2)


def cut(images: Tensor, centre: Tensor, frame: Tensor, reach: float) -> Tensor:
    """Cut out squares that are upright in the face's axes.

    Args:
        images: B 3 H W.
        centre: B 2, from -1 to 1 across the picture.
        frame: B 2 2, of :func:`face_frame`.
        reach: Half the side of the square, in the face's units.

    Returns:
        B 3 S S.
    """
    theta = torch.cat([frame * reach, centre[:, :, None]], 2)
    grid = F.affine_grid(theta, [len(images), 3, _GRID, _GRID], align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _grow(x: Tensor, size: torch.Size) -> Tensor:
    return F.interpolate(x, size=(size[0], size[1]), mode="bilinear", align_corners=False)
