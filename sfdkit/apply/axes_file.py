"""The file ``axes.json``, which an evaluation writes: the factors that a model's coefficients move.

Legend: ``N`` identity coefficients, ``M`` motion coefficients, ``C`` coefficients of either block.

Its schema, ``sfdkit.apply.axes/1``::

    {"schema": "sfdkit.apply.axes/1", "basis": "<fingerprint>",
     "motion": {"mean": [M], "std": [M],
                "vectors": [{"index": 0, "factor": "yaw", "explains": 0.93, "share": 0.88}, ...],
                "directions": {"yaw": {"vector": [M], "unit": "degrees"}, ...}},
     "identity": {the same with N}}
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np

from sfdkit.errors import DataError
from sfdkit.files import atomic_write

SCHEMA = "sfdkit.apply.axes/1"
FILE_NAME = "axes.json"

Block: TypeAlias = Literal["motion", "identity"]
BLOCKS: tuple[Block, Block] = ("motion", "identity")


@dataclass(frozen=True)
class VectorFactor:
    """The factor that one coefficient predicts."""

    index: int
    """Number of the coefficient in its block."""
    factor: str | None
    """The factor that this coefficient predicts best; None where it predicts none."""
    explains: float
    """R2 of that factor from this coefficient alone."""
    share: float
    """Part of the coefficient's variance that this factor explains."""


@dataclass(frozen=True, eq=False)
class Direction:
    """The change of a block's coefficients with one factor."""

    vector: np.ndarray
    """C float32: per one unit of the factor, see :func:`sfdkit.evaluate.probes.make_axes`."""
    unit: str
    """What one unit is, such as ``degrees``."""


@dataclass(frozen=True, eq=False)
class BlockAxes:
    """Statistics and directions of the motion or the identity coefficients."""

    mean: np.ndarray
    """C float32: over the faces measured."""
    std: np.ndarray
    """C float32: over the faces measured."""
    vectors: tuple[VectorFactor, ...] = ()
    """At most one per coefficient."""
    directions: Mapping[str, Direction] = field(default_factory=dict)
    """Factor name to direction."""


def write_axes(path: Path, basis: str, blocks: Mapping[str, BlockAxes]) -> None:
    """Write the file; it appears whole or not at all.

    Args:
        path: The file; its folder exists. Numbers give float32 back exactly.
        basis: Fingerprint of the model's basis.
        blocks: ``motion`` and ``identity``.

    Raises:
        ValueError: The file could not be read back: sizes that disagree, numbers that are not finite.
    """
    content = {"schema": SCHEMA, "basis": basis, **{name: _block_to_json(block) for name, block in blocks.items()}}
    _read_content(content)
    text = json.dumps(content, indent=1, allow_nan=False)
    text = re.sub(r"\[([^\[\]{}]*)\]", lambda found: "[" + " ".join(found[1].split()) + "]", text)
    with atomic_write(path) as part:
        part.write_text(text + "\n", encoding="utf-8")


def read_axes(path: Path) -> str:
    """Read the text of the file.

    Raises:
        DataError: No such file, or no text.
    """
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(f"axes {path} cannot be read: {error.strerror}; sfdkit evaluate writes {FILE_NAME}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"axes {path} is no json ({error}); write it again with sfdkit evaluate") from error


def parse_axes(text: str, source: str | Path) -> tuple[str, dict[Block, BlockAxes]]:
    """Return the fingerprint of the basis and the blocks by name.

    Args:
        text: The content of the file.
        source: Where it comes from, for messages.

    Raises:
        DataError: No json, or not of this schema.
    """
    try:
        content = json.loads(text)
    except ValueError as error:
        raise DataError(f"axes {source} is no json ({error}); write it again with sfdkit evaluate") from error
    try:
        return _read_content(content)
    except ValueError as error:
        raise DataError(f"axes {source}: {error}; write it again with sfdkit evaluate") from error


def _numbers(values: np.ndarray) -> list[float]:
    """Return the shortest decimals that give the float32 values back."""
    return [float(str(value)) for value in np.asarray(values, np.float32)]


def _block_to_json(block: BlockAxes) -> dict[str, Any]:
    return {
        "mean": _numbers(block.mean),
        "std": _numbers(block.std),
        "vectors": [asdict(v) | {"explains": float(v.explains), "share": float(v.share)} for v in block.vectors],
        "directions": {name: {"vector": _numbers(d.vector), "unit": d.unit} for name, d in block.directions.items()},
    }


_BLOCK = {
    "mean": [float],
    "std": [float],
    "vectors": [{"index": object, "factor": str | None, "explains": float, "share": float}],
    "directions": {"*": {"vector": [float], "unit": str}},
}
_CONTENT = {"schema": str, "basis": str, "motion": _BLOCK, "identity": _BLOCK}
"""The types in the file; ``*`` stands for any name."""


def _read_content(content: Any) -> tuple[str, dict[Block, BlockAxes]]:
    schema = content.get("schema") if isinstance(content, dict) else type(content).__name__
    if schema != SCHEMA:
        raise ValueError(f"schema is {schema!r}, this sfdkit reads {SCHEMA!r}")
    _check_types(content, _CONTENT)
    return content["basis"], {name: _read_block(content[name], name) for name in BLOCKS}


def _check_types(value: Any, wanted: Any, where: str = "") -> None:
    """Compare json with types as in :data:`_CONTENT`.

    Raises:
        ValueError: A part is missing, unknown, or of another type.
    """
    if isinstance(wanted, dict):
        if not isinstance(value, dict):
            raise ValueError(f"{where} must be a mapping, it is {type(value).__name__}")
        wanted = dict.fromkeys(value, wanted["*"]) if "*" in wanted else wanted
        if odd := sorted(set(value) ^ set(wanted)):
            raise ValueError(f"{where or 'the file'} lacks keys or has unknown ones: {', '.join(odd)}")
        for name, inner in wanted.items():
            _check_types(value[name], inner, f"{where}.{name}".lstrip("."))
    elif isinstance(wanted, list):
        if not isinstance(value, list):
            raise ValueError(f"{where} must be a list")
        for number, entry in enumerate(value):
            _check_types(entry, wanted[0], where if wanted[0] is float else f"{where}[{number}]")
    elif wanted is float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
            raise ValueError(f"{where} must be a finite number, it is {value!r}")
    elif not isinstance(value, wanted) or value == "":
        raise ValueError(f"{where} must be a text, it is {value!r}")


def _read_block(value: dict[str, Any], name: str) -> BlockAxes:
    size = len(value["mean"])
    vectors = {f"{name}.directions.{key}.vector": entry["vector"] for key, entry in value["directions"].items()}
    for where, numbers in {f"{name}.mean": value["mean"], f"{name}.std": value["std"], **vectors}.items():
        if len(numbers) != size or not numbers:
            raise ValueError(f"{where} has {len(numbers)} numbers, the block has {size} coefficients")
    if min(value["std"]) < 0:
        raise ValueError(f"{name}.std holds a negative number")
    indices = [entry["index"] for entry in value["vectors"]]
    for number, index in enumerate(indices):
        if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < size:
            where = f"{name}.vectors[{number}].index"
            raise ValueError(f"{where} must be a whole number from 0 to {size - 1}, it is {index!r}")
    if len(set(indices)) != len(indices):
        raise ValueError(f"{name}.vectors names a coefficient twice")
    for key in value["directions"]:
        if not key or ":" in key or key.isdecimal():
            raise ValueError(f"{name}.directions has the name {key!r}, which no axis can have")
    directions = {
        key: Direction(np.array(entry["vector"], np.float32), entry["unit"])
        for key, entry in value["directions"].items()
    }
    mean, std = (np.array(value[key], np.float32) for key in ("mean", "std"))
    return BlockAxes(mean, std, tuple(VectorFactor(**entry) for entry in value["vectors"]), directions)
