"""Augmentation on the device: the harder view of the driving frames that the motion branch sees.

The motion branch must carry motion and nothing else. It therefore looks at ``driving_view``, in which colours,
proportions and position differ from the target ``driving``: what it reads there about identity is wrong, so it does not
pay to read it. Squeezing key points by up to a quarter removes face shape from pose in the same way (TPSMM,
https://arxiv.org/abs/2203.14367).

Legend: ``B`` rows, ``K`` driving frames per row, ``H W`` picture.

Each call draws from a generator of its own on the CPU, so a seed gives the same draws on every device and the global
generators stay as they are. What was drawn, some 200 numbers a frame at most, is sent to the device in one piece; the
grids, which are larger than the pictures, are made there. All colour changes of a picture are one 3 x 3 matrix with an
offset, and all geometry is one resampling: 32 rows of one driving frame at 64 x 64 take 8 ms on one core. The classes
of kornia take that much for a change of saturation alone, and 35 ms for a thin-plate spline in place of 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from kornia.geometry.transform import get_tps_transform, warp_points_tps
from torch import Tensor

from sfdkit.errors import ConfigError
from sfdkit.types import FrameBatch

_LUMA = (0.299, 0.587, 0.114)
_COARSE = 9
"""Side of the grid on which the thin-plate spline is computed; it is smooth, so the rest is interpolated."""


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


class DriverViewAugmentation:
    """Changes rows as a whole a little, and the view of their driving frames a lot.

    The joint part is the same for the source and all driving frames of a row: a horizontal flip, a mild change of
    colours, and other proportions, which make another face of it with the same motion. The driver part is drawn for
    each driving frame and changes ``driving_view`` alone. With all strengths 0 the batch comes back as it was, and
    ``driving_view`` equals ``driving``.

    Args:
        flip: Probability that a row is mirrored.
        joint_colour: Colour change of whole rows, see ``colour``.
        joint_scale: Largest stretch of whole rows, see ``scale``.
        joint_tps: Bending of whole rows, see ``tps``.
        colour: Colour change of the driver's view: brightness, contrast, saturation and the gain of each channel are
            factors between ``1 - colour`` and ``1 + colour``, the gains half as far.
        grayscale: Probability that a frame of the driver's view has no colours.
        scale: Largest stretch of the driver's view, drawn for width and height apart: factors between
            ``1 / (1 + scale)`` and ``1 + scale``.
        shift: Largest shift of the driver's view along each axis, as a share of the side; the jitter of a face crop.
        tps: Bending of the driver's view: standard deviation by which 3 x 3 control points of a thin-plate spline
            move, as a share of the side. 0.02 is visible, 0.05 is a caricature.
        padding: What shows where the view looks past the border of the frame.

    Raises:
        ConfigError: A strength is out of its range.
    """

    def __init__(
        self,
        flip: float = 0.5,
        joint_colour: float = 0.05,
        joint_scale: float = 0.0,
        joint_tps: float = 0.0,
        colour: float = 0.3,
        grayscale: float = 0.1,
        scale: float = 0.2,
        shift: float = 0.05,
        tps: float = 0.0,
        padding: Literal["reflection", "border", "zeros"] = "reflection",
    ) -> None:
        for name, value in dict(flip=flip, joint_colour=joint_colour, colour=colour, grayscale=grayscale).items():
            if not 0 <= value <= 1:
                raise ConfigError(f"The augmentation has {name} = {value}, a value from 0 to 1 is wanted.")
        geometry = dict(joint_scale=joint_scale, joint_tps=joint_tps, scale=scale, shift=shift, tps=tps)
        for name, value in geometry.items():
            if not 0 <= value <= 0.5:
                raise ConfigError(f"The augmentation has {name} = {value}, a share from 0 to 0.5 is wanted.")
        self.flip = flip
        self.joint_colour = joint_colour
        self.joint_scale = joint_scale
        self.joint_tps = joint_tps
        self.colour = colour
        self.grayscale = grayscale
        self.scale = scale
        self.shift = shift
        self.tps = tps
        self.padding = padding

    @torch.no_grad()
    def __call__(self, batch: FrameBatch, seed: int) -> FrameBatch:
        """Return the batch with its joint changes and with ``driving_view``.

        Args:
            batch: Images float32 in [0, 1], on any device.
            seed: What to draw; equal seeds change equal batches equally.

        Returns:
            A new batch, images float32 in [0, 1].
        """
        generator = torch.Generator().manual_seed(seed)
        rows, driven = batch["driving"].shape[:2]
        device = batch["source"].device
        with torch.autocast(device.type, enabled=False):
            drawn = [self._draw_joint(rows, generator), self._draw_view(rows * driven, generator)]
            joint, own = _send(drawn, device)
            frames = self._change(torch.cat([batch["source"][:, None], batch["driving"]], dim=1), joint)
            source, driving = frames[:, 0], frames[:, 1:]
            view = self._change(driving.flatten(0, 1)[:, None], own).view_as(driving)
        return FrameBatch(
            source=source, driving=driving, driving_view=view, key=batch["key"], identity=batch["identity"]
        )

    def _draw_joint(self, count: int, generator: torch.Generator) -> Change:
        """Draw what happens to whole rows."""
        nothing = torch.empty(0)
        mirrored = (torch.rand(count, generator=generator) < self.flip).float() if self.flip else nothing
        colour = draw_colour(count, self.joint_colour, 0.0, generator) if self.joint_colour else (nothing, nothing)
        return Change(mirrored, *colour, *_draw_geometry(count, self.joint_scale, 0.0, self.joint_tps, generator))

    def _draw_view(self, count: int, generator: torch.Generator) -> Change:
        """Draw what happens to the views of driving frames."""
        nothing = torch.empty(0)
        colour = nothing, nothing
        if self.colour or self.grayscale:
            colour = draw_colour(count, self.colour, self.grayscale, generator)
        return Change(nothing, *colour, *_draw_geometry(count, self.scale, self.shift, self.tps, generator))

    def _change(self, frames: Tensor, change: Change) -> Tensor:
        """Change N groups of K frames, N K 3 H W."""
        if change.mirrored.numel():
            frames = torch.where(change.mirrored[:, None, None, None, None] > 0, frames.flip(-1), frames)
        if change.matrix.numel():
            frames = _apply_colour(frames, change.matrix, change.offset)
        if change.theta.numel():
            grid = make_grid(change.theta, change.bend, frames.shape[-2:]).repeat_interleave(frames.shape[1], 0)
            seen = F.grid_sample(frames.flatten(0, 1), grid, padding_mode=self.padding, align_corners=False)
            frames = seen.view(frames.shape)
        return frames


def _send(changes: Sequence[Change], device: torch.device) -> list[Change]:
    """Bring all numbers to a device in one copy; nothing waits for it."""
    parts = [part for change in changes for part in change]
    packed = torch.cat([part.reshape(-1) for part in parts])
    if device.type == "cuda":
        packed = packed.pin_memory()
    sent = iter(packed.to(device, non_blocking=True).split([part.numel() for part in parts]))
    return [Change(*(next(sent).view(part.shape) for part in change)) for change in changes]


def _draw_geometry(
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
