"""Identity and motion factors of puppets, and drawing them from a seed.

Legend: ``B`` rows (pictures), ``T`` frames of a clip.

Every factor is a float. Unless its line says otherwise an identity factor runs over [0, 1] and has no unit. "Left" and
"right" are those of the picture, x grows to the right and y grows upwards.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Literal, Self

import torch
from torch import Tensor

DECIMALS = 4
"""Factors are rounded to this many decimals, so that their json is short and renders the same picture."""


@dataclass(frozen=True)
class Factors:
    """Columns of floats, one tensor of shape (B,) per factor."""

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Return the names of the factors, in order."""
        return tuple(field.name for field in fields(cls))

    @classmethod
    def from_values(cls, values: Mapping[str, float | Sequence[float]]) -> Self:
        """Build the columns from plain numbers, as they stand in a clip's json.

        Args:
            values: Factor name to one number (B = 1) or to B numbers.

        Raises:
            ValueError: A factor is missing or unknown.
        """
        if set(values) != set(cls.names()):
            odd = sorted(set(values) ^ set(cls.names()))
            raise ValueError(f"{cls.__name__} needs exactly its {len(cls.names())} factors; missing or unknown: {odd}")
        return cls(**{name: torch.tensor(values[name], dtype=torch.float32).reshape(-1) for name in cls.names()})

    @classmethod
    def concat(cls, parts: Sequence[Self]) -> Self:
        """Return the rows of all parts, one after the other."""
        return cls(**{name: torch.cat([getattr(part, name) for part in parts]) for name in cls.names()})

    def columns(self) -> dict[str, list[float]]:
        """Return plain numbers: factor name to B values."""
        return {name: [round(v, DECIMALS) for v in getattr(self, name).tolist()] for name in self.names()}

    def row(self, index: int) -> dict[str, float]:
        """Return the plain numbers of one row: factor name to value."""
        return {name: round(float(getattr(self, name)[index]), DECIMALS) for name in self.names()}

    def stack(self) -> Tensor:
        """Return all factors as one tensor B F, columns in the order of :meth:`names`."""
        return torch.stack([getattr(self, name) for name in self.names()], dim=1)

    def to(self, device: torch.device | str) -> Self:
        """Return the same factors on another device."""
        return type(self)(**{name: getattr(self, name).to(device) for name in self.names()})

    def expand(self, count: int) -> Self:
        """Return B = ``count`` rows from a single row.

        Raises:
            ValueError: There are several rows already and their number is not ``count``.
        """
        if len(self) not in (1, count):
            raise ValueError(f"{len(self)} rows of {type(self).__name__} cannot become {count}: give 1 row or {count}")
        return type(self)(**{name: getattr(self, name).expand(count) for name in self.names()})

    def grid(self) -> Self:
        """Return the same factors with the shape B 1 1, ready to meet B H W pictures."""
        return type(self)(**{name: getattr(self, name)[:, None, None] for name in self.names()})

    def __getitem__(self, index: int | slice | Tensor) -> Self:
        rows = slice(index, index + 1 or None) if isinstance(index, int) else index
        return type(self)(**{name: getattr(self, name)[rows] for name in self.names()})

    def __len__(self) -> int:
        return int(getattr(self, self.names()[0]).shape[0])


@dataclass(frozen=True)
class IdentityFactors(Factors):
    """Identity, clothes, background and light: constant within a clip. Each field has the shape (B,)."""

    skin_tone: Tensor
    """From very light (0) to very dark (1)."""
    skin_warmth: Tensor
    """Undertone, rosy (-1) to golden (1)."""
    age: Tensor
    """Smooth (0) to deeply lined (1)."""
    face_width: Tensor
    face_height: Tensor
    jaw: Tensor
    """Pointed (0) to square (1)."""
    eye_size: Tensor
    eye_spacing: Tensor
    eye_height: Tensor
    eye_tilt: Tensor
    """Outer corners low (-1) to high (1)."""
    iris_colour: Tensor
    """Along dark brown, brown, hazel, green, blue, grey."""
    brow_thickness: Tensor
    brow_arch: Tensor
    nose_width: Tensor
    nose_length: Tensor
    mouth_width: Tensor
    mouth_height: Tensor
    lip_thickness: Tensor
    lip_colour: Tensor
    """Colour of the skin (0) to deep red (1)."""
    ear_size: Tensor
    hair_volume: Tensor
    """Bald (0), then thicker; below 0.1 there is no hair."""
    hair_length: Tensor
    """Above the ears (0), chin (0.5), below the shoulders (1)."""
    hairline: Tensor
    """Low (0) to receding (1)."""
    fringe: Tensor
    """Bare forehead (0) to covered down to the brows (1)."""
    hair_part: Tensor
    """Where the hair parts and to which side the fringe falls, left (-1) to right (1)."""
    hair_curl: Tensor
    """Straight (0) to curly (1)."""
    hair_tone: Tensor
    """Black (0), brown, blond (1)."""
    hair_red: Tensor
    hair_grey: Tensor
    hair_phase: Tensor
    """Which strands: the seed of the hair's texture."""
    beard: Tensor
    moustache: Tensor
    glasses: Tensor
    """0 or 1; values between are see-through."""
    glasses_size: Tensor
    glasses_shape: Tensor
    """Round (0) to square (1)."""
    glasses_tone: Tensor
    """Black (0), tortoise, gold (1)."""
    clothes_hue: Tensor
    clothes_light: Tensor
    clothes_saturation: Tensor
    neckline: Tensor
    """Closed (0) to wide (1)."""
    back_hue: Tensor
    back_light: Tensor
    back_saturation: Tensor
    back_slant: Tensor
    """Direction of the background's gradient, in turns."""
    light_x: Tensor
    """Where the light comes from, left (-1) to right (1)."""
    light_y: Tensor
    """Level with the face (0) to above it (1)."""
    light_warmth: Tensor
    """Bluish (-1) to golden (1)."""


@dataclass(frozen=True)
class MotionFactors(Factors):
    """Pose and expression: they change from frame to frame. Each field has the shape (B,)."""

    yaw: Tensor
    """Degrees, positive when the face turns to the right of the picture; draws stay within ±30."""
    pitch: Tensor
    """Degrees, positive when the face looks up; draws stay within ±16."""
    roll: Tensor
    """Degrees, positive counter-clockwise (top of the head to the left); draws stay within ±14."""
    shift_x: Tensor
    """Share of the picture's width, positive to the right; draws stay within ±0.075."""
    shift_y: Tensor
    """Share of the picture's width, positive upwards; draws stay within ±0.065."""
    scale: Tensor
    """Factor on the head's size; draws stay within 0.89 to 1.11."""
    mouth_open: Tensor
    """Closed (0) to wide open (1)."""
    smile: Tensor
    """Corners of the mouth down (-1), level (0), up and wide (1)."""
    blink: Tensor
    """Eyes open (0) to closed (1)."""
    gaze_x: Tensor
    """Iris fully to the left (-1) or to the right (1), relative to the head."""
    gaze_y: Tensor
    """Iris fully down (-1) or up (1), relative to the head."""
    brows: Tensor
    """Frowning (-1), level (0), raised (1)."""


Split = Literal["train", "validation", "test"]


def _generator(seed: int, split: str, index: int, part: str) -> torch.Generator:
    digest = hashlib.sha256(f"sfdkit puppet {seed} {split} {index} {part}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))


class _Dice:
    """Draws of plain floats from one generator."""

    def __init__(self, generator: torch.Generator) -> None:
        self._generator = generator

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=self._generator, dtype=torch.float64))

    def chance(self, probability: float) -> bool:
        return self.between(0, 1) < probability


def sample_identity(index: int, split: Split, seed: int) -> IdentityFactors:
    """Draw the identity of puppet ``index`` of a split.

    Args:
        index: Number of the identity within its split.
        split: Splits never share an identity.
        seed: Seed of the whole data set.

    Returns:
        One row; the same arguments always give the same values.
    """
    dice = _Dice(_generator(seed, split, index, "identity"))
    values = {name: dice.between(0, 1) for name in IdentityFactors.names()}
    for name in ("skin_warmth", "eye_tilt", "hair_part", "light_x", "light_warmth"):
        values[name] = 2 * values[name] - 1
    skin, age = values["skin_tone"], values["age"]
    values |= {
        "iris_colour": values["iris_colour"] * (1 - 0.6 * skin),
        "hair_tone": values["hair_tone"] * (1 - 0.85 * skin),
        "hair_red": values["hair_red"] * (1 - skin) if dice.chance(0.3) else 0.0,
        "hair_grey": dice.between(0.5, 1) if dice.chance(1.6 * (age - 0.4)) else 0.0,
        "hair_volume": dice.between(0.25, 1) if dice.chance(0.88) else 0.0,
        "hair_length": dice.between(0.45, 1) if dice.chance(0.42) else dice.between(0, 0.2),
        "hair_curl": dice.between(0.4, 1) if dice.chance(0.25 + 0.4 * skin) else dice.between(0, 0.2),
        "fringe": dice.between(0.4, 1) if dice.chance(0.4) else 0.0,
        "beard": dice.between(0.3, 1) if dice.chance(0.28) else 0.0,
        "glasses": 1.0 if dice.chance(0.3) else 0.0,
    }
    values["moustache"] = dice.between(0.4, 1) if dice.chance(0.75 if values["beard"] else 0.08) else 0.0
    return IdentityFactors.from_values({name: round(value, DECIMALS) for name, value in values.items()})


_WAVES: dict[str, tuple[float, float, float, float]] = {
    # middle, reach to either side, slowest and fastest main frequency in Hz
    "yaw": (0.0, 30.0, 0.4, 0.7),
    "pitch": (0.0, 16.0, 0.4, 0.8),
    "roll": (0.0, 14.0, 0.35, 0.8),
    "shift_x": (0.0, 0.075, 0.3, 0.7),
    "shift_y": (0.0, 0.065, 0.3, 0.7),
    "scale": (1.0, 0.11, 0.3, 0.7),
    "mouth_open": (0.46, 0.62, 1.1, 2.0),
    "smile": (0.1, 0.9, 0.4, 1.0),
    "gaze_x": (0.0, 1.0, 0.5, 1.1),
    "gaze_y": (0.0, 1.0, 0.5, 1.1),
    "brows": (0.0, 1.0, 0.4, 1.0),
}
_POSE = ("yaw", "pitch", "roll", "shift_x", "shift_y", "scale")
_BLINK_SECONDS = 0.36


def _wave(dice: _Dice, times: Tensor, middle: float, reach: float, slow: float, fast: float) -> Tensor:
    """Return a smooth curve over ``times`` that stays within ``middle`` plus or minus ``reach``."""
    strength = dice.between(0.85, 1)
    total = torch.zeros_like(times)
    for share, stretch in ((0.9, 1.0), (0.25, 1.5)):
        frequency, phase = stretch * dice.between(slow, fast), dice.between(0, 2 * math.pi)
        total = total + share * torch.sin(2 * math.pi * frequency * times + phase)
    return middle + reach * torch.sin(total * (math.pi / 2) / 1.15) * strength


def _blinks(dice: _Dice, times: Tensor) -> Tensor:
    """Return lid closure over ``times``: slightly lowered lids and short full closures every second or so."""
    lids = 0.1 + 0.1 * _wave(dice, times, 0.0, 1.0, 0.3, 0.7)
    moment = dice.between(0.1, 0.9)
    while moment < float(times[-1]) + _BLINK_SECONDS:
        distance = ((times - moment).abs() / (_BLINK_SECONDS / 2)).clamp(max=1)
        lids = torch.maximum(lids, (1.4 * torch.cos(distance * math.pi / 2) ** 2).clamp(max=1))
        moment += dice.between(0.7, 1.8)
    return lids


def sample_motion(
    index: int, split: Split, seed: int, frames: int, fps: float = 12.5, pose: float = 1.0
) -> MotionFactors:
    """Draw the motion of clip ``index`` of a split, smooth in time.

    Args:
        index: Number of the clip within its split.
        split: Splits never share a motion.
        seed: Seed of the whole data set.
        frames: T, at least 1.
        fps: Frames per second.
        pose: Factor on the reach of head turns, shifts and size; expressions stay as they are. 0.4 is about a person
            who talks to a camera.

    Returns:
        T rows; the same arguments always give the same values.

    Raises:
        ValueError: ``frames`` or ``fps`` is not positive.
    """
    if frames < 1 or fps <= 0:
        raise ValueError(f"a clip needs frames >= 1 and fps > 0, got frames={frames} and fps={fps}")
    dice = _Dice(_generator(seed, split, index, "motion"))
    times = torch.arange(frames, dtype=torch.float64) / fps
    values = {}
    for name, (middle, reach, slow, fast) in _WAVES.items():
        values[name] = _wave(dice, times, middle, reach * (pose if name in _POSE else 1.0), slow, fast)
    values["mouth_open"] = values["mouth_open"].clamp(0, 1)
    values["blink"] = _blinks(dice, times)
    return MotionFactors.from_values({name: [round(v, DECIMALS) for v in values[name].tolist()] for name in values})


def groups(identity: IdentityFactors) -> dict[str, str]:
    """Name the groups that one identity belongs to, for results by group.

    Args:
        identity: One row.

    Returns:
        ``skin`` (light, medium, dark), ``age`` (young, middle, old), ``glasses`` and ``beard`` (yes, no).
    """
    values = identity.row(0)
    return {
        "skin": ("light", "medium", "dark")[min(int(values["skin_tone"] * 3), 2)],
        "age": ("young", "middle", "old")[min(int(values["age"] * 3), 2)],
        "glasses": "yes" if values["glasses"] >= 0.5 else "no",
        "beard": "yes" if values["beard"] >= 0.25 else "no",
    }
