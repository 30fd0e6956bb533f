"""Where the face of a video is cut out, frame by frame: a square that never trembles. This module needs no torch."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import cv2
import numpy as np

from sfdkit.errors import DataError, SfdkitWarning
from sfdkit.media.box import Box
from sfdkit.media.crop import CropRule, Place, Refusal
from sfdkit.media.detect import Face
from sfdkit.media.shots import FaceTrack, Shot

Follow: TypeAlias = Literal["shot", "head"]
"""``shot``: one square for each shot, which holds the face all the time. ``head``: a square of one size and turn that
goes smoothly with the head."""

_SMOOTH = 10.0  # frames: standard deviation of the weights with which the middle of a square is smoothed


@dataclass(frozen=True)
class ShotFraming:
    """The square of one face in one shot."""

    first: int
    stop: int
    place: Place
    """Its size and turn, and where it is if it keeps still."""
    middles: np.ndarray | None
    """Frames 2: its middle, x and y in pixels; None where it keeps still."""
    gone: tuple[tuple[int, int], ...]
    """First frames without the face, and the frames after the last ones."""

    def at(self, frame: int) -> Place | None:
        """Return the square in a frame of the shot, by its number in the video; None where the face is gone."""
        if any(first <= frame < stop for first, stop in self.gone):
            return None
        if self.middles is None:
            return self.place
        (x, y), half = self.middles[frame - self.first], (self.place.box.x1 - self.place.box.x0) / 2
        return self.place._replace(box=Box(float(x - half), float(y - half), float(x + half), float(y + half)))


@dataclass(frozen=True)
class Framing:
    """The square of one face through a video."""

    shots: tuple[ShotFraming, ...]
    """Those that show it."""

    def at(self, frame: int) -> Place | None:
        """Return the square in a frame, by its number; None where there is no face."""
        shot = next((shot for shot in self.shots if shot.first <= frame < shot.stop), None)
        return None if shot is None else shot.at(frame)

    @property
    def side(self) -> float:
        """Pixels of the largest square's side."""
        return max(shot.place.box.x1 - shot.place.box.x0 for shot in self.shots)

    @property
    def first(self) -> int:
        """The first frame with the face."""
        return next(n for shot in self.shots for n in range(shot.first, shot.stop) if shot.at(n) is not None)


def frame_shots(
    shots: Sequence[Shot], tracks: Sequence[FaceTrack | None], rule: CropRule, how: Follow = "shot"
) -> Framing:
    """Return the square of one face through a video.

    Args:
        shots: Of the video.
        tracks: The face in each of them; None where it is not seen.
        rule: How faces are cut out.
        how: Whether the square keeps still or follows.

    Raises:
        DataError: It is in no shot, or cannot be cut in one that shows it.
    """
    framed = tuple(
        _frame_shot(shot, track, rule, how) for shot, track in zip(shots, tracks, strict=True) if track is not None
    )
    if not framed:
        raise DataError("no face was found")
    return Framing(framed)


def still_framing(place: Place) -> Framing:
    """Return one square for all frames."""
    return Framing((ShotFraming(0, sys.maxsize, place, None, ()),))


def _frame_shot(shot: Shot, track: FaceTrack, rule: CropRule, how: Follow) -> ShotFraming:
    faces = list(track.faces.values())
    gone = tuple(shot.gone(track))
    if how == "shot":
        return ShotFraming(shot.first, shot.stop, _place(faces, shot, rule), None, gone)
    singles = {n: rule.place([face], shot.width, shot.height) for n, face in track.faces.items()}
    placed = {n: place for n, place in singles.items() if isinstance(place, Place)}
    each = list(placed.values()) or [_place(faces, shot, rule)]
    side = float(np.median([place.box.x1 - place.box.x0 for place in each]))
    turn = float(np.median([place.turn for place in each]))
    found = np.array([[(p.box.x0 + p.box.x1) / 2, (p.box.y0 + p.box.y1) / 2] for p in each])
    numbers = np.arange(shot.first, shot.stop)
    middles = np.stack([np.interp(numbers, list(placed) or [shot.first], found[:, k]) for k in (0, 1)], 1)
    middles = cv2.GaussianBlur(middles, (1, 0), sigmaX=1e-6, sigmaY=_SMOOTH, borderType=cv2.BORDER_REPLICATE)
    return ShotFraming(shot.first, shot.stop, Place(Box(0.0, 0.0, side, side), turn), middles, gone)


def _place(faces: Sequence[Face], shot: Shot, rule: CropRule) -> Place:
    place = rule.place(faces, shot.width, shot.height)
    if isinstance(place, Refusal):
        raise DataError(place.detail)
    return place


def tell_gone(framing: Framing, frames: int, fps: float, name: str, then: str) -> None:
    """Warn where a video does not show its face.

    Args:
        framing: Of the face.
        frames: Of the video.
        fps: Frames per second.
        name: What the video is, and whose.
        then: What is done there.
    """
    spans, last = list[tuple[int, int]](), 0
    for shot in framing.shots:
        spans += [(last, shot.first), *shot.gone]
        last = shot.stop
    spans = [(first, stop) for first, stop in [*spans, (last, frames)] if stop > first]
    if spans:
        times = ", ".join(f"{first / fps:.2f} to {stop / fps:.2f} s" for first, stop in spans)
        warnings.warn(f"{name} shows no face from {times}: {then}", SfdkitWarning, stacklevel=2)
