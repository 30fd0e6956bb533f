"""Where kornia's augmentation modules move points of pictures.

Legend: ``N`` pictures, ``L`` points of each, ``H W`` picture. Points are x and y in pixels, whole numbers at the middle
of pixels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from kornia.augmentation import (
    AugmentationBase2D,
    GeometricAugmentationBase2D,
    ImageSequential,
    IntensityAugmentationBase2D,
)
from kornia.augmentation.container.params import ParamItem
from kornia.geometry.linalg import transform_points
from torch import Tensor

from sfdkit.points import take

_COARSE = 32
"""Pixels of a side, at most, among which the first guess of a place is the nearest."""
_ROUNDS = 5
_NEAR = 0.1
"""Pixels by which a place may be wrong."""


def moved_points(points: Tensor, modules: ImageSequential, mirrored: tuple[int, ...]) -> Tensor:
    """Return where points are after the last call of a list of modules.

    Modules with a matrix (affine, perspective, crops, flips) move points by it. For the others (elastic, thin-plate,
    fisheye, classes of one's own) it is found by changing a picture of coordinates with the same draw.

    Args:
        points: N L 2.
        modules: As they were called.
        mirrored: Which point takes the place of each one in a mirrored picture.

    Returns:
        N L 2; not a number where a point was not known, or where the changed picture does not show it.
    """
    for item in modules._params or []:
        module = modules.get_submodule(item.name)
        if isinstance(module, IntensityAugmentationBase2D):
            continue
        if isinstance(module, GeometricAugmentationBase2D):
            matrix = module.transform_matrix
            assert matrix is not None  # it was called
            points = transform_points(matrix, points)
            handed = (matrix[:, 0] * torch.linalg.cross(matrix[:, 1], matrix[:, 2])).sum(1)
        else:
            assert isinstance(module, AugmentationBase2D)
            points, handed = _seen_by(points, module, item)
        points = torch.where(handed[:, None, None] < 0, take(points, mirrored), points)
    return points


def _seen_by(points: Tensor, module: AugmentationBase2D, item: ParamItem) -> tuple[Tensor, Tensor]:
    """Return where the changed picture shows points, and a number below 0 for each picture that is mirrored."""
    height, width = (int(side) for side in item.data["forward_input_shape"][-2:])  # type: ignore[call-overload]
    line_y, line_x = (torch.linspace(0, 1, side, device=points.device) for side in (height, width))
    y, x = torch.meshgrid(line_y, line_x, indexing="ij")
    places = torch.stack([x, y, torch.ones_like(x)]).expand(len(points), -1, -1, -1)  # within 0 and 1, as pictures are
    looked = module(places, params=item.data)
    scale = torch.stack([line_x.new_full((), side - 1) for side in (width, height)])
    inside, seen = looked[:, 2:], looked[:, :2] * scale[:, None, None]

    found = _nearest(points, seen, inside)
    for _ in range(_ROUNDS):
        along_x, along_y = (
            (_sample(seen, found + step) - _sample(seen, found - step)) / 2 for step in torch.eye(2, device=seen.device)
        )
        area = along_x[..., 0] * along_y[..., 1] - along_x[..., 1] * along_y[..., 0]
        off = points - _sample(seen, found)
        step_x = off[..., 0] * along_y[..., 1] - off[..., 1] * along_y[..., 0]
        step_y = off[..., 1] * along_x[..., 0] - off[..., 0] * along_x[..., 1]
        found = found + torch.stack([step_x, step_y], -1) / area[..., None]
    near = (points - _sample(seen, found)).norm(dim=2) < _NEAR
    shown = near & (_sample(inside, found)[..., 0] > 0.99)
    return found.where(shown[..., None], torch.nan), area.nanmean(1)


def _nearest(points: Tensor, seen: Tensor, inside: Tensor) -> Tensor:
    """Return the pixel that looks nearest to each point, N L 2, of a coarse grid."""
    height, width = seen.shape[2:]
    step = -(-max(height, width) // _COARSE)
    coarse = seen.where(inside > 0.99, torch.inf)[:, :, ::step, ::step]
    far = (coarse[:, None] - points[..., None, None]).square().sum(2)  # N L H' W'
    number = far.nan_to_num(torch.inf).flatten(2).argmin(2)
    across = coarse.shape[-1]
    return torch.stack([number % across, number // across], -1).float() * step


def _sample(picture: Tensor, places: Tensor) -> Tensor:
    """Return N L C values of a picture N C H W at places N L 2 in pixels."""
    height, width = picture.shape[2:]
    grid = places.nan_to_num() / places.new_tensor([(width - 1) / 2, (height - 1) / 2]) - 1
    sampled = F.grid_sample(picture, grid[:, :, None], padding_mode="border", align_corners=True)
    return sampled[..., 0].transpose(1, 2)
