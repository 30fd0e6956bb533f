"""Reading frames of a video, a folder of pictures or one picture: cropped, and at a constant frame rate.

Legend: ``R`` resolution of the animator.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sfdkit.apply.clip import FOLDER_FPS, Clip, kind_of, open_clip
from sfdkit.errors import DataError
from sfdkit.media.crop import CropRule, Place, Refusal, crop_resize
from sfdkit.media.framing import Follow, Framing, frame_shots, still_framing, tell
from sfdkit.media.shots import Shot, find_shots


@dataclass(frozen=True)
class FrameSource:
    """Reads the face of a clip. Each iteration decodes it anew, one frame in memory at a time."""

    clip: Clip
    framing: Framing
    """The part that is cut out of each frame."""
    held: np.ndarray | None
    """R R 3 uint8: the first frame with the face, where the clip begins without."""
    resolution: int

    @property
    def fps(self) -> float:
        """Frames per second of what iterating yields."""
        return self.clip.fps

    @property
    def frames(self) -> int:
        """How many frames to expect: an estimate for videos, 0 where nothing is known; for progress bars."""
        return self.clip.frames

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yield R R 3 uint8 frames; where the face is gone, the last one that shows it.

        A damaged clip ends with a warning after the frames that can be read.

        Raises:
            DataError: The clip cannot be read at all, or its pictures differ in size.
        """
        last = self.held
        for number, frame in self.clip:
            place = self.framing.at(number)
            if place is not None:
                last = crop_resize(frame, place, self.resolution)
            if last is not None:
                yield last


def open_frame_source(
    path: str | Path,
    resolution: int,
    rule: CropRule,
    fps: float | None = None,
    start: float = 0.0,
    end: float | None = None,
    follow: Follow = "shot",
) -> FrameSource:
    """Open a clip: find its kind, its length, and where the face is.

    With a crop that detects the face, a video is decoded twice: first to find cuts and a square for each shot, then by
    iterating. Where no face is seen for a second, iterating holds the last frame that shows it, and a warning says so.

    Args:
        path: A video, a folder of pictures in the order of their names, or one picture.
        resolution: Height and width of the frames to deliver.
        rule: How to cut the face out.
        fps: Frames per second to deliver. A video is resampled in time, so that its length stays; pictures of a folder
            are taken to be that far apart. None: the video's own rate, or 25.
        start: Seconds to leave out at the begin of the file.
        end: Seconds after the begin of the file where the clip ends; None for all of it.
        follow: Whether the square keeps still in each shot or goes with the head.

    Raises:
        ConfigError: ``fps`` is out of its range, or start and end leave nothing.
        DataError: The clip is missing, damaged from its first frame on or of an unknown kind, or no face was found.
    """
    clip = open_clip(path, fps, start, end)
    framing = find_framing(clip, rule, follow)
    first, held = framing.first, None
    if first:
        frame = next(frame for number, frame in clip.numbered(quiet=True) if number == first)
        place = framing.at(first)
        assert place is not None
        held = crop_resize(frame, place, resolution)
    return FrameSource(clip, framing, held, resolution)


def find_framing(clip: Clip, rule: CropRule, follow: Follow) -> Framing:
    """Find the main face of a clip, and tell where it is gone.

    Raises:
        ConfigError: The detector cannot be had.
        DataError: No face was found, or it cannot be cut.
    """
    if not rule.looks:
        return still_framing(find_place(clip.first_frame(), rule, clip.path))
    shots = require_frames(find_shots((frame for _, frame in clip.numbered(quiet=True)), clip.fps, rule), clip)
    try:
        framing = frame_shots(shots, [shot.main_tracks() for shot in shots], clip.fps, rule, follow)
    except DataError as error:
        raise no_face(clip.path, str(error)) from error
    tell(framing, shots[-1].stop, clip.fps, str(clip.path), "its motion is held there")
    return framing


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
    frame = Clip(path, kind_of(path, otherwise="picture"), FOLDER_FPS, 0, has_sound=False).first_frame()
    return crop_resize(frame, find_place(frame, rule, path), resolution)


def find_place(picture: np.ndarray, rule: CropRule, path: Path) -> Place:
    """Return the square of the main face of a picture, H W 3 uint8.

    Raises:
        ConfigError: The detector cannot be had.
        DataError: No face was found, or it cannot be cut.
    """
    faces = [rule.watcher()(picture)] if rule.looks else []
    place = rule.place(faces, picture.shape[1], picture.shape[0])
    if isinstance(place, Refusal):
        raise no_face(path, place.detail)
    return place


def require_frames(shots: list[Shot], clip: Clip) -> list[Shot]:
    """Return the shots of a clip.

    Raises:
        DataError: There are none.
    """
    if not shots:
        raise DataError(f"{clip.path} holds no frame: give another clip")
    return shots


def no_face(path: Path, detail: str) -> DataError:
    """Return the error of a file without a face to cut out."""
    return DataError(f"{path}: {detail}; use --crop centre or --crop none, or another file")
