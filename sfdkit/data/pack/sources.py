"""Where clips come from: videos, and folders of pictures. Puppets are in :mod:`sfdkit.data.pack.puppet_source`.

Each source is a small picklable object whose ``clips`` method yields finished clips, so that sources can be worked on
in parallel processes. Legend: ``T`` frames of a clip, ``R`` pixels of a side.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from sfdkit.data.shards.format import ClipMeta
from sfdkit.errors import DataError
from sfdkit.media.box import Square, Track
from sfdkit.media.container import VIDEO_SUFFIXES, is_video
from sfdkit.media.crop import CropRule, Place, Refusal, crop_resize
from sfdkit.media.detect import Face
from sfdkit.media.picture import PICTURE_SUFFIXES, list_pictures, natural_key, read_picture
from sfdkit.media.video_reader import read_frames

_BUFFER = 512 * 2**20  # bytes of whole pictures of a clip that are held, so that a video is read once
_TO_LOOK_INTO = ("", ".png", ".apng", ".webp", ".avif")  # may be videos by their content
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
    ``missing``, ``twice``, ``not described``, ``not in the manifest`` or ``no video``."""
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

    @property
    def every(self) -> int:
        """In how many frames a face is looked for once: in the shortest clip, too."""
        return min(self.rule.face.every, self.min_frames)


class Sampled(NamedTuple):
    """A frame that is used."""

    image: np.ndarray
    """H W 3 uint8 RGB."""
    time: float
    """Seconds after the first frame of the video."""
    number: int
    """Which one it is among all frames from the source's start on."""


class _Ahead(NamedTuple):
    """What was found in a video before it is cut."""

    looks: dict[int, Face | None]
    """By number of the frame."""
    length: int
    """Frames of the video."""
    detector: str
    """What found it."""


@dataclass
class _Run:
    """A stretch that becomes a clip, if nothing speaks against it."""

    first: int
    stop: int
    """Number of the first frame that is not in it; the video may end before."""
    place: Place | Refusal
    detector: str
    frames: list[np.ndarray] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)

    def add(self, frame: Sampled, resolution: int) -> None:
        """Cut the next frame."""
        self.times.append(frame.time)
        self.numbers.append(frame.number)
        if isinstance(self.place, Place):
            self.frames.append(crop_resize(frame.image, self.place, resolution))


def _size_changes(video: str, index: int, shape: tuple[int, ...], before: tuple[int, ...]) -> Skip:
    return Skip(video, "size changes", f"frame {index} is {shape}, the first is {before}")


@dataclass(frozen=True)
class FrameSource:
    """A video file, or a folder of pictures that are the frames of one video.

    Memory holds one clip, however long the video is. Where faces are looked for each clip has a square of its own, and
    what is held are the whole pictures of the clip; where these are more than 512 MiB the video is read twice instead,
    first for the face in some of the frames, then to cut.
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
            skip: Called with each clip that is left out and why; a damaged video gives the clips that can be read.
        """
        problems: list[Skip] = []
        for number, run in enumerate(self._runs(problems)):
            refusal = self._refuse(run)
            if refusal is not None:
                skip(refusal)
            else:
                assert isinstance(run.place, Place)
                yield CutClip(run.frames, self._meta(number, run, run.place))
        for problem in problems:
            skip(problem)

    def _runs(self, problems: list[Skip]) -> Iterator[_Run]:
        """Yield the stretches that become clips, and note what ended them early."""
        rule, most = self.cut.rule, self.cut.frames_per_clip
        ahead: _Ahead | None = None
        run: _Run | None = None
        shape: tuple[int, ...] | None = None
        index = -1
        try:
            for index, frame in enumerate(self.sampled()):
                if shape is None:
                    shape = frame.image.shape
                    if rule.looks and most * frame.image.nbytes <= _BUFFER:
                        yield from self._buffered(problems)
                        return
                    ahead = self._looks() if rule.looks else None
                elif frame.image.shape != shape:
                    problems.append(_size_changes(self.video, index, frame.image.shape, shape))
                    break
                if run is None or index == run.stop:
                    if run is not None:
                        yield run
                    run = self._begin(frame.image, index, ahead)
                run.add(frame, self.cut.resolution)
        except DataError as error:
            problems.append(Skip(self.video, "damaged" if index >= 0 else "unreadable", str(error)))
        if run is not None:
            yield run
        elif not problems:
            problems.append(Skip(self.video, "unreadable", "it holds no frame"))

    def _begin(self, image: np.ndarray, first: int, ahead: _Ahead | None) -> _Run:
        height, width = image.shape[:2]
        stop = self.cut.rule.stop(ahead.looks if ahead else {}, first, self.cut.frames_per_clip)
        if self.square is not None:
            return _Run(first, stop, Place(self.square.in_picture(width, height)), "")
        last = stop if ahead is None else min(self.cut.rule.last(stop), ahead.length - 1)
        seen = [] if ahead is None else [ahead.looks[k] for k in range(first, last + 1) if k in ahead.looks]
        return _Run(first, stop, self.cut.rule.place(seen, width, height), ahead.detector if ahead else "")

    def _buffered(self, problems: list[Skip]) -> Iterator[_Run]:
        """Look and cut in one reading of the video; memory holds the whole pictures of a clip."""
        rule = self.cut.rule
        watcher = rule.watcher() if self.track is None else None
        name = watcher.detector.name if watcher else "data set"
        looks: dict[int, Face | None] = {}
        waiting: list[Sampled] = []
        first, index = 0, -1

        def finish(stop: int) -> _Run:
            seen = [looks[k] for k in range(first, rule.last(stop) + 1) if k in looks]
            height, width = waiting[0].image.shape[:2]
            run = _Run(first, stop, rule.place(seen, width, height), name)
            for frame in waiting[: stop - first]:
                run.add(frame, self.cut.resolution)
            return run

        try:
            for index, frame in enumerate(self.sampled()):
                if waiting and frame.image.shape != waiting[0].image.shape:
                    problems.append(_size_changes(self.video, index, frame.image.shape, waiting[0].image.shape))
                    break
                if index % self.cut.every == 0:
                    looks[index] = watcher(frame.image) if watcher else self._tracked(frame)
                stop = rule.stop(looks, first, self.cut.frames_per_clip)
                if waiting and index >= stop:
                    yield finish(stop)
                    first, waiting = stop, waiting[stop - first :]
                    looks = {k: face for k, face in looks.items() if k >= first}
                waiting.append(frame)
        except DataError as error:
            problems.append(Skip(self.video, "damaged" if index >= 0 else "unreadable", str(error)))
        if waiting:
            yield finish(first + len(waiting))

    def sampled(self) -> Iterator[Sampled]:
        """Yield the frames that are used."""
        if self.path.is_dir():
            for index, picture in enumerate(list_pictures(self.path)):
                yield Sampled(read_picture(picture), index / self.cut.fps, index)
            return
        tick, number = 0, -1
        for image, time in read_frames(self.path, self.start):
            if self.stop is not None and time >= self.stop - _INSTANT:
                return
            if time < self.start - _INSTANT:
                continue
            number += 1
            if (time - self.start) * self.cut.fps >= tick - 0.25:
                yield Sampled(image, time, number)
                tick = max(tick, int((time - self.start) * self.cut.fps)) + 1

    def _looks(self) -> _Ahead:
        """Look for the face in frames spread over the video."""
        watcher = self.cut.rule.watcher() if self.track is None else None
        found: dict[int, Face | None] = {}
        length = 0
        try:
            for index, frame in enumerate(self.sampled()):
                if index % self.cut.every == 0:
                    found[index] = watcher(frame.image) if watcher else self._tracked(frame)
                length = index + 1
        except DataError:
            pass  # the reading that cuts meets the same damage and reports it
        return _Ahead(found, length, watcher.detector.name if watcher else "data set")

    def _tracked(self, frame: Sampled) -> Face | None:
        assert self.track is not None
        box = self.track.at(frame.time, frame.image.shape[1], frame.image.shape[0])
        return None if box is None else Face(box, 1.0)

    def _refuse(self, run: _Run) -> Skip | None:
        """Return why a clip is left out, if it is."""
        times, where = run.times, f"frames {run.first} to {run.first + len(run.times) - 1}"
        if len(times) < self.cut.min_frames:
            return Skip(self.video, "short", f"{where}: {len(times)} frames, at least {self.cut.min_frames} are wanted")
        if isinstance(run.place, Refusal):
            return Skip(self.video, run.place.reason, f"{where}: {run.place.detail}")
        return None

    def _meta(self, number: int, run: _Run, place: Place) -> ClipMeta:
        times = run.times
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
            crop=self.cut.rule.meta(place, run.detector, self.cut.every),
            groups=self.groups,
            numbers=run.numbers,
        )


def find_videos(root: Path) -> list[Path]:
    """Return all videos below a folder in natural order; hidden files and folders are left out.

    A video is told by its suffix, an animated picture and a file without suffix by its content.

    Raises:
        DataError: The folder is missing or holds no video.
    """
    found = [path for path in _below(root) if path.is_file() and _holds_video(path)]
    if not found:
        raise DataError(
            f"{root} holds no video; files ending in {', '.join(VIDEO_SUFFIXES)} are looked for, also deeper down"
        )
    return found


def other_files(root: Path, videos: Iterable[Path], *own: str | None) -> list[Skip]:
    """Return the files that :func:`find_videos` passed over, each as left out.

    Args:
        root: The folder that was searched.
        videos: What was found there.
        own: Files and folders of the caller that may lie below the root, and need no mention.
    """
    known = set(videos)
    mine = [Path(path).resolve() for path in own if path]
    others = [path for path in _below(root) if path.is_file() and path not in known]
    detail = f"its suffix is none of a video: {', '.join(VIDEO_SUFFIXES)}"
    return [
        Skip(path.relative_to(root).as_posix(), "no video", detail)
        for path in others
        if not any(path.resolve().is_relative_to(place) for place in mine)
    ]


def _holds_video(path: Path) -> bool:
    suffix = path.suffix.lower()
    return suffix in VIDEO_SUFFIXES or (suffix in _TO_LOOK_INTO and is_video(path))


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
