"""Distances between what a network read in two sets of faces: landmarks, pose, expression, identity.

Legend: ``F`` pictures, ``L`` landmarks, ``E`` expression values, ``Z`` dimensions of an embedding. Landmarks are F L 2
in pixels, poses F 3 (yaw, pitch and roll in degrees), expressions F E, embeddings F Z. Each function returns F values;
a reading that failed is NaN, and so is every distance from it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from sfdkit.errors import ConfigError
from sfdkit.face_networks.types import Measured
from sfdkit.metrics.exact import exact

POINTS = 68
"""Landmarks of iBUG, from which openness is read."""

POSE = ("yaw", "pitch", "roll")
"""Names of the columns of :attr:`~sfdkit.face_networks.types.Measured.pose`."""


def landmark_error(one: Tensor, other: Tensor) -> Tensor:
    """Return the mean absolute error per coordinate, in pixels of the pictures.

    This is the average keypoint distance (AKD) as the code of the First Order Motion Model computes it,
    https://github.com/AliaksandrSiarohin/pose-evaluation, on the points and at the size of the pictures at hand: other
    sets of points and other sizes do not compare.
    """
    return (one - other).abs().mean(dim=(1, 2))


def normalised_mean_error(one: Tensor, other: Tensor, eye_distance: Tensor) -> Tensor:
    """Return the mean distance of landmarks as a share of the distance of the outer corners of the eyes (NME).

    Sagonas et al. 2016, https://doi.org/10.1016/j.imavis.2016.01.002 (300-W). ``eye_distance`` is that of ``other``, F.
    """
    return (one - other).norm(dim=2).mean(1) / eye_distance


def pose_errors(one: Tensor, other: Tensor) -> dict[str, Tensor]:
    """Return absolute errors of poses in degrees.

    ``pose_error`` is the mean over yaw, pitch and roll (APD); ``yaw_error``, ``pitch_error``, ``roll_error`` are each.
    """
    errors = ((one - other + 180.0) % 360.0 - 180.0).abs()
    return {"pose_error": errors.mean(1), **{f"{name}_error": errors[:, k] for k, name in enumerate(POSE)}}


def expression_errors(one: Tensor, other: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
    """Return absolute errors of E named expression values.

    ``expression_error`` is the mean over all of them (what PIRenderer calls AED), ``<name>_error`` is each.
    """
    errors = (one - other).abs()
    return {"expression_error": errors.mean(1), **{f"{name}_error": errors[:, k] for k, name in enumerate(names)}}


def identity_distance(one: Tensor, other: Tensor) -> Tensor:
    """Return the squared Euclidean distance of embeddings.

    This is the average Euclidean distance (AED) of the First Order Motion Model, there of OpenFace embeddings.
    PIRenderer calls the distance of expressions by the same letters: see :func:`expression_errors`.
    """
    return (one - other).square().sum(1)


def rotation_distance(one: Tensor, other: Tensor) -> Tensor:
    """Return the angle of the rotation from one head pose to the other (ARD), 0 to 180 degrees, float64 on the CPU."""
    between = angles_to_rotation(one).transpose(1, 2) @ angles_to_rotation(other)
    sine = torch.stack([between[:, i, j] - between[:, j, i] for i, j in ((2, 1), (0, 2), (1, 0))], 1).norm(dim=1) / 2
    cosine = (between.diagonal(dim1=1, dim2=2).sum(1) - 1) / 2
    return torch.rad2deg(torch.atan2(sine, cosine))


def angles_to_rotation(angles: Tensor) -> Tensor:
    """Return the rotations ``Rz(roll) Ry(yaw) Rx(pitch)`` of poses: F 3 3 float64, on the CPU."""
    yaw, pitch, roll = torch.deg2rad(exact(angles)).unbind(1)
    zero, one = torch.zeros_like(yaw), torch.ones_like(yaw)

    def turn(*rows: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        return torch.stack([torch.stack(row, 1) for row in rows], 1)

    x = turn((one, zero, zero), (zero, pitch.cos(), -pitch.sin()), (zero, pitch.sin(), pitch.cos()))
    y = turn((yaw.cos(), zero, yaw.sin()), (zero, one, zero), (-yaw.sin(), zero, yaw.cos()))
    z = turn((roll.cos(), -roll.sin(), zero), (roll.sin(), roll.cos(), zero), (zero, zero, one))
    return z @ y @ x


_EYES = ((36, 37, 38, 39, 40, 41), (42, 43, 44, 45, 46, 47))
"""Rows of each eye in the 68 points of iBUG: outer corner, two above, inner corner, two below (or mirrored)."""
_LIPS = (60, 62, 64, 66)
"""Rows of the inner lips: corner, middle above, corner, middle below."""


def eye_openness(landmarks: Tensor) -> Tensor:
    """Return the eye aspect ratio, mean of both eyes, of 68 points; about 0.3 open and 0.05 shut.

    Height over width of each eye, Soukupova and Cech 2016,
    https://vision.fe.uni-lj.si/cvww2016/proceedings/papers/05.pdf.
    """
    _require_68(landmarks)
    ratios = []
    for a, b, c, d, e, f in _EYES:
        height = (landmarks[:, b] - landmarks[:, f]).norm(dim=1) + (landmarks[:, c] - landmarks[:, e]).norm(dim=1)
        ratios.append(height / (2 * (landmarks[:, a] - landmarks[:, d]).norm(dim=1)))
    return torch.stack(ratios).mean(0)


def mouth_openness(landmarks: Tensor) -> Tensor:
    """Return height over width of the inner lips of 68 points; 0 for a shut mouth."""
    _require_68(landmarks)
    left, top, right, bottom = _LIPS
    height = (landmarks[:, top] - landmarks[:, bottom]).norm(dim=1)
    return height / (landmarks[:, left] - landmarks[:, right]).norm(dim=1)


def _require_68(landmarks: Tensor) -> None:
    if landmarks.shape[1:] != (POINTS, 2):
        raise ConfigError(
            "openness of eyes and mouth is read from the 68 points of iBUG, F 68 2; these are "
            f"{tuple(landmarks.shape)}: take a landmark network that gives those"
        )


def reading_errors(one: Measured, other: Measured, names: Sequence[str]) -> dict[str, Tensor]:
    """Return all errors of what was read in F pictures and in the F pictures that they should be; E ``names``."""
    errors: dict[str, Tensor] = {}
    if one.landmarks is not None and other.landmarks is not None:
        errors["landmark_error"] = landmark_error(one.landmarks, other.landmarks)
        if other.eye_distance is not None:
            errors["nme"] = normalised_mean_error(one.landmarks, other.landmarks, other.eye_distance)
        if one.landmarks.shape[1] == POINTS:
            errors["eye_openness_error"] = (eye_openness(one.landmarks) - eye_openness(other.landmarks)).abs()
            errors["mouth_openness_error"] = (mouth_openness(one.landmarks) - mouth_openness(other.landmarks)).abs()
    if one.pose is not None and other.pose is not None:
        errors |= pose_errors(one.pose, other.pose)
        errors["rotation_error"] = rotation_distance(one.pose, other.pose).to(one.pose)
    if one.expression is not None and other.expression is not None:
        errors |= expression_errors(one.expression, other.expression, names)
    if one.blendshapes is not None and other.blendshapes is not None:
        errors["blendshape_error"] = (one.blendshapes - other.blendshapes).abs().mean(1)
    return errors


def reading_columns(measured: Measured, names: Sequence[str]) -> dict[str, Tensor]:
    """Return yaw, pitch, roll and the E expression values as named columns of F values each."""
    columns: dict[str, Tensor] = {}
    if measured.pose is not None:
        columns |= dict(zip(POSE, measured.pose.unbind(1), strict=True))
    if measured.expression is not None:
        columns |= dict(zip(names, measured.expression.unbind(1), strict=True))
    return columns


def csim(one: Tensor, other: Tensor) -> Tensor:
    """Return the cosine similarity of embeddings; 1 for the same direction."""
    return functional.cosine_similarity(one, other, dim=1)


def correlation(one: Tensor, other: Tensor) -> float | None:
    """Return Pearson's correlation of F values with F values of a reference, a single number; NaNs are left out.

    Values that do not vary follow nothing, and give 0; a reference that does not vary gives None.
    """
    both = (torch.isfinite(one) & torch.isfinite(other)).cpu()
    a, b = exact(one)[both], exact(other)[both]
    if len(a) < 2:
        return None
    a, b = a - a.mean(), b - b.mean()
    spread_a, spread_b = float(a.square().sum()), float(b.square().sum())
    if spread_b <= 1e-12 * len(b):
        return None
    if spread_a <= 1e-12 * len(a):
        return 0.0
    return max(-1.0, min(1.0, float((a * b).sum()) / math.sqrt(spread_a * spread_b)))
