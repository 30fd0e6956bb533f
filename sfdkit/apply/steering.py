"""From a driver's motion coefficients to those that a source is rendered under: relative, by regions, smoothed.

This module needs no torch.

Legend: ``T`` or ``K`` frames, ``M`` motion coefficients, ``F`` factors of a face.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from sfdkit.apply.axes import Axes
from sfdkit.errors import ConfigError, did_you_mean

MotionMode: TypeAlias = Literal["absolute", "relative"]

REGIONS: dict[str, tuple[str, ...]] = {
    "pose": ("yaw", "pitch", "roll", "shift_x", "shift_y", "scale"),
    "eyes": ("blink", "gaze_x", "gaze_y"),
    "brows": ("brows",),
    "mouth": ("mouth_open", "smile"),
}
"""Part of a face to the factors that move it, as an evaluation names them."""

REST = "rest"
"""In strengths by region, all of the motion that they do not name."""
_STILL = 1e-6
"""A coefficient whose standard deviation is below this share of the largest one tells nothing of a factor."""


class OneEuroFilter:
    """Smooths coefficients over time: strongly while they are still, hardly while they move.

    An exponential filter whose cutoff rises with the filtered speed. Casiez et al. 2012,
    https://doi.org/10.1145/2207676.2208639.

    Args:
        rate: Frames per second.
        cutoff: Hz, of a coefficient that is still; lower is smoother, and later.
        beta: Hz by which the cutoff rises for one unit per second.
        speed_cutoff: Hz, of the speed.
    """

    def __init__(self, rate: float, cutoff: float = 1.5, beta: float = 0.5, speed_cutoff: float = 1.0) -> None:
        self.rate, self.cutoff, self.beta, self.speed_cutoff = rate, cutoff, beta, speed_cutoff
        self._value: np.ndarray | None = None
        self._speed: np.ndarray | None = None

    def __call__(self, motion: np.ndarray) -> np.ndarray:
        """Smooth the next K M coefficients."""
        return np.stack([self._next(row) for row in motion.astype(np.float64)]).astype(np.float32)

    def _next(self, row: np.ndarray) -> np.ndarray:
        if self._value is None or self._speed is None:
            self._value, self._speed = row, np.zeros_like(row)
            return row
        self._speed = self._speed + self._share(self.speed_cutoff) * ((row - self._value) * self.rate - self._speed)
        share = self._share(self.cutoff + self.beta * np.abs(self._speed))
        self._value = self._value + share * (row - self._value)
        return self._value

    def _share(self, cutoff: float | np.ndarray) -> float | np.ndarray:
        """Return the weight of a new value in an exponential filter of this cutoff."""
        return 1 / (1 + self.rate / (2 * math.pi * cutoff))


@dataclass(frozen=True)
class Steering:
    """How a driver's motion becomes that of a source.

    Args:
        mode: ``absolute`` takes the driver's coefficients, ``b(d_t)``; ``relative`` adds their change to the source's
            own, ``b(s) + b(d_t) - b(d_0)``.
        first: M: ``b(d_0)``; the first frame's by default.
        gain: M M, applied to the difference from the source's own coefficients, see :func:`make_gain`.
        smoothing: Makes the filter of the driver's coefficients.
    """

    mode: MotionMode = "absolute"
    first: np.ndarray | None = None
    gain: np.ndarray | None = None
    smoothing: Callable[[], OneEuroFilter] | None = None


class Steered:
    """Steers one face: :meth:`follow` takes one batch of the driver's coefficients after the other.

    Args:
        how: What to do.
    """

    def __init__(self, how: Steering) -> None:
        self.how, self.first = how, how.first
        self._smooth = None if how.smoothing is None else how.smoothing()

    def follow(self, motion: np.ndarray) -> np.ndarray:
        """Take the driver's next coefficients, K M, and return them smoothed."""
        motion = motion if self._smooth is None else self._smooth(motion)
        self.first = motion[0] if self.first is None else self.first
        return motion

    def __call__(self, motion: np.ndarray, own: np.ndarray) -> np.ndarray:
        """Map the driver's coefficients, K M as :meth:`follow` gave them, to those of the source, K M.

        Args:
            motion: K M, of the driver.
            own: M or K M: the source's own.
        """
        if self.how.mode == "relative":
            assert self.first is not None
            motion = own + motion - self.first
        if self.how.gain is not None:
            motion = own + (motion - own) @ self.how.gain.T
        return motion.astype(np.float32)


def make_gain(
    axes: Axes | None, size: int, regions: Sequence[str] | None, strength: float | Mapping[str, float]
) -> np.ndarray | None:
    """Return the matrix by which a difference of motion coefficients is taken over.

    Coefficients are split into what the model's named directions explain, by least squares in standard deviations, and
    a rest. With ``regions`` only their directions move; without, all does, and each region by its strength.

    Args:
        axes: The model's directions; None where there are none.
        size: ``M``.
        regions: Names of :data:`REGIONS`; None for all of the motion.
        strength: A factor on all that moves, or one for each region; :data:`REST` stands for what is not named, by
            default 1.

    Returns:
        M M, or None where nothing changes.

    Raises:
        ConfigError: There is no such region, none at all, or the model names no direction of it; a strength that is not
            finite, or of a region that does not move.
    """
    each = dict(strength) if isinstance(strength, Mapping) else {REST: float(strength)}
    whole = each.pop(REST, 1.0)
    if regions is not None and not regions:
        raise ConfigError("regions: the list is empty, so nothing would move; leave it out for all of the motion")
    for name, factor in (("", whole), *each.items()):
        if not np.isfinite(factor):
            of = f" of {name}" if name else ""
            raise ConfigError(f"strength: {factor:g}{of} is no factor; give a number such as 1.2")
    for key, names in (("regions", regions or ()), ("strength", each)):
        for name in names:
            if name not in REGIONS:
                raise ConfigError(
                    f"{key}: there is no region {name!r}.{did_you_mean(name, REGIONS)} "
                    f"The regions are {', '.join(REGIONS)}"
                    + (f"; {REST} stands for all that is not named" if key == "strength" else "")
                )
    for name in each:
        if regions is not None and name not in regions:
            raise ConfigError(f"strength: {name} does not move, as regions leaves it out; name it there, or not here")
    if regions is None and not each:
        return None if whole == 1.0 else whole * np.eye(size)
    split = _split(axes, size, set(each if regions is None else regions))
    if regions is None:
        return whole * np.eye(size) + sum((factor - whole) * split[name] for name, factor in each.items())
    return sum((each.get(name, whole) * split[name] for name in regions), np.zeros((size, size)))


def _split(axes: Axes | None, size: int, wanted: set[str]) -> dict[str, np.ndarray]:
    """Return for each region the matrix, M M, that keeps its part of a difference of coefficients."""
    directions = {} if axes is None else axes.motion.directions
    for name in sorted(wanted):
        if not any(factor in directions for factor in REGIONS[name]):
            have = f"its axes name {', '.join(directions)}" if directions else "it has no named axes"
            raise ConfigError(
                f"region {name} is moved by {' and '.join(REGIONS[name])}, and {have}; sfdkit evaluate on puppets "
                "writes an axes.json that does: give it as --axes FILE"
            )
    assert axes is not None
    std = axes.motion.std.astype(np.float64)
    weight = np.where(std > _STILL * std.max(), 1 / np.maximum(std, _STILL * std.max()), 0.0)
    names = [factor for factors in REGIONS.values() for factor in factors if factor in directions]
    columns = np.stack([directions[name].vector for name in names], 1).astype(np.float64)
    read = np.linalg.pinv(columns * weight[:, None]) * weight
    parts = {}
    for region, factors in REGIONS.items():
        chosen = [names.index(factor) for factor in factors if factor in names]
        parts[region] = columns[:, chosen] @ read[chosen]
    return parts


def nearest_frame(motion: np.ndarray, own: np.ndarray, axes: Axes | None) -> int:
    """Return the driving frame whose pose is nearest to the source's.

    Poses are compared along the named directions of the pose where the model has them, in their standard deviations,
    else all coefficients as they are.

    Args:
        motion: T M, of the driver.
        own: M, of the source.
        axes: The model's directions.
    """
    difference = motion - own
    if axes is not None and any(name in axes.motion.directions for name in REGIONS["pose"]):
        difference = difference @ _split(axes, len(own), {"pose"})["pose"].T
        std = axes.motion.std
        difference = difference / np.where(std > _STILL * std.max(), std, np.inf)
    return int(np.square(difference).sum(1).argmin())
