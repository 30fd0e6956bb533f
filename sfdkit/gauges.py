"""Opens what measures pictures besides the distances of pixels."""

from __future__ import annotations

from typing import NamedTuple

from sfdkit.measure.types import MeasureSettings
from sfdkit.reenact import Gauges

READ = ("landmarks", "pose", "expression", "identity")
"""What a network can read in a face."""


class Opened(NamedTuple):
    """What measures, and what its figures should be read with."""

    gauges: Gauges
    about: dict[str, float | int | str | None]
    """Keys of metrics.json."""
    missing: dict[str, str]
    """What cannot be measured, and how to get it."""


def open_gauges(settings: MeasureSettings, resolution: int, puppets: bool) -> Opened:
    """Open the networks that a user named.

    Args:
        settings: Which.
        resolution: Pixels of the pictures.
        puppets: Whether the faces are puppets.
    """
    return Opened(Gauges(), {}, dict.fromkeys(READ, "no network"))
