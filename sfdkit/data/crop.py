"""One crop rule for whole clips and for single pictures: the same cropper prepares training data and a source picture.

A crop that differs between training and use is the commonest cause of bad results, so the parameters of each crop are
kept in the clip's json (:class:`sfdkit.data.format.CropMeta`).

Faces are found by the cascades that OpenCV ships (Viola and Jones, https://doi.org/10.1109/CVPR.2001.990517;
https://docs.opencv.org/4.x/db/d28/tutorial_cascade_classifier.html); nothing is downloaded.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from functools import cache
from math import hypot
from pathlib import Path
from typing import Literal, NamedTuple

import cv2
import numpy as np

from sfdkit.data.format import CropMeta

CropMethod = Literal["none", "centre", "face"]

DataCrop = Literal["none", "centre", "face", "given"]
"""Of data sets that say what is to be cut as well."""

MARGIN = 0.4
"""Share of the face box that is added on each side; holds the hair, the chin and some room for motion."""

DETECTOR = "opencv-haar"

_RAISE = 0.1  # a face box ends above the hair line: the square is centred this share of the face size higher
_LEAST_MARGIN = 0.15  # a square that the picture forces to shrink keeps at least this much around the face
_SUPPORT = 1 / 3  # share of the looked-at pictures in which the face must be found
_DETECT_SIDE = 320  # pixels of the longer side at which faces are looked for
_NEAR = 0.5  # seconds within which a box of a track holds
_LEAST_FACE = 1 / 8  # share of the shorter side below which a face is too small to be the subject


class Box(NamedTuple):
    """A rectangle in pixels of the picture; may reach over its border."""

    x0: float
    y0: float
    x1: float
    y1: float


class Square(NamedTuple):
    """What a data set says is to be cut."""

    box: Box
    """In pixels."""
    width: int | None = None
    """Width of the picture that these pixels belong to; None: scaled as its height is."""
    height: int | None = None
    """Height of the picture that these pixels belong to; None for the video as it is."""

    def in_picture(self, width: int, height: int) -> Box:
        """Return the box in pixels of a picture of another size."""
        y = height / self.height if self.height else 1.0
        x = width / self.width if self.width else y
        return Box(self.box.x0 * x, self.box.y0 * y, self.box.x1 * x, self.box.y1 * y)


class Track(NamedTuple):
    """Boxes of one face that come with a data set."""

    times: tuple[float, ...]
    """Seconds after the first frame of the video, in order."""
    boxes: tuple[Box, ...]
    """One for each time."""
    height: int | None = None
    """Height of the picture whose pixels these are; None for shares of width and height."""

    def at(self, time: float, width: int, height: int) -> Box | None:
        """Return the box nearest in time, in pixels of a picture; None where none is within half a second."""
        after = bisect_left(self.times, time)
        near = [k for k in (after - 1, after) if 0 <= k < len(self.times)]
        best = min(near, key=lambda k: abs(self.times[k] - time))
        if abs(self.times[best] - time) > _NEAR:
            return None
        x, y = (width, height) if self.height is None else (height / self.height, height / self.height)
        box = self.boxes[best]
        return Box(box.x0 * x, box.y0 * y, box.x1 * x, box.y1 * y)


Detector = Callable[[np.ndarray], Box | None]
"""Finds the main face of a picture, H W 3 uint8 RGB; None where there is none."""


@cache
def _cascade(name: str) -> cv2.CascadeClassifier:
    return cv2.CascadeClassifier(str(Path(cv2.__file__).parent / "data" / f"haarcascade_{name}.xml"))


def _strongest(grey: np.ndarray, name: str) -> Box | None:
    """Return the detection with the most support for its size."""
    least = max(16, round(min(grey.shape) * _LEAST_FACE))
    boxes, votes = _cascade(name).detectMultiScale2(grey, scaleFactor=1.1, minNeighbors=4, minSize=(least, least))
    if not len(boxes):
        return None
    x, y, width, height = max(zip(boxes, votes, strict=True), key=lambda found: found[0][2] * found[1])[0]
    return Box(float(x), float(y), float(x + width), float(y + height))


def find_face(image: np.ndarray) -> Box | None:
    """Find the main face: frontal first, then in profile to either side.

    Args:
        image: H W 3 uint8 RGB.

    Returns:
        The face from about the brows to the chin in pixels of ``image``, or None. Where several faces are found, the
        one that is largest and surest.
    """
    scale = min(1.0, _DETECT_SIDE / max(image.shape[:2]))
    small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else image
    grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
    found = _strongest(grey, "frontalface_alt2") or _strongest(grey, "frontalface_default")
    found = found or _strongest(grey, "profileface")
    if found is None:
        mirrored = _strongest(np.ascontiguousarray(grey[:, ::-1]), "profileface")
        if mirrored is None:
            return None
        width = grey.shape[1]
        found = Box(width - mirrored.x1, mirrored.y0, width - mirrored.x0, mirrored.y1)
    return Box(*(value / scale for value in found))


def _same_face(a: Box, b: Box) -> bool:
    """Tell whether two boxes can be one head at two moments of a short clip."""
    size_a, size_b = a.x1 - a.x0, b.x1 - b.x0
    away = hypot((a.x0 + a.x1 - b.x0 - b.x1) / 2, (a.y0 + a.y1 - b.y0 - b.y1) / 2)
    return max(size_a, size_b) <= 1.6 * min(size_a, size_b) and away <= (size_a + size_b) / 2


def face_square(faces: Sequence[Box | None], width: int, height: int, margin: float = MARGIN) -> Box | None:
    """Return the square that holds one head through a whole clip.

    Boxes that do not agree with the largest group of boxes are taken for false finds and left out. The square holds
    the union of the others with ``margin`` around it. Where it reaches over the border of the picture it is moved
    inwards, and it is made smaller where the picture is too small for it, down to a margin of 0.15.

    Args:
        faces: What the detector found in pictures spread over the clip.
        width: Pixels of the pictures.
        height: Pixels of the pictures.
        margin: Share of the face's size to add on each side.

    Returns:
        The square in whole pixels, or None where a face was found in less than a third of the pictures.
    """
    found = [face for face in faces if face is not None]
    groups = [[other for other in found if _same_face(face, other)] for face in found]
    group = max(groups, key=len, default=[])
    if not group or len(group) < _SUPPORT * len(faces):
        return None
    x0, y0 = min(b.x0 for b in group), min(b.y0 for b in group)
    x1, y1 = max(b.x1 for b in group), max(b.y1 for b in group)
    face = float(np.median([b.x1 - b.x0 for b in group]))
    extent = max(x1 - x0, y1 - y0)
    largest = max(min(width, height), extent + 2 * min(margin, _LEAST_MARGIN) * face)
    side = round(min(extent + 2 * margin * face, largest))
    left = _inside((x0 + x1 - side) / 2, side, width)
    top = _inside((y0 + y1 - side) / 2 - _RAISE * face, side, height)
    return Box(left, top, left + side, top + side)


def _inside(start: float, side: int, length: int) -> float:
    """Move an interval into ``0 .. length``, or centre it on that where it is longer."""
    if side >= length:
        return float((length - side) // 2)
    return float(round(min(max(start, 0), length - side)))


def clip_box(
    images: Sequence[np.ndarray], method: CropMethod, margin: float = MARGIN, detector: Detector = find_face
) -> Box | None:
    """Return the square to cut from all pictures of a clip.

    Args:
        images: Pictures of one size spread over the clip, each H W 3 uint8 RGB; for ``none`` and ``centre`` one is
            enough, for a source picture it is that one.
        method: ``none`` keeps the whole picture and pads it to a square by repeating its edge; ``centre`` takes the
            largest square in the middle; ``face`` the square around the head, see :func:`face_square`.
        margin: Share of the face's size to add on each side, for ``face``.
        detector: Finds the main face of a picture.

    Returns:
        The square, or None where ``face`` finds no face.
    """
    height, width = images[0].shape[:2]
    if method == "face":
        return face_square([detector(image) for image in images], width, height, margin)
    side = max(width, height) if method == "none" else min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return Box(float(left), float(top), float(left + side), float(top + side))


def crop_meta(method: DataCrop, box: Box, margin: float = MARGIN, detector: str = DETECTOR) -> CropMeta:
    """Return what a clip's json says about its crop.

    Args:
        method: How it was cut.
        box: What was cut, in pixels.
        margin: Share of the face's size that was added, for ``face``.
        detector: What found the face, for ``face``.
    """
    face = method == "face"
    return CropMeta(method=method, box=list(box), margin=margin if face else 0.0, detector=detector if face else "")


def crop_resize(image: np.ndarray, box: Box, resolution: int) -> np.ndarray:
    """Cut a square from a picture and bring it to a size; outside the picture its edge is repeated.

    Args:
        image: H W 3 uint8 RGB.
        box: The square; it is rounded to whole pixels.
        resolution: R, pixels of a side of the result.

    Returns:
        R R 3 uint8 RGB.
    """
    height, width = image.shape[:2]
    x0, y0, x1, y1 = (round(value) for value in box)
    before_x, after_x = max(-x0, 0), max(x1 - width, 0)
    before_y, after_y = max(-y0, 0), max(y1 - height, 0)
    cut = image[max(y0, 0) : min(y1, height), max(x0, 0) : min(x1, width)]
    if before_x or after_x or before_y or after_y:
        cut = cv2.copyMakeBorder(cut, before_y, after_y, before_x, after_x, cv2.BORDER_REPLICATE)
    if cut.shape[:2] == (resolution, resolution):
        return np.ascontiguousarray(cut)
    shrinks = cut.shape[0] > resolution
    return cv2.resize(cut, (resolution, resolution), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
