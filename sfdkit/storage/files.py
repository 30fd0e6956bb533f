"""Files of a storage, read so that a fault is survived or reported."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from sfdkit.errors import ConfigError, MissingError, SfdkitError
from sfdkit.storage.attempts import Attempts
from sfdkit.storage.driver import PIECE, Driver
from sfdkit.storage.drivers import make_driver
from sfdkit.storage.local import local_path
from sfdkit.storage.settings import StorageSettings
from sfdkit.storage.urls import READ_ONLY, expand_braces, is_glob, redact, refuse_credentials, scheme_of

_Result = TypeVar("_Result")


class Storage:
    """Files under one root: a local folder, a web server's, a bucket's.

    It holds addresses and limits only; connections are made where they are used, anew after a fork, so that a storage
    can be sent to workers of any kind.

    Args:
        root: A local path, or an address, see :data:`sfdkit.storage.urls.SCHEMES`.
        settings: Limits and switches.

    Raises:
        ConfigError: The scheme is unknown, or the address holds credentials.
    """

    def __init__(self, root: str | Path, settings: StorageSettings | None = None) -> None:
        self.root = str(root)
        self.settings = settings or StorageSettings()
        self.repeats = 0
        """Attempts after the first, of all reads so far."""
        self._prefix = ""
        self._driver: tuple[int, Driver] | None = None
        scheme = scheme_of(self.root)
        refuse_credentials(self.root)
        self.is_local = scheme in ("", "file")
        self.is_read_only = scheme in READ_ONLY
        """Whether nothing can be written there, and a listing, if there is one, is not to be relied on."""
        if scheme and scheme != "pipe":
            self.root = self.root.rstrip("/")
        if scheme == "pipe":
            make_driver(self.root, self.settings)  # it says now that shells are switched off

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_driver": None}

    @property
    def driver(self) -> Driver:
        """The driver of this process."""
        if self._driver is None or self._driver[0] != os.getpid():
            self._driver = os.getpid(), make_driver(self.root, self.settings)
        return self._driver[1]

    def child(self, name: str) -> Storage:
        """Return the storage of a folder below this one."""
        if scheme_of(self.root) == "pipe":
            below = Storage(self.root, self.settings)
            below._prefix = f"{self._prefix}{name}/"
            return below
        return Storage(str(self.path(name)) if self.is_local else f"{self.root}/{name}", self.settings)

    def path(self, name: str = "") -> Path:
        """Return the path of a file of a local storage."""
        return Path(local_path(self.root)) / name

    def show(self, name: str = "") -> str:
        """Return the address of a file as messages show it, without secrets."""
        if self.is_local:
            return str(self.path(name))
        whole = f"{self.root} of {self._prefix}{name}" if self._prefix else f"{self.root}/{name}" if name else self.root
        return redact(whole)

    def pieces(self, name: str, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """Read the bytes ``start`` to ``stop`` (not included) of a file, block by block.

        A transfer that breaks resumes at the byte it came to, in the same version of the file, after a wait that
        doubles with each failure in a row.

        Args:
            name: Path of the file below the root.
            start: First byte.
            stop: First byte that is not wanted any more; None reads to the end.

        Yields:
            Pieces of at most 1 MiB.

        Raises:
            MissingError: There is no such file.
            TruncatedError: It ends before ``stop``.
            StorageError: It cannot be read.
        """
        tries = Attempts(self.settings, f"Cannot read {self.show(name)}", self.is_local)
        position, etag = start, None
        ended = False
        while not ended and (stop is None or position < stop):
            try:
                driver = self.driver
                block = None if driver.whole or self.is_local else int(self.settings.block_mb * 1e6)
                end = stop if block is None or stop is None else min(stop, position + block)
                transfer = driver.open(self._prefix + name, position, end, etag)
            except SfdkitError:
                raise
            except Exception as error:
                self.repeats += 1
                tries.failed(error)
                continue
            held: list[bytes] = []  # a block is read at the speed of the network, not of the reader
            broken: Exception | None = None
            try:
                etag = etag or transfer.etag
                while end is None or position < end:
                    try:
                        data = transfer.read(PIECE)
                    except Exception as error:
                        broken = error
                        break
                    if not data:
                        ended = end is None
                        break
                    tries.progress()
                    position += len(data)
                    if block is None or end is None:
                        yield data
                    else:
                        held.append(data)
            finally:
                transfer.close()
            yield from held
            if broken is not None:
                self.repeats += 1
                tries.failed(broken)

    def fetch(self, name: str, path: Path, seen: Callable[[int], None] = lambda size: None) -> str:
        """Copy a file to this machine, safe on its disk, and return its SHA-256, see :meth:`pieces`.

        Args:
            name: Path of the file below the root.
            path: Where it goes.
            seen: Called with the bytes of each piece.
        """
        with path.open("wb") as file:
            digest = self._digest(name, seen, file.write)
            file.flush()
            os.fsync(file.fileno())
        return digest

    @contextmanager
    def on_disk(self, name: str) -> Iterator[Path]:
        """Give the path of a file on this machine: of a copy, until the end of the block, where it lies elsewhere.

        Raises:
            MissingError: There is no such file.
            StorageError: It cannot be read.
        """
        if self.is_local:
            self.size(name)
            yield self.path(name)
            return
        with tempfile.TemporaryDirectory(prefix="sfdkit-") as folder:
            self.fetch(name, path := Path(folder) / "copy")
            yield path

    def holds(self, name: str, size: int, sha256: str, seen: Callable[[int], None] = lambda size: None) -> bool:
        """Return whether there is a file of this size and checksum, see :meth:`fetch`."""
        try:
            return self.size(name) == size and self._digest(name, seen, lambda data: None) == sha256
        except MissingError:
            return False

    def _digest(self, name: str, seen: Callable[[int], None], use: Callable[[bytes], object]) -> str:
        digest = hashlib.sha256()
        for piece in self.pieces(name):
            digest.update(piece)
            use(piece)
            seen(len(piece))
        return digest.hexdigest()

    def read(self, name: str, start: int = 0, stop: int | None = None) -> bytes:
        """Return the bytes ``start`` to ``stop`` of a file, see :meth:`pieces`."""
        return b"".join(self.pieces(name, start, stop))

    def size(self, name: str) -> int:
        """Return the bytes of a file.

        Raises:
            MissingError: There is no such file.
            StorageError: The storage does not answer.
        """
        return self._tried(f"Cannot read {self.show(name)}", lambda: self.driver.size(self._prefix + name))

    def exists(self, name: str) -> bool:
        """Return whether there is such a file."""
        try:
            self.size(name)
        except MissingError:
            return False
        return True

    def names(self) -> list[str]:
        """Return the names of the files directly under the root."""
        return self._tried(f"Cannot list {self.show()}", lambda: self.driver.names())

    def put(self, name: str, path: Path) -> None:
        """Copy a local file into the storage; a reader sees the old file or the whole new one.

        Raises:
            StorageError: It cannot be written.
        """
        self._tried(f"Cannot write {self.show(name)}", lambda: self.driver.put(name, path))

    def write(self, name: str, data: bytes) -> None:
        """Write a file, see :meth:`put`."""
        with tempfile.NamedTemporaryFile() as file:
            file.write(data)
            file.flush()
            self.put(name, Path(file.name))

    def remove(self, name: str) -> None:
        """Remove a file; one that is not there is no error."""
        self._tried(f"Cannot remove {self.show(name)}", lambda: self.driver.remove(name))

    def _tried(self, what: str, operation: Callable[[], _Result]) -> _Result:
        tries = Attempts(self.settings, what, self.is_local)
        while True:
            try:
                return operation()
            except SfdkitError:
                raise
            except Exception as error:
                tries.failed(error)


def storages(root: str, settings: StorageSettings | None = None) -> list[Storage]:
    """Return the storages that a root with braces or ``*`` stands for, in order of their names.

    Raises:
        ConfigError: A pattern fits nothing.
        StorageError: The storage does not answer.
    """
    found: list[Storage] = []
    for part in expand_braces(root):
        if not is_glob(part):
            found.append(Storage(part, settings))
            continue
        pattern = Storage(part, settings)
        matches = pattern._tried(f"Cannot list {pattern.show()}", lambda pattern=pattern: pattern.driver.glob())  # type: ignore[misc]
        if not matches:
            raise ConfigError(f"the pattern {redact(part)!r} fits no folder: check it")
        found += [Storage(match, settings) for match in matches]
    return found
