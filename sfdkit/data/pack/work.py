"""A folder for what is not finished, which one process at a time works in."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from sfdkit.errors import DataError

_LOCK = "lock"


@contextmanager
def working_in(folder: Path, what: str) -> Iterator[None]:
    """Hold a work folder; the folder goes away at the end if it is empty then.

    Args:
        folder: Made where it does not exist.
        what: The option and address that the work is for, for messages.

    Raises:
        DataError: Another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / _LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise DataError(
            f"{what} is being written by another process, which holds {folder / _LOCK}: wait for its end, or choose "
            "another place"
        ) from error
    try:
        yield
    finally:
        empty = os.listdir(folder) == [_LOCK]
        lock.release()
        if empty:
            with suppress(OSError):  # another process came in between
                (folder / _LOCK).unlink(missing_ok=True)
                folder.rmdir()


def clear(folder: Path) -> None:
    """Remove all that a held work folder has."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != _LOCK:
            path.unlink()
