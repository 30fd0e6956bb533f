"""Painting the skin of a head in head coordinates: eyes, brows, mouth, beard, wrinkles.

Legend: ``B`` pictures, ``H W`` samples; ``i`` identity factors, ``m`` motion factors, of shape B 1 1.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sfdkit.puppets.face import Face
from sfdkit.puppets.factors import IdentityFactors, MotionFactors
from sfdkit.puppets.paint import bell, blob, cover, lay, mix, palette, ramp, stroke

SKIN = (
    (0.99, 0.86, 0.78),
    (0.94, 0.75, 0.62),
    (0.82, 0.60, 0.44),
    (0.62, 0.42, 0.29),
    (0.44, 0.29, 0.20),
    (0.28, 0.18, 0.13),
)
IRIS = (
    (0.20, 0.10, 0.05),
    (0.36, 0.20, 0.09),
    (0.45, 0.36, 0.14),
    (0.30, 0.47, 0.24),
    (0.22, 0.47, 0.68),
    (0.50, 0.58, 0.64),
)
HAIR = ((0.06, 0.05, 0.06), (0.22, 0.13, 0.08), (0.42, 0.26, 0.14), (0.68, 0.48, 0.26), (0.90, 0.76, 0.50))


class Spot(NamedTuple):
    """Where on the head each sample lies; each tensor is B H W."""

    x: Tensor
    y: Tensor
    side: Tensor
    """Distance from the plane of symmetry."""
    front: Tensor
    """1 on the front of the head, 0 on its back."""
    pixel: Tensor
    """B 1 1: distance of samples in head units."""


def _rgb(like: Tensor, red: float, green: float, blue: float) -> Tensor:
    return torch.tensor((red, green, blue), dtype=like.dtype, device=like.device).reshape(1, 3, 1, 1)


def skin_colour(i: IdentityFactors) -> Tensor:
    """Return the colour of the skin, B 3 1 1."""
    base = palette(i.skin_tone, SKIN)
    return base * (1 + i.skin_warmth[:, None] * _rgb(base, -0.01, 0.045, -0.09))


def hair_colour(i: IdentityFactors) -> Tensor:
    """Return the colour of the hair, B 3 1 1."""
    natural = palette(i.hair_tone, HAIR)
    red = mix(natural, _rgb(natural, 0.55, 0.20, 0.08), 0.75 * i.hair_red)
    return mix(red, _rgb(natural, 0.80, 0.80, 0.80), 0.9 * i.hair_grey)


def lip_colour(i: IdentityFactors) -> Tensor:
    """Return the colour of the lips, B 3 1 1."""
    skin = skin_colour(i)
    natural = skin * _rgb(skin, 0.88, 0.66, 0.66)
    return mix(natural, mix(skin, _rgb(skin, 0.62, 0.06, 0.10), 0.8), i.lip_colour)


def paint_skin(spot: Spot, face: Face, i: IdentityFactors, m: MotionFactors) -> Tensor:
    """Return the colour of the head's surface without light, B 3 H W."""
    skin = skin_colour(i)
    picture = skin.expand(-1, -1, *spot.x.shape[1:])
    rosy = skin * _rgb(skin, 1.04, 0.80, 0.80)
    cheek = blob(spot.side - face.eye.x - 0.06, spot.y + 0.30, 0.20, 0.17)
    tip = blob(spot.x, spot.y - face.nose.y, 0.12, 0.10)
    picture = lay(picture, rosy, (0.45 * cheek + 0.30 * tip) * (1 - 0.6 * i.skin_tone) * spot.front)
    picture = picture * (1 - spot.front * _lines(spot, face, i, m))[:, None]
    if bool(((i.beard > 0) | (i.moustache > 0)).any()):
        picture = _beard(picture, spot, face, i)
    picture = _mouth(picture, spot, face, i)
    picture = _eyes(picture, spot, face, i)
    return _brows(picture, spot, face, i)


def _lines(spot: Spot, face: Face, i: IdentityFactors, m: MotionFactors) -> Tensor:
    """Return how much darker folds, wrinkles and hollows make the skin."""
    side, y, nose, mouth, eye = spot.side, spot.y, face.nose, face.mouth, face.eye
    nostril = blob(side - 0.55 * nose.half_width, y - nose.y + 0.075, 0.30 * nose.half_width, 0.030)
    under = blob(spot.x, y - nose.y + 0.12, 1.1 * nose.half_width, 0.05)
    socket = blob(side - eye.x + 0.03, y - eye.y - 0.07, 1.15 * eye.half_width, 0.13)
    chin = blob(spot.x, y - mouth.y + mouth.gap + 1.9 * mouth.lip, 0.16, 0.045)
    dark = 0.62 * nostril + 0.16 * under + 0.16 * socket + 0.14 * chin
    start, stop = nose.half_width + 0.02, mouth.half_width + 0.07
    t = (nose.y - y) / (nose.y - mouth.y)
    fold = blob(side - start - (stop - start) * t, (t - 0.6) * 0.3, 0.026, 0.16)
    dark = dark + (0.04 + 0.26 * i.age + 0.14 * m.smile.clamp(min=0)) * fold
    bag = blob(side - eye.x, y - eye.y + eye.lower + 0.075 - 0.9 * (side - eye.x) ** 2, 0.9 * eye.half_width, 0.022)
    dark = dark + 0.24 * i.age * bag
    wave = (y - face.brow.y - 0.14 + 0.06 * side) * 9
    row = bell(12 * torch.sin(wave * 3.14159).square()) * ramp(wave, -0.3, 0.2) * ramp(wave, 2.6, 2.1)
    dark = dark + (0.24 * i.age + 0.10 * m.brows.clamp(min=0)) * row * ramp(side, 0.46, 0.2)
    feet = (y - eye.y) * 16 / (0.4 + 2 * (side - eye.x - eye.half_width).clamp(min=0))
    rays = bell(8 * torch.sin(feet).square()) * blob(side - eye.x - 1.35 * eye.half_width, y - eye.y, 0.06, 0.09)
    return (dark + 0.22 * i.age * rays).clamp(max=0.85)


def _grain(spot: Spot, i: IdentityFactors) -> Tensor:
    """Return the irregular pattern of short hairs, about -1 to 1; it fades where samples are too coarse to show it."""
    fade = torch.exp(-((30 * spot.pixel) ** 2))
    bend = 6.3 * i.hair_phase + 2 * torch.sin(9 * spot.y)
    return fade * torch.sin(61 * spot.x + 3 * torch.sin(23 * spot.y + bend)) * torch.sin(47 * spot.y + bend)


def _beard(picture: Tensor, spot: Spot, face: Face, i: IdentityFactors) -> Tensor:
    mouth, nose = face.mouth, face.nose
    outer_up, _, _, outer_low = mouth.curves(spot.x.clamp(-1, 1) * 0.999)
    k = spot.side / face.skull.width
    line = mouth.y + 0.02 + 0.75 * (k - 0.30).clamp(min=0) ** 1.5
    hair = ramp(line - spot.y, -0.06, 0.07) * ramp(k, 0.24, 0.36)
    below = ramp(outer_low - 0.03 - spot.y, 0.0, 0.09)
    jaw = torch.maximum(
        hair * ramp(spot.side, mouth.half_width, mouth.half_width + 0.09), below * ramp(line - spot.y, -0.06, 0.05)
    )
    lip = ramp(nose.y - 0.12 - spot.y, 0.0, 0.05) * ramp(spot.y - outer_up, 0.0, 0.03)
    lip = lip * ramp(spot.side, mouth.half_width + 0.06, mouth.half_width - 0.02)
    amount = torch.maximum(
        jaw * (i.beard > 0) * (0.35 + 0.6 * i.beard), lip * (i.moustache > 0) * (0.35 + 0.6 * i.moustache)
    )
    colour = hair_colour(i) * 0.85
    return lay(picture, colour, amount * (0.92 + 0.08 * _grain(spot, i)) * spot.front)


def _brows(picture: Tensor, spot: Spot, face: Face, i: IdentityFactors) -> Tensor:
    brow = face.brow
    outward = spot.side - face.eye.x - 0.02
    k = outward / brow.half_length
    thick = brow.thickness * (1 - 0.45 * ramp(k, -0.2, 1.0))
    inside = torch.minimum(thick - (spot.y - brow.middle(outward)).abs(), (1 - k.abs()) * 0.2)
    amount = cover(inside, spot.pixel * 1.2 + 0.012) * (0.86 + 0.10 * _grain(spot, i))
    return lay(picture, hair_colour(i) * 0.72, amount * spot.front)


def _mouth(picture: Tensor, spot: Spot, face: Face, i: IdentityFactors) -> Tensor:
    mouth, pixel, y = face.mouth, spot.pixel, spot.y
    outer_up, inner_up, inner_low, outer_low = mouth.curves(spot.x)
    lips = cover(torch.minimum(outer_up - y, y - outer_low), pixel) * spot.front
    colour = lip_colour(i)
    picture = lay(picture, colour * 0.86, lips)
    gleam = blob(spot.x, y - inner_low + 0.5 * mouth.lip, 0.6 * mouth.half_width, 0.45 * mouth.lip)
    picture = lay(picture, mix(colour, torch.ones_like(colour), 0.30), 0.8 * lips * gleam)
    inside = cover(torch.minimum(inner_up - y, y - inner_low), pixel) * spot.front * ramp(mouth.gap, 0.0, 0.02)
    seam = stroke(y - 0.5 * (inner_up + inner_low), 0.016, pixel) * cover(mouth.half_width + 0.015 - spot.side, pixel)
    dark = _rgb(picture, 0.16, 0.04, 0.05)
    seam = seam * ramp(mouth.gap, 0.06, 0.0) * spot.front
    picture = lay(picture, colour * 0.38, seam)
    picture = lay(picture, dark, inside)
    tongue = cover(
        1 - (spot.x / (0.62 * mouth.half_width)) ** 2 - ((y - inner_low + 0.02) / (0.42 * mouth.gap + 0.02)) ** 2,
        8 * pixel,
    )
    picture = lay(picture, _rgb(picture, 0.72, 0.30, 0.31), tongue * inside * 0.9)
    level = mouth.y + mouth.corners * -0.15
    teeth = cover(torch.minimum(y - (level + 0.16 * mouth.gap - 0.085), 0.92 * mouth.half_width - spot.side), pixel)
    gaps = 1 - 0.25 * torch.exp(-((30 * pixel) ** 2)) * bell(40 * torch.sin(spot.x * 3.14159 / 0.075).square())
    white = (
        _rgb(picture, 0.95, 0.93, 0.88).expand_as(picture)
        * (gaps * ramp(spot.side, 1.4 * mouth.half_width, 0.3 * mouth.half_width))[:, None]
    )
    return lay(picture, white, teeth * inside)


def _eyes(picture: Tensor, spot: Spot, face: Face, i: IdentityFactors) -> Tensor:
    eye, pixel = face.eye, spot.pixel
    outward, up = spot.side - eye.x, spot.y - eye.y
    mirror = torch.sign(spot.x)
    opened, upper, lower = eye.lids(outward)
    skin = skin_colour(i)
    lid = cover(torch.minimum(opened - up, up - lower), pixel) * spot.front
    picture = lay(picture, skin * _rgb(skin, 0.86, 0.78, 0.76), lid)
    white = cover(torch.minimum(upper - up, up - lower) * 0.9, pixel) * spot.front
    shade = (1 - 0.30 * ramp(upper - up, 0.07, 0.0) - 0.14 * (outward / eye.half_width) ** 2)[:, None]
    ball = _rgb(picture, 0.97, 0.96, 0.95) * shade
    ix, iy = outward - mirror * eye.gaze_x, up - eye.gaze_y
    radius = torch.sqrt(ix * ix + iy * iy + 1e-9)
    iris = palette(i.iris_colour, IRIS)
    ball = lay(ball, iris * 0.45, cover(eye.iris - radius, pixel))
    ball = lay(ball, iris * 1.15, cover(0.82 * eye.iris - radius, pixel + 0.25 * eye.iris))
    ball = lay(ball, torch.full_like(iris, 0.02), cover(0.44 * eye.iris - radius, pixel))
    gx = mirror * (ix) - 0.34 * eye.iris * torch.where(i.light_x > 0, 1.0, -1.0)
    glint = cover(0.25 * eye.iris - torch.sqrt(gx * gx + (iy - 0.36 * eye.iris) ** 2 + 1e-9), pixel)
    ball = lay(ball, torch.ones_like(iris), glint)
    picture = lay(picture, ball, white)
    width = cover(1.06 * eye.half_width - outward.abs(), pixel) * spot.front
    lash = stroke(up - upper - 0.006, 0.018, pixel) * width
    rim = stroke(up - lower, 0.007, pixel) * width
    crease = stroke(up - opened - 0.045, 0.012, pixel) * width
    picture = lay(picture, skin * 0.55, (0.45 * crease + 0.5 * rim).clamp(max=1))
    return lay(picture, _rgb(picture, 0.09, 0.06, 0.05), 0.92 * lash)
