"""Writing files that appear whole or not at all, and folders of results."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

import numpy as np
from PIL import Image

from sfdkit.errors import ConfigError, DataError

Value: TypeAlias = float | int | str | None
"""What a report holds under one key."""


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Write a file so that a reader finds it whole or not at all, also when the process is killed.

    Args:
        path: The file; its folder exists.

    Yields:
        A path beside it, with the same suffix, to write to. It replaces ``path`` when the block ends, and is removed
        when the block fails.
    """
    part = path.with_name(f".{path.stem}.part{path.suffix}")
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Write a folder so that a reader finds it whole or not at all.

    Args:
        folder: A new or an empty folder.

    Yields:
        A folder beside it to write to, which takes its place when the block ends, and is removed when the block fails.

    Raises:
        ConfigError: Something is in the way.
        DataError: The folder or the one above cannot be created or written to.
    """
    require_new_folder(folder)
    make_folder(folder.parent)
    part = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        part.chmod(0o755)
        yield part
        with write_errors(folder):
            if folder.exists():
                folder.rmdir()
            os.replace(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def require_new_folder(folder: Path) -> None:
    """Check that a folder can be made, or is empty and can be replaced.

    Raises:
        ConfigError: Something is in the way, or it is the working folder.
    """
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise ConfigError(f"output: {folder} exists and is no empty folder; name a new one")
    if folder.resolve() == Path.cwd():
        raise ConfigError(f"output: {folder} is the folder that this command runs in; name a new one")


def cache_folder() -> Path:
    """Return the folder for what can be made or loaded again: ``$SFDKIT_CACHE``, or ``sfdkit`` in the user's cache."""
    user = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("SFDKIT_CACHE") or user / "sfdkit")


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_metrics(path: Path, metrics: Mapping[str, Value]) -> None:
    """Write figures as json, sorted by key, one per line; the file appears whole or not at all.

    Args:
        path: The file; its folder exists.
        metrics: Key to figure. A float is rounded to six significant digits.

    Raises:
        ValueError: A figure is not finite: json has no such number.
    """
    rounded = {key: float(f"{v:.6g}") if isinstance(v, float) else v for key, v in metrics.items()}
    text = json.dumps(rounded, indent=2, sort_keys=True, allow_nan=False) + "\n"
    with atomic_write(path) as part:
        part.write_text(text, encoding="utf-8")


def write_picture(path: Path, pixels: np.ndarray) -> None:
    """Write H W 3 uint8 as a picture; the suffix names the format, and the file appears whole or not at all.

    Raises:
        DataError: It cannot be written.
    """
    with write_errors(path), atomic_write(path) as part:
        Image.fromarray(pixels).save(part)


@contextmanager
def write_errors(path: Path) -> Iterator[None]:
    """Report what the disk refuses as an error of a file or folder that is being written.

    Raises:
        DataError: The disk is full, or permission is missing.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"cannot write {path}: {reason}; check permission and free space") from error


def make_folder(folder: Path) -> Path:
    """Create a folder for results, with its parents, unless it is there.

    Raises:
        DataError: A file is in the way, or it may not be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"cannot create the folder {folder}: {error.strerror}; name another --output") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise DataError(f"no permission to write into the folder {folder}; name another --output")
    return folder


def require_apart(output: str | Path, option: str = "output", /, **inputs: str | Path | None) -> None:
    """Refuse an output that would replace what it is made from, or lie in a folder that is read.

    Symbolic and hard links are followed.

    Args:
        output: The file or folder that is to be written.
        option: What a user calls it.
        inputs: Option to the file or folder that is read; None where it was not given.

    Raises:
        ConfigError: The output is one of the inputs, or in one of them.
    """
    target = Path(output)
    for name, value in inputs.items():
        if value is None:
            continue
        given = Path(value)
        files = [given, *(given.iterdir() if given.is_dir() and target.exists() else ())]
        if target.resolve() == given.resolve() or any(_same(target, file) for file in files):
            raise ConfigError(f"{option}: {target} is --{name} {given}, which would be replaced; name another")
        if given.is_dir() and given.resolve() in target.resolve().parents:
            raise ConfigError(f"{option}: {target} lies in --{name} {given}, which is read; name a place outside of it")


def _same(one: Path, other: Path) -> bool:
    return one.exists() and other.exists() and one.samefile(other)
