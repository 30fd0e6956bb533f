"""Named points of the face in the frames of a clip, read by networks in local files.

They are read in the clip's crop before it is scaled to the size of the shards, so that small crops have exact points
too, and followed from frame to frame. The networks are opened once in each process, when the first clip needs them:
this file imports little, so that a new process is quick to start.

Legend: ``L`` points of a set, ``R`` pixels of a side of the stored crop.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from jsonargparse.typing import PositiveInt

from sfdkit.data.shards.format import ClipPoints
from sfdkit.errors import ConfigError
from sfdkit.media.crop import Place, crop_resize

Reader = Callable[[np.ndarray, Any], tuple[np.ndarray | None, Any]]
"""Takes a picture H W 3 uint8 RGB, and what it gave beside the points of the last one; returns points L 2 in pixels, None
where there is no face, and what the next one wants."""
LARGEST_SIDE = 512
"""Pixels of a side of a crop at which points are read at most."""
_GAP = 0.2
"""Seconds over which points are interpolated at most."""
_SLACK = 1e-3


@dataclass(frozen=True)
class PointSettings:
    """Named points of the face that are looked for in all frames and kept with the clips.

    Args:
        landmarks: Network of the landmarks of a face, for instance MediaPipe's as .onnx: gives the set face31.
        detector: ONNX file of YuNet, which finds the face; without landmarks it gives the set face5. By default no
            points are looked for.
        every: Read them in every n-th frame and interpolate between, over 0.2 seconds at most.
    """

    landmarks: str | None = None
    detector: str | None = None
    every: PositiveInt = 1

    def rule(self) -> PointRule | None:
        """Return how points are read; None where none are looked for.

        Raises:
            ConfigError: A file is not named, missing, or not the network that it should be.
        """
        if self.detector is None:
            if self != PointSettings():
                raise ConfigError(
                    "--points.* needs --points.detector: give the ONNX file of YuNet, which finds the face"
                )
            return None
        files = {"detector": self.detector} | ({"landmarks": self.landmarks} if self.landmarks else {})
        open_reader(self.landmarks, self.detector)
        landmarks = None if self.landmarks is None else str(Path(self.landmarks).absolute())
        networks = {name: _digest(Path(file)) for name, file in files.items()}
        return PointRule(landmarks, str(Path(self.detector).absolute()), int(self.every), networks)


@dataclass(frozen=True)
class PointRule:
    """How points are read."""

    landmarks: str | None
    detector: str
    every: int
    networks: dict[str, str]
    """SHA-256 of each file, with the YAML beside it where there is one."""

    @property
    def set(self) -> str:
        """Name of the set of points, see :mod:`sfdkit.points`."""
        return "face31" if self.landmarks else "face5"

    def as_json(self) -> dict[str, Any]:
        """Return all that points depend on, as json values."""
        return {"points": self.set, "points_by": {**self.networks, "every": self.every}}


def _digest(path: Path) -> str:
    digest = hashlib.sha256(path.read_bytes())
    beside = path.with_name(path.name + ".yaml")
    if beside.is_file():
        digest.update(beside.read_bytes())
    return digest.hexdigest()


@cache
def open_reader(landmarks: str | None, detector: str) -> Reader:
    """Return what reads the points of a picture, in one thread, so that the result is the same however it is called.

    Raises:
        ConfigError: A file is missing, or not the network that it should be.
    """
    from sfdkit.face_networks.landmarks import FaceLandmarks, FivePointReader, LandmarkReader
    from sfdkit.points import FACE31

    if landmarks is None:
        five = FivePointReader(detector)

        def read_five(image: np.ndarray, last: None) -> tuple[np.ndarray | None, None]:
            found = five.read(image)
            return None if found is None else found.points, None

        return read_five
    network = LandmarkReader(landmarks, detector, threads=1)
    if missing := [name for name in FACE31.names if name not in network.convention.face31]:
        raise ConfigError(
            f"--points.landmarks: it is not known which points of {landmarks} are {', '.join(missing[:3])} and others "
            f"of the set face31: name them under face31 in {Path(landmarks).name}.yaml beside it"
        )

    def read(image: np.ndarray, last: FaceLandmarks | None) -> tuple[np.ndarray | None, FaceLandmarks | None]:
        found = network.read(image, last)
        return None if found is None else network.face31(found.points), found

    return read


class PointTracker:
    """Follows the points of one face through the frames of a clip.

    Args:
        rule: How they are read.
        place: The crop of the clip.
        resolution: R.
    """

    def __init__(self, rule: PointRule, place: Place, resolution: int) -> None:
        self._rule, self._place, self._resolution = rule, place, resolution
        self._reader = open_reader(rule.landmarks, rule.detector)
        self._side = min(max(round(place.box.x1) - round(place.box.x0), 1), LARGEST_SIDE)
        self._times: list[float] = []
        self._read: dict[int, np.ndarray | None] = {}
        """By number of the frame: L 2 in pixels of the stored crop."""
        self._waiting: tuple[int, np.ndarray] | None = None
        """The last frame that was not read, cut."""
        self._last: Any = None

    def see(self, image: np.ndarray, time: float) -> None:
        """Take the next frame, H W 3 uint8 RGB, of a time in seconds."""
        number = len(self._times)
        self._times.append(time)
        frame = number, crop_resize(image, self._place, self._side)
        before = max(self._read, default=-self._rule.every)
        gap = time - self._times[before] if self._read else 0.0
        if number - before < self._rule.every and gap < _GAP - _SLACK:
            self._waiting = frame
            return
        if self._waiting and gap > _GAP + _SLACK:
            self._look(*self._waiting)
        self._look(*frame)

    def finish(self) -> ClipPoints:
        """Return the points of all frames."""
        if self._waiting:
            self._look(*self._waiting)
        found = dict(self._read)
        for before, after in pairwise(sorted(self._read)):
            one, other = self._read[before], self._read[after]
            for number in range(before + 1, after):
                share = (number - before) / (after - before)
                found[number] = None if one is None or other is None else one + share * (other - one)
        frames = [found[number] for number in range(len(self._times))]
        return ClipPoints(set=self._rule.set, frames=[None if p is None else p.round(2).tolist() for p in frames])

    def _look(self, number: int, region: np.ndarray) -> None:
        self._waiting = None
        points, self._last = self._reader(region, self._last)
        if points is not None and np.isfinite(points).all():
            self._read[number] = (points.astype(np.float64) + 0.5) * (self._resolution / self._side) - 0.5
        else:
            self._read[number] = None
