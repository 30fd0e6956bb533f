"""Cropping faces: one rule for clips of training data and for source pictures.

A crop that differs between training and use is the commonest cause of bad results, so the parameters of each crop are
kept in the clip's json (:class:`CropMeta`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, NotRequired, TypedDict

import cv2
import numpy as np
from jsonargparse.typing import NonNegativeFloat, NonNegativeInt, PositiveInt

from sfdkit.errors import ConfigError
from sfdkit.media.box import Box, overlap, same_head, union
from sfdkit.media.detect import OPENCV, Face, FaceChoice, FaceWatcher, open_detector

CropMethod = Literal["none", "centre", "face", "union", "aligned"]
"""How to crop.

``none`` keeps the whole picture and pads it to a square by repeating its edge; ``centre`` takes the largest square in
the middle; ``face`` a square around the head, see :func:`face_square`; ``union`` the square that the First Order Motion
Model cuts, see :func:`union_square`; ``aligned`` a tight square that is turned with the eyes, see
:func:`aligned_square`.
"""

DataCrop = Literal["none", "centre", "face", "union", "aligned", "given"]
"""The same for data sets, which may come with boxes of their own (``given``)."""

LOOKING: tuple[DataCrop, ...] = ("face", "union", "aligned")
"""Methods that detect the face."""

MARGINS = {"face": 0.4, "union": 0.1, "aligned": 0.0}
"""Default margins on each side: 0.4 of the face box leaves room for hair, chin and motion."""

SAME = 0.25
"""Least intersection over union with a clip's first box: at less, ``union`` ends the clip."""

_RAISE = 0.1  # a face box ends above the hair line: the square is centred this share of the face size higher
LEAST_MARGIN, MOST_MARGIN = -0.4, 10.0
"""Of what a user may add to each side of a face."""
_LEAST_MARGIN = 0.15  # a square that the picture forces to shrink keeps at least this much around the face
_SUPPORT = 1 / 3  # share of the looked-at pictures in which the face must be found
_ALIGNED_SIDE = 2.9  # side of an aligned square, in distances between the eyes
_ALIGNED_DROP = 0.42  # its middle below the eyes, in the same


class CropMeta(TypedDict):
    """How the frames were cut from the original picture."""

    method: str
    """``none``, ``centre``, ``face``, ``union``, ``aligned`` or ``given``, see :data:`DataCrop`."""
    box: list[float]
    """x0, y0, x1, y1 in pixels of the original picture; may reach over its border (filled by repeating the edge)."""
    margin: float
    """Share of the detected face's size that was added on each side; 0 where no detector was used."""
    detector: str
    """Name of the detector, ``data set`` where the data set says where the face is, or an empty string."""
    every: NotRequired[int]
    """A face was looked for in every n-th frame."""
    faces: NotRequired[str]
    """Which of several faces was meant: ``largest`` or ``central``."""
    turn: NotRequired[float]
    """Degrees by which the box is turned around its middle, clockwise as seen; 0 where this is missing."""


class Place(NamedTuple):
    """The crop of all pictures of a clip."""

    box: Box
    """In pixels; may reach over the border of the picture."""
    turn: float = 0.0
    """Degrees by which the box is turned around its middle, clockwise as seen."""


class Refusal(NamedTuple):
    """Why a clip cannot be cropped."""

    reason: str
    """``no face``, ``too small`` or ``at the border``."""
    detail: str


@dataclass(frozen=True)
class FaceSettings:
    """How faces are detected, and which of them are cropped.

    Args:
        detector: What finds faces: opencv (its cascades), or the ONNX file of YuNet.
        every: Detect faces in every n-th frame; --min_frames is the most.
        which: Which of several faces to take: largest or central.
        least: Clips in which the face measures fewer pixels are left out.
        border: Clips whose square reaches over the border by more than this share of the face's size are left out; by
            default all that reach over it for union, none for the others.
    """

    detector: str = OPENCV
    every: PositiveInt = 8
    which: FaceChoice = "largest"
    least: NonNegativeInt = 0
    border: NonNegativeFloat | None = None


@dataclass(frozen=True)
class CropRule:
    """How faces are cropped.

    Args:
        method: See :data:`CropMethod`.
        margin: Share of the face's size (``aligned``: of the square's) added on each side; by default that of
            :data:`MARGINS`.
        face: How faces are detected, by the methods that do.
    """

    method: DataCrop = "face"
    margin: float | None = None
    face: FaceSettings = FaceSettings()

    def __post_init__(self) -> None:
        """Refuse a margin that leaves nothing, or nothing of the face.

        Raises:
            ConfigError: It is out of range.
        """
        if self.margin is not None and not LEAST_MARGIN <= self.margin <= MOST_MARGIN:
            raise ConfigError(f"margin: {self.margin:g} is out of range; give {LEAST_MARGIN:g} to {MOST_MARGIN:g}")

    @classmethod
    def of_user(cls, method: CropMethod, margin: float | None, detector: str) -> CropRule:
        """Return the rule for a file that the user names: its face is cropped wherever it is, and never left out."""
        return cls(method, margin, FaceSettings(detector, border=math.inf))

    @property
    def looks(self) -> bool:
        """Whether faces are detected."""
        return self.method in LOOKING

    @property
    def added(self) -> float:
        """The margin in use."""
        return MARGINS.get(self.method, 0.0) if self.margin is None else self.margin

    def watcher(self) -> FaceWatcher:
        """Return a tracker of the face in the pictures of one video, to be called in order.

        Raises:
            ConfigError: The detector cannot be had.
        """
        return FaceWatcher(open_detector(self.face.detector, eyes=self.method == "aligned"), self.face.which)

    def place(self, faces: Sequence[Face | None], width: int, height: int, one_head: bool = False) -> Place | Refusal:
        """Return the crop of a clip, or why there is none.

        Args:
            faces: Detections in pictures spread over the clip; needed where faces are detected.
            width: Pixels of the pictures.
            height: Pixels of the pictures.
            one_head: It is known that all are one head; else those that do not agree are taken for false finds.
        """
        if not self.looks:
            side = max(width, height) if self.method == "none" else min(width, height)
            left, top = (width - side) // 2, (height - side) // 2
            return Place(Box(float(left), float(top), float(left + side), float(top + side)))
        group = [face for face in faces if face is not None] if one_head else _main_group(faces)
        if group is None:
            seen = sum(face is not None for face in faces)
            need = math.ceil(_SUPPORT * len(faces))
            where = ", each time elsewhere: it must be" if seen >= need else ", it must be"
            few = f"a face was found in {seen} of {len(faces)} frames looked at{where} in one place in {need} of them"
            return Refusal("no face", few if seen else "no face was found")
        held = union([face.box for face in group])
        size = max(held.x1 - held.x0, held.y1 - held.y0)
        if size < self.face.least:
            return Refusal("too small", f"the face measures {size:.0f} pixels, at least {self.face.least} are wanted")
        if self.method == "aligned":
            found = aligned_square(group, self.added)
            if found is None:
                return Refusal("no face", "both eyes were found in no frame looked at")
            place = found
        elif self.method == "union":
            place = Place(union_square(held, self.added))
        else:
            place = Place(face_square([face.box for face in group], width, height, self.added))
        outside = max(-place.box.x0, -place.box.y0, place.box.x1 - width, place.box.y1 - height) / size
        limit = self.face.border if self.face.border is not None else 0.0 if self.method == "union" else math.inf
        if outside > limit:
            return Refusal("at the border", f"the square reaches {outside:.2f} of the face's size over the border")
        return place

    def stop(self, faces: Mapping[int, Face | None], first: int, most: int) -> int:
        """Return the index after a clip's last frame, at the latest.

        Args:
            faces: Detections by frame number.
            first: Number of the clip's first frame.
            most: The most frames of a clip.
        """
        if self.method == "union":
            start: Face | None = None
            agreed = first
            for number in range(first, first + most):
                face = faces.get(number)
                start = start or face
                if face is not None and start is not None:
                    if overlap(start.box, face.box) <= SAME:
                        return agreed + 1  # between two detections it is not known
                    agreed = number
        return first + most

    def last(self, stop: int) -> int:
        """Return the last frame whose detection counts for a clip that ends before ``stop``: the next clip's first."""
        return stop - 1 if self.method == "union" else stop

    def meta(self, place: Place, detector: str, every: int) -> CropMeta:
        """Return the entry about the crop in a clip's json.

        Args:
            place: The crop.
            detector: Name of the detector.
            every: Faces were detected in every n-th frame.
        """
        meta = CropMeta(method=self.method, box=list(place.box), margin=0.0, detector="")
        if self.looks:
            meta |= {"margin": self.added, "detector": detector, "every": every, "faces": self.face.which}
        if place.turn:
            meta["turn"] = place.turn
        return meta


def _main_group(faces: Sequence[Face | None]) -> list[Face] | None:
    """Return the faces of the largest group that agree; None where they are in less than a third of the pictures.

    Boxes that do not agree are taken for false finds.
    """
    found = [face for face in faces if face is not None]
    groups = [[other for other in found if same_head(face.box, other.box)] for face in found]
    group = max(groups, key=len, default=[])
    return group if group and len(group) >= _SUPPORT * len(faces) else None


def face_square(faces: Sequence[Box], width: int, height: int, margin: float) -> Box:
    """Return the square that holds one head through a whole clip.

    The square holds the union of the boxes with ``margin`` around it. Where it reaches over the border of the picture
    it is moved inwards, and it is made smaller where the picture is too small for it, down to a margin of 0.15.

    Args:
        faces: Of one head, in pictures spread over the clip.
        width: Pixels of the pictures.
        height: Pixels of the pictures.
        margin: Share of the face's size to add on each side.

    Returns:
        The square in whole pixels.
    """
    held = union(faces)
    face = float(np.median([b.x1 - b.x0 for b in faces]))
    extent = max(held.x1 - held.x0, held.y1 - held.y0)
    largest = max(min(width, height), extent + 2 * min(margin, _LEAST_MARGIN) * face)
    side = round(min(extent + 2 * margin * face, largest))
    left = _inside((held.x0 + held.x1 - side) / 2, side, width)
    top = _inside((held.y0 + held.y1 - side) / 2 - _RAISE * face, side, height)
    return Box(left, top, left + side, top + side)


def union_square(held: Box, margin: float) -> Box:
    """Return the square around the union of a face's boxes, as the First Order Motion Model's video-preprocessing does.

    The longer side grows by ``margin`` of itself at either end and the shorter one to the same length, both from the
    middle (https://github.com/AliaksandrSiarohin/video-preprocessing). The square is in whole pixels.
    """
    side = round((1 + 2 * margin) * max(held.x1 - held.x0, held.y1 - held.y0))
    left, top = round((held.x0 + held.x1 - side) / 2), round((held.y0 + held.y1 - side) / 2)
    return Box(float(left), float(top), float(left + side), float(top + side))


def aligned_square(faces: Sequence[Face], margin: float) -> Place | None:
    """Return a tight square from the brows to the chin, turned so that the eyes lie level.

    Eyes are taken at their median over the clip: the square keeps still while the head moves in it.

    Args:
        faces: Of one head, in pictures spread over the clip.
        margin: Share of the square's side to add on each side.

    Returns:
        None where both eyes were found in no picture.
    """
    pairs = np.array([face.eyes for face in faces if face.eyes is not None])
    if not len(pairs):
        return None
    left, right = np.median(pairs, axis=0)
    across = right - left
    distance = float(np.hypot(*across))
    down = np.array([-across[1], across[0]]) / max(distance, 1e-6)
    middle = (left + right) / 2 + _ALIGNED_DROP * distance * down
    half = distance * _ALIGNED_SIDE * (0.5 + margin)
    box = Box(*(float(v) for v in (*(middle - half), *(middle + half))))
    return Place(box, round(float(np.degrees(np.arctan2(across[1], across[0]))), 3))


def _inside(start: float, side: int, length: int) -> float:
    """Move an interval into ``0 .. length``, or centre it on that where it is longer."""
    if side >= length:
        return float((length - side) // 2)
    return float(round(min(max(start, 0), length - side)))


def crop_resize(image: np.ndarray, place: Place, resolution: int) -> np.ndarray:
    """Cut a square from a picture and resize it; outside the picture its edge is repeated.

    Args:
        image: H W 3 uint8 RGB.
        place: The square; one that is not turned is rounded to whole pixels.
        resolution: R, pixels of a side of the result.

    Returns:
        R R 3 uint8 RGB.
    """
    if place.turn:
        return _turned(image, place, resolution)
    height, width = image.shape[:2]
    x0, y0, x1, y1 = (round(value) for value in place.box)
    before_x, after_x = max(-x0, 0), max(x1 - width, 0)
    before_y, after_y = max(-y0, 0), max(y1 - height, 0)
    cut = image[max(y0, 0) : min(y1, height), max(x0, 0) : min(x1, width)]
    if before_x or after_x or before_y or after_y:
        cut = cv2.copyMakeBorder(cut, before_y, after_y, before_x, after_x, cv2.BORDER_REPLICATE)
    if cut.shape[:2] == (resolution, resolution):
        return np.ascontiguousarray(cut)
    shrinks = cut.shape[0] > resolution
    return cv2.resize(cut, (resolution, resolution), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)


def _turned(image: np.ndarray, place: Place, resolution: int) -> np.ndarray:
    """Cut a square that is turned: sampled at a whole multiple of the size, then averaged, so that nothing aliases."""
    box = place.box
    side = box.x1 - box.x0
    fine = max(1, math.ceil(side / resolution)) * resolution
    turn = math.radians(place.turn)
    step = side / fine
    a, b = step * math.cos(turn), step * math.sin(turn)
    half = (fine - 1) / 2
    x, y = (box.x0 + box.x1 - 1) / 2, (box.y0 + box.y1 - 1) / 2
    back = np.array([[a, -b, x - a * half + b * half], [b, a, y - b * half - a * half]])
    cut = cv2.warpAffine(
        image, back, (fine, fine), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE
    )
    return cut if fine == resolution else cv2.resize(cut, (resolution, resolution), interpolation=cv2.INTER_AREA)
