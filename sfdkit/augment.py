"""Augmentation on the device: the harder view of the driving frames that the motion branch sees.

The motion branch must carry motion and nothing else. It therefore looks at ``driving_view``, in which colours,
proportions and position differ from the target ``driving``: what it reads there about identity is wrong, so it does not
pay to read it. Squeezing key points by up to a quarter removes face shape from pose in the same way (TPSMM,
https://arxiv.org/abs/2203.14367).

Legend: ``B`` rows, ``K`` driving frames per row, ``H W`` picture.

Each call draws from a generator of its own on the CPU, so a seed gives the same draws on every device and the global
generators stay as they are. All colour changes of a picture are one 3 x 3 matrix with an offset, and all geometry is
one resampling: 32 rows of one driving frame at 64 x 64 take 8 ms on one core. The classes of kornia take that much for
a change of saturation alone, and 35 ms for a thin-plate spline in place of 2.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from kornia.geometry.transform import get_tps_transform, warp_points_tps
from torch import Tensor

from sfdkit.errors import ConfigError
from sfdkit.types import FrameBatch

_LUMA = (0.299, 0.587, 0.114)
_COARSE = 9
"""Side of the grid on which the thin-plate spline is computed; it is smooth, so the rest is interpolated."""


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
        with torch.autocast(batch["source"].device.type, enabled=False):
            source, driving = self._joint(batch["source"], batch["driving"], generator)
            view = self._driver_view(driving.flatten(0, 1), generator).view_as(driving)
        return FrameBatch(
            source=source, driving=driving, driving_view=view, key=batch["key"], identity=batch["identity"]
        )

    def _joint(self, source: Tensor, driving: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Change B 3 H W and B K 3 H W by the same draw per row."""
        frames = torch.cat([source[:, None], driving], dim=1)
        if self.flip:
            rows = (torch.rand(len(frames), generator=generator) < self.flip).nonzero()[:, 0].to(frames.device)
            frames[rows] = frames[rows].flip(-1)
        if self.joint_colour:
            change = draw_colour(len(frames), self.joint_colour, 0.0, generator)
            frames = _apply_colour(frames, *change)
        if self.joint_scale or self.joint_tps:
            grid = _grid(source.shape, self.joint_scale, 0.0, self.joint_tps, generator)
            grid = grid.repeat_interleave(frames.shape[1], 0)
            frames = self._resample(frames.flatten(0, 1), grid).unflatten(0, frames.shape[:2])
        return frames[:, 0], frames[:, 1:]

    def _driver_view(self, frames: Tensor, generator: torch.Generator) -> Tensor:
        """Change N 3 H W by one draw per frame."""
        if self.colour or self.grayscale:
            change = draw_colour(len(frames), self.colour, self.grayscale, generator)
            frames = _apply_colour(frames[:, None], *change)[:, 0]
        if self.scale or self.shift or self.tps:
            frames = self._resample(frames, _grid(frames.shape, self.scale, self.shift, self.tps, generator))
        return frames

    def _resample(self, frames: Tensor, grid: Tensor) -> Tensor:
        """Look up N 3 H W at N H W 2 places in [-1, 1]."""
        return F.grid_sample(frames, grid.to(frames.device), padding_mode=self.padding, align_corners=False)


def _grid(shape: torch.Size, scale: float, shift: float, tps: float, generator: torch.Generator) -> Tensor:
    """Return where each pixel of the view looks: N H W 2 in [-1, 1]."""
    grid = F.affine_grid(draw_affine(shape[0], scale, shift, generator), list(shape), align_corners=False)
    if tps:
        bend = F.interpolate(draw_bend(shape[0], tps, generator), size=shape[-2:], mode="bilinear", align_corners=True)
        grid = grid + bend.permute(0, 2, 3, 1)
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
    driving = frames.shape[1]
    matrix = matrix.to(frames.device).repeat_interleave(driving, 0)
    offset = offset.to(frames.device).repeat_interleave(driving, 0)
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
