"""Decoded frames as a player shows them: one size, square pixels, upright, BT.709."""

from __future__ import annotations

from typing import Any

import av
import cv2
import numpy as np
from av.sidedata.sidedata import Type

from sfdkit.media.colour import to_rgb

_SQUARE_RANGE = (0.2, 5.0)  # of the sample aspect ratio; others are mistakes


class Display:
    """Converts the decoded frames of one stream to RGB pictures.

    Args:
        stream: The video stream that the frames come from.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._size: tuple[int, int] | None = None

    def __call__(self, frame: av.VideoFrame) -> np.ndarray:
        """Return a frame as H W 3 uint8 RGB of the first frame's size, with black bars where its shape differs."""
        context = self._stream.codec_context
        picture = to_rgb(frame, int(context.color_trc or 0), int(context.color_primaries or 0))
        height, width = picture.shape[:2]
        aspect = float(self._stream.sample_aspect_ratio or context.sample_aspect_ratio or 1)
        if _SQUARE_RANGE[0] <= aspect <= _SQUARE_RANGE[1]:
            picture = _resized(picture, max(1, round(width * aspect)), height)
        picture = _upright(picture, frame)
        self._size = self._size or (picture.shape[1], picture.shape[0])
        return _letterboxed(picture, *self._size)


def _resized(picture: np.ndarray, width: int, height: int) -> np.ndarray:
    if picture.shape[:2] == (height, width):
        return picture
    shrinks = 2 * width * height < picture.shape[0] * picture.shape[1]  # else averaging is slow and changes nothing
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)


def _letterboxed(picture: np.ndarray, width: int, height: int) -> np.ndarray:
    if picture.shape[:2] == (height, width):
        return picture
    scale = min(width / picture.shape[1], height / picture.shape[0])
    inner = _resized(picture, *(max(1, round(side * scale)) for side in picture.shape[1::-1]))
    left, top = (width - inner.shape[1]) // 2, (height - inner.shape[0]) // 2
    right, bottom = width - inner.shape[1] - left, height - inner.shape[0] - top
    return cv2.copyMakeBorder(inner, top, bottom, left, right, cv2.BORDER_CONSTANT)


def _upright(picture: np.ndarray, frame: av.VideoFrame) -> np.ndarray:
    """Apply the display matrix of a frame: a turn by quarters, a mirror, or both.

    The 3 x 3 matrix (ISO/IEC 14496-12, 8.3.2) takes a place (p, q) to (a p + c q, b p + d q), y downwards; it lies in
    memory as a, b, u, c, d, v, x, y, w (https://ffmpeg.org/doxygen/trunk/group__lavu__video__display.html).
    """
    sides: Any = frame.side_data
    matrix = next((data for data in sides if data.type is Type.DISPLAYMATRIX), None)  # by name it takes 0.1 ms
    if matrix is None:
        return picture
    a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32)[:5].tolist()
    if abs(b) + abs(c) > abs(a) + abs(d):
        picture, a, d = picture.transpose(1, 0, 2), c, b
    return np.ascontiguousarray(picture[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])
