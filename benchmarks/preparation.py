"""How fast videos become clips, and where the time goes.

``python -m benchmarks.preparation VIDEOS`` prints a table: the whole way of one process, its parts, and what decoding
and JPEG encoding alone would take.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from jsonargparse import auto_cli

import sfdkit.data.pack.video_source as video_source
from sfdkit.data.pack.encode import encode_jpeg
from sfdkit.data.pack.find import find_videos
from sfdkit.data.pack.options import CutOptions
from sfdkit.data.pack.people import video_sources
from sfdkit.data.pack.video_source import VideoSource
from sfdkit.errors import DataError
from sfdkit.media.crop import CropMethod, CropRule, FaceSettings, Place
from sfdkit.media.detect import FaceWatcher

Result = TypeVar("Result")


class Clock:
    """Adds up seconds by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    def timed(self, name: str, call: Callable[..., Result]) -> Callable[..., Result]:
        """Return a function whose calls are timed."""

        def run(*arguments: Any, **named: Any) -> Result:
            began = time.perf_counter()
            try:
                return call(*arguments, **named)
            finally:
                self.seconds[name] += time.perf_counter() - began

        return run

    def frames(self, name: str, call: Callable[..., Iterator[Result]]) -> Callable[..., Iterator[Result]]:
        """Return a generator function whose steps are timed."""

        def run(*arguments: Any, **named: Any) -> Iterator[Result]:
            made = call(*arguments, **named)
            step = self.timed(name, lambda: next(made, None))
            while (item := step()) is not None:
                yield item

        return run


def floor(source: VideoSource) -> tuple[int, float]:
    """Decode a video and encode its middle square of the wanted size: frames, and seconds."""
    began, frames = time.perf_counter(), 0
    with suppress(DataError):  # a damaged video gives the frames before the damage
        for image, _, _ in source.frames():
            place = CropRule("centre").place([], image.shape[1], image.shape[0])
            assert isinstance(place, Place)
            encode_jpeg(video_source.crop_resize(image, place, source.settings.resolution))
            frames += 1
    return frames, time.perf_counter() - began


def whole(source: VideoSource, clock: Clock) -> tuple[int, float]:
    """Make the clips of a video and encode them: frames kept, and seconds."""
    began, kept = time.perf_counter(), 0
    encode = clock.timed("encode", encode_jpeg)
    for clip in source.clips(lambda skip: None):
        for frame in clip.frames:
            encode(np.ascontiguousarray(frame))
        kept += len(clip.frames)
    return kept, time.perf_counter() - began


def preparation(
    root: str,
    resolution: int = 256,
    crop: CropMethod = "face",
    face_every: int = 8,
    frames_per_clip: int = 32,
    videos: int = 24,
) -> None:
    """Measure the preparation of videos in this process, one after the other.

    Args:
        root: Folder that is searched for videos.
        resolution: Pixels of a side.
        crop: How to cut.
        face_every: A face is looked for in every n-th frame.
        frames_per_clip: The most frames of a clip.
        videos: The most videos, spread over all there are.
    """
    options = CutOptions(resolution=resolution, face=FaceSettings(every=face_every), frames_per_clip=frames_per_clip)
    settings = options.clip_settings(crop)
    found, _ = video_sources(Path(root), find_videos(Path(root)), settings, "file", None, "clips", "unknown")
    chosen = found[:: max(1, -(-len(found) // videos))]
    frames, least = (sum(column) for column in zip(*(floor(source) for source in chosen), strict=True))
    clock = Clock()
    video_source.read_frames = clock.frames("decode", video_source.read_frames)  # type: ignore[assignment]
    video_source.crop_resize = clock.timed("crop", video_source.crop_resize)  # type: ignore[assignment]
    FaceWatcher.__call__ = clock.timed("detect", FaceWatcher.__call__)  # type: ignore[method-assign]
    kept, seconds = (sum(column) for column in zip(*(whole(source, clock) for source in chosen), strict=True))
    print(f"{len(chosen)} videos, {frames} frames, {kept} of them kept; {crop} every {face_every}, {resolution} pixels")
    print(f"whole      {frames / seconds:8.1f} frames a second")
    for name in ("decode", "detect", "crop", "encode"):
        share = clock.seconds[name] / seconds
        print(f"  {name:8} {1000 * clock.seconds[name] / frames:8.2f} ms a frame {share:6.0%}")
    reach = f"the whole reaches {least / seconds:.2f} of it"
    print(f"decode and encode alone {frames / least:8.1f} frames a second; {reach}")


if __name__ == "__main__":
    auto_cli(preparation, as_positional=True)
