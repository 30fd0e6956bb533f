"""Ray casting in parallel projection: the pose of the head, rays in head coordinates, ellipsoids and the head itself.

Legend: ``B`` pictures, ``H W`` samples of a picture.

Head coordinates: x to the right of the picture, y up, z towards the viewer when the head is not turned; the half height
of an average head is 1. View coordinates have the same axes and do not turn with the head. A ray of a sample starts at
``origin`` and goes along ``direction`` (both in head coordinates); its parameter is the depth, larger is nearer.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sfdkit.puppets.factors import MotionFactors

HEAD = 0.585
"""Half height of an average head in units of half a picture."""
ZOOM = 1.25
"""How much closer the camera is than one that would see -1 to 1 of the view: a face crop, not a portrait."""
MIDDLE = 0.02
"""Height (y in view coordinates) of the picture's middle."""
PIVOT = (-0.45, -0.12)
"""y and z of the point of the neck, in head coordinates, that the head turns about."""

Triple = tuple[Tensor, Tensor, Tensor]


class Pose(NamedTuple):
    """Where the head is: each tensor has the shape B 1 1."""

    rotation: tuple[Triple, Triple, Triple]
    """Rows of the rotation from head to view coordinates."""
    centre_x: Tensor
    """Of the head in the picture, -1 (left border) to 1."""
    centre_y: Tensor
    """Of the head in the picture, -1 (lower border) to 1."""
    size: Tensor
    """Units of half a picture per unit of the head."""


class Rays(NamedTuple):
    """The samples of all pictures as rays in head coordinates."""

    origin: Triple
    """Three tensors B H W."""
    direction: Triple
    """Three tensors B 1 1."""
    pixel: Tensor
    """B 1 1: distance of neighbouring samples, in head units."""


class Hit(NamedTuple):
    """Where the rays meet a solid."""

    depth: Tensor
    """B H W, in head units; where the ray misses, of the point that comes nearest to the solid."""
    edge: Tensor
    """B H W: about the distance inside (positive) or outside the outline, in head units."""
    normal: Triple
    """Three tensors B H W of length 1, in head coordinates."""


def head_pose(m: MotionFactors) -> Pose:
    """Return the pose of the head from its motion (factors of shape B 1 1)."""
    yaw, pitch, roll = (torch.deg2rad(angle) for angle in (m.yaw, m.pitch, m.roll))
    cy, sy, cp, sp, cr, sr = yaw.cos(), yaw.sin(), pitch.cos(), pitch.sin(), roll.cos(), roll.sin()
    tilted: tuple[Triple, Triple, Triple] = (
        (cy, torch.zeros_like(cy), sy),
        (-sp * sy, cp, sp * cy),
        (-cp * sy, -sp, cp * cy),
    )
    first, second, third = tilted
    rotation: tuple[Triple, Triple, Triple] = (
        (cr * first[0] - sr * second[0], cr * first[1] - sr * second[1], cr * first[2] - sr * second[2]),
        (sr * first[0] + cr * second[0], sr * first[1] + cr * second[1], sr * first[2] + cr * second[2]),
        third,
    )
    size = HEAD * m.scale
    pivot_y, pivot_z = PIVOT
    swing_x = -(rotation[0][1] * pivot_y + rotation[0][2] * pivot_z)
    swing_y = pivot_y - (rotation[1][1] * pivot_y + rotation[1][2] * pivot_z)
    shift_x, shift_y = 2 / ZOOM * m.shift_x, 2 / ZOOM * m.shift_y
    return Pose(rotation, shift_x + size * swing_x, shift_y + size * swing_y + 0.03, size)


def project(pose: Pose, point: Triple) -> tuple[Tensor, Tensor, Tensor]:
    """Return where points of the head appear: x and y in -1..1 of the picture (y up), and the depth in head units."""
    x, y, z = (row[0] * point[0] + row[1] * point[1] + row[2] * point[2] for row in pose.rotation)
    return pose.centre_x + pose.size * x, pose.centre_y + pose.size * y, z


def cast_rays(pose: Pose, x: Tensor, y: Tensor, pixel: float) -> Rays:
    """Return the rays of the samples.

    Args:
        pose: Of the head.
        x: W sample positions, -1 to 1.
        y: H sample positions, -1 to 1, upwards (H 1).
        pixel: Distance of samples in the same units.
    """
    u, v = (x - pose.centre_x) / pose.size, (y - pose.centre_y) / pose.size
    right, up, near = pose.rotation
    origin = (right[0] * u + up[0] * v, right[1] * u + up[1] * v, right[2] * u + up[2] * v)
    return Rays(origin, near, pixel / pose.size)


def along(rays: Rays, depth: Tensor) -> Triple:
    """Return the points at a depth on the rays: three tensors B H W."""
    return (
        torch.addcmul(rays.origin[0], rays.direction[0], depth),
        torch.addcmul(rays.origin[1], rays.direction[1], depth),
        torch.addcmul(rays.origin[2], rays.direction[2], depth),
    )


def unit(x: Tensor, y: Tensor, z: Tensor) -> Triple:
    """Scale vectors to length 1."""
    scale = torch.rsqrt(x * x + y * y + z * z + 1e-12)
    return x * scale, y * scale, z * scale


def _quadric(rays: Rays, centre_z: Tensor, weights: Triple) -> tuple[Tensor, Tensor]:
    """Meet the rays with x²wx + y²wy + (z - centre_z)²wz = 1: the depth, and the least value of the left side."""
    (x, y, z), (dx, dy, dz), (wx, wy, wz) = rays.origin, rays.direction, weights
    z = z - centre_z
    alpha = dx * dx * wx + dy * dy * wy + dz * dz * wz
    beta = dx * wx * x + dy * wy * y + dz * wz * z
    gamma = x * x * wx + y * y * wy + z * z * wz
    middle = -beta / alpha
    least = gamma + beta * middle
    return middle + torch.sqrt(((1 - least) / alpha).clamp(min=0)), least


def ellipsoid(rays: Rays, centre: Triple, axes: Triple, tilt: Tensor) -> Hit:
    """Meet the rays with an ellipsoid.

    Args:
        rays: Of the pictures.
        centre: In head coordinates, each B 1 1.
        axes: Half axes, each B 1 1.
        tilt: B 1 1: turn about the x axis in radians; positive moves the lower end towards the viewer.
    """
    c, s = tilt.cos(), tilt.sin()
    (x, y, z), (dx, dy, dz) = rays.origin, rays.direction
    x, y, z = x - centre[0], y - centre[1], z - centre[2]
    local = Rays((x, c * y - s * z, s * y + c * z), (dx, c * dy - s * dz, s * dy + c * dz), rays.pixel)
    weights = (axes[0] ** -2, axes[1] ** -2, axes[2] ** -2)
    depth, least = _quadric(local, torch.zeros_like(tilt), weights)
    px, py, pz = along(local, depth)
    nx, ny, nz = unit(px * weights[0], py * weights[1], pz * weights[2])
    edge = (1 - torch.sqrt(least.clamp(min=0))) * torch.minimum(axes[0], axes[1])
    return Hit(depth, edge, (nx, c * ny + s * nz, c * nz - s * ny))


class Skull(NamedTuple):
    """The solid of a head: an ellipsoid whose half axes change with the height y. Each tensor is B 1 1."""

    width: Tensor
    top: Tensor
    """Half axis upwards from the eye line."""
    bottom: Tensor
    """Half axis downwards from the eye line: to the chin, which an open mouth lowers."""
    depth: Tensor
    centre_z: Tensor
    taper: Tensor
    """Share of the width lost at the chin."""
    square: Tensor
    """How blunt the chin is: an ellipse (0) to a curve of third degree (1)."""

    def grow(self, sides: Tensor | float, top: Tensor | float, depth: Tensor | float) -> Skull:
        """Return a larger shell around the head."""
        return self._replace(
            width=self.width + sides, top=self.top + top, bottom=self.bottom + sides, depth=self.depth + depth
        )

    def weights(self, y: Tensor) -> Triple:
        """Return the inverse squared half axes at the height ``y``."""
        low = (-y).clamp(0, 1.2)
        width = self.width * (1 - self.taper * low * low)
        blunt = 1 - self.square + self.square * low / self.bottom
        height = torch.where(y > 0, self.top**-2, self.bottom**-2 * blunt)
        return width**-2, height, (self.depth * (1 - 0.10 * low)) ** -2

    def surface(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the z of the front surface at head coordinates x and y."""
        wx, wy, wz = self.weights(y)
        return self.centre_z + torch.sqrt(((1 - x * x * wx - y * y * wy) / wz).clamp(min=1e-4))

    def half_width(self, y: Tensor) -> Tensor:
        """Return the half width of the outline, seen from the front, at the height ``y``."""
        wx, wy, _ = self.weights(y)
        return torch.sqrt(((1 - y * y * wy) / wx).clamp(min=0))

    def meet(self, rays: Rays, steps: int = 3) -> Hit:
        """Meet the rays with the head: the quadric is solved again with the half axes of the last solution's height."""
        y = rays.origin[1] + rays.direction[1] * 0.6
        for _ in range(steps):
            weights = self.weights(y)
            depth, least = _quadric(rays, self.centre_z, weights)
            y = rays.origin[1] + rays.direction[1] * depth
        x, y, z = along(rays, depth)
        normal = unit(x * weights[0], y * weights[1], (z - self.centre_z) * weights[2])
        return Hit(depth, (1 - torch.sqrt(least.clamp(min=0))) * self.width, normal)


def merge(back: Hit, front: Hit, softness: float) -> Hit:
    """Join two solids into one with a rounded seam.

    Args:
        back: The larger solid.
        front: The solid that stands out of it.
        softness: Width of the seam in depth, in head units.
    """
    nearer = front.depth + 4 * front.edge.clamp(max=0) - back.depth
    share = (0.5 + 0.5 * nearer / softness).clamp(0, 1)
    depth = back.depth + share * nearer + softness * share * (1 - share)
    normal = unit(*(torch.lerp(b, f, share) for b, f in zip(back.normal, front.normal, strict=True)))
    return Hit(depth, torch.maximum(back.edge, front.edge), normal)
