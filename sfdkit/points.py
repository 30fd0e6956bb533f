"""Named points of a face: the sets that clips may carry, what lies on which part, and boxes round the small parts.

Legend: ``B`` pictures, ``L`` points of a set, ``R`` pixels of a side. Points are x and y in [-1, 1] across the picture,
edges of the outermost pixels at -1 and 1; a point that is not known is not a number. "Left" and "right" are those of
the picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property

import torch
import torch.nn.functional as F
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
        between: Pairs of points whose distances tell how large and how broad a face is.
    """

    name: str
    names: tuple[str, ...]
    eye_margin: float
    mouth_margin: float
    between: tuple[tuple[str, str], ...]

    @cached_property
    def ends(self) -> tuple[tuple[int, ...], ...]:
        """Numbers of the points at the first and at the second end of each of :attr:`between`."""
        return tuple(tuple(self.names.index(pair[end]) for pair in self.between) for end in (0, 1))

    @cached_property
    def mirrored(self) -> tuple[int, ...]:
        """Which point of a face takes the place of each one when the picture is mirrored."""
        found = []
        for name in self.names:
            side, _, rest = name.partition("_")
            found.append(self.names.index(f"{_SIDES[side]}_{rest}" if side in _SIDES else name))
        return tuple(found)

    @cached_property
    def parts(self) -> tuple[tuple[int, ...], ...]:
        """Numbers of the points of each of :data:`PARTS`."""
        left, right = (self._with(side, ("eye", "iris", "brow")) for side in _SIDES)
        return left, right, self._with("", ("mouth", "lip"))

    @cached_property
    def eyes(self) -> tuple[tuple[int, ...], ...]:
        """Numbers of the points of each eye, without its brow."""
        left, right = (self._with(side, ("eye",)) for side in _SIDES)
        return left, right

    def _with(self, side: str, words: Sequence[str]) -> tuple[int, ...]:
        split = [name.split("_") for name in self.names]
        return tuple(i for i, name in enumerate(split) if set(words) & set(name) and (not side or name[0] == side))


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
    between=(
        ("left_eye_outer", "right_eye_outer"),
        ("left_eye_inner", "right_eye_inner"),
        ("left_jaw_upper", "right_jaw_upper"),
        ("left_jaw_lower", "right_jaw_lower"),
        ("nose_bridge", "chin"),
        ("nose_bridge", "nose_tip"),
        ("left_mouth_corner", "right_mouth_corner"),
    ),
)
"""Lids, irises, brows, nose, lips and jaw: what puppets have, and what a landmark network gives."""
FACE5 = PointSet(
    "face5",
    ("left_eye", "right_eye", "nose_tip", "left_mouth_corner", "right_mouth_corner"),
    eye_margin=0.45,
    mouth_margin=0.3,
    between=(("left_eye", "right_eye"), ("left_eye", "left_mouth_corner"), ("right_eye", "right_mouth_corner")),
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


@cache
def _on_device(numbers: tuple[int, ...], device: torch.device) -> Tensor:
    """Return numbers as a tensor that stays on a device; sent there without waiting for it."""
    with torch.inference_mode(False):
        made = torch.tensor(numbers)
        return made.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else made.to(device)


def take(points: Tensor, numbers: tuple[int, ...]) -> Tensor:
    """Return the points of these numbers: ... L 2 to ... n 2."""
    return points.index_select(-2, _on_device(numbers, points.device))


def from_pixels(points: Tensor, resolution: int) -> Tensor:
    """Turn pixels (whole numbers at the middle of pixels) of a picture of that size into [-1, 1]."""
    return (points + 0.5) * (2 / resolution) - 1


def to_pixels(points: Tensor, resolution: int) -> Tensor:
    """Turn [-1, 1] into pixels, the inverse of :func:`from_pixels`."""
    return (points + 1) * (resolution / 2) - 0.5


def within_parts(points: Tensor, of: PointSet) -> Tensor:
    """Return where the points of the small parts are within their part: upright, and relative to the size of the face.

    The face is turned until the eyes are level, and its unit is the mean of the distance between the eyes and of that
    from their middle to the mouth, one of which stays long however the head is turned.

    Args:
        points: B L 2 in [-1, 1].
        of: Which points they are.

    Returns:
        B n 2: the points of each of :data:`PARTS` in turn, each part's middle at 0.
    """
    left, right = (take(points, numbers).mean(1) for numbers in of.eyes)
    across = right - left
    down = take(points, of.parts[2]).mean(1) - (left + right) / 2
    size = (across.norm(dim=1) + down.norm(dim=1)).clamp(min=1e-3) / 2
    x = F.normalize(across, dim=1) / size[:, None]
    axes = torch.stack([x, torch.stack([-x[:, 1], x[:, 0]], 1)], 2)  # B 2 2, columns along and across the eyes
    parts = (take(points, numbers) for numbers in of.parts)
    return torch.cat([(part - part.mean(1, keepdim=True)) @ axes for part in parts], 1)


def part_boxes(points: Tensor, of: PointSet, size: int) -> Tensor:
    """Return soft boxes round each eye with its brow and round the mouth.

    Args:
        points: B L 2 in [-1, 1].
        of: Which points they are.
        size: ``R``.

    Returns:
        B 3 R R in [0, 1], one box for each of :data:`PARTS`; a box of which a point is not known is empty.
    """
    left, right = (take(points, numbers).mean(1) for numbers in of.eyes)
    apart = (left - right).norm(dim=1, keepdim=True)
    pixel = 2 / size
    line = from_pixels(torch.arange(size, device=points.device, dtype=points.dtype), size)
    boxes = []
    for numbers, margin in zip(of.parts, (of.eye_margin, of.eye_margin, of.mouth_margin), strict=True):
        reach = (margin * apart).clamp(min=_LEAST * pixel)
        of_part = take(points, numbers)
        low, high = of_part.amin(1) - reach, of_part.amax(1) + reach  # B 2
        inside = torch.minimum(line - low[:, :, None], high[:, :, None] - line)  # B 2 R, in halves of the picture
        soft = (inside / (_SOFT * pixel) + 0.5).clamp(0, 1).nan_to_num(0.0)
        boxes.append(soft[:, 1, :, None] * soft[:, 0, None, :])
    return torch.stack(boxes, 1)
