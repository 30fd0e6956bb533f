"""Named directions among the descriptors: which coefficients move which factor of a face, and by how much.

Legend: ``N`` identity coefficients, ``M`` motion coefficients, ``C`` coefficients of either block.

The file ``axes.json`` (schema ``sfdkit.apply.axes/1``) is what an evaluation measured for one model::

    {"schema": "sfdkit.apply.axes/1", "basis": "<fingerprint>",
     "motion": {"mean": [M], "std": [M],
                "vectors": [{"index": 0, "factor": "yaw", "explains": 0.93, "share": 0.88}, ...],
                "directions": {"yaw": {"vector": [M], "unit": "degrees"}, ...}},
     "identity": {the same with N}}

Example:
    >>> axes = Axes.load("runs/mine/axes.json")                         # doctest: +SKIP
    >>> step = axes.step("yaw", 10.0)                                   # doctest: +SKIP
    >>> motion = face.motion + step.motion                              # doctest: +SKIP
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self, TypeAlias

import torch
from torch import Tensor

from sfdkit.errors import CheckpointError, ConfigError, DataError, did_you_mean
from sfdkit.model.descriptors import DescriptorLayer
from sfdkit.types import Descriptors

SCHEMA = "sfdkit.apply.axes/1"
FILE_NAME = "axes.json"

Block: TypeAlias = Literal["motion", "identity"]
BLOCKS: tuple[Block, Block] = ("motion", "identity")

_STILL = 1e-6
"""A coefficient whose standard deviation is below this share of the block's largest one says nothing about a factor."""


def basis_fingerprint(descriptors: DescriptorLayer) -> str:
    """Return 16 hexadecimal digits that tell the basis of one model from another's.

    Hashed are the raw matrix ``W``, as float32, and the switches that turn it into the basis. The basis itself is not:
    its QR differs in the last bits between devices, and even rounded such bits change a hash now and then.
    """
    weight = descriptors.weight.detach().to("cpu", torch.float32).contiguous()
    about = (tuple(weight.shape), descriptors.motion_size, descriptors.orthogonal, descriptors.identity_basis)
    digest = hashlib.sha256(f"sfdkit basis {about}".encode())
    digest.update(weight.numpy().astype("<f4").tobytes())
    return digest.hexdigest()[:16]


@dataclass(frozen=True)
class VectorFactor:
    """What one basis vector moves."""

    index: int
    """Number of the coefficient in its block."""
    factor: str | None
    """The factor that this vector moves most; None where it moves none."""
    explains: float
    """R2 of that factor from this coefficient alone."""
    share: float
    """Part of the coefficient's variance that this factor explains."""


@dataclass(frozen=True, eq=False)
class Direction:
    """The change of a block's coefficients with one factor."""

    vector: Tensor
    """C: per one unit of the factor (regression of the coefficients on all factors)."""
    unit: str
    """What one unit is, such as ``degrees``."""


@dataclass(frozen=True, eq=False)
class BlockAxes:
    """What is known about the motion or the identity coefficients."""

    mean: Tensor
    """C: over the faces measured."""
    std: Tensor
    """C: over the faces measured."""
    vectors: tuple[VectorFactor, ...] = ()
    """At most one per coefficient."""
    directions: Mapping[str, Direction] = field(default_factory=dict)
    """Factor name to direction."""


@dataclass(frozen=True, eq=False)
class Axes:
    """The named directions of one model; read and written as ``axes.json``."""

    basis: str
    """:func:`basis_fingerprint` of the model."""
    motion: BlockAxes
    identity: BlockAxes

    def save(self, path: str | Path) -> None:
        """Write the file; it appears whole or not at all.

        Args:
            path: The file; its folder exists. Numbers give float32 back exactly.

        Raises:
            ValueError: What is to be written could not be read back: sizes that disagree, numbers that are not finite.
        """
        path = Path(path)
        content: dict[str, Any] = {"schema": SCHEMA, "basis": self.basis}
        content |= {name: _block_to_json(getattr(self, name)) for name in BLOCKS}
        try:
            _read_axes(content, path)
        except DataError as error:
            raise ValueError(str(error)) from error
        text = json.dumps(content, indent=1, allow_nan=False)
        text = re.sub(r"\[([^\[\]{}]*)\]", lambda found: "[" + " ".join(found[1].split()) + "]", text)
        part = path.with_name(path.name + ".part")
        part.write_text(text + "\n", encoding="utf-8")
        os.replace(part, path)

    @classmethod
    def load(cls, path: str | Path, descriptors: DescriptorLayer | None = None) -> Self:
        """Read the file.

        Args:
            path: An ``axes.json``.
            descriptors: The model's layer, to make sure that the file speaks of this model; None leaves that open.

        Raises:
            DataError: No such file, no json, or not of this schema.
            CheckpointError: The file was measured on another model than ``descriptors``.
        """
        path = Path(path)
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise DataError(
                f"axes {path} cannot be read: {error.strerror}; sfdkit evaluate writes {FILE_NAME}"
            ) from error
        except ValueError as error:
            raise DataError(f"axes {path} is no json ({error}); write it again with sfdkit evaluate") from error
        basis, motion, identity = _read_axes(content, path)
        axes = cls(basis, motion, identity)
        if descriptors is not None:
            axes.require(descriptors, path)
        return axes

    def require(self, descriptors: DescriptorLayer, path: str | Path = FILE_NAME) -> None:
        """Make sure that these axes were measured on the model of ``descriptors``.

        Raises:
            CheckpointError: They were not.
        """
        own = basis_fingerprint(descriptors)
        if self.basis != own:
            raise CheckpointError(
                f"axes {path} were measured on another model (basis {self.basis}, this checkpoint has {own}); "
                "evaluate this checkpoint, or give the axes that belong to it"
            )

    def step(self, axis: str, amount: float, sigma: bool = False) -> Descriptors:
        """Return what to add to a face's coefficients to move it along an axis.

        Args:
            axis: The name of a factor, such as ``yaw``; ``motion:yaw`` or ``identity:yaw`` where both blocks have it;
                ``motion:3`` or ``identity:7`` for one basis vector.
            amount: In the factor's unit; for a basis vector in standard deviations of its coefficient.
            sigma: Take ``amount`` in standard deviations for factors as well: one is the length of the direction at
                which ``sum((step / std)**2) = 1``, the Mahalanobis distance for coefficients without correlation.

        Returns:
            N identity and M motion coefficients; those of the other block are 0.

        Raises:
            ConfigError: There is no such axis, or ``sigma`` is asked of a direction whose coefficients never move.
        """
        block, key = self._find(axis)
        about: BlockAxes = getattr(self, block)
        if isinstance(key, int):
            vector = torch.zeros_like(about.std)
            vector[key] = about.std[key]
        else:
            vector = about.directions[key].vector
            if sigma:
                vector = vector / _sigmas(vector, about.std, axis)
        return _in_block(block, vector * amount, len(self.identity.mean), len(self.motion.mean))

    def unit(self, axis: str, sigma: bool = False) -> str:
        """Return what one unit of ``amount`` in :meth:`step` is: the factor's unit, or ``sigma``.

        Raises:
            ConfigError: There is no such axis.
        """
        block, key = self._find(axis)
        return "sigma" if sigma or isinstance(key, int) else getattr(self, block).directions[key].unit

    def names(self) -> list[str]:
        """Return the factors that have a direction, those of motion first."""
        return [*self.motion.directions, *self.identity.directions]

    def _find(self, axis: str) -> tuple[Block, str | int]:
        """Return the block of an axis, and the factor's name or the number of the coefficient."""
        block, separator, key = axis.partition(":")
        if separator and block in BLOCKS:
            about: BlockAxes = getattr(self, block)
            if key.isascii() and key.isdecimal():
                return block, vector_index(axis, len(about.mean))
            if key in about.directions:
                return block, key  # type: ignore[return-value]
        else:
            holders = [name for name in BLOCKS if axis in getattr(self, name).directions]
            if len(holders) > 1:
                raise ConfigError(f"axis: {axis!r} is a factor of both blocks; write motion:{axis} or identity:{axis}")
            if holders:
                return holders[0], axis
        known = self.names()
        raise ConfigError(
            f"axis: there is no {axis!r}.{did_you_mean(axis, known) or did_you_mean(key, known)} The axes are "
            f"{', '.join(known) or 'not named in this file'}, and motion:0 to motion:{len(self.motion.mean) - 1}, "
            f"identity:0 to identity:{len(self.identity.mean) - 1} for single basis vectors"
        )


def raw_step(descriptors: DescriptorLayer, axis: str, amount: float) -> Descriptors:
    """Return a step along one basis vector without any ``axes.json``: the amount is in raw coefficients.

    Args:
        descriptors: The model's layer.
        axis: ``motion:3`` or ``identity:7``.
        amount: What is added to that coefficient.

    Returns:
        N identity and M motion coefficients; all but one are 0.

    Raises:
        ConfigError: The axis has another form, or there is no such vector.
    """
    sizes = {"motion": descriptors.motion_size, "identity": descriptors.identity_size}
    block, _, key = axis.partition(":")
    if block not in sizes or not (key.isascii() and key.isdecimal()):
        raise ConfigError(
            f"axis: {axis!r} is a name, and names need an {FILE_NAME}; give --axes FILE (sfdkit evaluate writes it), "
            f"or one basis vector: motion:0 to motion:{sizes['motion'] - 1}, identity:0 to "
            f"identity:{sizes['identity'] - 1}"
        )
    vector = torch.zeros(sizes[block])
    vector[vector_index(axis, sizes[block])] = amount
    return _in_block(block, vector, descriptors.identity_size, descriptors.motion_size)


def vector_index(axis: str, size: int) -> int:
    """Return the number in ``motion:3``.

    Raises:
        ConfigError: The block has fewer vectors.
    """
    block, _, key = axis.partition(":")
    if int(key) >= size:
        raise ConfigError(f"axis: {axis} does not exist: there are {size} {block} vectors, {block}:0 to {size - 1}")
    return int(key)


def _in_block(block: str, vector: Tensor, identity_size: int, motion_size: int) -> Descriptors:
    if block == "motion":
        return Descriptors(torch.zeros(identity_size), vector)
    return Descriptors(vector, torch.zeros(motion_size))


def _sigmas(vector: Tensor, std: Tensor, axis: str) -> Tensor:
    """Return how many standard deviations ``vector`` is long; coefficients that never move are left out."""
    moving = std > _STILL * std.max()
    length = (vector[moving] / std[moving]).square().sum().sqrt()
    if not length > 0:
        raise ConfigError(f"axis: {axis!r} moves no coefficient that varies, so it has no standard deviation")
    return length


def _numbers(values: Tensor) -> list[float]:
    return [
        float(str(value)) for value in values.detach().float().cpu().numpy()
    ]  # the shortest that gives float32 back


def _block_to_json(block: BlockAxes) -> dict[str, Any]:
    return {
        "mean": _numbers(block.mean),
        "std": _numbers(block.std),
        "vectors": [
            {"index": v.index, "factor": v.factor, "explains": float(v.explains), "share": float(v.share)}
            for v in block.vectors
        ],
        "directions": {
            name: {"vector": _numbers(direction.vector), "unit": direction.unit}
            for name, direction in block.directions.items()
        },
    }


def _read_axes(content: Any, path: Path) -> tuple[str, BlockAxes, BlockAxes]:
    reader = _Reader(path)
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        found = content.get("schema") if isinstance(content, dict) else type(content).__name__
        raise DataError(
            f"axes {path}: schema is {found!r}, this sfdkit reads {SCHEMA!r}; write it again with sfdkit evaluate"
        )
    reader.keys(content, "the file", {"schema", "basis", *BLOCKS})
    motion, identity = (reader.block(content[name], name) for name in BLOCKS)
    return reader.text(content["basis"], "basis"), motion, identity


@dataclass(frozen=True)
class _Reader:
    """Checks every part of an ``axes.json`` and names the place of what is wrong."""

    path: Path

    def fail(self, where: str, problem: str) -> DataError:
        return DataError(f"axes {self.path}: {where} {problem}; write it again with sfdkit evaluate")

    def keys(self, value: Any, where: str, wanted: set[str]) -> None:
        if not isinstance(value, dict):
            raise self.fail(where, f"must be a mapping, it is {type(value).__name__}")
        if odd := sorted(set(value) ^ wanted):
            raise self.fail(where, f"lacks keys or has unknown ones: {', '.join(odd)}")

    def text(self, value: Any, where: str) -> str:
        if not isinstance(value, str) or not value:
            raise self.fail(where, f"must be a text, it is {value!r}")
        return value

    def number(self, value: Any, where: str) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise self.fail(where, f"must be a finite number, it is {value!r}")
        return float(value)

    def numbers(self, value: Any, where: str, size: int | None = None) -> Tensor:
        if not isinstance(value, list) or not value:
            raise self.fail(where, "must be a list of numbers")
        if size is not None and len(value) != size:
            raise self.fail(where, f"has {len(value)} numbers, the block has {size} coefficients")
        return torch.tensor([self.number(entry, where) for entry in value], dtype=torch.float32)

    def block(self, value: Any, name: str) -> BlockAxes:
        self.keys(value, name, {"mean", "std", "vectors", "directions"})
        mean = self.numbers(value["mean"], f"{name}.mean")
        std = self.numbers(value["std"], f"{name}.std", len(mean))
        if (std < 0).any():
            raise self.fail(f"{name}.std", "holds a negative number")
        if not isinstance(value["vectors"], list):
            raise self.fail(f"{name}.vectors", "must be a list")
        vectors = [self.vector(entry, f"{name}.vectors[{k}]", len(mean)) for k, entry in enumerate(value["vectors"])]
        if len({vector.index for vector in vectors}) != len(vectors):
            raise self.fail(f"{name}.vectors", "names a coefficient twice")
        if not isinstance(value["directions"], dict):
            raise self.fail(f"{name}.directions", "must be a mapping")
        directions = {
            self.factor(key, name): self.direction(entry, f"{name}.directions.{key}", len(mean))
            for key, entry in value["directions"].items()
        }
        return BlockAxes(mean, std, tuple(vectors), directions)

    def vector(self, value: Any, where: str, size: int) -> VectorFactor:
        self.keys(value, where, {"index", "factor", "explains", "share"})
        index, factor = value["index"], value["factor"]
        if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < size:
            raise self.fail(f"{where}.index", f"must be a whole number from 0 to {size - 1}, it is {index!r}")
        name = None if factor is None else self.text(factor, f"{where}.factor")
        explains, share = (self.number(value[key], f"{where}.{key}") for key in ("explains", "share"))
        return VectorFactor(index, name, explains, share)

    def factor(self, name: str, block: str) -> str:
        if not name or ":" in name or name.isdecimal():
            raise self.fail(f"{block}.directions", f"has the name {name!r}, which no axis can have")
        return name

    def direction(self, value: Any, where: str, size: int) -> Direction:
        self.keys(value, where, {"vector", "unit"})
        return Direction(self.numbers(value["vector"], f"{where}.vector", size), self.text(value["unit"], where))
