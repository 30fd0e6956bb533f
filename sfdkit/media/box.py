"""Rectangles in pictures, and the face boxes that come with data sets."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from math import hypot
from typing import NamedTuple

_NEAR = 0.5
"""Seconds within which a box of a track holds."""


class Box(NamedTuple):
    """A rectangle in pixels of the picture; may reach over its border."""

    x0: float
    y0: float
    x1: float
    y1: float


class Square(NamedTuple):
    """The crop that a data set gives."""

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


def union(boxes: Sequence[Box]) -> Box:
    """Return the smallest box that holds all of them."""
    return Box(min(b.x0 for b in boxes), min(b.y0 for b in boxes), max(b.x1 for b in boxes), max(b.y1 for b in boxes))


def between(one: Box, other: Box) -> float:
    """Return the distance of two boxes' middles in pixels."""
    return hypot(one.x0 + one.x1 - other.x0 - other.x1, one.y0 + one.y1 - other.y0 - other.y1) / 2


def same_head(one: Box, other: Box) -> bool:
    """Tell whether two boxes can be one head at two moments of a short clip."""
    sizes = one.x1 - one.x0, other.x1 - other.x0
    return max(sizes) <= 1.6 * min(sizes) and between(one, other) <= sum(sizes) / 2


def overlap(one: Box, other: Box) -> float:
    """Return intersection over union, 0 to 1."""
    width = min(one.x1, other.x1) - max(one.x0, other.x0)
    height = min(one.y1, other.y1) - max(one.y0, other.y0)
    if width <= 0 or height <= 0:
        return 0.0
    areas = sum((b.x1 - b.x0) * (b.y1 - b.y0) for b in (one, other))
    return width * height / (areas - width * height)
