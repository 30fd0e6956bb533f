"""Clips from a video, or from a folder of pictures: frames are sampled, faces looked for, squares cut.

Legend: ``T`` frames of a clip, ``R`` pixels of a side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sfdkit.data.pack.face_points import PointTracker
from sfdkit.data.pack.sources import ClipSettings, CutClip, Skip
from sfdkit.data.shards.format import ClipMeta, ClipPoints
from sfdkit.errors import DataError
from sfdkit.media.box import Square, Track
from sfdkit.media.crop import Place, Refusal, crop_resize
from sfdkit.media.detect import Face
from sfdkit.media.picture import list_pictures, read_picture
from sfdkit.media.video_reader import read_frames

_BUFFER = 512 * 2**20  # bytes of whole pictures of a clip that are held, so that a video is read once
_INSTANT = 1e-4  # seconds by which times may be rounded
_NO_PICTURE = np.empty((0, 0, 3), np.uint8)


class VideoFrame(NamedTuple):
    """A frame that is used."""

    image: np.ndarray
    """H W 3 uint8 RGB."""
    time: float
    """Seconds after the first frame of the video."""
    number: int
    """Which one it is among all frames from the source's start on."""


class _Candidate(NamedTuple):
    """Frames that become a clip, if nothing speaks against it."""

    first: int
    """Number of the first one among the frames that are used."""
    frames: list[VideoFrame]
    """Cut to R R 3, unless there is no place."""
    place: Place | Refusal
    points: ClipPoints | None


class _Cutter:
    """Cuts the frames of a clip one by one, and reads the points of its face where they are wanted."""

    def __init__(self, settings: ClipSettings, place: Place | Refusal) -> None:
        self.place, self._resolution = place, settings.resolution
        self._tracker: PointTracker | None = None
        if settings.points is not None and isinstance(place, Place):
            self._tracker = PointTracker(settings.points, place, settings.resolution)

    def cut(self, frame: VideoFrame) -> VideoFrame:
        """Return the next frame with its picture cut; an empty one where there is no place."""
        if isinstance(self.place, Refusal):
            return frame._replace(image=_NO_PICTURE)
        if self._tracker is not None:
            self._tracker.see(frame.image, frame.time)
        return frame._replace(image=crop_resize(frame.image, self.place, self._resolution))

    def points(self) -> ClipPoints | None:
        """Return the points of all frames that were cut."""
        return None if self._tracker is None else self._tracker.finish()


class FaceLooks:
    """Where the face is in some frames of a video: looked for, or as the data set says."""

    def __init__(self, settings: ClipSettings, track: Track | None) -> None:
        self.found: dict[int, Face | None] = {}
        """By number of the frame."""
        self._every, self._track = settings.every, track
        self._watcher = settings.rule.watcher() if settings.rule.looks and track is None else None
        self.detector = self._watcher.detector.name if self._watcher else "data set" if track else ""

    def look(self, index: int, frame: VideoFrame) -> None:
        """Look at a frame, if it is one of those that are looked at."""
        if index % self._every:
            return
        if self._watcher is not None:
            self.found[index] = self._watcher(frame.image)
        elif self._track is not None:
            box = self._track.at(frame.time, frame.image.shape[1], frame.image.shape[0])
            self.found[index] = None if box is None else Face(box, 1.0)


@dataclass(frozen=True)
class VideoSource:
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
    settings: ClipSettings
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
        looks = FaceLooks(self.settings, self.track)
        problems: list[Skip] = []
        for number, candidate in enumerate(self._candidates(looks, problems)):
            first, frames, place, points = candidate
            where = f"frames {first} to {first + len(frames) - 1}"
            if len(frames) < (least := self.settings.min_frames):
                skip(Skip(self.video, "short", f"{where}: {len(frames)} frames, at least {least} are wanted"))
            elif isinstance(place, Refusal):
                skip(Skip(self.video, place.reason, f"{where}: {place.detail}"))
            else:
                meta = self._meta(number, frames, place, looks.detector)
                if points is not None:
                    meta["points"] = points
                yield CutClip([frame.image for frame in frames], meta)
        for problem in problems:
            skip(problem)

    def _candidates(self, looks: FaceLooks, problems: list[Skip]) -> Iterator[_Candidate]:
        """Yield what becomes clips, in order, and note what ended them early."""
        rule, most = self.settings.rule, self.settings.frames_per_clip
        shape: tuple[int, ...] | None = None
        hold = False
        """Whether whole pictures wait until it is known where the face is; else that is known before they are read."""
        first, stop, index = 0, 0, -1
        frames: list[VideoFrame] = []
        cutter: _Cutter | None = None
        try:
            for index, frame in enumerate(self.frames()):
                if shape is None:
                    shape = frame.image.shape
                    hold = rule.looks and most * frame.image.nbytes <= _BUFFER
                    if rule.looks and not hold:
                        self._look_through(looks)
                elif frame.image.shape != shape:
                    detail = f"frame {index} is {frame.image.shape}, the first is {shape}"
                    problems.append(Skip(self.video, "size changes", detail))
                    break
                if hold:
                    looks.look(index, frame)
                    stop = rule.stop(looks.found, first, most)
                if frames and index >= stop:
                    yield self._finish(looks, first, frames[: stop - first], cutter)
                    frames, first, cutter = frames[stop - first :], stop, None
                if not hold and cutter is None:
                    stop = rule.stop(looks.found, first, most)
                    cutter = _Cutter(self.settings, self.place(looks, first, stop, frame.image))
                frames.append(frame if cutter is None else cutter.cut(frame))
        except DataError as error:
            problems.append(Skip(self.video, "damaged" if index >= 0 else "unreadable", str(error)))
        if frames:
            yield self._finish(looks, first, frames, cutter)
        elif not problems:
            problems.append(Skip(self.video, "unreadable", "it holds no frame"))

    def _finish(self, looks: FaceLooks, first: int, frames: list[VideoFrame], cutter: _Cutter | None) -> _Candidate:
        if cutter is None:
            place = self.place(looks, first, first + len(frames), frames[0].image)
            cutter = _Cutter(self.settings, place)
            frames = [cutter.cut(frame) for frame in frames]
        return _Candidate(first, frames, cutter.place, cutter.points())

    def place(self, looks: FaceLooks, first: int, stop: int, image: np.ndarray) -> Place | Refusal:
        """Return what to cut from the frames ``first`` to ``stop`` (not included), of which ``image`` is one."""
        height, width = image.shape[:2]
        if self.square is not None:
            return Place(self.square.in_picture(width, height))
        rule = self.settings.rule
        seen = [looks.found[k] for k in range(first, rule.last(stop) + 1) if k in looks.found]
        return rule.place(seen, width, height)

    def frames(self) -> Iterator[VideoFrame]:
        """Yield the frames that are used."""
        if self.path.is_dir():
            for index, picture in enumerate(list_pictures(self.path)):
                yield VideoFrame(read_picture(picture), index / self.settings.fps, index)
            return
        tick, number = 0, -1
        for image, time in read_frames(self.path, self.start):
            if self.stop is not None and time >= self.stop - _INSTANT:
                return
            if time < self.start - _INSTANT:
                continue
            number += 1
            ticks = (time - self.start) * self.settings.fps
            if ticks >= tick - 0.25:
                yield VideoFrame(image, time, number)
                tick = max(tick, int(ticks)) + 1

    def _look_through(self, looks: FaceLooks) -> None:
        """Look for the face in frames spread over the whole video."""
        try:
            for index, frame in enumerate(self.frames()):
                looks.look(index, frame)
        except DataError:
            pass  # the reading that cuts meets the same damage and reports it

    def _meta(self, number: int, frames: list[VideoFrame], place: Place, detector: str) -> ClipMeta:
        span = frames[-1].time - frames[0].time
        settings = self.settings
        return ClipMeta(
            key=f"{self.key}-{number:04d}",
            identity=self.identity,
            video=self.video,
            dataset=self.dataset,
            licence=self.licence,
            fps=round((len(frames) - 1) / span, 3) if span > 0 else settings.fps,
            times=[round(frame.time, 6) for frame in frames],
            resolution=settings.resolution,
            crop=settings.rule.meta(place, detector, settings.every),
            groups=self.groups,
            numbers=[frame.number for frame in frames],
        )
