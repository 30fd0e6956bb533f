"""A difference of feature maps that counts alike at all depths of a network."""

from __future__ import annotations

from torch import Tensor

LEAST = 1e-3
"""Floor of the mean feature that a difference is divided by."""


def relative_difference(found: Tensor, wanted: Tensor) -> Tensor:
    """Return the mean absolute difference of two feature maps, in float32, over the mean size of what is wanted."""
    found, wanted = found.float(), wanted.float()
    return (found - wanted).abs().mean() / wanted.abs().mean().clamp(min=LEAST)
