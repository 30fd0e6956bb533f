"""Where clips come from: videos, and folders of pictures. Puppets are in :mod:`sfdkit.data.puppet_source`.

Each source is a small picklable object whose ``clips`` method yields finished clips, so that sources can be worked on
in parallel processes. Legend: ``T`` frames of a clip, ``R`` pixels of a side.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from sfdkit.data.box import Square, Track
from sfdkit.data.crop import CropRule, Place, Refusal, crop_resize
from sfdkit.data.detect import Face
from sfdkit.data.format import ClipMeta
from sfdkit.data.picture import PICTURE_SUFFIXES, list_pictures, natural_key, read_picture
from sfdkit.data.video import VIDEO_SUFFIXES, read_frames
from sfdkit.errors import DataError

_INSTANT = 1e-4  # seconds by which times may be rounded


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
    ``missing``, ``twice``, ``not described`` or ``not in the manifest``."""
    detail: str


class ClipSource(Protocol):
    """What can be packed."""

    @property
    def name(self) -> str:
        """What progress and messages call it."""

    def clips(self, skip: Callable[[Skip], None]) -> Iterator[CutClip]:
        """Yield the clips and report what is left out."""


@dataclass(frozen=True)
class Cut:
    """How videos become clips."""

    resolution: int
    """R, pixels of a side."""
    rule: CropRule
    frames_per_clip: int
    min_frames: int
    """A clip with fewer frames is left out."""
    fps: float
    """At most so many frames per second of a video are kept; the rate of a folder of pictures."""


@dataclass(frozen=True)
class FrameSource:
    """A video file, or a folder of pictures that are the frames of one video.

    Memory holds one clip of finished frames, however long the video is. Where faces are looked for the video is read
    twice: first for the face in some of the frames, then to cut; each clip has a square of its own.
    """

    path: Path
    key: str
    """First part of the keys of its clips."""
    video: str
    """Its path below the searched folder."""
    identity: str
    dataset: str
    licence: str
    cut: Cut
    groups: dict[str, str] = field(default_factory=dict)
    start: float = 0.0
    """Seconds after the first frame of the video at which it begins."""
    stop: float | None = None
    """Seconds at which it ends, that moment left out; None for the end of the file."""
    square: Square | None = None
    """What to cut where the rule is ``given``."""
    track: Track | None = None
    """Where the face is where the data set says so; None looks for it."""

    @property
    def name(self) -> str:
        """Its path below the searched folder."""
        return self.video

    def clips(self, skip: Callable[[Skip], None]) -> Iterator[CutClip]:
        """Yield the clips in order of time.

        Args:
            skip: Called with each clip that is left out and why; a damaged video gives the clips before the damage.
        """
        looks, length, detector = self._looks() if self.cut.rule.looks else ({}, 0, "")
        number, first, stop = 0, 0, 0
        place: Place | Refusal = Refusal("no face", "")
        frames: list[np.ndarray] = []
        times: list[float] = []
        problem: Skip | None = None

        def finish() -> Iterator[CutClip]:
            refusal = self._refuse(first, place, times)
            if refusal is not None:
                skip(refusal)
            else:
                assert isinstance(place, Place)
                yield CutClip(frames, self._meta(number, place, times, detector))

        try:
            for index, (image, time) in enumerate(self.sampled()):
                if index == 0:
                    shape = image.shape
                elif image.shape != shape:
                    problem = Skip(self.video, "size changes", f"frame {index} is {image.shape}, the first is {shape}")
                    break
                if not times:
                    first, stop = index, self.cut.rule.stop(looks, index, self.cut.frames_per_clip)
                    place = self._place(image, first, stop, looks, length)
                times.append(time)
                if isinstance(place, Place):
                    frames.append(crop_resize(image, place, self.cut.resolution))
                if index + 1 == stop:
                    yield from finish()
                    number, frames, times = number + 1, [], []
        except DataError as error:
            problem = Skip(self.video, "damaged" if times or number else "unreadable", str(error))
        if times:
            yield from finish()
        elif not number and not problem:
            problem = Skip(self.video, "unreadable", "it holds no frame")
        if problem:
            skip(problem)

    def sampled(self) -> Iterator[tuple[np.ndarray, float]]:
        """Yield the frames that are used, with their time in seconds."""
        if self.path.is_dir():
            for index, picture in enumerate(list_pictures(self.path)):
                yield read_picture(picture), index / self.cut.fps
            return
        tick = 0
        for image, time in read_frames(self.path, self.start):
            if self.stop is not None and time >= self.stop - _INSTANT:
                return
            if time >= self.start - _INSTANT and (time - self.start) * self.cut.fps >= tick - 0.25:
                yield image, time
                tick = max(tick, int((time - self.start) * self.cut.fps)) + 1

    def _looks(self) -> tuple[dict[int, Face | None], int, str]:
        """Look for the face in frames spread over the video.

        Returns:
            What was found, the number of frames, and what found it.
        """
        rule = self.cut.rule
        detector = rule.open() if self.track is None else None
        every = min(rule.every, self.cut.min_frames)  # so that the shortest clip has a look
        found: dict[int, Face | None] = {}
        length = 0
        try:
            for index, (image, time) in enumerate(self.sampled()):
                if index % every == 0:
                    found[index] = rule.look(detector, image) if detector else self._tracked(image, time)
                length = index + 1
        except DataError:
            pass  # the second reading meets the same damage and reports it
        return found, length, detector.name if detector else "data set"

    def _tracked(self, image: np.ndarray, time: float) -> Face | None:
        assert self.track is not None
        box = self.track.at(time, image.shape[1], image.shape[0])
        return None if box is None else Face(box, 1.0)

    def _place(
        self, image: np.ndarray, first: int, stop: int, looks: dict[int, Face | None], length: int
    ) -> Place | Refusal:
        """Return the square of the clip that begins with frame ``first`` and ends before ``stop``."""
        height, width = image.shape[:2]
        if self.square is not None:
            return Place(self.square.in_picture(width, height))
        last = stop - 1 if self.cut.rule.method == "union" else min(stop, length - 1)  # up to the next clip's first
        seen = [looks[index] for index in range(first, last + 1) if index in looks]
        return self.cut.rule.place(seen, width, height)

    def _refuse(self, first: int, place: Place | Refusal, times: Sequence[float]) -> Skip | None:
        """Return why a clip is left out, if it is."""
        where = f"frames {first} to {first + len(times) - 1}"
        if len(times) < self.cut.min_frames:
            return Skip(self.video, "short", f"{where}: {len(times)} frames, at least {self.cut.min_frames} are wanted")
        if isinstance(place, Refusal):
            return Skip(self.video, place.reason, f"{where}: {place.detail}")
        return None

    def _meta(self, number: int, place: Place, times: list[float], detector: str) -> ClipMeta:
        span = times[-1] - times[0]
        return ClipMeta(
            key=f"{self.key}-{number:04d}",
            identity=self.identity,
            video=self.video,
            dataset=self.dataset,
            licence=self.licence,
            fps=round((len(times) - 1) / span, 3) if span > 0 else self.cut.fps,
            times=[round(time, 6) for time in times],
            resolution=self.cut.resolution,
            crop=self.cut.rule.meta(place, detector),
            groups=self.groups,
        )


def find_videos(root: Path) -> list[Path]:
    """Return all videos below a folder in natural order; hidden files and folders are left out.

    Raises:
        DataError: The folder is missing or holds no video.
    """
    found = [path for path in _below(root) if path.suffix.lower() in VIDEO_SUFFIXES and path.is_file()]
    if not found:
        raise DataError(
            f"{root} holds no video; files ending in {', '.join(VIDEO_SUFFIXES)} are looked for, also deeper down"
        )
    return found


def find_picture_folders(root: Path) -> list[Path]:
    """Return all folders below ``root`` that hold pictures, in natural order.

    Raises:
        DataError: The folder is missing, holds no folder of pictures, or pictures lie in ``root`` itself.
    """
    found = {path.parent for path in _below(root) if path.suffix.lower() in PICTURE_SUFFIXES}
    if root in found:
        raise DataError(
            f"{root} holds pictures itself: put the pictures of each clip into a folder of its own below it"
        )
    if not found:
        raise DataError(
            f"no folder below {root} holds pictures; files ending in {', '.join(PICTURE_SUFFIXES)} are looked for"
        )
    return sorted(found, key=lambda path: _natural(path, root))


def _below(root: Path) -> list[Path]:
    if not root.is_dir():
        what = "is no folder" if root.exists() else "does not exist"
        raise DataError(f"--root: {root} {what}; give the folder that holds the videos or pictures")
    shown = (p for p in root.rglob("*") if not any(part.startswith(".") for part in p.relative_to(root).parts))
    return sorted(shown, key=lambda path: _natural(path, root))


def _natural(path: Path, root: Path) -> list[list[tuple[int, int, str]]]:
    return [natural_key(Path(part)) for part in path.relative_to(root).parts]


def clip_keys(videos: Iterable[str]) -> dict[str, str]:
    """Return a key for each video: its path in letters, digits, ``-`` and ``_``, unique and short enough for a tar.

    Args:
        videos: Paths below the searched folder, each once.

    Returns:
        Path to key.
    """
    keys: dict[str, str] = {}
    taken: set[str] = set()
    for video in videos:
        stem = re.sub(r"\.\w{1,5}$", "", video)
        key = re.sub(r"[^A-Za-z0-9_-]+", "_", stem).strip("_")
        if not key or len(key) > 60 or key.lower() in taken:
            key = f"{key[:48]}-{hashlib.sha256(video.encode()).hexdigest()[:10]}"
        taken.add(key.lower())
        keys[video] = key
    return keys
