"""Finding the faces of a video: where scenes are cut, and which finds are one face. This module needs no torch.

Example:
    >>> shots = find_shots(frames, 25.0, CropRule(), several=True)    # doctest: +SKIP
    >>> [len(shot.tracks) for shot in shots]                    # faces of each shot    # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import cv2
import numpy as np

from sfdkit.media.box import Box, between, same_head
from sfdkit.media.crop import CropRule
from sfdkit.media.detect import Face, FaceWatcher, open_detector

GONE = 1.0
"""Seconds without a find after which a face is taken to be gone: a detector misses some frames."""

_APART, _APART_FIRST, _BEGIN = 0.32, 0.08, 0.64  # seconds from look to look; at the begin of a shot, which may be short
_GRID = 24  # pixels of the small pictures that are compared
_CUT = 0.06, 0.2  # least mean change of a small picture, of 1, and least share of its pixels whose colour has gone
_SHORTEST = 3  # frames of a shot: what differs for less is a flash
_SUPPORT = 1 / 3  # share of the looks, from its first to its last find, in which a track must be found
_BRIEF, _SURE = 1 / 3, 0.9  # a track of a smaller share of its shot needs this share of the best one's score


class CutFinder:
    """Tells where a video is cut: pixels have changed, and so have the colours, which stay when things only move."""

    def __init__(self) -> None:
        self._last: tuple[np.ndarray, np.ndarray] | None = None

    def __call__(self, picture: np.ndarray) -> bool:
        """Tell whether a new scene begins with the next picture, H W 3 uint8."""
        small = cv2.resize(picture, (_GRID, _GRID), interpolation=cv2.INTER_AREA)
        colours = np.bincount((small // 64).reshape(-1, 3) @ np.array([16, 4, 1]), minlength=64) / _GRID**2
        last, self._last = self._last, (small.astype(np.float32) / 255, colours)
        if last is None:
            return False
        change = float(np.abs(self._last[0] - last[0]).mean()), float(np.abs(colours - last[1]).sum() / 2)
        return change[0] > _CUT[0] and change[1] > _CUT[1]


@dataclass
class FaceTrack:
    """One face of a shot."""

    faces: dict[int, Face] = field(default_factory=dict)
    """Frame number to what was found there."""

    @property
    def box(self) -> Box:
        """The last find."""
        return next(reversed(self.faces.values())).box

    @property
    def start(self) -> int:
        """The first frame in which it was found."""
        return next(iter(self.faces))

    @property
    def stop(self) -> int:
        """The frame after the last one in which it was found."""
        return next(reversed(self.faces)) + 1

    @property
    def size(self) -> float:
        """Its median width in pixels."""
        return float(np.median([face.box.x1 - face.box.x0 for face in self.faces.values()]))

    @property
    def score(self) -> float:
        """Its median confidence."""
        return float(np.median([face.score for face in self.faces.values()]))

    @property
    def left(self) -> float:
        """The left of where it is first, in pixels."""
        return next(iter(self.faces.values())).box.x0


@dataclass
class Shot:
    """Frames between two cuts."""

    first: int
    """Number of its first frame."""
    stop: int
    """Number after that of its last frame."""
    width: int
    """Pixels of its frames."""
    height: int
    """Pixels of its frames."""
    looks: list[int] = field(default_factory=list)
    """Numbers of the frames in which faces were looked for."""
    tracks: list[FaceTrack] = field(default_factory=list)
    """Its faces, from the left to the right."""

    def gone(self, track: FaceTrack, patience: int) -> list[tuple[int, int]]:
        """Return where a face is gone for ``patience`` frames: first frames, and those after the last ones."""
        found = list(track.faces)
        starts, stops = [self.first, *(number + 1 for number in found)], [*found, self.stop]
        return [(start, stop) for start, stop in zip(starts, stops, strict=True) if stop - start >= patience]

    def main_tracks(self) -> list[FaceTrack]:
        """Return the face that is largest and seen for long, and those that are seen where it is not, in order."""
        chosen = list[FaceTrack]()
        for track in sorted(self.tracks, key=lambda track: -track.size * len(track.faces)):
            if all(track.stop <= other.start or other.stop <= track.start for other in chosen):
                chosen.append(track)
        return sorted(chosen, key=lambda track: track.start)

    def part(self, first: int, stop: int) -> Shot:
        """Return a part of the shot."""
        return Shot(first, stop, self.width, self.height)


def find_shots(frames: Iterable[np.ndarray], fps: float, rule: CropRule, several: bool = False) -> list[Shot]:
    """Find shots and faces of a video; one frame is in memory at a time.

    Args:
        frames: H W 3 uint8 each, all of one size.
        fps: Frames per second.
        rule: How faces are cut out: what detects them.
        several: Look for all faces; else for the main one, which is faster.

    Returns:
        The shots, in order; none where there is no frame.

    Raises:
        ConfigError: The detector cannot be had.
    """
    is_cut, shots, look = CutFinder(), list[Shot](), _open_look(rule, several)
    apart, first = (max(1, round(seconds * fps)) for seconds in (_APART, _APART_FIRST))
    for number, picture in enumerate(frames):
        cut = is_cut(picture) and number - shots[-1].first >= _SHORTEST
        if cut or not shots:
            shots.append(Shot(number, number, picture.shape[1], picture.shape[0]))
            look = _open_look(rule, several)
        shot = shots[-1]
        shot.stop = number + 1
        since = number - shot.first
        if since % (first if since < _BEGIN * fps else apart) == 0:
            shot.looks.append(number)
            _assign(shot.tracks, number, look(picture))
    for shot in shots:
        shot.tracks = sorted(_sure(shot), key=lambda track: track.left)
    return shots


def _open_look(rule: CropRule, several: bool) -> Callable[[np.ndarray], list[Face]]:
    if several:
        return open_detector(rule.face.detector, eyes=rule.method == "aligned")
    watch: FaceWatcher = rule.watcher()

    def look(picture: np.ndarray) -> list[Face]:
        face = watch(picture)
        return [] if face is None else [face]

    return look


def _assign(tracks: list[FaceTrack], number: int, faces: list[Face]) -> None:
    """Give each find to the nearest track that can be the same head, or begin a new one."""
    pairs = sorted(
        (between(track.box, face.box), t, f)
        for t, track in enumerate(tracks)
        for f, face in enumerate(faces)
        if same_head(track.box, face.box)
    )
    known, given = set[int](), set[int]()
    for _, t, f in pairs:
        if t not in known and f not in given:
            tracks[t].faces[number] = faces[f]
            known.add(t)
            given.add(f)
    tracks += [FaceTrack({number: face}) for f, face in enumerate(faces) if f not in given]


def _sure(shot: Shot) -> list[FaceTrack]:
    """Return the tracks that are faces, and not what a detector takes for one now and then, or for a moment."""

    def share(track: FaceTrack) -> float:
        return (track.stop - track.start) / (shot.stop - shot.first)

    often = []
    for track in shot.tracks:
        looked = sum(track.start <= look < track.stop for look in shot.looks)
        if len(track.faces) >= min(2, len(shot.looks)) and len(track.faces) >= _SUPPORT * looked:
            often.append(track)
    best = max(often, key=lambda track: track.size * len(track.faces), default=None)
    return [
        track
        for track in often
        if track is best or share(track) >= _BRIEF or (best is not None and track.score >= _SURE * best.score)
    ]
