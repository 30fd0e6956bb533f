"""Clips: the frames of a video, a folder of pictures or one picture, whole, at a constant frame rate."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, TypeVar

import numpy as np

from sfdkit.errors import ConfigError, DamageError, DataError, SfdkitWarning
from sfdkit.media.container import VIDEO_SUFFIXES, is_video
from sfdkit.media.frame_rate import require_fps
from sfdkit.media.picture import PICTURE_SUFFIXES, list_pictures, picture_kind, read_picture
from sfdkit.media.video_reader import probe, read_frames

Kind: TypeAlias = Literal["video", "folder", "picture"]

FOLDER_FPS = 25.0
"""Frames per second of a folder of pictures, unless the user says otherwise."""

_EXACT = 1e-4  # seconds by which times of frames may be rounded
_Frame = TypeVar("_Frame")


@dataclass(frozen=True)
class Clip:
    """Whole frames. Each iteration decodes them anew, one frame in memory at a time."""

    path: Path
    kind: Kind
    fps: float
    """Frames per second of what iterating yields."""
    frames: int
    """How many frames to expect: an estimate for videos, 0 where nothing is known; for progress bars."""
    has_sound: bool
    start: float = 0.0
    """Seconds that are left out at the begin."""
    end: float | None = None
    """Seconds after the begin of the file where the clip ends."""

    def __iter__(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield numbers, from 0, and frames H W 3 uint8; a damaged clip ends with a warning.

        Raises:
            DataError: The clip cannot be read at all, or its pictures differ in size.
        """
        return self.numbered()

    def numbered(self, quiet: bool = False) -> Iterator[tuple[int, np.ndarray]]:
        """Iterate; ``quiet`` leaves the warning out."""
        length = None if self.end is None else self.end - self.start
        return enumerate(resample_frames(self._within(quiet), self.fps, length))

    def _within(self, quiet: bool) -> Iterator[tuple[np.ndarray, float]]:
        """Yield frames and times: from the frame that is shown at the start to the first after the end."""
        shown: np.ndarray | None = None
        for frame, time in _until_damage(_timed_frames(self.path, self.kind, self.fps, self.start), quiet):
            if time < self.start - _EXACT:
                shown = frame
                continue
            if shown is not None and time > self.start + _EXACT:
                yield shown, self.start
            shown = None
            yield frame, time
            if self.end is not None and time >= self.end:
                return
        if shown is not None:
            yield shown, self.start

    def first_frame(self) -> np.ndarray:
        """Return the first frame, H W 3 uint8.

        Raises:
            DataError: There is none, or it cannot be read.
        """
        frame = next((frame for frame, _ in self._within(quiet=True)), None)
        if frame is None:
            what = "no frame" if self.end is None and not self.start else f"no frame from {self.start:g} s on"
            raise DataError(f"{self.path} holds {what}: give another clip")
        return frame


def open_clip(path: str | Path, fps: float | None = None, start: float = 0.0, end: float | None = None) -> Clip:
    """Open a clip: find its kind and its length.

    Args:
        path: A video, a folder of pictures in the order of their names, or one picture.
        fps: Frames per second to deliver. A video is resampled in time, so that its length stays; pictures of a folder
            are taken to be that far apart. None: the video's own rate, or 25.
        start: Seconds to leave out at the begin.
        end: Seconds after the begin of the file where the clip ends; None for all of it.

    Raises:
        ConfigError: ``fps`` is out of its range, or start and end leave nothing.
        DataError: The clip is missing, damaged from its first frame on, or of an unknown kind.
    """
    path = Path(path)
    if fps is not None:
        require_fps(fps)
    if end is not None and end <= start:
        raise ConfigError(f"to: {end:g} s is not after from: {start:g} s; give a later one, or leave it out")
    kind = kind_of(path)
    rate, frames, has_sound = fps or FOLDER_FPS, 1, False
    if kind == "video":
        info = probe(path)
        rate, has_sound = fps or info.fps, info.has_audio
        frames = round(info.frames * rate / info.fps)
    elif kind == "folder":
        frames = len(list_pictures(path))
    length = frames / rate
    if frames and start >= length:
        raise ConfigError(f"from: {start:g} s is after the end of {path}, which is {length:.2f} s long")
    if frames and (start or end is not None):
        frames = max(1, round((min(length, end or length) - start) * rate))
    return Clip(path, kind, rate, frames, has_sound, start, end)


def kind_of(path: Path, otherwise: Kind = "video") -> Kind:
    """Tell a folder, a picture and a video apart by what they hold, whatever their names say.

    An animated picture is a video. What is no picture goes by its suffix, so that an error names what was meant.

    Args:
        path: The file or folder.
        otherwise: What something of an unknown suffix counts as.
    """
    if path.is_dir():
        return "folder"
    kind = picture_kind(path)
    if kind is not None:
        return "picture" if kind == "still" else "video"
    suffix = path.suffix.lower()
    if is_video(path) or suffix in VIDEO_SUFFIXES:
        return "video"
    return "picture" if suffix in PICTURE_SUFFIXES else otherwise


def resample_frames(
    frames: Iterable[tuple[_Frame, float]], fps: float, length: float | None = None
) -> Iterator[_Frame]:
    """Turn frames with times into frames at a fixed rate: at each tick the one shown then, or half a tick later.

    A clip of a constant rate comes out unchanged at its own rate, small errors in its times notwithstanding; elsewhere
    frames are repeated or left out, so that picture and sound stay together.

    The last frame is taken to last as long as the one before it.

    Args:
        frames: Pictures and their times in seconds, rising.
        fps: Ticks per second; the first is at the time of the first frame.
        length: Seconds after which it ends; None for all frames.

    Yields:
        One picture per tick.
    """
    tick, start, gap = 0, 0.0, 1 / fps
    ticks = math.inf if length is None else max(1, round(length * fps))
    held: tuple[_Frame, float] | None = None
    for frame, time in frames:
        if held is None:
            start = time
        else:
            gap = time - held[1]
            while tick < ticks and tick / fps < time - min(gap, 1 / fps) / 2 - start:
                yield held[0]
                tick += 1
        held = (frame, time)
    while held is not None and tick < ticks and (tick == 0 or tick / fps < held[1] + gap - 0.5 / fps - start):
        yield held[0]
        tick += 1


def _until_damage(
    frames: Iterable[tuple[np.ndarray, float]], quiet: bool = False
) -> Iterator[tuple[np.ndarray, float]]:
    """Yield the frames up to where a clip is damaged, and warn there; nothing of what could be read is lost."""
    count = 0
    try:
        for item in frames:
            yield item
            count += 1
    except DamageError as error:
        if not count:
            raise
        if not quiet:
            warnings.warn(f"{error}; these are used", SfdkitWarning, stacklevel=2)


def _timed_frames(path: Path, kind: Kind, fps: float, start: float) -> Iterator[tuple[np.ndarray, float]]:
    if kind == "video":
        yield from read_frames(path, start)
        return
    pictures = list_pictures(path) if kind == "folder" else [path]
    if not pictures:
        raise DataError(f"the folder {path} holds no picture: give one with {', '.join(PICTURE_SUFFIXES)} files")
    size: tuple[int, ...] | None = None
    for number, picture in enumerate(pictures):
        try:
            frame = read_picture(picture)
        except DataError as error:
            if not number:
                raise
            raise DamageError(f"{path} ends after {number} frames: {error}") from error
        if size is not None and frame.shape != size:
            raise DataError(
                f"{picture} is {frame.shape[1]}x{frame.shape[0]}, the pictures before it are {size[1]}x{size[0]}: "
                "the frames of one clip need one size"
            )
        size = frame.shape
        yield frame, number / fps
