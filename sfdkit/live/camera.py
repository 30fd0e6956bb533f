"""Cameras: their newest frame, whatever happened to those before it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Self

import cv2
import numpy as np

from sfdkit.errors import DataError
from sfdkit.media.video_reader import probe, read_frames

_CAMERA_FPS = 30.0
"""Taken for a camera that does not say how fast it is."""


class Shot(NamedTuple):
    """A frame of a camera."""

    number: int
    """Counted from 0, those included that nobody took."""
    taken: float
    """When it came, by :func:`time.monotonic`."""
    picture: np.ndarray
    """H W 3 uint8."""


class Camera:
    """Reads a camera, or a video at its own pace, in a thread of its own, and keeps the newest frame alone.

    Args:
        name: The number of a camera of this machine, or a video file.
        fps: Frames per second to ask a camera for; a file has its own.

    Raises:
        DataError: There is no such camera or file, or it gives no picture.
    """

    def __init__(self, name: str, fps: float | None = None) -> None:
        self.name = name
        if name.isdecimal():
            self._device: cv2.VideoCapture | None = _open(int(name), fps)
            self.fps = fps or self._device.get(cv2.CAP_PROP_FPS) or _CAMERA_FPS
        else:
            self._device, self.fps = None, probe(Path(name)).fps
        self._newest: Shot | None = None
        self._error: Exception | None = None
        self._ended = self._stopped = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped = True
        self._thread.join(timeout=2)
        if self._device is not None:
            self._device.release()

    def newest(self, after: int) -> Shot | None:
        """Wait for a frame with a number above ``after``, and return the newest; None at the end.

        Raises:
            DataError: The video is damaged, or the camera is gone.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._ended or (self._newest is not None and self._newest.number > after))
            if self._error is not None:
                raise self._error
            shot = self._newest
            return shot if shot is not None and shot.number > after else None

    def _read(self) -> None:
        try:
            for number, picture in enumerate(self._pictures()):
                if self._stopped:
                    break
                with self._changed:
                    self._newest = Shot(number, time.monotonic(), picture)
                    self._changed.notify_all()
        except Exception as error:  # goes to whoever waits
            self._error = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _pictures(self) -> Iterator[np.ndarray]:
        if self._device is None:
            began = time.monotonic()
            for picture, at in read_frames(Path(self.name)):
                time.sleep(max(0.0, began + at - time.monotonic()))
                yield picture
            return
        while not self._stopped:
            there, picture = self._device.read()
            if not there:
                raise DataError(f"camera: number {self.name} gives no more pictures; is it unplugged?")
            yield cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)


def _open(number: int, fps: float | None) -> cv2.VideoCapture:
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # it tells of its own troubles on the screen
    try:
        device = cv2.VideoCapture(number)
        if fps is not None:
            device.set(cv2.CAP_PROP_FPS, fps)
        there = device.isOpened() and device.read()[0]
    finally:
        cv2.utils.logging.setLogLevel(level)
    if not there:
        device.release()
        raise DataError(
            f"camera: there is no camera number {number}, or another program uses it; give another number, or the "
            "path of a video"
        )
    return device
