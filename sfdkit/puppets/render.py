"""The renderer: from factors to pictures with landmarks and a mask.

A head is a solid that is ray cast, one ray per sample, and painted in its own coordinates, so that all features turn
with it. Edges are one sample wide, and several samples make a pixel.

Legend: ``B`` pictures, ``L`` landmarks, ``H W`` pixels.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from sfdkit.puppets.face import Face, measure
from sfdkit.puppets.factors import IdentityFactors, MotionFactors
from sfdkit.puppets.geometry import MIDDLE, ZOOM, Pose, cast_rays, head_pose
from sfdkit.puppets.hair import SHORT, paint_back, paint_shell, shell_thickness
from sfdkit.puppets.head import light_direction, paint_head
from sfdkit.puppets.landmarks import find_landmarks
from sfdkit.puppets.scene import beside_chest, paint_background, paint_body, paint_glasses, paint_neck

_CHUNK_SAMPLES = {"cpu": 1 << 17}
"""Samples rendered at once, by device: on a CPU the working set stays in its cache."""
_CHUNK_SAMPLES_ELSEWHERE = 1 << 23
"""Samples rendered at once on other devices: about 1 GB of working set."""


class Rendered(NamedTuple):
    """Pictures of puppets with their ground truth."""

    image: Tensor
    """B 3 H W in [0, 1]."""
    landmarks: Tensor
    """B L 2 in pixels (x right, y down, whole numbers at the middle of pixels), in the order of ``LANDMARKS``."""
    mask: Tensor
    """B 1 H W in [0, 1]: the face (skin, its features and glasses on it), without hair, ears and neck."""


@torch.no_grad()
def render(identity: IdentityFactors, motion: MotionFactors, resolution: int, supersample: int = 2) -> Rendered:
    """Render identities under motions.

    Args:
        identity: B rows, or a single row for all motions.
        motion: B rows, or a single row for all identities.
        resolution: Height and width of the pictures in pixels.
        supersample: Samples per pixel along each axis.

    Returns:
        Pictures, landmarks and masks on the device of the factors.

    Raises:
        ValueError: The numbers of rows do not fit, or ``resolution`` or ``supersample`` is below 1.
    """
    if resolution < 1 or supersample < 1:
        raise ValueError(f"resolution and supersample must be at least 1, got {resolution} and {supersample}")
    count = max(len(identity), len(motion))
    identity, motion = identity.expand(count), motion.expand(count)
    samples = _CHUNK_SAMPLES.get(motion.yaw.device.type, _CHUNK_SAMPLES_ELSEWHERE)
    step = max(1, samples // (resolution * supersample) ** 2)
    parts = [
        _render_rows(identity[at : at + step], motion[at : at + step], resolution, supersample)
        for at in range(0, count, step)
    ]
    image, mask = (torch.cat(column) for column in zip(*parts, strict=True))
    i, m = identity.grid(), motion.grid()
    return Rendered(image, find_landmarks(head_pose(m), measure(i, m), resolution), mask)


def _render_rows(
    identity: IdentityFactors, motion: MotionFactors, resolution: int, supersample: int
) -> tuple[Tensor, Tensor]:
    """Return pictures and masks."""
    i, m = identity.grid(), motion.grid()
    side = resolution * supersample
    places = (torch.arange(side, device=m.yaw.device, dtype=torch.float32) + 0.5) * (2 / side) - 1
    x, y, pixel = places[None, None, :] / ZOOM, MIDDLE - places[None, :, None] / ZOOM, 2 / side / ZOOM
    pose, face = head_pose(m), measure(i, m)
    light = light_direction(pose, i)
    picture = paint_background(x, y, i)
    picture = paint_body(picture, x, y, pixel, i, m)
    if bool((i.hair_length > SHORT).any()):
        picture = paint_back(picture, cast_rays(pose, x, y, pixel), face, i, light, beside_chest(x, y, i, m))
    picture = paint_neck(picture, x, y, pixel, pose, face, i, m)
    rows, columns = _head_window(pose, face, i, side)
    rays, part = cast_rays(pose, x[:, :, columns], y[:, rows], pixel), picture[:, :, rows, columns]
    part, skin, head = paint_head(part, rays, face, i, m, light)
    if bool((i.glasses > 0).any()):
        part = paint_glasses(part, rays, pose, face, i)
    part, hair = paint_shell(part, rays, head, face, i, light)
    picture[:, :, rows, columns] = part
    mask = torch.zeros_like(picture[:, 0])
    mask[:, rows, columns] = skin * (1 - hair)
    image, mask = picture.clamp(0, 1), mask[:, None]
    if supersample > 1:
        image, mask = F.avg_pool2d(image, supersample), F.avg_pool2d(mask, supersample)
    return image, mask


def _head_window(pose: Pose, face: Face, i: IdentityFactors, side: int) -> tuple[slice, slice]:
    """Return the rows and columns of samples outside which no picture of the batch shows its head."""
    thick = shell_thickness(i)
    reach = face.skull.grow(0.18 + 0.7 * thick, 0.10 + thick, 0.26 + 0.5 * thick)
    axes = (reach.width, torch.maximum(reach.top, reach.bottom), reach.depth)
    slices = []
    for row, centre, sign in ((1, pose.centre_y - MIDDLE, -ZOOM), (0, pose.centre_x, ZOOM)):
        turn = pose.rotation[row]
        middle = sign * (centre + pose.size * turn[2] * reach.centre_z)
        extent = (
            ZOOM * pose.size * torch.sqrt(sum(((turn[k] * axes[k]) ** 2 for k in range(3)), torch.zeros_like(middle)))
        )
        first, last = float((middle - extent).min()), float((middle + extent).max())
        start = min(max(int((first + 1) / 2 * side) - 1, 0), side - 1)
        slices.append(slice(start, max(min(int((last + 1) / 2 * side) + 2, side), start + 1)))
    return slices[0], slices[1]
