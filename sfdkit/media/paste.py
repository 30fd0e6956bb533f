"""Putting a square back into the picture that it was cut from. This module needs no torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np

from sfdkit.media.crop import Place

INNER, OUTER = 0.72, 0.98
"""Distances from the square's middle, of half its side, where the pasted part begins to fade and has faded."""

_ROUND = 4  # exponent of the distance: the mask is a square with round corners
_SHARED = 0.2  # width of the border between two overlapping squares, in their sides
_MATCHED = 0.12  # share of the square's side over which colours at the seam are averaged


@lru_cache(maxsize=4)
def soft_mask(side: int) -> np.ndarray:
    """Return the weight of the pasted square, ``side`` ``side`` float32: 1 inside, fading to 0 before its border."""
    steps = np.abs((np.arange(side, dtype=np.float32) + 0.5) / side * 2 - 1) ** _ROUND
    distance = (steps[:, None] + steps[None]) ** (1 / _ROUND)
    t = np.clip((OUTER - distance) / (OUTER - INNER), 0, 1)
    return t * t * (3 - 2 * t)


@lru_cache(maxsize=4)
def _seam(side: int) -> tuple[np.ndarray, np.ndarray]:
    """Return where the seam is, ``side`` ``side`` 1, and what a difference there is divided by when it is spread."""
    mask = soft_mask(side)
    seam = 4 * mask * (1 - mask)
    spread = cv2.GaussianBlur(seam, (0, 0), _MATCHED * side)
    return seam[..., None], np.maximum(spread, 0.25 * spread.max())[..., None]


def match_seam(result: np.ndarray, before: np.ndarray) -> np.ndarray:
    """Return a square whose colours are those of what surrounds it, where it will be joined to that.

    The smooth part of the difference at the seam is spread over the square, more weakly away from the seam.

    Args:
        result: R R 3 uint8, what is to be pasted.
        before: R R 3 uint8, what was there.
    """
    seam, spread = _seam(result.shape[0])
    change = cv2.GaussianBlur((before.astype(np.float32) - result) * seam, (0, 0), _MATCHED * result.shape[0])
    return np.clip(result + change / spread, 0, 255).round().astype(np.uint8)


def paste(
    picture: np.ndarray, result: np.ndarray, before: np.ndarray, place: Place, others: Sequence[Place] = ()
) -> None:
    """Put a square into a picture, in place, with a soft border; pixels outside that are left bit for bit.

    Args:
        picture: H W 3 uint8; changed.
        result: R R 3 uint8, what to put there.
        before: R R 3 uint8, what :func:`sfdkit.media.crop.crop_resize` cut from there.
        place: The square.
        others: Squares of other faces: where they overlap each keeps what is nearer to its middle.
    """
    result = match_seam(result, before)
    if place.turn:
        left, top, patch, mask = _turned(result, place)
    else:
        left, top, right, _ = (round(value) for value in place.box)
        side = right - left
        shrinks = side < result.shape[0]
        patch = cv2.resize(result, (side, side), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
        mask = soft_mask(side)
    y0, y1 = max(top, 0), min(top + patch.shape[0], picture.shape[0])
    x0, x1 = max(left, 0), min(left + patch.shape[1], picture.shape[1])
    if y0 >= y1 or x0 >= x1:
        return
    inside = slice(y0 - top, y1 - top), slice(x0 - left, x1 - left)
    there = picture[y0:y1, x0:x1]
    weight = mask[inside][..., None]
    for other in others:
        weight = weight * _nearer(place, other, slice(x0, x1), slice(y0, y1))
    there[...] = (there + weight * (patch[inside].astype(np.float32) - there)).round().astype(np.uint8)


def _nearer(place: Place, other: Place, columns: slice, rows: slice) -> np.ndarray:
    """Return where pixels of a picture are nearer to one square's middle than to another's, 0 to 1, rows columns 1."""
    x, y = np.arange(columns.start, columns.stop), np.arange(rows.start, rows.stop)[:, None]
    own, its = (
        np.hypot(x - (p.box.x0 + p.box.x1) / 2, y - (p.box.y0 + p.box.y1) / 2) / (p.box.x1 - p.box.x0)
        for p in (place, other)
    )
    return np.clip(0.5 + (its - own) / _SHARED, 0, 1).astype(np.float32)[..., None]


def _turned(result: np.ndarray, place: Place) -> tuple[int, int, np.ndarray, np.ndarray]:
    """Return left and top, and the square and its mask turned, in the smallest upright rectangle around them."""
    box, turn = place.box, math.radians(place.turn)
    if box.x1 - box.x0 < result.shape[0]:  # turning does not average
        side = max(1, round(box.x1 - box.x0))
        result = cv2.resize(result, (side, side), interpolation=cv2.INTER_AREA)
    size = result.shape[0]
    scale = (box.x1 - box.x0) / size
    a, b = scale * math.cos(turn), scale * math.sin(turn)
    half = (size - 1) / 2
    reach = math.ceil((abs(a) + abs(b)) * size / 2) + 1
    x, y = (box.x0 + box.x1 - 1) / 2, (box.y0 + box.y1 - 1) / 2
    left, top = math.floor(x) - reach, math.floor(y) - reach
    there = np.array([[a, -b, x - left - a * half + b * half], [b, a, y - top - b * half - a * half]])
    shape = (2 * reach + 1, 2 * reach + 1)
    patch = cv2.warpAffine(result, there, shape, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return left, top, patch, cv2.warpAffine(soft_mask(size), there, shape, flags=cv2.INTER_LINEAR)
