"""Reading frames of a video, a folder of pictures or one picture: cropped, and at a constant frame rate.

Legend: ``R`` resolution of the animator.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

from sfdkit.errors import DamageError, DataError, SfdkitWarning
from sfdkit.media.container import VIDEO_SUFFIXES, is_video
from sfdkit.media.crop import CropRule, Place, Refusal, crop_resize
from sfdkit.media.frame_rate import require_fps
from sfdkit.media.picture import PICTURE_SUFFIXES, list_pictures, picture_kind, read_picture
from sfdkit.media.video_reader import probe, read_frames

Kind: TypeAlias = Literal["video", "folder", "picture"]

FOLDER_FPS = 25.0
"""Frames per second of a folder of pictures, unless the user says otherwise."""
_DETECTED = 16
"""The most frames of a clip in which the face is looked for."""


@dataclass(frozen=True)
class FrameSource:
    """Reads the frames of a clip. Each iteration decodes it anew, one frame in memory at a time."""

    path: Path
    kind: Kind
    fps: float
    """Frames per second of what iterating yields."""
    frames: int
    """How many frames to expect: an estimate for videos, 0 where nothing is known; for progress bars."""
    audio: Path | None
    """The file that holds the clip's sound, if any."""
    place: Place
    """The part that is cut out, the same in every frame."""
    resolution: int

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yield R R 3 uint8 frames; a damaged clip ends with a warning after the frames that can be read.

        Raises:
            DataError: The clip cannot be read at all, or its pictures differ in size.
        """
        whole = _until_damage(_timed_frames(self.path, self.kind, self.fps))
        for frame in resample_frames(whole, self.fps):
            yield crop_resize(frame, self.place, self.resolution)


def open_frame_source(path: str | Path, resolution: int, rule: CropRule, fps: float | None = None) -> FrameSource:
    """Open a clip: find its kind, its length, and where the face is.

    With a crop that detects the face, a video is decoded twice: first to find one square for the whole clip from up to
    16 frames spread over it, then by iterating.

    Args:
        path: A video, a folder of pictures in the order of their names, or one picture.
        resolution: Height and width of the frames to deliver.
        rule: How to cut the face out.
        fps: Frames per second to deliver. A video is resampled in time, so that its length stays; pictures of a folder
            are taken to be that far apart. None: the video's own rate, or 25.

    Raises:
        ConfigError: ``fps`` is out of its range.
        DataError: The clip is missing, damaged from its first frame on or of an unknown kind, or no face was found.
    """
    path = Path(path)
    if fps is not None:
        require_fps(fps)
    kind = kind_of(path)
    if kind == "video":
        info = probe(path)
        rate = fps or info.fps
        frames, audio = round(info.frames * rate / info.fps), path if info.has_audio else None
    else:
        rate, audio = fps or FOLDER_FPS, None
        frames = len(list_pictures(path)) if kind == "folder" else 1
    raw = (frame for frame, _ in _until_damage(_timed_frames(path, kind, rate), quiet=True))
    place = find_place(sample_evenly(raw, _DETECTED if rule.looks else 1), rule, path)
    return FrameSource(path, kind, rate, frames, audio, place, resolution)


def read_source(path: str | Path, resolution: int, rule: CropRule) -> np.ndarray:
    """Read and crop a source face: a picture, or the first frame of a video or of a folder of pictures.

    Args:
        path: The file or folder.
        resolution: Height and width to deliver.
        rule: How to cut the face out.

    Returns:
        R R 3 uint8.

    Raises:
        DataError: The file is missing, damaged or no picture, or no face was found.
    """
    path = Path(path)
    kind = kind_of(path, otherwise="picture")
    frame = next((frame for frame, _ in _timed_frames(path, kind, FOLDER_FPS)), None)
    if frame is None:
        raise DataError(f"{path} holds no frame: give another picture or video")
    return crop_resize(frame, find_place([frame], rule, path), resolution)


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


def find_place(images: list[np.ndarray], rule: CropRule, path: Path) -> Place:
    """Return the one square for all ``images`` (H W 3 uint8) of a clip.

    Raises:
        ConfigError: The detector cannot be had.
        DataError: There is no frame, no face was found, or it cannot be cut.
    """
    if not images:
        raise DataError(f"{path} holds no frame: give another clip")
    faces = list(map(rule.watcher(), images)) if rule.looks else []
    place = rule.place(faces, images[0].shape[1], images[0].shape[0])
    if isinstance(place, Refusal):
        raise DataError(f"{path}: {place.detail}; use --crop centre or --crop none, or another file")
    return place


def sample_evenly(frames: Iterable[np.ndarray], count: int) -> list[np.ndarray]:
    """Return frames evenly spread over a stream of unknown length, holding at most ``count`` + 1 at a time.

    Every ``step``-th frame is kept; whenever there are too many, every second one is dropped and ``step`` doubles.

    Args:
        frames: The stream; with ``count`` 1 only its first frame is read.
        count: The most frames to return.
    """
    kept: list[np.ndarray] = []
    step = 1
    for number, frame in enumerate(frames):
        if number % step == 0:
            kept.append(frame)
            if count == 1:
                break
        if len(kept) > count:
            kept, step = kept[::2], 2 * step
    return kept


def resample_frames(frames: Iterable[tuple[np.ndarray, float]], fps: float) -> Iterator[np.ndarray]:
    """Turn frames with times into frames at a fixed rate: at each tick the frame that is nearest in time.

    A clip of a constant rate comes out unchanged at its own rate, small errors in its times notwithstanding; elsewhere
    frames are repeated or left out, so that picture and sound stay together.

    The last frame is taken to last as long as the one before it.

    Args:
        frames: Pictures and their times in seconds, rising.
        fps: Ticks per second; the first is at the time of the first frame.

    Yields:
        One picture per tick.
    """
    tick, start, gap = 0, 0.0, 1 / fps
    held: tuple[np.ndarray, float] | None = None
    for frame, time in frames:
        if held is None:
            start = time
        else:
            gap = time - held[1]
            while tick / fps < held[1] + gap / 2 - start:
                yield held[0]
                tick += 1
        held = (frame, time)
    while held is not None and (tick == 0 or tick / fps < held[1] + gap - 0.5 / fps - start):
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


def _timed_frames(path: Path, kind: Kind, fps: float) -> Iterator[tuple[np.ndarray, float]]:
    if kind == "video":
        yield from read_frames(path)
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
