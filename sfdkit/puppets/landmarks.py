"""The landmarks of a puppet's face in the picture.

Legend: ``B`` pictures, ``L`` landmarks. "Left" and "right" are those of the picture when the head is not turned.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sfdkit.points import FACE31
from sfdkit.puppets.face import Face
from sfdkit.puppets.geometry import MIDDLE, ZOOM, Pose, Triple, project

LANDMARKS = FACE31.names
"""Order of the points in :attr:`sfdkit.puppets.render.Rendered.landmarks`; hidden points are given as well."""


def _eye_points(face: Face, sign: float) -> list[Triple]:
    eye, brow = face.eye, face.brow
    zero = torch.zeros_like(eye.x)
    _, upper, lower = eye.lids(zero)
    flat = [
        (eye.half_width, eye.tilt * eye.half_width + eye.y),
        (-eye.half_width, -eye.tilt * eye.half_width + eye.y),
        (zero, upper + eye.y),
        (zero, lower + eye.y),
        (sign * eye.gaze_x, eye.gaze_y + eye.y),
    ]
    for k in (0.9, 0.1, -0.9):
        flat.append((brow.half_length * k + 0.02, brow.middle(brow.half_length * k)))
    places = [(sign * (eye.x + outward), y) for outward, y in flat]
    return [(x, y, face.skull.surface(x, y)) for x, y in places]


def _middle_points(face: Face) -> list[Triple]:
    nose, mouth, skull = face.nose, face.mouth, face.skull
    zero = torch.zeros_like(nose.y)
    curves = mouth.curves(zero)
    corner = mouth.y + mouth.corners * 0.65
    flat = [
        (-nose.half_width, nose.y),
        (nose.half_width, nose.y),
        (-mouth.half_width, corner),
        (mouth.half_width, corner),
    ]
    flat += [(zero, y) for y in curves]
    points = [(x, y, skull.surface(x, y)) for x, y in flat]
    bridge, tip = nose_points(face)
    return [bridge, tip, *points]


def nose_points(face: Face) -> tuple[Triple, Triple]:
    """Return the root and the tip of the nose in head coordinates."""
    zero = torch.zeros_like(face.nose.y)
    root = face.eye.y + 0.02
    tip_z = face.skull.surface(zero, face.nose.y) + 0.18
    return (zero, root, face.skull.surface(zero, root) + 0.03), (zero, face.nose.y, tip_z)


def _jaw_points(face: Face) -> list[Triple]:
    skull = face.skull
    heights = (-0.30 * skull.bottom, -0.74 * skull.bottom)
    points: list[Triple] = [(-skull.half_width(y), y, skull.centre_z) for y in heights]
    points.append((torch.zeros_like(skull.bottom), -0.97 * skull.bottom, skull.centre_z + 0.2 * skull.depth))
    points += [(skull.half_width(y), y, skull.centre_z) for y in reversed(heights)]
    return points


def find_landmarks(pose: Pose, face: Face, resolution: int) -> Tensor:
    """Return the landmarks B L 2 in pixels: x to the right, y down, whole numbers at the middle of pixels."""
    points = [*_eye_points(face, -1.0), *_eye_points(face, 1.0), *_middle_points(face), *_jaw_points(face)]
    placed = [project(pose, point) for point in points]
    x = torch.cat([place[0].reshape(-1, 1) for place in placed], dim=1)
    y = torch.cat([place[1].reshape(-1, 1) for place in placed], dim=1)
    x, y = ZOOM * x, ZOOM * (y - MIDDLE)
    return torch.stack([(x + 1) * resolution / 2 - 0.5, (1 - y) * resolution / 2 - 0.5], dim=2)
