"""What is packed: sources of clips, which are videos, folders of pictures, or puppets.

A source is a small picklable object whose ``clips`` method yields finished clips, so that sources can be worked on in
parallel processes. This file imports little, so that a new process is quick to start.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from sfdkit.data.pack.face_points import PointRule
from sfdkit.data.shards.format import ClipMeta
from sfdkit.media.crop import CropRule


class CutClip(NamedTuple):
    """One finished clip."""

    frames: list[np.ndarray]
    """T pictures, each R R 3 uint8 RGB."""
    meta: ClipMeta


class Skip(NamedTuple):
    """Something that was left out."""

    file: str
    """Its path below the searched folder."""
    reason: str
    """``unreadable``, ``damaged``, ``short``, ``no face``, ``too small``, ``at the border``, ``size changes``,
    ``missing``, ``twice``, ``not described``, ``not in the manifest``, ``in the test split`` or ``no video``."""
    detail: str


class ClipSource(Protocol):
    """What can be packed."""

    @property
    def name(self) -> str:
        """What progress and messages call it."""

    def clips(self, skip: Callable[[Skip], None]) -> Iterator[CutClip]:
        """Yield the clips and report what is left out."""


@dataclass(frozen=True)
class ClipSettings:
    """How videos become clips."""

    resolution: int
    """R, pixels of a side."""
    rule: CropRule
    frames_per_clip: int
    min_frames: int
    """A clip with fewer frames is left out."""
    fps: float
    """At most so many frames per second of a video are kept; the rate of a folder of pictures."""
    points: PointRule | None = None
    """How points of the face are read; None where none are wanted."""

    def as_json(self) -> dict[str, Any]:
        """Return all that clips depend on, as json values; of the networks that read points what they hold."""
        values = asdict(self)
        del values["points"]
        return values if self.points is None else values | self.points.as_json()

    @property
    def every(self) -> int:
        """A face is detected in every n-th frame; n is at most ``min_frames``, so that every clip has such a frame."""
        return min(self.rule.face.every, self.min_frames)
