"""The part of a picture that a network for faces sees, and the way back.

Coordinates are pixels, x to the right and y down, whole numbers at the middle of pixels. A map is 2 x 3: it takes a
point of the picture to one of the network's input.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from sfdkit.face_networks.conventions import Convention
from sfdkit.media.detect import Face

ARCFACE_POINTS = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
"""Where the eyes, the tip of the nose and the corners of the mouth lie in ArcFace's input of 112 pixels
(https://github.com/deepinsight/insightface/blob/master/python-package/insightface/utils/face_align.py)."""
_ARCFACE_SIDE = 112
_FINE = 2.0  # pixels of the picture to one of the input, from which the picture is averaged first


class Region(NamedTuple):
    """A square in a picture."""

    x: float
    y: float
    """Its middle."""
    side: float
    angle: float = 0.0
    """Radians by which its upper edge is turned, from x towards y."""

    def to_input(self, size: int) -> np.ndarray:
        """Return the map that takes the square to an input of ``size`` pixels, its edges to the input's edges."""
        scale = size / self.side
        cosine, sine = scale * np.cos(self.angle), scale * np.sin(self.angle)
        turn = np.array([[cosine, sine], [-sine, cosine]])
        middle = (size - 1) / 2
        return np.column_stack([turn, middle - turn @ (self.x, self.y)])


def region_of_face(face: Face, margin: float, level: bool = False) -> Region:
    """Return the square around a detected face.

    Args:
        face: The face.
        margin: Side of the square, as a multiple of the longer side of the face's box.
        level: Turn it with the eyes; it stays upright where the detector found none.
    """
    box = face.box
    x, y = (box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2
    side = margin * max(box.x1 - box.x0, box.y1 - box.y0)
    return Region(x, y, side, _angle(*np.array(face.eyes)) if level and face.eyes is not None else 0.0)


def region_of_points(points: np.ndarray, margin: float, eyes: tuple[np.ndarray, np.ndarray] | None = None) -> Region:
    """Return the square around the box of points.

    Args:
        points: P 2 or more; x and y first.
        margin: Side of the square, as a multiple of the longer side of their box.
        eyes: x and y of a point of the eye on the left and of that on the right; square and box are turned with them.
    """
    angle = 0.0 if eyes is None else _angle(*eyes)
    axes = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    turned = points[:, :2] @ axes.T
    low, high = turned.min(0), turned.max(0)
    x, y = (low + high) / 2 @ axes
    return Region(float(x), float(y), margin * float((high - low).max()), angle)


def _angle(left: np.ndarray, right: np.ndarray) -> float:
    x, y = (right - left)[:2]
    return float(np.arctan2(y, x))


def map_of_face(convention: Convention, image: np.ndarray, face: Face, five_points: np.ndarray) -> np.ndarray:
    """Return the map that takes a detected face to a network's input, as its convention says.

    Args:
        convention: Of the network.
        image: H W 3.
        face: What was detected in it.
        five_points: Its eyes, tip of the nose and corners of the mouth, 5 2.
    """
    size = convention.size
    if convention.region == "five_points":
        return arcface_input(five_points, size)
    if convention.region == "picture":
        left, top, right, bottom = convention.window(*image.shape[:2])
        x, y = size / (right - left), size / (bottom - top)
        return np.array([[x, 0, (0.5 - left) * x - 0.5], [0, y, (0.5 - top) * y - 0.5]])
    return region_of_face(face, convention.margin, convention.region == "level").to_input(size)


def arcface_input(five_points: np.ndarray, size: int) -> np.ndarray:
    """Return the map that takes five points of a face, 5 2, as near as can be to where ArcFace has them.

    It moves, turns and scales; the sum of squared distances is least (Umeyama 1991,
    https://doi.org/10.1109/34.88573).
    """
    template = (ARCFACE_POINTS + 0.5) * (size / _ARCFACE_SIDE) - 0.5
    return similarity(np.asarray(five_points, np.float64)[:, :2], template)


def similarity(points: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return the map that moves, turns and scales points P 2 to where the sum of squares to ``wanted`` P 2 is least."""
    middle, aim = points.mean(0), wanted.mean(0)
    x, y = (points - middle).T
    u, v = (wanted - aim).T
    a, b = np.array([(x * u + y * v).sum(), (x * v - y * u).sum()]) / max((x**2 + y**2).sum(), 1e-12)
    turn = np.array([[a, -b], [b, a]])
    return np.column_stack([turn, aim - turn @ middle])


def cut(image: np.ndarray, to_input: np.ndarray, size: int) -> np.ndarray:
    """Return what a map takes from a picture H W 3 uint8: ``size`` x ``size`` x 3 uint8.

    Outside the picture its edge goes on. Where the picture is finer than the input, it is averaged first.
    """
    fine = 1 / max(float(np.hypot(*to_input[:, 0])), 1e-6)
    if fine > _FINE:
        height, width = image.shape[:2]
        small = (max(1, round(width * _FINE / fine)), max(1, round(height * _FINE / fine)))
        x, y = width / small[0], height / small[1]
        image = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
        # a middle of a pixel at u in the small picture is at (u + 0.5) x - 0.5 in the large one
        to_input = np.column_stack(
            [to_input[:, :2] * (x, y), to_input[:, 2] + to_input[:, :2] @ (x / 2 - 0.5, y / 2 - 0.5)]
        )
    how = cv2.INTER_CUBIC if fine < 1 else cv2.INTER_LINEAR
    return cv2.warpAffine(image, to_input, (size, size), flags=how, borderMode=cv2.BORDER_REPLICATE)


def back(points: np.ndarray, to_input: np.ndarray) -> np.ndarray:
    """Return points of the input, P 2 or P 3, in the picture; a third number, the depth, is scaled alone."""
    inverse = cv2.invertAffineTransform(to_input)
    places = points[:, :2] @ inverse[:, :2].T + inverse[:, 2]
    return np.column_stack([places, points[:, 2:] * np.hypot(*inverse[:, 0])]).astype(np.float32)
