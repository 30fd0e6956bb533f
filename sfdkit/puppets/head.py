"""Painting the head: skull, nose and ears as solids, bump mapping and shading.

Legend: ``B`` pictures, ``H W`` samples; ``i`` identity and ``m`` motion factors of shape B 1 1.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sfdkit.puppets.face import Face
from sfdkit.puppets.factors import IdentityFactors, MotionFactors
from sfdkit.puppets.geometry import Hit, Pose, Rays, Triple, along, ellipsoid, merge, unit
from sfdkit.puppets.paint import bell, blob, cover, lay, ramp
from sfdkit.puppets.skin import Spot, paint_skin, skin_colour


def light_direction(pose: Pose, i: IdentityFactors) -> Triple:
    """Return the direction towards the light in head coordinates, each B 1 1; the light does not turn with the head."""
    x, y, z = unit(0.75 * i.light_x, 0.15 + 0.6 * i.light_y, torch.ones_like(i.light_x))
    right, up, near = pose.rotation
    return (
        right[0] * x + up[0] * y + near[0] * z,
        right[1] * x + up[1] * y + near[1] * z,
        right[2] * x + up[2] * y + near[2] * z,
    )


def paint_head(
    picture: Tensor, rays: Rays, face: Face, i: IdentityFactors, m: MotionFactors, light: Triple
) -> tuple[Tensor, Tensor, Hit]:
    """Return the picture with head and ears laid over it, the stencil of the face, and where the rays meet the head."""
    hit = _meet(rays, face)
    x, y, z = along(rays, hit.depth)
    spot = Spot(x, y, x.abs(), ramp(z, -0.15, 0.1), rays.pixel)
    normal = _relief(spot, face, i, m, hit.normal)
    stencil = cover(hit.edge, rays.pixel)
    picture = lay(picture, _lit(paint_skin(spot, face, i, m), normal, light, i), stencil)
    picture, stencil = _ears(picture, stencil, rays, face, hit, i, light)
    return picture, stencil * spot.front, hit


def _meet(rays: Rays, face: Face) -> Hit:
    """Meet the rays with the skull and the nose on it."""
    nose, zero = face.nose, torch.zeros_like(face.nose.y)
    z = face.skull.surface(zero, nose.y)
    middle = (zero, nose.y + 0.42 * nose.length, z - 0.03)
    bridge = ellipsoid(rays, middle, (0.72 * nose.half_width, 0.62 * nose.length, zero + 0.16), zero + 0.38)
    ball = ellipsoid(rays, (zero, nose.y, z + 0.03), (nose.half_width, zero + 0.095, zero + 0.15), zero)
    return merge(merge(face.skull.meet(rays), bridge, 0.07), ball, 0.06)


def _relief(spot: Spot, face: Face, i: IdentityFactors, m: MotionFactors, normal: Triple) -> Triple:
    """Return the normals with bumps for cheeks, eye sockets, brow ridge and chin."""
    cheek = 0.035 + 0.035 * m.smile.clamp(min=0)
    chin_y = face.mouth.y - face.mouth.gap - 0.24
    mirror = torch.sign(spot.x)
    one = torch.ones_like(mirror)
    bumps: tuple[tuple[Tensor, Tensor, float, float, Tensor | float, Tensor], ...] = (
        (spot.side - face.eye.x - 0.02, spot.y + 0.24, 0.20, 0.16, cheek, mirror),
        (spot.side - face.eye.x + 0.02, spot.y - face.eye.y, 0.22, 0.14, -0.035, mirror),
        (spot.side - face.eye.x, spot.y - face.brow.y, 0.28, 0.09, 0.022, mirror),
        (spot.x, spot.y - chin_y, 0.20, 0.12, 0.03, one),
    )
    slope_x, slope_y = torch.zeros_like(spot.x), torch.zeros_like(spot.x)
    for x, y, width, height, amount, sign in bumps:
        rise = blob(x, y, width, height) * (2 * amount) * spot.front
        slope_x = slope_x + rise * sign * x / width**2
        slope_y = slope_y + rise * y / height**2
    return unit(normal[0] + slope_x, normal[1] + slope_y, normal[2])


def _lit(colour: Tensor, normal: Triple, light: Triple, i: IdentityFactors) -> Tensor:
    """Return a coloured surface in the light: soft diffuse light with a warm edge, and a dull shine."""
    level = normal[0] * light[0] + normal[1] * light[1] + normal[2] * light[2]
    bright = 0.46 + 0.60 * ((level + 0.25) / 1.25).clamp(min=0)
    shine = 0.10 * bell(14 * (1 - level))
    tint = 0.05 * i.light_warmth
    channels = [bright * (1 + tint) + 0.02, bright, bright * (1 - tint) - 0.02 * (1 - level)]
    return colour * torch.stack(torch.broadcast_tensors(*channels), dim=1) + shine[:, None]


def _ears(
    picture: Tensor, stencil: Tensor, rays: Rays, face: Face, head: Hit, i: IdentityFactors, light: Triple
) -> tuple[Tensor, Tensor]:
    """Return the picture with the ears laid over it where the head does not hide them, and the face without them.

    A ray can only meet the ear on its side of the plane of symmetry, so that one ellipsoid per ray will do.
    """
    zero = torch.zeros_like(face.ear)
    y = face.eye.y - 0.14
    x = torch.sign(rays.origin[0]) * (face.skull.half_width(y) + 0.015)
    hit = ellipsoid(rays, (x, y, zero - 0.14), (0.55 * face.ear, face.ear, 0.5 * face.ear), zero - 0.15)
    seen = cover(hit.edge, rays.pixel) * torch.maximum(1 - stencil, cover(hit.depth - head.depth, rays.pixel + 0.02))
    ex, ey, _ = along(rays, hit.depth)
    inner = blob(ex - x, ey - y, 0.30 * face.ear, 0.6 * face.ear)
    skin = skin_colour(i)
    red = torch.tensor((1.0, 0.88, 0.86), device=skin.device).reshape(1, 3, 1, 1)
    colour = skin * red * (1 - 0.30 * inner)[:, None]
    return lay(picture, _lit(colour, hit.normal, light, i), seen), stencil * (1 - seen)
