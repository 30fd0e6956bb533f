"""Packing into a storage that is not on this machine."""

from __future__ import annotations

import hashlib
import json
import secrets
import socket
import time
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sfdkit.data.pack.packed import PACK_NAME, SPLITS
from sfdkit.data.pack.target import WORK, Target, is_packed
from sfdkit.data.shards.format import INDEX_NAME, ShardEntry
from sfdkit.errors import ConfigError, DataError, MissingError, StorageError
from sfdkit.files import cache_folder
from sfdkit.storage import Storage

_MARK = ".packing.json"  # in an output that is not local, says who packs into it
_UPLOADS = 4  # at the same time


class RemoteTarget(Target):
    """An output that is not on this machine: shards are uploaded as they are made."""

    def __init__(self, storage: Storage, work: Path) -> None:
        super().__init__(storage, work)
        self._uploads: deque[tuple[str, ShardEntry, Future[None]]] = deque()
        self._pool = ThreadPoolExecutor(_UPLOADS)

    @contextmanager
    def opened(self, job: Mapping[str, Any], overwrite: bool) -> Iterator[None]:
        """Hold the target, see the base class."""
        with self._pool:
            try:
                with super().opened(job, overwrite):
                    yield
            finally:
                self._pool.shutdown(cancel_futures=True)

    def abandon(self) -> None:
        """Throw away what is on its way, and the mark in the output."""
        identity = self._saved().get("id")
        if identity:
            with suppress(StorageError):
                if (self._mark() or {}).get("id") == identity:
                    self.storage.remove(_MARK)
        super().abandon()

    def _prepare(self, job: dict[str, Any], overwrite: bool) -> None:
        saved, there = self._saved(), self.storage.names()
        mark = self._mark() if _MARK in there else None
        if saved.get("job") == job and saved.get("cleared") and mark is not None and mark.get("id") == saved.get("id"):
            return
        top = [name for name in there if name != _MARK]
        splits: dict[str, list[str]] = {split: self.place(split).names() for split in SPLITS}
        foreign = [name for name in top if not is_packed(name, None)]
        foreign += [f"{s}/{name}" for s, names in splits.items() for name in names if not is_packed(s, [name])]
        if not foreign and not overwrite and mark is not None and mark.get("id") != saved.get("id"):
            raise DataError(
                f"--output: {self.storage.show()} is being packed from {mark.get('host')} since {mark.get('since')}, "
                "or that call was interrupted: call the same command there with the same --scratch to resume, or "
                "--overwrite true to begin anew"
            )
        self._require_own([*top, *(split for split, names in splits.items() if names)], foreign, overwrite)
        self.abandon()
        identity = secrets.token_hex(8)
        self._save(job=job, id=identity, cleared=False)
        since = time.strftime("%Y-%m-%d %H:%M:%S %z")
        mark = {"id": identity, "host": socket.gethostname(), "since": since}
        self.storage.write(_MARK, json.dumps(mark).encode())
        for split, names in {"": top, **splits}.items():
            for name in sorted(names, key=lambda name: name not in (PACK_NAME, INDEX_NAME)):
                self.place(split).remove(name)
        self._save(job=job, id=identity, cleared=True)

    def _mark(self) -> dict[str, Any] | None:
        try:
            mark = json.loads(self.storage.read(_MARK))
        except MissingError:
            return None
        except ValueError:
            return {}
        return mark if isinstance(mark, dict) else {}

    def place(self, split: str = "") -> Storage:
        """Return the output."""
        return self.storage.child(split) if split else self.storage

    def store(self, split: str, entry: ShardEntry) -> None:
        """Begin to upload a shard."""
        path = self.shard_path(split, entry["name"])
        self._uploads.append((split, entry, self._pool.submit(self.place(split).put, entry["name"], path)))
        while len(self._uploads) >= _UPLOADS:
            self._await_upload()

    def _await_upload(self) -> None:
        split, entry, upload = self._uploads.popleft()
        upload.result()
        self._note(split, entry)
        self.shard_path(split, entry["name"]).unlink()

    def settle(self) -> None:
        """Wait for the uploads."""
        while self._uploads:
            self._await_upload()

    def is_made(self) -> bool:
        """Return False: the report is uploaded last."""
        return False

    def publish(self) -> None:
        """Do nothing: all is uploaded."""


def target_of(output: str, scratch: str | None = None) -> Target:
    """Return the target of an address.

    Args:
        output: A local path or an address.
        scratch: Folder for the work folder of an output that is not local; by default one in the user's cache.

    Raises:
        ConfigError: Nothing can be written to such an address.
    """
    storage = Storage(output)
    if storage.is_local:
        return Target(storage, storage.path(WORK))
    if storage.is_read_only:
        raise ConfigError(f"--output: {storage.show()} cannot be written: give a local folder or an object store")
    name = hashlib.sha256(storage.root.encode()).hexdigest()[:20]
    return RemoteTarget(storage, (Path(scratch) if scratch else cache_folder() / "packing") / name)
