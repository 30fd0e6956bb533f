"""Whole pictures and videos whose faces are to be moved where they are. This module needs no torch.

Legend: ``R`` resolution of the animator.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import repeat
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

from sfdkit.apply.clip import Clip, open_clip
from sfdkit.apply.frame_source import find_place, no_face, require_frames
from sfdkit.errors import ConfigError, DataError
from sfdkit.media.crop import CropRule, crop_resize
from sfdkit.media.draw import enlarge
from sfdkit.media.framing import Follow, Framing, frame_shots, still_framing, tell
from sfdkit.media.shots import FaceTrack, Shot, find_shots
from sfdkit.media.video_writer import Sound

Faces: TypeAlias = Literal["largest", "all"] | frozenset[int]
"""Which faces are meant: the largest, all, or those of these numbers from the left, which begin at 1."""

_TOLD = 10  # shots whose faces are told
LARGEST_SIDE = 4096
"""Pixels of the longer side above which whole pictures are made smaller: encoders and players take no more."""


@dataclass(frozen=True)
class WholeSource:
    """Reads whole frames and knows where their faces are."""

    clip: Clip
    height: int | None
    """Pixels to which the frames are resized; None leaves them as they are."""
    faces: Mapping[int, Framing]
    """Number of a face from the left to where it is; 0 is the largest."""

    @property
    def still(self) -> bool:
        """Whether it is one picture."""
        return self.clip.kind == "picture"

    @property
    def sound(self) -> Sound | None:
        """The sound of a video."""
        return Sound(self.clip.path, self.clip.start) if self.clip.has_sound else None

    def __iter__(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield numbers and frames, H W 3 uint8; a picture again and again."""
        if self.still:
            yield from repeat((0, self.first_frame))
        for number, frame in self.clip:
            yield number, self._sized(frame)

    @cached_property
    def first_frame(self) -> np.ndarray:
        """The first frame, H W 3 uint8."""
        return self._sized(self.clip.first_frame())

    def first_crop(self, face: int, resolution: int) -> np.ndarray:
        """Return a face where it is seen first, R R 3 uint8."""
        framing = self.faces[face]
        first = framing.first
        frame = self.first_frame
        if first:
            frame = next(self._sized(frame) for number, frame in self.clip.numbered(quiet=True) if number == first)
        place = framing.at(first)
        assert place is not None
        return crop_resize(frame, place, resolution)

    def _sized(self, frame: np.ndarray) -> np.ndarray:
        return frame if self.height is None else enlarge(frame, self.height)


def open_whole_source(
    path: str | Path,
    rule: CropRule,
    which: Faces,
    follow: Follow = "shot",
    fps: float | None = None,
    height: int | None = None,
) -> WholeSource:
    """Open a picture or a video and find its faces; who was found is printed.

    Args:
        path: A picture, a video, or a folder of pictures in the order of their names.
        rule: How to cut faces out.
        which: Which faces.
        follow: Whether squares keep still in each shot or go with the heads.
        fps: Frames per second of a video; its own by default.
        height: Pixels to which frames are resized; by default they are as they come, up to :data:`LARGEST_SIDE`.

    Raises:
        ConfigError: The detector cannot be had, or faces are chosen by a crop that looks for none.
        DataError: The file is missing or cannot be read, or a face that is meant was not found or cannot be cut.
    """
    clip = open_clip(path, fps)
    plain = WholeSource(clip, height, {})
    own_height, own_width = plain.first_frame.shape[:2]
    if height is None and max(own_height, own_width) > LARGEST_SIDE:
        height = round(own_height * LARGEST_SIDE / max(own_height, own_width))
        print(f"{path} has {own_width}x{own_height} pixels: it is made {height} high; --size gives another height")
        plain = WholeSource(clip, height, {})
    if not rule.looks:
        if which != "largest":
            raise ConfigError(
                f"crop {rule.method} looks for no faces; give --source_crop face, or leave out --face and its numbers"
            )
        return WholeSource(clip, height, {0: still_framing(find_place(plain.first_frame, rule, clip.path))})
    frames = [plain.first_frame] if plain.still else (plain._sized(f) for _, f in clip.numbered(quiet=True))
    shots = require_frames(find_shots(frames, clip.fps, rule, several=True), clip)
    seen = _choose(shots, which, clip.path)
    try:
        faces = {number: frame_shots(shots, tracks, clip.fps, rule, follow) for number, tracks in seen.items()}
    except DataError as error:
        raise no_face(clip.path, str(error)) from error
    _tell(clip, shots, faces)
    return WholeSource(clip, height, faces)


def _choose(shots: list[Shot], which: Faces, path: Path) -> dict[int, list[list[FaceTrack]]]:
    """Return number of each face that is meant to its tracks in each shot; 0 is the largest.

    Raises:
        DataError: A face that is meant was not found.
    """
    most = max(len(shot.tracks) for shot in shots)
    if not most:
        raise no_face(path, "no face was found")
    if which == "largest":
        return {0: [shot.main_tracks() for shot in shots]}
    wanted = sorted(range(1, most + 1) if which == "all" else which)
    for number in wanted:
        if not 1 <= number <= most:
            raise DataError(f"{path}: there is no face {number}; {most} found, counted from the left from 1")
    return {number: [shot.tracks[number - 1 : number] for shot in shots] for number in wanted}


def _tell(clip: Clip, shots: list[Shot], faces: Mapping[int, Framing]) -> None:
    """Print who was found, and warn where a video does not show a face."""
    for number, shot in enumerate(shots[:_TOLD], 1):
        where = f"{clip.path}" if len(shots) == 1 else f"{clip.path}, shot {number} from {shot.first / clip.fps:.2f} s"
        seen = ", ".join(f"{place}: {_words(track, shot, clip.fps)}" for place, track in enumerate(shot.tracks, 1))
        print(f"{where}: {len(shot.tracks)} face{'s' * (len(shot.tracks) != 1)} from the left ({seen or 'none'})")
    if len(shots) > _TOLD:
        print(f"and {len(shots) - _TOLD} more shots")
    if clip.kind != "picture":
        for number, framing in faces.items():
            who = f"face {number} of {clip.path}" if number else str(clip.path)
            tell(framing, shots[-1].stop, clip.fps, who, "its frames stay as they are there")


def _words(track: FaceTrack, shot: Shot, fps: float) -> str:
    """Return how large a face is, and when it is seen where that is not for all of the shot."""
    size = f"{track.size:.0f} pixels"
    if track.start - shot.first < fps and shot.stop - track.stop < fps:
        return size
    return f"{size}, seen from {track.start / fps:.2f} to {track.stop / fps:.2f} s"
