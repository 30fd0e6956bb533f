"""The geometry of a face: positions, sizes and curves in head units, computed from the factors.

Legend: ``B`` pictures. Painting and landmarks use the same geometry, so the landmarks are exact.
Local eye coordinates: ``outward`` from the eye's middle to the side of the head, ``up`` from the eye's middle.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sfdkit.puppets.factors import IdentityFactors, MotionFactors
from sfdkit.puppets.geometry import Skull


class Eye(NamedTuple):
    """Both eyes, mirrored; each tensor is B 1 1."""

    x: Tensor
    y: Tensor
    half_width: Tensor
    upper: Tensor
    """Height of the open upper lid over the eye's middle."""
    lower: Tensor
    """Depth of the lower lid under the eye's middle."""
    tilt: Tensor
    iris: Tensor
    """Radius."""
    blink: Tensor
    gaze_x: Tensor
    gaze_y: Tensor

    def lids(self, outward: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the heights of the open upper lid, the upper lid as it is, and the lower lid."""
        k = outward / self.half_width
        bend = 1 - k * k
        line = self.tilt * outward
        lower = line - self.lower * (1 - 0.25 * self.blink) * bend
        opened = line + self.upper * bend
        return opened, opened + self.blink * (lower - opened), lower


class Brow(NamedTuple):
    """Both brows, mirrored; each tensor is B 1 1."""

    y: Tensor
    half_length: Tensor
    thickness: Tensor
    arch: Tensor
    slope: Tensor
    """Rise from the inner to the outer end; positive in a frown."""

    def middle(self, outward: Tensor) -> Tensor:
        """Return the height of the brow's middle line."""
        k = outward / self.half_length
        return self.y + self.slope * k + self.arch * (0.4 - (k - 0.1) * (k - 0.1))


class Mouth(NamedTuple):
    """The mouth; each tensor is B 1 1."""

    y: Tensor
    half_width: Tensor
    corners: Tensor
    """Rise of the corners over the middle."""
    gap: Tensor
    """Height of the opening."""
    lip: Tensor
    """Thickness of the lower lip."""

    def curves(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the heights of upper lip's outer edge, its inner edge, lower lip's inner and outer edge."""
        k = x / self.half_width
        k2 = k * k
        bend = 1 - k2
        line = self.y + self.corners * (k2 - 0.35)
        inner_up = line + 0.16 * self.gap * bend
        inner_low = line - 0.84 * self.gap * bend * (1 + 0.6 * k2)
        bow = 0.75 + 0.9 * k2 / (0.05 + k2) * (0.4 + 0.05)
        return (
            inner_up + self.lip * 0.72 * bend * bow,
            inner_up,
            inner_low,
            inner_low - self.lip * bend * (1 + 0.35 * k2),
        )


class Nose(NamedTuple):
    """The nose; each tensor is B 1 1."""

    y: Tensor
    """Height of the tip."""
    half_width: Tensor
    length: Tensor


class Face(NamedTuple):
    """The geometry of a face in one expression."""

    skull: Skull
    eye: Eye
    brow: Brow
    mouth: Mouth
    nose: Nose
    ear: Tensor
    """Half height of an ear."""


def measure(i: IdentityFactors, m: MotionFactors) -> Face:
    """Return the geometry of a face from factors of shape B 1 1."""
    width = 0.66 + 0.14 * i.face_width
    skull = Skull(
        width=width,
        top=0.94 + 0.10 * i.face_height,
        bottom=0.95 + 0.13 * i.face_height + 0.17 * m.mouth_open,
        depth=torch.full_like(width, 0.84),
        centre_z=torch.full_like(width, -0.10),
        taper=0.16 - 0.14 * i.jaw,
        square=0.25 + 0.75 * i.jaw,
    )
    half_eye = 0.165 + 0.045 * i.eye_size
    eye = Eye(
        x=0.27 + 0.05 * i.eye_spacing + 0.10 * (width - 0.66),
        y=-0.02 + 0.12 * i.eye_height,
        half_width=half_eye,
        upper=half_eye * (0.56 + 0.12 * m.brows.clamp(min=0)),
        lower=half_eye * (0.43 - 0.10 * m.smile.clamp(min=0)),
        tilt=0.16 * i.eye_tilt,
        iris=0.48 * half_eye,
        blink=m.blink,
        gaze_x=m.gaze_x * 0.46 * half_eye,
        gaze_y=m.gaze_y * 0.26 * half_eye,
    )
    brow = Brow(
        y=eye.y + 0.235 + 0.085 * m.brows + 0.02 * i.brow_arch,
        half_length=half_eye * 1.25,
        thickness=0.022 + 0.034 * i.brow_thickness,
        arch=0.03 + 0.09 * i.brow_arch + 0.05 * m.brows.clamp(min=0),
        slope=-0.012 - 0.075 * m.brows.clamp(max=0) - 0.03 * m.brows.clamp(min=0),
    )
    mouth = Mouth(
        y=-0.50 - 0.08 * i.mouth_height - 0.07 * (i.face_height - 0.5),
        half_width=(0.235 + 0.085 * i.mouth_width) * (1 + 0.32 * m.smile.clamp(min=0) - 0.16 * m.mouth_open),
        corners=0.15 * m.smile,
        gap=0.36 * m.mouth_open,
        lip=0.05 + 0.055 * i.lip_thickness,
    )
    nose = Nose(
        y=-0.22 - 0.10 * i.nose_length, half_width=0.095 + 0.06 * i.nose_width, length=0.34 + 0.10 * i.nose_length
    )
    return Face(skull, eye, brow, mouth, nose, 0.15 + 0.08 * i.ear_size)
