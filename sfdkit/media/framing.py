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
from sfdkit.media.shots import GONE, FaceTrack, Shot

Follow: TypeAlias = Literal["shot", "head"]
"""``shot``: one square for each shot, which holds the face all the time. ``head``: a square of one size and turn that
goes smoothly with the head."""

WANDERING = 1.5
"""Side of a still square, in those that the face alone needs, from which it is told that the square could follow."""

_SMOOTH = 0.4  # seconds: standard deviation of the weights with which the middle of a square is smoothed


@dataclass(frozen=True)
class ShotFraming:
    """The square of one face in one shot, or in a part of it."""

    first: int
    stop: int
    place: Place
    """Its size and turn, and where it is if it keeps still."""
    corners: np.ndarray | None = None
    """Frames 2: its left and top in whole pixels; None where it keeps still."""
    gone: tuple[tuple[int, int], ...] = ()
    """First frames without the face, and the frames after the last ones."""
    spread: float = 1.0
    """Its side, in those of the square that the face needs at one moment."""

    def at(self, frame: int) -> Place | None:
        """Return the square in a frame of the shot, by its number in the video; None where the face is gone."""
        if any(first <= frame < stop for first, stop in self.gone):
            return None
        if self.corners is None:
            return self.place
        left, top = (float(value) for value in self.corners[frame - self.first])
        side = self.place.box.x1 - self.place.box.x0
        return self.place._replace(box=Box(left, top, left + side, top + side))


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
    shots: Sequence[Shot], tracks: Sequence[Sequence[FaceTrack]], fps: float, rule: CropRule, how: Follow = "shot"
) -> Framing:
    """Return the square of one face through a video.

    Args:
        shots: Of the video.
        tracks: The face in each of them: in parts of a shot, where it leaves and returns elsewhere; none where it is
            not seen.
        fps: Frames per second.
        rule: How faces are cut out.
        how: Whether the square keeps still or follows.

    Raises:
        DataError: It is in no shot, or cannot be cut in one that shows it.
    """
    framed = []
    for shot, seen in zip(shots, tracks, strict=True):
        bounds = [shot.first, *(track.start for track in seen[1:]), shot.stop]
        for track, first, stop in zip(seen, bounds, bounds[1:], strict=False):
            framed.append(_frame_shot(shot.part(first, stop), track, fps, rule, how))
    if not framed:
        raise DataError("no face was found")
    return Framing(tuple(framed))


def still_framing(place: Place) -> Framing:
    """Return one square for all frames."""
    return Framing((ShotFraming(0, sys.maxsize, place),))


def _frame_shot(shot: Shot, track: FaceTrack, fps: float, rule: CropRule, how: Follow) -> ShotFraming:
    gone = tuple(shot.gone(track, round(GONE * fps)))
    singles = {n: rule.place([face], shot.width, shot.height) for n, face in track.faces.items()}
    placed = {n: place for n, place in singles.items() if isinstance(place, Place)}
    still = rule.place(list(track.faces.values()), shot.width, shot.height, one_head=True)
    if isinstance(still, Refusal):
        raise DataError(still.detail)
    each = list(placed.values()) or [still]
    side = round(float(np.median([place.box.x1 - place.box.x0 for place in each])))
    if how == "shot":
        return ShotFraming(shot.first, shot.stop, still, None, gone, (still.box.x1 - still.box.x0) / max(side, 1))
    turn = float(np.median([place.turn for place in each]))
    found = np.array([[(p.box.x0 + p.box.x1) / 2, (p.box.y0 + p.box.y1) / 2] for p in each])
    numbers = np.arange(shot.first, shot.stop)
    middles = np.stack([np.interp(numbers, list(placed) or [shot.first], found[:, k]) for k in (0, 1)], 1)
    middles = cv2.GaussianBlur(middles, (1, 0), sigmaX=1e-6, sigmaY=_SMOOTH * fps, borderType=cv2.BORDER_REPLICATE)
    corners = np.round(middles - side / 2)
    return ShotFraming(shot.first, shot.stop, Place(Box(0.0, 0.0, float(side), float(side)), turn), corners, gone)


def tell(framing: Framing, frames: int, fps: float, name: str, then: str) -> None:
    """Warn where a video does not show its face, and where the face moves far in a still square.

    Args:
        framing: Of the face.
        frames: Of the video.
        fps: Frames per second.
        name: What the video is, and whose.
        then: What is done where the face is gone.
    """
    spans, last = list[tuple[int, int]](), 0
    for shot in framing.shots:
        spans += [(last, shot.first), *shot.gone]
        last = shot.stop
    spans = [(first, stop) for first, stop in [*spans, (last, frames)] if stop - first >= GONE * fps]
    if spans:
        times = ", ".join(f"{first / fps:.2f} to {stop / fps:.2f} s" for first, stop in spans)
        warnings.warn(f"{name} shows no face from {times}: {then}", SfdkitWarning, stacklevel=2)
    far = max(shot.spread for shot in framing.shots)
    if far >= WANDERING:
        warnings.warn(
            f"the face of {name} moves far: its square is {far:.1f} times as large as it needs to be at one moment; "
            "--follow head goes with it",
            SfdkitWarning,
            stacklevel=2,
        )
