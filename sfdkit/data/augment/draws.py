"""Random changes of colour and geometry for many frames at once: drawn on the CPU, applied on any device.

All colour changes of a frame are one 3 x 3 matrix with an offset, and all geometry is one resampling.

Legend: ``N`` groups of frames that change alike, ``K`` frames in a group, ``H W`` picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from kornia.geometry.transform import get_tps_transform, warp_points_tps
from torch import Tensor

from sfdkit.points import take

_LUMA = (0.299, 0.587, 0.114)
_COARSE = 9
"""Side of the grid on which the thin-plate spline is computed; it is smooth, so the rest is interpolated."""

_ROUNDS = 4
"""Rounds in which the place of a point under bending is found; each divides the error by ten or more."""


class Change(NamedTuple):
    """What happens to N groups of frames, each as a whole; a tensor without elements where nothing does."""

    mirrored: Tensor
    """N: 1 for a group that is mirrored, else 0."""
    matrix: Tensor
    """N 3 3 for columns of RGB."""
    offset: Tensor
    """N 3."""
    theta: Tensor
    """N 2 3, see :func:`draw_affine`."""
    bend: Tensor
    """N 2 9 9, see :func:`draw_bend`."""


def apply_change(frames: Tensor, change: Change, padding: str) -> Tensor:
    """Change N groups of K frames, each group as a whole.

    Args:
        frames: N K 3 H W in [0, 1].
        change: What happens to each group, on the frames' device.
        padding: What shows past the border of a frame, see ``padding_mode`` of ``torch.nn.functional.grid_sample``.

    Returns:
        N K 3 H W in [0, 1].
    """
    if change.mirrored.numel():
        frames = torch.where(change.mirrored[:, None, None, None, None] > 0, frames.flip(-1), frames)
    if change.matrix.numel():
        frames = _apply_colour(frames, change.matrix, change.offset)
    if change.theta.numel():
        grid = make_grid(change.theta, change.bend, frames.shape[-2:]).repeat_interleave(frames.shape[1], 0)
        seen = F.grid_sample(frames.flatten(0, 1), grid, padding_mode=padding, align_corners=False)
        frames = seen.view(frames.shape)
    return frames


def move_points(points: Tensor, change: Change, mirrored: tuple[int, ...]) -> Tensor:
    """Return where points of frames are after :func:`apply_change`.

    Args:
        points: N K L 2 in [-1, 1].
        change: What happens to each group, on the points' device.
        mirrored: Which point takes the place of each one in a mirrored picture.

    Returns:
        N K L 2; points may lie outside the picture.
    """
    if change.mirrored.numel():
        other = take(points, mirrored)
        other = torch.stack([-other[..., 0], other[..., 1]], -1)
        points = torch.where(change.mirrored[:, None, None, None] > 0, other, points)
    if change.theta.numel():
        linear, shift = change.theta[:, None, :, :2], change.theta[:, None, None, :, 2]
        wanted = (points - shift).flatten(1, 2)
        back = torch.linalg.inv(linear[:, 0]).transpose(1, 2)
        moved = wanted @ back
        for _ in range(_ROUNDS if change.bend.numel() else 0):  # a pixel p looks at linear p + shift + bend(p)
            seen = F.grid_sample(change.bend, moved[:, :, None].nan_to_num(), align_corners=True, padding_mode="border")
            moved = (wanted - seen[..., 0].transpose(1, 2)) @ back
        points = moved.view_as(points)
    return points


def send(changes: Sequence[Change], device: torch.device) -> list[Change]:
    """Copy all numbers of the changes to a device in one transfer, without waiting for it."""
    parts = [part for change in changes for part in change]
    packed = torch.cat([part.reshape(-1) for part in parts])
    if device.type == "cuda":
        packed = packed.pin_memory()
    sent = iter(packed.to(device, non_blocking=True).split([part.numel() for part in parts]))
    return [Change(*(next(sent).view(part.shape) for part in change)) for change in changes]


def draw_geometry(
    count: int, scale: float, shift: float, tps: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draw the arguments of :func:`make_grid`; without elements for what stays."""
    nothing = torch.empty(0)
    theta = draw_affine(count, scale, shift, generator) if scale or shift or tps else nothing
    return theta, draw_bend(count, tps, generator) if tps else nothing


def make_grid(theta: Tensor, bend: Tensor, size: Sequence[int]) -> Tensor:
    """Return where each pixel looks, N H W 2 in [-1, 1].

    Args:
        theta: N 2 3, see :func:`draw_affine`.
        bend: N 2 9 9, see :func:`draw_bend`; without elements for none.
        size: H and W.
    """
    grid = F.affine_grid(theta, [len(theta), 1, *size], align_corners=False)
    if bend.numel():
        fine = F.interpolate(bend, size=(size[0], size[1]), mode="bilinear", align_corners=True)
        grid = grid + fine.permute(0, 2, 3, 1)
    return grid


def _uniform(count: int, values: int, reach: float, generator: torch.Generator) -> Tensor:
    """Return count x values numbers between -reach and reach."""
    return (2 * torch.rand(count, values, generator=generator) - 1) * reach


def draw_colour(count: int, strength: float, grayscale: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw colour changes as matrices: brightness, contrast around middle grey, saturation, gain of each channel.

    Args:
        count: How many, N.
        strength: Factors lie between ``1 - strength`` and ``1 + strength``, gains half as far.
        grayscale: Probability of saturation 0 and equal gains.
        generator: On the CPU.

    Returns:
        Matrices N 3 3 and offsets N 3, for columns of RGB.
    """
    brightness, contrast, saturation = (1 + _uniform(count, 3, strength, generator)).unbind(1)
    gains = 1 + _uniform(count, 3, strength / 2, generator)
    grey = torch.rand(count, generator=generator) < grayscale
    saturation = torch.where(grey, 0.0, saturation)
    gains = torch.where(grey[:, None], 1.0, gains)
    luma = torch.tensor(_LUMA).expand(3, 3)
    mix = saturation[:, None, None] * torch.eye(3) + (1 - saturation)[:, None, None] * luma
    matrix = (brightness * contrast)[:, None, None] * gains[:, :, None] * mix
    return matrix, (0.5 * (1 - contrast))[:, None].expand(-1, 3)


def _apply_colour(frames: Tensor, matrix: Tensor, offset: Tensor) -> Tensor:
    """Change N K 3 H W by N matrices; results are clipped to [0, 1]."""
    matrix, offset = (part.repeat_interleave(frames.shape[1], 0) for part in (matrix, offset))
    changed = torch.baddbmm(offset[:, :, None], matrix, frames.flatten(0, 1).flatten(2))
    return changed.clamp_(0, 1).view(frames.shape)


def draw_affine(count: int, scale: float, shift: float, generator: torch.Generator) -> Tensor:
    """Draw anisotropic scales and shifts.

    Args:
        count: How many, N.
        scale: Factors lie between ``1 / (1 + scale)`` and ``1 + scale``, evenly in their logarithm.
        shift: Reach as a share of the side.
        generator: On the CPU.

    Returns:
        N 2 3: from pixels of the view to where they look, in [-1, 1] units.
    """
    zoom = (_uniform(count, 2, 1.0, generator) * torch.log1p(torch.tensor(scale))).exp()
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0], theta[:, 1, 1] = zoom.unbind(1)
    theta[:, :, 2] = _uniform(count, 2, 2 * shift, generator)
    return theta


def draw_bend(count: int, strength: float, generator: torch.Generator) -> Tensor:
    """Draw thin-plate splines through 3 x 3 control points that move at random.

    Args:
        count: How many, N.
        strength: Standard deviation of the movement as a share of the side.
        generator: On the CPU.

    Returns:
        N 2 9 9: offsets (x, y) in [-1, 1] units on a coarse grid over the picture.
    """
    points = _lattice(3).expand(count, -1, 2)
    moved = points + 2 * strength * torch.randn(count, 9, 2, generator=generator)
    kernel, affine = get_tps_transform(points, moved)
    coarse = _lattice(_COARSE).expand(count, -1, 2)
    offsets = warp_points_tps(coarse, moved, kernel, affine) - coarse  # kornia centres the kernels on the targets
    return offsets.view(count, _COARSE, _COARSE, 2).permute(0, 3, 1, 2)


def _lattice(side: int) -> Tensor:
    """Return 1 x side * side x 2 points (x, y), row by row, from -1 to 1."""
    line = torch.linspace(-1, 1, side)
    return torch.stack(torch.meshgrid(line, line, indexing="xy"), dim=-1).view(1, -1, 2)
