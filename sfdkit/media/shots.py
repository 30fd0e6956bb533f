"""Finding the faces of a video: where scenes are cut, and which finds are one face. This module needs no torch.

Example:
    >>> shots = find_shots(frames, CropRule(), several=True)    # doctest: +SKIP
    >>> [len(shot.tracks) for shot in shots]                    # faces of each shot    # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import cv2
import numpy as np

from sfdkit.errors import DataError
from sfdkit.media.box import Box, between, same_head
from sfdkit.media.crop import CropRule
from sfdkit.media.detect import Face, FaceWatcher, open_detector

EVERY = 8
"""Frames from one look for faces to the next."""
PATIENCE = 24
"""Frames without a find after which a face is taken to be gone: a detector misses some."""

_OFTEN, _BEGIN = 2, 16  # at the begin of a shot, which may be short, every second frame is looked at
_GRID = 24  # pixels of the small pictures that are compared
_CUT = 0.08  # mean change of a small picture, of 1, that can be a cut ...
_SUDDEN = 3.0  # ... where it is so many times that of the frames before
_SUPPORT = 1 / 3  # share of the looks, from its first to its last find, in which a track must be found


class CutFinder:
    """Tells where a video is cut: a frame that differs from the last one far more than those before did."""

    def __init__(self) -> None:
        self._last: np.ndarray | None = None
        self._usual = 0.0

    def __call__(self, picture: np.ndarray) -> bool:
        """Tell whether a new scene begins with the next picture, H W 3 uint8."""
        small = cv2.resize(picture, (_GRID, _GRID), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
        last, self._last = self._last, small
        if last is None:
            return False
        change = float(np.abs(small - last).mean())
        cut = change > _CUT and change > _SUDDEN * self._usual
        if not cut:
            self._usual += 0.3 * (change - self._usual)
        return cut


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
    def size(self) -> float:
        """Its median width in pixels."""
        return float(np.median([face.box.x1 - face.box.x0 for face in self.faces.values()]))

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

    def gone(self, track: FaceTrack | None) -> list[tuple[int, int]]:
        """Return where a face is gone for more than a moment: first frames, and those after the last ones."""
        if track is None:
            return [(self.first, self.stop)]
        found = [look for look in self.looks if look in track.faces]
        spans = []
        for before, after in zip([None, *found], [*found, None], strict=True):
            start = self.first if before is None else before + 1
            stop = self.stop if after is None else after
            if stop - start >= PATIENCE:
                spans.append((start, stop))
        return spans

    def largest(self) -> FaceTrack | None:
        """Return the face that is largest, and seen for long."""
        return max(self.tracks, key=lambda track: track.size * len(track.faces), default=None)


def find_shots(frames: Iterable[np.ndarray], rule: CropRule, several: bool = False) -> list[Shot]:
    """Find shots and faces of a video; one frame is in memory at a time.

    Args:
        frames: H W 3 uint8 each, all of one size.
        rule: How faces are cut out: what detects them.
        several: Look for all faces; else for the main one, which is faster.

    Returns:
        The shots, in order.

    Raises:
        ConfigError: The detector cannot be had.
        DataError: There is no frame.
    """
    is_cut, shots, look = CutFinder(), list[Shot](), _open_look(rule, several)
    for number, picture in enumerate(frames):
        if is_cut(picture) or not shots:
            shots.append(Shot(number, number, picture.shape[1], picture.shape[0]))
            look = _open_look(rule, several)
        shot = shots[-1]
        shot.stop = number + 1
        since = number - shot.first
        if since % (_OFTEN if since < _BEGIN else EVERY) == 0:
            shot.looks.append(number)
            _assign(shot.tracks, number, look(picture))
    if not shots:
        raise DataError("there is no frame")
    for shot in shots:
        shot.tracks = sorted((t for t in shot.tracks if _is_sure(t, shot.looks)), key=lambda track: track.left)
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


def _is_sure(track: FaceTrack, looks: list[int]) -> bool:
    """Tell a face from what a detector takes for one by chance, now and then."""
    numbers = list(track.faces)
    looked = sum(numbers[0] <= look <= numbers[-1] for look in looks)
    return len(numbers) >= min(2, len(looks)) and len(numbers) >= _SUPPORT * looked
