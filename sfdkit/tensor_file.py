"""Tensors and a few words about them in one file (safetensors, https://github.com/huggingface/safetensors).

Arrays of numpy are written and read without torch.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError, safe_open

from sfdkit.errors import ConfigError, DataError
from sfdkit.files import make_folder

if TYPE_CHECKING:
    from torch import Tensor

SUFFIX = ".safetensors"


def check_suffix(path: str | Path, option: str) -> Path:
    """Return the path of a file of tensors that is to be written; its folder is created.

    Raises:
        ConfigError: It has another suffix, or is a folder.
        DataError: The folder cannot be created or written to.
    """
    path = Path(path)
    if path.suffix.lower() != SUFFIX:
        raise ConfigError(f"{option}: {path} has the suffix {path.suffix!r}; use {SUFFIX}")
    if path.is_dir():
        raise ConfigError(f"{option}: {path} is a folder; name a file in it")
    make_folder(path.parent)
    return path


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor] | Mapping[str, np.ndarray], about: Mapping[str, str]
) -> None:
    """Write a file; it appears whole or not at all.

    Args:
        path: The file; its folder exists.
        tensors: Name to tensor, of any device, or to array.
        about: What stands in the header; ``schema`` among it.

    Raises:
        DataError: The file cannot be written.
    """
    part = path.with_name(path.name + ".part")
    try:
        part.write_bytes(_packed(tensors, dict(about)))
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise DataError(f"cannot write {path}: {error.strerror}; check permission and free space") from error


def _packed(tensors: Mapping[str, Any], about: dict[str, str]) -> bytes:
    if all(isinstance(value, np.ndarray) for value in tensors.values()):
        return safetensors.numpy.save({n: np.ascontiguousarray(value) for n, value in tensors.items()}, about)
    from safetensors.torch import save

    return save({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, about)


def read_arrays(
    path: Path, schema: str, names: Sequence[str] | None, keys: Sequence[str]
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Read a file as :func:`read_tensors` does, without torch."""
    return _read(path, schema, names, keys, "np")


def read_tensors(
    path: Path, schema: str, names: Sequence[str] | None, keys: Sequence[str]
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a file that :func:`write_tensors` wrote.

    Args:
        path: The file.
        schema: What its header must name as ``schema``.
        names: Tensors that must be there; None for all that are.
        keys: What the header must hold besides.

    Returns:
        The tensors named, and the header.

    Raises:
        DataError: No such file, no safetensors, of another schema, or incomplete.
    """
    return _read(path, schema, names, keys, "pt")


def _read(
    path: Path, schema: str, names: Sequence[str] | None, keys: Sequence[str], framework: str
) -> tuple[dict[str, Any], dict[str, str]]:
    tensors, about = _read_all(path, names, framework)
    if about.get("schema") != schema:
        raise DataError(
            f"{path} holds something else: its schema is {about.get('schema')!r}, {schema!r} is needed; "
            "give another file, or the sfdkit that wrote it"
        )
    if lacking := [name for name in (*(names or ()), *keys) if name not in tensors and name not in about]:
        raise DataError(f"{path} is incomplete: it lacks {', '.join(lacking)}; write it again")
    return tensors, about


def read_all(path: Path, names: Collection[str] | None = None) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a safetensors file of any maker.

    Args:
        path: The file.
        names: Tensors to read; all by default, and those that are not there are left out.

    Returns:
        The tensors, and the header.

    Raises:
        DataError: No such file, or no safetensors.
    """
    return _read_all(path, names, "pt")


def _read_all(path: Path, names: Collection[str] | None, framework: str) -> tuple[dict[str, Any], dict[str, str]]:
    if not path.is_file():
        raise DataError(f"there is no file {path}: check the path")
    try:
        with safe_open(path, framework) as file:
            there = set(file.keys())
            wanted = there if names is None else there.intersection(names)
            return {name: file.get_tensor(name) for name in sorted(wanted)}, dict(file.metadata() or {})
    except (SafetensorError, OSError, ValueError) as error:
        raise DataError(f"{path} is damaged or no {SUFFIX} file ({error}): write it again") from error
