"""Frames per second: what can be asked for, and what a video really has."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from jsonargparse.typing import restricted_number_type

from sfdkit.errors import ConfigError

FPS_RANGE = (0.1, 1000.0)
"""Frames per second that can be asked for."""

Fps: TypeAlias = restricted_number_type("Fps", float, [(">=", FPS_RANGE[0]), ("<=", FPS_RANGE[1])])  # type: ignore[valid-type]

_NEAR = 0.02  # share by which a declared rate may differ from that of the time stamps
_ROUND = 0.03  # share within which a measured rate becomes a usual one
_USUAL_RATES = (5, 10, 12, 12.5, 15, 20, 24000 / 1001, 24, 25, 30000 / 1001, 30, 48, 50, 60000 / 1001, 60, 90, 100, 120)
_ALIKE = 1.5  # factor within which distances between frames are averaged


def require_fps(fps: float) -> None:
    """Check a frame rate.

    Raises:
        ConfigError: It is out of :data:`FPS_RANGE`, or not a number.
    """
    least, most = FPS_RANGE
    if not least <= fps <= most:
        raise ConfigError(f"fps: {fps} frames per second cannot be shown; give {least:g} to {most:g}")


def true_fps(declared: float, stamps: list[float]) -> float:
    """Return the frames per second of a clip: the declared rate where the time stamps agree, else a measured one.

    Matroska and WebM need not declare a rate, and their time base of 1000 is then reported as one; a declared average
    may cover the first frames alone. The measured rate is that of the median distance between frames, rounded to a
    usual rate near it, since a camera's clock is more exact than the time stamps that a browser writes.

    Args:
        declared: Frames per second according to the file.
        stamps: Time stamps of the frames in seconds.
    """
    gaps = np.diff(np.unique(stamps))
    if len(gaps):
        median = float(np.median(gaps))
        near = gaps[(gaps < _ALIKE * median) & (gaps > median / _ALIKE)]
        rates = 1 / float(gaps.mean()), 1 / float(near.mean())
        if not any(abs(declared / rate - 1) <= _NEAR for rate in rates):
            usual = min(_USUAL_RATES, key=lambda rate: abs(rates[1] / rate - 1))
            declared = usual if abs(rates[1] / usual - 1) <= _ROUND else rates[1]
    return float(np.clip(declared, *FPS_RANGE))
