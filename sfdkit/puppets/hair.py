"""Painting hair: a shell around the skull with a hairline, a volume behind the head, strands and sheen.

Legend: ``B`` pictures, ``H W`` samples; ``i`` identity factors of shape B 1 1.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sfdkit.puppets.face import Face
from sfdkit.puppets.factors import IdentityFactors
from sfdkit.puppets.geometry import Hit, Rays, Triple, along, ellipsoid
from sfdkit.puppets.paint import bell, cover, lay, ramp
from sfdkit.puppets.skin import hair_colour

SHORT = 0.22
"""Up to this hair length nothing hangs behind the neck."""


def _strands(around: Tensor, y: Tensor, i: IdentityFactors, pixel: Tensor) -> Tensor:
    """Return light and dark strands, about -1 to 1, that run down from the crown."""
    phase = 6.2832 * i.hair_phase
    sway = (
        around
        + 0.05 * torch.sin(3.1 * y + phase)
        + (0.10 * i.hair_curl + 0.012) * torch.sin(9 * y + 5 * around + 2 * phase)
    )
    total = torch.zeros_like(around)
    for share, rate, turn in ((0.40, 7.0, 1.0), (0.34, 17.0, 2.3), (0.30, 31.0, 4.1), (0.28, 59.0, 5.9)):
        fade = torch.exp(-((0.55 * rate * pixel) ** 2))
        total = total + share * fade * torch.sin(rate * sway + turn * phase + 1.7 * torch.sin(2.3 * y + rate))
    curls = torch.sin(19 * y + 7 * total + phase) * torch.sin(23 * around + 5 * total)
    return total + i.hair_curl * torch.exp(-((14 * pixel) ** 2)) * 0.55 * curls


def _bumps(x: Tensor, y: Tensor, i: IdentityFactors) -> Tensor:
    """Return how far the curls of the outline stand out, in head units."""
    phase = 6.2832 * i.hair_phase
    first = torch.sin(13 * x + phase + 1.5 * torch.sin(5 * y)) * torch.sin(12 * y + 2 * phase + 1.5 * torch.sin(6 * x))
    return 0.035 * i.hair_curl * first


def _shade(
    picture: Tensor, strands: Tensor, normal: Triple, light: Triple, stencil: Tensor, i: IdentityFactors
) -> Tensor:
    """Return the picture with lit hair laid over it."""
    level = normal[0] * light[0] + normal[1] * light[1] + normal[2] * light[2]
    bright = 0.42 + 0.62 * level.clamp(min=0) + 0.13 * strands
    sheen = bell(((level - 0.80 + 0.06 * strands) / 0.13) ** 2) * (0.16 - 0.08 * i.hair_curl) * (1 + 0.5 * strands)
    colour = hair_colour(i)
    return lay(picture, colour * bright[:, None] + (0.3 + 0.7 * colour) * sheen[:, None], stencil)


def shell_thickness(i: IdentityFactors) -> Tensor:
    """Return how far the hair stands out over the crown, in head units."""
    return (0.05 + 0.12 * i.hair_volume) * (1 + 1.1 * i.hair_curl)


def _present(i: IdentityFactors) -> Tensor:
    return (i.hair_volume / 0.1).clamp(0, 1)


def paint_back(picture: Tensor, rays: Rays, face: Face, i: IdentityFactors, light: Triple, room: Tensor) -> Tensor:
    """Return the picture with the hair behind head and neck laid over it, where the stencil ``room`` lets it."""
    thick = shell_thickness(i)
    length = 0.25 + 1.35 * i.hair_length
    zero = torch.zeros_like(thick)
    width = face.skull.width + thick * (0.9 + 0.6 * i.hair_length)
    hit = ellipsoid(rays, (zero, 0.42 - 0.5 * length, zero - 0.30), (width, 0.62 + 0.5 * length, zero + 0.55), zero)
    x, y, _ = along(rays, hit.depth)
    strands = _strands(x * 1.2, 0.4 * y, i, rays.pixel)
    edge = hit.edge + _bumps(x, y, i) + 0.018 * strands
    stencil = cover(edge, rays.pixel) * _present(i) * ramp(i.hair_length, SHORT, 0.4) * room
    return _shade(picture, strands * 0.8, hit.normal, light, stencil, i)


def _above_line(point: Triple, face: Face, i: IdentityFactors) -> Tensor:
    """Return how far points of the head lie above the line where the hair ends, in head units."""
    x, y, z = point
    z = z - face.skull.centre_z
    radius = torch.rsqrt(x * x + z * z + 1e-6)
    facing, across = z * radius, (x * radius).abs()
    bare = 0.56 + 0.18 * i.hairline + 0.10 * i.hairline * (1 - 2.2 * (across - 0.3).abs())
    bare = bare - 0.55 * x * x + 0.10 * i.hair_part * x
    fringe = face.eye.y + 0.25 + 0.10 * (1 - i.fringe) + (x * i.hair_part * 0.45).clamp(-0.25, 0.25)
    front = torch.lerp(bare, fringe, (i.fringe > 0) * (0.55 + 0.45 * i.fringe))
    ear = face.eye.y - 0.02 - 0.9 * ramp(i.hair_length, 0.2, 0.5)
    sides = ear + (ear.clamp(max=-0.32) - ear) * ramp(facing, 0.0, -0.35)
    return y - torch.lerp(sides, front, ramp(facing, 0.40, 0.80))


def paint_shell(
    picture: Tensor, rays: Rays, head: Hit, face: Face, i: IdentityFactors, light: Triple
) -> tuple[Tensor, Tensor]:
    """Return the picture with the hair on the head laid over it, and the stencil of that hair.

    The hair fills the room between the skull and a shell around it: it is seen where the ray meets the shell above the
    hairline, or where it meets the skull (or passes it most closely) above the hairline.
    """
    thick = shell_thickness(i)
    sides = 0.6 * thick + 0.015
    hit = face.skull.grow(sides, 0.8 * thick, 0.4 * thick).meet(rays, steps=2)
    x, y, z = along(rays, hit.depth)
    across = x * torch.rsqrt(x * x + (z - face.skull.centre_z).square() + 1e-6)
    strands = _strands(1.1 * across * (1 + 0.3 * across * across) - 0.25 * i.hair_part * y, y, i, rays.pixel)
    root = _above_line(along(rays, head.depth), face, i)
    bumps = _bumps(x, y, i)
    inside = torch.maximum(_above_line((x, y, z), face, i), root) + 0.035 * strands + bumps
    rim = hit.edge - sides * ramp(root, 0.45, 0.0) + bumps + 0.004 * strands
    stencil = cover(torch.minimum(inside, rim), rays.pixel + 0.01) * _present(i)
    groove = bell(((x - 0.42 * i.hair_part) / 0.035) ** 2) * ramp(y, 0.55, 0.75) * (1 - i.hair_curl) * (1 - i.fringe)
    return _shade(picture, strands - 1.3 * groove, hit.normal, light, stencil, i), stencil
