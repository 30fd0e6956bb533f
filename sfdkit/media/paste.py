"""Putting a square back into the picture that it was cut from. This module needs no torch."""

from __future__ import annotations

import math
from functools import lru_cache

import cv2
import numpy as np

from sfdkit.media.crop import Place

INNER, OUTER = 0.72, 0.98
"""Distances from the square's middle, of half its side, where the pasted part begins to fade and has faded."""

_ROUND = 4  # exponent of the distance: the mask is a square with round corners
_MATCHED = 0.12  # share of the square's side over which colours at the seam are averaged


@lru_cache(maxsize=4)
def soft_mask(side: int) -> np.ndarray:
    """Return the weight of the pasted square, ``side`` ``side`` float32: 1 inside, fading to 0 before its border."""
    steps = np.abs((np.arange(side, dtype=np.float32) + 0.5) / side * 2 - 1) ** _ROUND
    distance = (steps[:, None] + steps[None]) ** (1 / _ROUND)
    t = np.clip((OUTER - distance) / (OUTER - INNER), 0, 1)
    return t * t * (3 - 2 * t)


def match_seam(result: np.ndarray, before: np.ndarray) -> np.ndarray:
    """Return a square whose colours are those of what surrounds it, where it will be joined to that.

    The smooth part of the difference at the seam is spread over the square, more weakly away from the seam.

    Args:
        result: R R 3 uint8, what is to be pasted.
        before: R R 3 uint8, what was there.
    """
    side = result.shape[0]
    mask = soft_mask(side)
    seam = (4 * mask * (1 - mask))[..., None]
    sigma = _MATCHED * side
    change = cv2.GaussianBlur((before.astype(np.float32) - result) * seam, (0, 0), sigma)
    weight = cv2.GaussianBlur(seam, (0, 0), sigma)[..., None]
    level = float(cv2.GaussianBlur(np.ascontiguousarray(seam), (0, 0), sigma).max())
    return np.clip(result + change / np.maximum(weight, 0.25 * level), 0, 255).round().astype(np.uint8)


def paste(picture: np.ndarray, result: np.ndarray, before: np.ndarray, place: Place) -> None:
    """Put a square into a picture, in place, with a soft border; pixels outside that are left bit for bit.

    Args:
        picture: H W 3 uint8; changed.
        result: R R 3 uint8, what to put there.
        before: R R 3 uint8, what :func:`sfdkit.media.crop.crop_resize` cut from there.
        place: The square.
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
    there[...] = (there + weight * (patch[inside].astype(np.float32) - there)).round().astype(np.uint8)


def _turned(result: np.ndarray, place: Place) -> tuple[int, int, np.ndarray, np.ndarray]:
    """Return left and top, and the square and its mask turned, in the smallest upright rectangle around them."""
    size, box, turn = result.shape[0], place.box, math.radians(place.turn)
    scale = (box.x1 - box.x0) / size
    a, b = scale * math.cos(turn), scale * math.sin(turn)
    half = (size - 1) / 2
    reach = math.ceil((abs(a) + abs(b)) * size / 2) + 1
    x, y = (box.x0 + box.x1 - 1) / 2, (box.y0 + box.y1 - 1) / 2
    left, top = math.floor(x) - reach, math.floor(y) - reach
    there = np.array([[a, -b, x - left - a * half + b * half], [b, a, y - top - b * half - a * half]])
    shape = (2 * reach + 1, 2 * reach + 1)
    flags = cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA
    patch = cv2.warpAffine(result, there, shape, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return left, top, patch, cv2.warpAffine(soft_mask(size), there, shape, flags=cv2.INTER_LINEAR)
