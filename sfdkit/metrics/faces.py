"""Distances between what a network read in two sets of faces: landmarks, pose, expression, identity.

Legend: ``F`` pictures. A reading that failed is NaN, and so is every distance from it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from sfdkit.measure.types import Measured

POSE = ("yaw", "pitch", "roll")
"""Names of the columns of :attr:`~sfdkit.measure.types.Measured.pose`."""


def landmark_error(one: Tensor, other: Tensor) -> Tensor:
    """Return the mean absolute error per coordinate, in pixels of the pictures.

    This is the average keypoint distance (AKD) as the code of the First Order Motion Model computes it,
    https://github.com/AliaksandrSiarohin/pose-evaluation, on the points and at the size of the pictures at hand: other
    sets of points and other sizes do not compare.

    Args:
        one: F L 2.
        other: F L 2.

    Returns:
        F values.
    """
    return (one - other).abs().mean(dim=(1, 2))


def pose_errors(one: Tensor, other: Tensor) -> dict[str, Tensor]:
    """Return absolute errors in degrees.

    Args:
        one: F 3, degrees.
        other: F 3, degrees.

    Returns:
        ``pose_error``, the mean over yaw, pitch and roll, and ``yaw_error``, ``pitch_error``, ``roll_error``; F values
        each.
    """
    errors = ((one - other + 180.0) % 360.0 - 180.0).abs()
    return {"pose_error": errors.mean(1), **{f"{name}_error": errors[:, k] for k, name in enumerate(POSE)}}


def expression_errors(one: Tensor, other: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
    """Return absolute errors of expression values.

    Args:
        one: F E.
        other: F E.
        names: E names.

    Returns:
        ``expression_error``, the mean over all of them, and ``<name>_error`` for each; F values each.
    """
    errors = (one - other).abs()
    return {"expression_error": errors.mean(1), **{f"{name}_error": errors[:, k] for k, name in enumerate(names)}}


def reading_errors(one: Measured, other: Measured, names: Sequence[str]) -> dict[str, Tensor]:
    """Return all errors of what was read in both; F values each.

    Args:
        one: Of F pictures.
        other: Of the F pictures that are the answer.
        names: Of the expression values.
    """
    errors: dict[str, Tensor] = {}
    if one.landmarks is not None and other.landmarks is not None:
        errors["landmark_error"] = landmark_error(one.landmarks, other.landmarks)
    if one.pose is not None and other.pose is not None:
        errors |= pose_errors(one.pose, other.pose)
    if one.expression is not None and other.expression is not None:
        errors |= expression_errors(one.expression, other.expression, names)
    return errors


def reading_columns(measured: Measured, names: Sequence[str]) -> dict[str, Tensor]:
    """Return pose and expression as named columns of F values each.

    Args:
        measured: Of F pictures.
        names: Of the expression values.
    """
    columns: dict[str, Tensor] = {}
    if measured.pose is not None:
        columns |= dict(zip(POSE, measured.pose.unbind(1), strict=True))
    if measured.expression is not None:
        columns |= dict(zip(names, measured.expression.unbind(1), strict=True))
    return columns


def csim(one: Tensor, other: Tensor) -> Tensor:
    """Return the cosine similarity of embeddings, F Z each; F values, 1 for the same direction."""
    return functional.cosine_similarity(one, other, dim=1)


def correlation(one: Tensor, other: Tensor) -> float | None:
    """Return Pearson's correlation of F values with F values of a reference; pairs with a NaN are left out.

    Args:
        one: F values; where they do not vary they follow nothing, and the result is 0.
        other: F values of the reference.

    Returns:
        -1 to 1; None where the reference does not vary.
    """
    both = torch.isfinite(one) & torch.isfinite(other)
    a, b = one[both].double(), other[both].double()
    if len(a) < 2:
        return None
    a, b = a - a.mean(), b - b.mean()
    spread_a, spread_b = float(a.square().sum()), float(b.square().sum())
    if spread_b <= 1e-12 * len(b):
        return None
    if spread_a <= 1e-12 * len(a):
        return 0.0
    return max(-1.0, min(1.0, float((a * b).sum()) / math.sqrt(spread_a * spread_b)))
