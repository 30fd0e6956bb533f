"""Named points of a face: the sets that clips may carry, what lies on which part, and boxes round the small parts.

Legend: ``B`` pictures, ``L`` points of a set, ``R`` pixels of a side. Points are x and y in [-1, 1] across the picture,
edges of the outermost pixels at -1 and 1; a point that is not known is not a number. "Left" and "right" are those of
the picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from sfdkit.errors import ConfigError, did_you_mean

PARTS = ("left eye", "right eye", "mouth")
"""Small parts; brows belong to their eye."""
_SIDES = {"left": "right", "right": "left"}
_SOFT = 2.0
"""Pixels over which a box fades."""
_LEAST = 1.5
"""Pixels by which a box is larger than its points at least."""


@dataclass(frozen=True)
class PointSet:
    """A set of named points in their order, and how far boxes reach past the points of a part.

    Args:
        name: What clips and indexes call it.
        names: Of the points; those of a pair begin with ``left_`` and ``right_``.
        eye_margin: Reach past the points of an eye, as a share of the distance between the eyes.
        mouth_margin: The same for the mouth.
    """

    name: str
    names: tuple[str, ...]
    eye_margin: float
    mouth_margin: float

    @cached_property
    def mirrored(self) -> list[int]:
        """Which point of a face takes the place of each one when the picture is mirrored."""
        found = []
        for name in self.names:
            side, _, rest = name.partition("_")
            found.append(self.names.index(f"{_SIDES[side]}_{rest}" if side in _SIDES else name))
        return found

    @cached_property
    def parts(self) -> tuple[list[int], list[int], list[int]]:
        """Numbers of the points of each of :data:`PARTS`."""
        left, right = (self._with(side, ("eye", "iris", "brow")) for side in _SIDES)
        return left, right, self._with("", ("mouth", "lip"))

    @cached_property
    def eyes(self) -> tuple[list[int], list[int]]:
        """Numbers of the points of each eye, without its brow."""
        left, right = (self._with(side, ("eye",)) for side in _SIDES)
        return left, right

    def _with(self, side: str, words: Sequence[str]) -> list[int]:
        split = [name.split("_") for name in self.names]
        return [i for i, name in enumerate(split) if set(words) & set(name) and (not side or name[0] == side)]


_EYE = ("eye_outer", "eye_inner", "eye_upper", "eye_lower", "iris", "brow_outer", "brow_middle", "brow_inner")
FACE31 = PointSet(
    "face31",
    (
        *(f"left_{name}" for name in _EYE),
        *(f"right_{name}" for name in _EYE),
        "nose_bridge",
        "nose_tip",
        "left_nostril",
        "right_nostril",
        "left_mouth_corner",
        "right_mouth_corner",
        "lip_upper_outer",
        "lip_upper_inner",
        "lip_lower_inner",
        "lip_lower_outer",
        "left_jaw_upper",
        "left_jaw_lower",
        "chin",
        "right_jaw_lower",
        "right_jaw_upper",
    ),
    eye_margin=0.16,
    mouth_margin=0.16,
)
"""Lids, irises, brows, nose, lips and jaw: what puppets have, and what a landmark network gives."""
FACE5 = PointSet(
    "face5",
    ("left_eye", "right_eye", "nose_tip", "left_mouth_corner", "right_mouth_corner"),
    eye_margin=0.45,
    mouth_margin=0.3,
)
"""What face detectors give."""
POINT_SETS = {points.name: points for points in (FACE31, FACE5)}
"""Name to set."""


def point_set(name: str, key: str = "point_set") -> PointSet:
    """Return the set of a name.

    Args:
        name: Of the set.
        key: What an error calls the place where the name was given.

    Raises:
        ConfigError: There is no such set.
    """
    if name not in POINT_SETS:
        raise ConfigError(
            f"{key}: there is no set of points {name!r}.{did_you_mean(name, POINT_SETS)} The sets are "
            f"{', '.join(POINT_SETS)}"
        )
    return POINT_SETS[name]


def from_pixels(points: Tensor, resolution: int) -> Tensor:
    """Turn pixels (whole numbers at the middle of pixels) of a picture of that size into [-1, 1]."""
    return (points + 0.5) * (2 / resolution) - 1


def to_pixels(points: Tensor, resolution: int) -> Tensor:
    """Turn [-1, 1] into pixels, the inverse of :func:`from_pixels`."""
    return (points + 1) * (resolution / 2) - 0.5


def part_boxes(points: Tensor, of: PointSet, size: int) -> Tensor:
    """Return soft boxes round each eye with its brow and round the mouth.

    Args:
        points: B L 2 in [-1, 1].
        of: Which points they are.
        size: ``R``.

    Returns:
        B 3 R R in [0, 1], one box for each of :data:`PARTS`; a box of which a point is not known is empty.
    """
    left, right = (points[:, numbers].mean(1) for numbers in of.eyes)
    apart = (left - right).norm(dim=1, keepdim=True)
    pixel = 2 / size
    line = from_pixels(torch.arange(size, device=points.device, dtype=points.dtype), size)
    boxes = []
    for numbers, margin in zip(of.parts, (of.eye_margin, of.eye_margin, of.mouth_margin), strict=True):
        reach = (margin * apart).clamp(min=_LEAST * pixel)
        low, high = points[:, numbers].amin(1) - reach, points[:, numbers].amax(1) + reach  # B 2
        inside = torch.minimum(line - low[:, :, None], high[:, :, None] - line)  # B 2 R, in halves of the picture
        soft = (inside / (_SOFT * pixel) + 0.5).clamp(0, 1).nan_to_num(0.0)
        boxes.append(soft[:, 1, :, None] * soft[:, 0, None, :])
    return torch.stack(boxes, 1)
