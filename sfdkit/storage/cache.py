"""Copies of whole files on a local disk, for storages that are slow, dear, or away.

CACHE/ab/abcdef...        a file, named by its SHA-256
CACHE/index/0123...       an index, named by the SHA-256 of its address
CACHE/locks/...           one lock per file that is being fetched, and ``evict``

A file is named by what it holds, so that two splits whose shards have the same names cannot be taken for each other.
Any number of processes may use one cache: a file is fetched under a lock (by filelock), verified, and moved to its
place; what was used least recently goes first when the limit is reached.
"""

from __future__ import annotations

import hashlib
import logging
import os
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, Timeout

from sfdkit.errors import ConfigError, MissingError, ShardError, StorageError
from sfdkit.storage.files import Storage

_log = logging.getLogger("sfdkit.storage")


class Cache:
    """Copies of files, the sum of whose sizes stays within a limit.

    Args:
        folder: Made where it does not exist.
        limit: Bytes, indexes not counted.
    """

    def __init__(self, folder: str | Path, limit: int) -> None:
        self.folder = Path(folder)
        self.limit = limit

    def open(self, storage: Storage, name: str, size: int, sha256: str) -> BinaryIO:
        """Open the copy of a file, fetching it first where there is none.

        Args:
            storage: Where the file lies.
            name: Its path there.
            size: Its bytes.
            sha256: Its checksum, 64 hexadecimal digits.

        Raises:
            ConfigError: The file is larger than the cache may be.
            ShardError: What arrives has another checksum, twice.
            StorageError: It cannot be fetched, or the disk is full.
        """
        if size > self.limit:
            raise ConfigError(
                f"{storage.show(name)} has {size / 1e9:.3f} GB and storage.cache_gb is {self.limit / 1e9:.3f}: raise "
                "it, or leave storage.cache out"
            )
        path = self.folder / sha256[:2] / sha256
        try:
            while True:
                try:
                    file = path.open("rb")
                except FileNotFoundError:
                    fetched = self._fetch(storage, name, size, sha256, path)
                    if fetched is not None:
                        return fetched
                    continue  # another process has just fetched it
                if os.fstat(file.fileno()).st_size == size:
                    with suppress(OSError):  # evicted meanwhile, or another user's
                        os.utime(path)
                    return file
                file.close()
                path.unlink(missing_ok=True)  # cut, as a machine that lost power leaves it
        except OSError as error:
            raise StorageError(
                f"the cache {self.folder} cannot hold {storage.show(name)}: {error.strerror}. Free space, lower "
                "storage.cache_gb, or choose another storage.cache"
            ) from error

    def _fetch(self, storage: Storage, name: str, size: int, sha256: str, path: Path) -> BinaryIO | None:
        """Fetch a file and return it opened, as others may evict it at once; None where another process was first."""
        locks = self.folder / "locks"
        locks.mkdir(parents=True, exist_ok=True)
        path.parent.mkdir(exist_ok=True)
        with FileLock(locks / sha256):
            if path.exists():
                return None
            self._make_room(size)
            partial = path.with_name(f"{path.name}.partial")  # the lock's owner alone writes it
            try:
                self._download(storage, name, sha256, partial)
                os.replace(partial, path)
            finally:
                partial.unlink(missing_ok=True)
            file = path.open("rb")
            self._make_room(0)  # others may have made the same room
            return file

    def _download(self, storage: Storage, name: str, sha256: str, partial: Path) -> None:
        for _ in range(2):
            if (found := storage.fetch(name, partial)) == sha256:
                return
        raise ShardError(
            f"{storage.show(name)} has the checksum {found[:12]}..., its index says {sha256[:12]}... "
            "Copy it there again, with its index."
        )

    def _make_room(self, size: int) -> None:
        """Remove what was used least recently until ``size`` more bytes fit."""
        with FileLock(self.folder / "locks" / "evict"):
            kept = []
            for path in self.folder.glob("[0-9a-f][0-9a-f]/*"):
                if path.suffix == ".partial" and self._is_left_over(path):
                    continue
                try:
                    about = path.stat()
                except FileNotFoundError:
                    continue
                kept.append((about.st_mtime_ns, about.st_size, path))
            total = sum(bytes_ for _, bytes_, _ in kept) + size
            for _, bytes_, path in sorted(kept):
                if total <= self.limit:
                    return
                if path.suffix != ".partial":  # a reader that has it open keeps it until it closes it
                    path.unlink(missing_ok=True)
                    total -= bytes_

    def _is_left_over(self, partial: Path) -> bool:
        """Remove what a killed process left half fetched; what is being fetched is locked, and stays."""
        try:
            with FileLock(self.folder / "locks" / partial.stem, timeout=0):
                partial.unlink(missing_ok=True)
                return True
        except Timeout:
            return False

    def text(self, storage: Storage, name: str) -> bytes:
        """Return a small file, from the storage where it answers, else from its last copy."""
        copy = self.folder / "index" / hashlib.sha256(storage.show(name).encode()).hexdigest()
        try:
            data = storage.read(name)
        except MissingError:
            raise
        except StorageError as error:
            try:
                data = copy.read_bytes()
            except OSError:
                raise error from None
            _log.warning("%s Going on with the copy in %s.", error, self.folder)
            return data
        try:
            Storage(copy.parent).write(copy.name, data)
        except StorageError as error:
            _log.warning("%s Going on without a copy.", error)
        return data


def cache_of(storage: Storage) -> Cache | None:
    """Return the cache that a storage's settings ask for; local files need none."""
    settings = storage.settings
    if settings.cache is None or storage.is_local:
        return None
    return Cache(settings.cache, int(settings.cache_gb * 1e9))
