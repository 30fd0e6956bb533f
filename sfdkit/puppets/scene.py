"""Painting around the head: background, clothes, neck and glasses.

Legend: ``B`` pictures, ``H W`` samples; ``i`` identity and ``m`` motion factors of shape B 1 1. Places are in units of
half a picture from its middle, y upwards, unless they are said to be in head units.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sfdkit.puppets.face import Face
from sfdkit.puppets.factors import IdentityFactors, MotionFactors
from sfdkit.puppets.geometry import ZOOM, Pose, Rays, along, project
from sfdkit.puppets.paint import blob, cover, hsv, lay, mix, palette, ramp
from sfdkit.puppets.skin import skin_colour

GLASSES = ((0.05, 0.05, 0.06), (0.30, 0.15, 0.07), (0.74, 0.58, 0.28))


def paint_background(x: Tensor, y: Tensor, i: IdentityFactors) -> Tensor:
    """Return a smooth wall: a gradient between two near colours and a soft glow, B 3 H W."""
    light = 0.34 + 0.50 * i.back_light
    first = hsv(i.back_hue, 0.04 + 0.28 * i.back_saturation, light)
    second = hsv(i.back_hue + 0.06, 0.04 + 0.26 * i.back_saturation, 0.62 * light)
    angle = 6.2832 * i.back_slant
    t = ramp(x * angle.cos() + y * angle.sin(), -1.3, 1.3)
    picture = lay(first.expand(-1, -1, *t.shape[1:]), second, t)
    glow = blob(x - 0.5 * angle.sin(), y - 0.35, 0.55, 0.55)
    return lay(picture, mix(first, torch.ones_like(first), 0.25), 0.35 * glow)


def paint_body(picture: Tensor, x: Tensor, y: Tensor, pixel: float, i: IdentityFactors, m: MotionFactors) -> Tensor:
    """Return the picture with shoulders and clothes laid over it."""
    size = 0.6 + 0.4 * m.scale
    u, v = (x - _body_x(m)) / size, (y - _body_y(m)) / size
    colour = hsv(i.clothes_hue, 0.15 + 0.50 * i.clothes_saturation, 0.16 + 0.68 * i.clothes_light)
    width = 0.82 + 0.12 * i.face_width
    k = (u / width).abs()
    shoulder = -0.62 - 0.10 * k - 0.62 * (1 - torch.sqrt((1 - k**4).clamp(min=0))) - 2.0 * (k - 1).clamp(min=0)
    stencil = cover((shoulder - v) * 0.9, torch.full_like(m.scale, pixel))
    lit = 0.86 + 0.14 * i.light_x * u / width - 0.30 * ramp(k, 0.5, 1.1) - 0.10 * ramp(v, -0.65, -1.1)
    cloth = colour * lit[:, None]
    return lay(picture, cloth, stencil)


def paint_neck(
    picture: Tensor, x: Tensor, y: Tensor, pixel: float, pose: Pose, face: Face, i: IdentityFactors, m: MotionFactors
) -> Tensor:
    """Return the picture with the neck, between the head and the collar, laid over it."""
    zero = torch.zeros_like(m.scale)
    top_x, top_y, _ = project(pose, (zero, zero - 0.35, zero - 0.30))
    size = 0.6 + 0.4 * m.scale
    base_x, base_y = _body_x(m), _body_y(m) - (0.75 + 0.10 * i.neckline) * size
    t = ((y - base_y) / (top_y - base_y)).clamp(0, 1)
    middle = base_x + (top_x - base_x) * t
    half = (face.skull.width * 0.58 * pose.size) * (1 + 0.30 * (1 - t) ** 3)
    offset = (x - middle) / half
    bottom = base_y + 0.10 * (offset * offset).clamp(max=1) * size
    inside = torch.minimum((1 - offset.abs()) * half, y - bottom)
    edge = torch.full_like(m.scale, pixel)
    stencil = cover(torch.minimum(inside, top_y + 0.1 - y), edge)
    jaw_y = project(pose, (zero, -face.skull.bottom * 0.9, zero + 0.4))[1]
    shadow = 0.42 * ramp(y, jaw_y - 0.26, jaw_y + 0.06)
    round_off = 0.95 - 0.30 * offset * offset + 0.15 * i.light_x * offset - shadow
    skin = skin_colour(i)
    collar = cover(inside + 0.035 * size, edge) * cover(top_y + 0.1 - y, edge) * cover(bottom + 0.04 * size - y, edge)
    cloth = hsv(i.clothes_hue, 0.15 + 0.50 * i.clothes_saturation, 0.16 + 0.68 * i.clothes_light) * 0.72
    picture = lay(picture, cloth, collar)
    return lay(picture, skin * round_off[:, None], stencil)


def beside_chest(x: Tensor, y: Tensor, i: IdentityFactors, m: MotionFactors) -> Tensor:
    """Return the stencil of where long hair may hang: everywhere but before the chest."""
    size = 0.6 + 0.4 * m.scale
    u, v = (x - _body_x(m)) / size, (y - _body_y(m)) / size + 0.72 + 0.10 * i.neckline
    return torch.maximum(ramp(u.abs(), 0.26, 0.34), ramp(v, 0.0, 0.12))


def _body_x(m: MotionFactors) -> Tensor:
    return 1.2 / ZOOM * m.shift_x


def _body_y(m: MotionFactors) -> Tensor:
    return 1.2 / ZOOM * m.shift_y + 0.07


def paint_glasses(picture: Tensor, rays: Rays, pose: Pose, face: Face, i: IdentityFactors) -> Tensor:
    """Return the picture with glasses laid over it: two rings in a plane before the eyes, a bridge, and the arms."""
    eye, pixel = face.eye, rays.pixel
    plane = face.skull.surface(torch.zeros_like(eye.x), eye.y) + 0.10
    x, y, _ = along(rays, (plane - rays.origin[2]) / rays.direction[2])
    radius_x = eye.half_width * (1.18 + 0.30 * i.glasses_size)
    radius_y = eye.half_width * (0.86 + 0.42 * i.glasses_size)
    side, up = x.abs() - eye.x, y - eye.y + 0.01
    power = 2 + 2.5 * i.glasses_shape
    ring = ((side / radius_x).abs() ** power + (up / radius_y).abs() ** power + 1e-6) ** (1 / power)
    distance = (ring - 1) * (0.5 * (radius_x + radius_y))
    half = 0.020 + 0.012 * i.glasses_shape
    bridge = torch.minimum(half - (up - 0.05).abs(), -side - 0.92 * radius_x)
    frame = cover(torch.maximum(half - distance.abs(), bridge), pixel)
    hinge = eye.x + radius_x
    near = pose.rotation[2]
    for sign in (-1.0, 1.0):
        ear = (face.skull.half_width(eye.y) + 0.01) * sign
        start, stop = (hinge * sign, plane), (ear, torch.full_like(plane, 0.02))
        arm = _arm(rays, start, stop, eye.y + 0.03)
        visible = ramp(near[0] * sign, 0.02, 0.2)
        frame = torch.maximum(frame, cover(half - arm, pixel) * visible)
    colour = palette(i.glasses_tone, GLASSES)
    lens = cover(-distance, pixel) * i.glasses
    picture = lay(
        picture,
        torch.ones_like(colour),
        lens * (0.05 + 0.16 * ramp(side + up * 1.2, 0.04, 0.10) * ramp(side + up * 1.2, 0.20, 0.14)),
    )
    return lay(picture, colour, frame * i.glasses)


def _arm(rays: Rays, start: tuple[Tensor, Tensor], stop: tuple[Tensor, Tensor], y: Tensor) -> Tensor:
    """Return the distance, as seen, of each sample from a bar that lies level in the head from (x, z) to (x, z)."""
    (x0, z0), (x1, z1) = start, stop
    nx, ny, nz = rays.direction
    px, py, pz = rays.origin[0] - x0, rays.origin[1] - y, rays.origin[2] - z0
    bx, bz = x1 - x0, z1 - z0
    lift = bx * nx + bz * nz
    bx, by, bz = bx - lift * nx, -lift * ny, bz - lift * nz
    lead = px * nx + py * ny + pz * nz
    px, py, pz = px - lead * nx, py - lead * ny, pz - lead * nz
    t = ((px * bx + py * by + pz * bz) / (bx * bx + by * by + bz * bz + 1e-6)).clamp(0, 1)
    return torch.sqrt((px - t * bx) ** 2 + (py - t * by) ** 2 + (pz - t * bz) ** 2 + 1e-9)
