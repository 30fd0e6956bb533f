"""Face detection by the cascades that OpenCV ships, or by YuNet in a local file.

The cascades (Viola and Jones, https://doi.org/10.1109/CVPR.2001.990517;
https://docs.opencv.org/4.x/db/d28/tutorial_cascade_classifier.html) need no download. YuNet
(https://doi.org/10.1007/s11633-023-1423-y) is more reliable and finds eyes, nose and mouth as well; its ONNX file is at
https://github.com/opencv/opencv_zoo/tree/main/models/face_detection_yunet, and kornia's detector is the same.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import cv2
import numpy as np

from sfdkit.errors import ConfigError
from sfdkit.media.box import Box, overlap

FaceChoice = Literal["largest", "central"]

OPENCV = "opencv"
"""The option that chooses the cascades."""

_SIDE = 320  # pixels of the longer side at which faces are looked for first
_LARGEST_SIDE = 2560  # the most at which they are looked for last
_LEAST_FACE = 1 / 8  # share of the shorter side from which faces are looked for first; half of it at twice the size ...
_LEAST_NEAR = 32  # pixels of a face that is looked for again
_LOST_FACE = 128  # pixels of a face that was lost in the picture that is searched for it
_PATIENCE = 8  # looks without a face, in the second half of which the smallest are not looked for
_VOTES, _VOTES_FINE = 4, 8  # neighbours that a cascade's find needs: chance finds more in a larger picture
_AROUND = 0.4  # share of a face's size around it in which it is looked for again
_ALIKE = 1.35  # factor by which its size may have changed
_SURE = 0.6  # score from which YuNet's finds count
_EYE_ROWS = (0.15, 0.6)  # share of a face's height in which its eyes are looked for
_EYE_SIZE = (0.14, 0.4)  # share of a face's width that an eye takes in the cascade's sense


class Face(NamedTuple):
    """A detected face."""

    box: Box
    """From about the brows to the chin, in pixels of the picture."""
    score: float
    """Confidence; comparable within one picture alone."""
    eyes: tuple[tuple[float, float], tuple[float, float]] | None = None
    """The eye on the left and that on the right of the picture, x and y in pixels; None where they were not found."""
    points: tuple[tuple[float, float], ...] | None = None
    """The detector's own points in its own order, x and y in pixels; None where it has none."""

    def scaled(self, scale: float) -> Face:
        """Return the face in a picture that was made larger by ``scale``."""
        eyes, points = (
            places and tuple((x * scale, y * scale) for x, y in places) for places in (self.eyes, self.points)
        )
        return Face(Box(*(value * scale for value in self.box)), self.score, eyes, points)  # type: ignore[arg-type]


class FaceDetector(Protocol):
    """Detects faces."""

    @property
    def name(self) -> str:
        """The name in a clip's json."""

    def __call__(self, image: np.ndarray, near: Box | None = None) -> list[Face]:
        """Return the faces of a picture, H W 3 uint8 RGB, in any order.

        Args:
            image: The picture.
            near: Where a face was a moment ago: others need not be found. None looks everywhere.
        """


_own = threading.local()


def _cascade(name: str) -> cv2.CascadeClassifier:
    """Return a cascade of this thread's own: two threads at once spoil each other's finds without a word."""
    if not hasattr(_own, name):
        setattr(_own, name, cv2.CascadeClassifier(str(Path(cv2.__file__).parent / "data" / f"haarcascade_{name}.xml")))
    return getattr(_own, name)


class CascadeDetector:
    """OpenCV's cascades: frontal faces first, and where there is none, profiles to either side.

    Args:
        eyes: Look for the eyes of each face as well.
    """

    name = "opencv-haar"

    def __init__(self, eyes: bool = False) -> None:
        self.eyes = eyes

    def __call__(self, image: np.ndarray, near: Box | None = None) -> list[Face]:
        """Return the faces of a picture, H W 3 uint8 RGB; near a face of a moment ago only frontal ones of its size."""
        if near is not None:
            size = near.x1 - near.x0
            scale = min(1.0, max(_SIDE / max(image.shape[:2]), _LEAST_NEAR / size))
            return self._in_picture(image, _look_near(_grey(image, scale), Box(*(v * scale for v in near))), scale)
        for scale in _scales(image, _SIDE):
            grey = _grey(image, scale)
            if found := _look_everywhere(grey) if max(grey.shape) <= _SIDE else _look_finely(grey):
                return self._in_picture(image, found, scale)
        return []

    def _in_picture(self, image: np.ndarray, found: Sequence[Face], scale: float) -> list[Face]:
        faces = [Face(Box(*(value / scale for value in face.box)), face.score) for face in found]
        return [face._replace(eyes=_find_eyes(image, face.box)) for face in faces] if self.eyes else faces


def _scales(image: np.ndarray, side: int) -> Iterator[float]:
    """Yield scales from coarse to fine: the longer side becomes ``side``, twice that, and so on up to all of it."""
    longer = max(image.shape[:2])
    while side < min(longer, _LARGEST_SIDE):
        yield side / longer
        side *= 2
    yield min(1.0, _LARGEST_SIDE / longer)


def _scaled(image: np.ndarray, scale: float) -> np.ndarray:
    return cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else image


def _grey(image: np.ndarray, scale: float) -> np.ndarray:
    return cv2.cvtColor(_scaled(image, scale), cv2.COLOR_RGB2GRAY)


def _look_everywhere(grey: np.ndarray) -> list[Face]:
    for name in ("frontalface_alt2", "frontalface_default", "profileface"):
        if found := _look(grey, name):
            return found
    width = grey.shape[1]
    mirrored = _look(np.ascontiguousarray(grey[:, ::-1]), "profileface")
    return [Face(Box(width - b.x1, b.y0, width - b.x0, b.y1), score) for b, score, *_ in mirrored]


def _look_finely(grey: np.ndarray) -> list[Face]:
    """Look for small frontal faces with the surest cascade alone: the others see faces in clutter."""
    return _look(grey, "frontalface_alt2", votes=_VOTES_FINE)


def _look_near(grey: np.ndarray, near: Box) -> list[Face]:
    """Look around a box for faces of about its size."""
    size = near.x1 - near.x0
    left, top = (max(0, round(edge - _AROUND * size)) for edge in near[:2])
    right, bottom = (round(edge + _AROUND * size) for edge in near[2:])
    part = np.ascontiguousarray(grey[top:bottom, left:right])
    if min(part.shape) < 24:
        return []
    found = _look(part, "frontalface_alt2", (max(16, round(size / _ALIKE)), round(size * _ALIKE)))
    return [Face(Box(b.x0 + left, b.y0 + top, b.x1 + left, b.y1 + top), score) for b, score, *_ in found]


def _look(grey: np.ndarray, name: str, sizes: tuple[int, int] | None = None, votes: int = _VOTES) -> list[Face]:
    first = min(1.0, _SIDE / max(grey.shape))
    least, most = sizes or (max(16, round(min(grey.shape) * first * _LEAST_FACE)), max(grey.shape))
    boxes, counts = _cascade(name).detectMultiScale2(
        grey, scaleFactor=1.1, minNeighbors=votes, minSize=(least, least), maxSize=(most, most)
    )
    return [
        Face(Box(float(x), float(y), float(x + w), float(y + h)), float(count))
        for (x, y, w, h), count in zip(boxes, counts, strict=True)
    ]


def _find_eyes(image: np.ndarray, face: Box) -> tuple[tuple[float, float], tuple[float, float]] | None:
    """Return the surest eye in each half of a face."""
    side = face.x1 - face.x0
    top, bottom = (round(face.y0 + share * (face.y1 - face.y0)) for share in _EYE_ROWS)
    left, right = round(face.x0), round(face.x1)
    part = image[max(top, 0) : bottom, max(left, 0) : right]
    if min(part.shape[:2]) < 8:
        return None
    scale = min(1.0, _SIDE / side)
    grey = _grey(part, scale)
    least, most = (max(4, round(share * side * scale)) for share in _EYE_SIZE)
    boxes, votes = _cascade("eye").detectMultiScale2(
        grey, scaleFactor=1.05, minNeighbors=3, minSize=(least, least), maxSize=(most, most)
    )
    best: dict[bool, tuple[int, tuple[float, float]]] = {}
    for (x, y, w, h), count in zip(boxes, votes, strict=True):
        place = (max(left, 0) + (x + w / 2) / scale, max(top, 0) + (y + h / 2) / scale)
        half = place[0] > (face.x0 + face.x1) / 2
        if half not in best or best[half][0] < count:
            best[half] = (int(count), place)
    return (best[False][1], best[True][1]) if len(best) == 2 else None


class YuNetDetector:
    """YuNet in an ONNX file, run by OpenCV.

    Args:
        path: The file.

    Raises:
        ConfigError: There is no such file, or OpenCV cannot take it.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise ConfigError(f"detector {path} does not exist; give {OPENCV}, or the ONNX file of YuNet")
        try:
            self._network = cv2.FaceDetectorYN.create(str(self.path), "", (_SIDE, _SIDE), _SURE)
        except cv2.error as error:
            raise ConfigError(f"detector {path}: OpenCV cannot read it as YuNet ({str(error).strip()})") from error

    @property
    def name(self) -> str:
        """The name in a clip's json."""
        return f"yunet:{self.path.name}"

    def __call__(self, image: np.ndarray, near: Box | None = None) -> list[Face]:
        """Return the faces of a picture, H W 3 uint8 RGB, wherever they are.

        Raises:
            ConfigError: The network in the file is another one.
        """
        for scale in _scales(image, 2 * _SIDE):
            if found := self._look(_scaled(image, scale), scale):
                return found
        return []

    def _look(self, small: np.ndarray, scale: float) -> list[Face]:
        self._network.setInputSize((small.shape[1], small.shape[0]))
        try:
            _, rows = self._network.detect(cv2.cvtColor(small, cv2.COLOR_RGB2BGR))
        except cv2.error as error:
            raise ConfigError(f"detector {self.path} is no YuNet ({str(error).strip()})") from error
        return [_face_of(row, scale) for row in (() if rows is None else rows)]


def _face_of(row: Sequence[float], scale: float) -> Face:
    """Read a row of YuNet: x, y, width, height, five points (the eyes first), score."""
    x, y, width, height, *flat = (float(value) / scale for value in row[:14])
    points = tuple(zip(flat[::2], flat[1::2], strict=True))
    left, right = sorted(points[:2])
    return Face(Box(x, y, x + width, y + height), float(row[14]), (left, right), points)


def open_detector(what: str, eyes: bool = False) -> FaceDetector:
    """Return a detector.

    Args:
        what: ``opencv`` for its cascades, or the ONNX file of YuNet.
        eyes: Whether eyes are needed.

    Raises:
        ConfigError: It cannot be had.
    """
    return CascadeDetector(eyes) if what == OPENCV else YuNetDetector(what)


class FaceWatcher:
    """Tracks one face through a video: searches near its last box, and the whole picture when it is lost.

    Args:
        detector: Finds faces.
        choice: Which of several faces to track.
    """

    def __init__(self, detector: FaceDetector, choice: FaceChoice) -> None:
        self.detector, self.choice = detector, choice
        self.last: Face | None = None
        self._size: float | None = None
        self._misses = 0

    def __call__(self, image: np.ndarray) -> Face | None:
        """Return the face in the next picture, H W 3 uint8 RGB."""
        height, width = image.shape[:2]
        if self.last is not None:
            before = self.last.box
            near = [face for face in self.detector(image, before) if overlap(face.box, before) > 0]
            self.last = max(near, key=lambda face: overlap(face.box, before), default=None)
        if self.last is None:
            scale = self._scale(max(height, width))
            faces = [face.scaled(1 / scale) for face in self.detector(_scaled(image, scale))]
            self.last = main_face(faces, self.choice, width, height)
        self._misses = self._misses + 1 if self.last is None else 0
        if self.last is not None:
            self._size = self.last.box.x1 - self.last.box.x0
        return self.last

    def _scale(self, longer: int) -> float:
        """Return the scale at which the whole picture is searched."""
        if self._size is not None:
            return min(1.0, _LOST_FACE / self._size)
        return min(1.0, 2 * _SIDE / longer) if self._misses % _PATIENCE >= _PATIENCE // 2 else 1.0


def main_face(faces: Sequence[Face], choice: FaceChoice, width: int, height: int) -> Face | None:
    """Return the main face of a picture.

    Args:
        faces: All of them.
        choice: ``largest`` takes the one that is largest and surest, ``central`` the one nearest to the middle.
        width: Pixels of the picture.
        height: Pixels of the picture.
    """

    def size(face: Face) -> float:
        return (face.box.x1 - face.box.x0) * face.score

    def away(face: Face) -> float:
        x, y = (face.box.x0 + face.box.x1 - width) / 2, (face.box.y0 + face.box.y1 - height) / 2
        return -float(np.hypot(x, y))

    return max(faces, key=size if choice == "largest" else away, default=None)
