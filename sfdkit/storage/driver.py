"""One attempt at a transfer, which every kind of storage has a driver for; counting and repeating is in ``files``.

A driver raises ``FileNotFoundError`` where the storage says that there is no such file, ``PermissionError`` where it
refuses, :class:`Changed` where the file is not the one it was, and any other exception where another attempt may help.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path

from sfdkit.errors import ConfigError
from sfdkit.storage.urls import redact, scheme_of

PIECE = 1 << 20


class Changed(Exception):
    """The file was replaced while it was read."""


class Short(Exception):
    """The file ends before the byte that was asked for."""


class Busy(Exception):
    """The server asks to come back later."""

    def __init__(self, what: str, wait: float | None) -> None:
        super().__init__(what)
        self.wait = wait
        """Seconds that the server wants, where it says so."""


class Transfer:
    """Bytes that are on their way.

    Args:
        read: Returns at most so many bytes, and none at the end.
        left: Bytes to come; None where that is not known.
        ended_early: What it means that fewer come.
        cut: Whether it is known that the file ends after ``left`` bytes, before the last one that was asked for.
        etag: Version of the file, where the storage has one.
        close: Gives up the rest.
    """

    def __init__(
        self,
        read: Callable[[int], bytes],
        left: int | None,
        ended_early: Exception,
        cut: bool = False,
        etag: str | None = None,
        close: Callable[[], None] = lambda: None,
    ) -> None:
        self._read, self.left, self._ended_early, self._cut = read, left, ended_early, cut
        self.etag = etag
        self.close = close

    def read(self, size: int) -> bytes:
        """Return at most ``size`` bytes, and none at the end."""
        if self.left is None:
            return self._read(size)
        if self.left == 0 and self._cut:
            raise Short
        size = min(size, self.left)
        data = self._read(size) if size else b""
        if size and not data:
            raise self._ended_early
        self.left -= len(data)
        return data


def skip(read: Callable[[int], bytes], size: int) -> None:
    """Read bytes that are not wanted.

    Raises:
        Short: There are not so many.
    """
    while size:
        data = read(min(size, PIECE))
        if not data:
            raise Short
        size -= len(data)


class Driver(ABC):
    """Files under one root, each named by its path below it. What a kind of storage cannot do is an error."""

    root: str
    whole = False
    """Whether a file is best read in one transfer, because each transfer starts it from its beginning."""

    @abstractmethod
    def open(self, name: str, start: int, stop: int | None, etag: str | None) -> Transfer:
        """Begin to read the bytes ``start`` to ``stop`` (not included) of a file, of the version ``etag``."""

    @abstractmethod
    def size(self, name: str) -> int:
        """Return the bytes of a file."""

    def names(self) -> list[str]:
        """Return the names of the files directly under the root."""
        raise self._unable("listed")

    def put(self, name: str, path: Path) -> None:
        """Copy a local file; a reader sees the old one or the whole new one."""
        raise self._unable("written")

    def remove(self, name: str) -> None:
        """Remove a file; one that is not there is no error."""
        raise self._unable("changed")

    def glob(self) -> list[str]:
        """Return the addresses of the folders that the root, a pattern, stands for."""
        raise self._unable("listed")

    def _unable(self, what: str) -> ConfigError:
        scheme = scheme_of(self.root).removesuffix("s")
        return ConfigError(
            f"{redact(self.root)} cannot be {what} over {scheme}: give a local folder or an object store"
        )
