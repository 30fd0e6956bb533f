"""The command ``sfdkit live``: a face moved by a camera."""

from __future__ import annotations

import time
import warnings
from collections import deque
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jsonargparse.typing import PositiveFloat, PositiveInt

from sfdkit.apply.frame_source import read_source
from sfdkit.apply.frame_writer import check_output
from sfdkit.apply.options import Height, SteeringOptions
from sfdkit.apply.reenactment import SourceRenderer
from sfdkit.config.command import Port
from sfdkit.errors import ConfigError, DataError, SfdkitWarning
from sfdkit.live.camera import Camera, Shot
from sfdkit.live.page import Page
from sfdkit.live.square import FollowingSquare
from sfdkit.media.crop import CropMethod, crop_resize
from sfdkit.media.draw import enlarge
from sfdkit.media.video_writer import VideoWriter

_REMEMBERED = 60
"""Frames over which speed and latency are averaged."""


@dataclass(kw_only=True)
class Live(SteeringOptions):
    """Move the face of a picture as the one before a camera moves, shown on a page of this machine or kept in a video.

    The newest frame of the camera counts: what the machine cannot keep up with is left out, and nothing lags. The
    square that is cut out of the frames follows the face smoothly, and neither turns nor changes its size from frame to
    frame. An exported model (--model) needs no torch and starts fastest. Stop with Ctrl-C.

    Args:
        source: The face to move: a picture, or a video or folder of pictures whose first frame is taken.
        camera: The number of a camera, 0 for the first, or a video file, which is played at its own speed.
        output: page shows the result on a page of this machine, whose address is printed; or an .mp4 file.
        port: Of the page; 0 takes a free one.
        source_crop: The same as crop, for the source alone; as crop by default.
        every: Frames from one look for the face to the next.
        side_by_side: Show source, camera and result beside each other.
        fps: Frames per second to ask the camera for.
        size: Height of the shown face in pixels; by default the model's resolution, enlarged to at least 256.
        seconds: Stop after so long.
    """

    source: str
    camera: str = "0"
    output: str = "page"
    port: Port = 8700  # type: ignore[valid-type]
    source_crop: CropMethod | None = None
    every: PositiveInt = 5
    side_by_side: bool = False
    fps: PositiveFloat | None = None
    size: Height | None = None
    seconds: PositiveFloat | None = None

    def run(self) -> dict[str, Any]:
        """Animate until the camera ends, the time is over or Ctrl-C; returns what is told at the end.

        Raises:
            CheckpointError, ConfigError, DataError: The animator, the source, the camera or the output cannot be used.
        """
        self._check_options()
        loaded = self.load()
        runner = loaded.runner
        still = read_source(self.source, runner.resolution, self.crop_rule(self.source_crop))
        square = FollowingSquare(self.crop_rule(), self.every)
        height = self.size or runner.resolution * -(-256 // runner.resolution)
        record = _Record()
        with ExitStack() as stack:
            camera = stack.enter_context(Camera(self.camera, self.fps))
            render = SourceRenderer(runner, still, self.steering(loaded, camera.fps))
            show = self._open(stack, camera.fps)
            number, ends = -1, None if self.seconds is None else time.monotonic() + self.seconds
            try:
                while (shot := camera.newest(number)) is not None and (ends is None or time.monotonic() < ends):
                    number = shot.number
                    place = square(shot.picture)
                    if place is None:
                        record.unseen += 1
                        continue
                    frame = crop_resize(shot.picture, place, runner.resolution)
                    result = render(runner.motion(frame[None]))[0]
                    shown = np.concatenate([still, frame, result], 1) if self.side_by_side else result
                    record.add(shot)
                    show(enlarge(shown, height), record)
            except KeyboardInterrupt:
                print()
            except DataError as error:
                if not record.frames:
                    raise
                warnings.warn(f"{error}; what came before it stays", SfdkitWarning, stacklevel=2)
        if not record.frames:
            print("no face was found in front of the camera")
        print(record.line())
        return record.told()

    def _check_options(self) -> None:
        given = {"source": self.source, "camera": None if self.camera.isdecimal() else self.camera}
        if self.output == "page":
            self.animator_file()
        else:
            self.check_apart(self.output, **given)
            if Path(self.output).suffix.lower() != ".mp4":
                raise ConfigError(f"output: {self.output!r} will not do; give page, or a file .mp4")
            check_output(self.output, None)
        if self.crop == "aligned":
            raise ConfigError("crop: aligned turns the square with the eyes, frame by frame; use face or union")

    def _open(self, stack: ExitStack, fps: float) -> Any:
        """Return the function that shows a picture, H W 3 uint8."""
        if self.output == "page":
            page = stack.enter_context(Page(self.port))
            print(f"look at {page.address}; Ctrl-C ends it", flush=True)
            return lambda picture, record: page.show(picture, record.told())
        writer = stack.enter_context(VideoWriter(Path(self.output), fps, None))
        last: list[np.ndarray] = []

        def write(picture: np.ndarray, record: _Record) -> None:
            for _ in range(record.step - 1):  # the video keeps the camera's time where frames were dropped
                writer.write(last[0])
            writer.write(picture)
            last[:] = [picture]

        return write


class _Record:
    """How fast it goes."""

    def __init__(self) -> None:
        self.frames = self.unseen = 0
        self.step = 1
        """Frames of the camera from the last one that was shown to this one."""
        self._last = -1
        self._dropped = 0
        self._done: deque[float] = deque(maxlen=_REMEMBERED)
        self._latency: deque[float] = deque(maxlen=_REMEMBERED)

    def add(self, shot: Shot) -> None:
        """Note that a frame of the camera has become a picture, now."""
        now = time.monotonic()
        self.step = shot.number - self._last if self.frames else 1
        self._dropped += self.step - 1
        self._last = shot.number
        self.frames += 1
        self._done.append(now)
        self._latency.append(now - shot.taken)

    def told(self) -> dict[str, Any]:
        """Return frames, their rate, the latency from the camera's frame to the picture, and frames dropped."""
        spent = self._done[-1] - self._done[0] if len(self._done) > 1 else 0.0
        return {
            "frames": self.frames,
            "frames_per_second": (len(self._done) - 1) / spent if spent else 0.0,
            "latency_ms": 1000 * float(np.median(self._latency)) if self._latency else 0.0,
            "dropped": self._dropped,
            "without_face": self.unseen,
        }

    def line(self) -> str:
        """Return that in a line."""
        return (
            "{frames} frames, {frames_per_second:.1f} a second, {latency_ms:.0f} ms from the camera to the picture, "
            "{dropped} dropped, {without_face} without a face".format(**self.told())
        )
