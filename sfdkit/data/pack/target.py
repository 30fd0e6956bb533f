"""Where packed shards go, so that a pack which was interrupted goes on: a local folder, or any storage.

OUTPUT/.packing, or SCRATCH/HASH for an output that is not local, is the work folder:

lock                    held by the process that packs
job.json                the settings that the rest belongs to; with others it is thrown away
SPLIT/encoded/          see sfdkit.data.pack.encode
SPLIT/shards.jsonl      the journal: the index entry of each shard that is stored, one a line
result/                 shards of a local output, moved to OUTPUT when all are made; else the shard on its way
old/, cleared           what was in a local OUTPUT before, and the mark that all of it is in old/
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import socket
import sys
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tqdm import tqdm

from sfdkit.data.pack.packed import PACK_NAME, SKIPPED_NAME, SOURCES_NAME, SPLITS, PackReport, write_report
from sfdkit.data.pack.work import cache_folder, clear, working_in
from sfdkit.data.shards.format import INDEX_NAME, ShardEntry, ShardIndex
from sfdkit.data.shards.index import save_index
from sfdkit.errors import ConfigError, DataError, MissingError, StorageError
from sfdkit.storage import Storage

_WORK = ".packing"
_MARK = ".packing.json"  # in an output that is not local, says who packs into it
_UPLOADS = 4  # at the same time


class Target(ABC):
    """An output, and the work folder of what is on its way there.

    Args:
        storage: The output.
        work: The work folder.
    """

    def __init__(self, storage: Storage, work: Path) -> None:
        self.storage, self.work = storage, work
        self.result = work / "result"

    def encoded(self, split: str) -> Path:
        """Return the folder for the encoded clips of a split, which exists."""
        folder = self.work / split / "encoded"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    @contextmanager
    def opened(self, job: Mapping[str, Any], overwrite: bool) -> Iterator[None]:
        """Hold the target; after the block what is in it is complete and the work folder is gone.

        After an exception what is made so far is kept for the next call.

        Args:
            job: All that the result depends on: what an earlier call with the same job left is used.
            overwrite: Replace what was packed there before.

        Raises:
            DataError: The output holds something else, another process packs into it, or it cannot be written.
        """
        what = f"--output: {self.storage.show()}"
        made = not self.storage.is_local or self.storage.path().exists()
        try:
            with working_in(self.work, what):
                done = False
                try:
                    self._prepare(json.loads(json.dumps(job)), overwrite)
                    yield
                    done = True
                finally:
                    if done or not self._keep():
                        self.abandon()
        except OSError as error:
            raise DataError(
                f"--output: cannot write {self.storage.show()} ({_words(error)}): check permission and free space; "
                "then the same command goes on where it was"
            ) from error
        finally:
            if not made and self.storage.path().is_dir() and not any(self.storage.path().iterdir()):
                self.storage.path().rmdir()

    def _keep(self) -> bool:
        sources = sum(1 for _ in self.work.glob("*/encoded/*.json"))
        if sources:
            text = f"{sources} finished sources are kept in {self.work}: the same command goes on from there"
            tqdm.write(text, file=sys.stderr)
        return bool(sources)

    def abandon(self) -> None:
        """Throw away what is on its way."""
        (self.work / "job.json").unlink(missing_ok=True)
        clear(self.work)

    def remove_leftovers(self) -> None:
        """Throw away a work folder that an interrupted call left although its output is complete."""
        if self.work.is_dir():
            with working_in(self.work, f"--output: {self.storage.show()}"):
                self.abandon()

    @abstractmethod
    def _prepare(self, job: dict[str, Any], overwrite: bool) -> None:
        """Find out whether an earlier call left something to go on with, or make ready for a new one."""

    def _saved(self) -> dict[str, Any]:
        try:
            saved = json.loads((self.work / "job.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return saved if isinstance(saved, dict) else {}

    def _save(self, **values: Any) -> None:
        partial = self.work / "job.partial"
        partial.write_text(json.dumps(values), encoding="utf-8")
        os.replace(partial, self.work / "job.json")

    def _require_own(self, present: Sequence[str], foreign: Sequence[str], overwrite: bool) -> None:
        """Check that an output may be filled.

        Raises:
            DataError: It holds what was not packed, or something at all that may not be replaced.
        """
        show = self.storage.show()
        if foreign:
            raise DataError(
                f"--output: {show} holds {', '.join(foreign[:5])}, which was not packed; choose an empty folder"
            )
        if present and not overwrite:
            raise DataError(
                f"--output: {show} already holds {', '.join(present)}; choose another folder, or --overwrite true"
            )

    def journal(self, split: str) -> dict[str, ShardEntry]:
        """Return the entries of the shards of a split that were stored, by name."""
        found: dict[str, ShardEntry] = {}
        try:
            lines = (self.work / split / "shards.jsonl").read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return found
        for line in lines:
            try:
                entry: ShardEntry = json.loads(line)
                found[entry["name"]] = entry
            except (ValueError, KeyError, TypeError):  # the line that was being written when the process ended
                continue
        return found

    def _note(self, split: str, entry: ShardEntry) -> None:
        with (self.work / split / "shards.jsonl").open("a", encoding="utf-8") as file:
            file.write("\n" + json.dumps(entry))  # a line that was cut stays alone

    def shard_path(self, split: str, name: str) -> Path:
        """Return where to write a shard before :meth:`store`."""
        folder = self.result / split
        folder.mkdir(parents=True, exist_ok=True)
        return folder / name

    @abstractmethod
    def holds(self, split: str, entry: ShardEntry) -> bool:
        """Return whether a shard is stored and has the checksum of its entry."""

    @abstractmethod
    def store(self, split: str, entry: ShardEntry) -> None:
        """Take a shard that lies at :meth:`shard_path`."""

    @abstractmethod
    def settle(self) -> None:
        """Wait until all shards so far are stored."""

    @abstractmethod
    def finish_split(self, index: ShardIndex) -> None:
        """Write the index of a split whose shards are stored."""

    @abstractmethod
    def is_made(self) -> bool:
        """Return whether an earlier call made everything and only :meth:`publish` is left."""

    @abstractmethod
    def finish(self, report: PackReport, settings: Mapping[str, Any]) -> None:
        """Write the report, which says that all is made."""

    @abstractmethod
    def publish(self) -> None:
        """Bring what is made to the output."""


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
        return _LocalTarget(storage, storage.path(_WORK))
    if storage.is_read_only:
        raise ConfigError(f"--output: {storage.show()} cannot be written: give a local folder or an object store")
    name = hashlib.sha256(storage.root.encode()).hexdigest()[:20]
    return _RemoteTarget(storage, (Path(scratch) if scratch else cache_folder() / "packing") / name)


def _words(error: OSError) -> str:
    text = error.strerror or str(error)
    return f"{error.filename}: {text}" if error.filename else text


def _digest(storage: Storage, name: str) -> str:
    digest = hashlib.sha256()
    for piece in storage.pieces(name):
        digest.update(piece)
    return digest.hexdigest()


class _LocalTarget(Target):
    def _prepare(self, job: dict[str, Any], overwrite: bool) -> None:
        same = self._saved().get("job") == job and (self.is_made() or not (self.work / "cleared").exists())
        if same and self.is_made():
            return
        output = self.storage.path()
        present = sorted(path.name for path in output.iterdir() if path.name != _WORK)
        self._require_own(present, [name for name in present if not _packed_before(output / name)], overwrite)
        if not same:
            self.abandon()
            self._save(job=job)

    def holds(self, split: str, entry: ShardEntry) -> bool:
        try:
            with (self.result / split / entry["name"]).open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest() == entry["sha256"]
        except FileNotFoundError:
            return False

    def store(self, split: str, entry: ShardEntry) -> None:
        self._note(split, entry)

    def settle(self) -> None:
        pass

    def finish_split(self, index: ShardIndex) -> None:
        save_index(self.result / index["split"], index)

    def is_made(self) -> bool:
        return (self.result / PACK_NAME).is_file()

    def finish(self, report: PackReport, settings: Mapping[str, Any]) -> None:
        write_report(Storage(self.result), report, settings)

    def publish(self) -> None:
        """Move away what was there and move in what is new; ``pack.json`` goes first and comes last."""
        output, old, cleared = self.storage.path(), self.work / "old", self.work / "cleared"
        if not cleared.exists():
            old.mkdir(exist_ok=True)
            for path in sorted(output.iterdir(), key=lambda path: path.name != PACK_NAME):
                if path.name != _WORK:
                    path.rename(old / path.name)
            cleared.touch()
        for path in sorted(self.result.iterdir(), key=lambda path: path.name == PACK_NAME):
            path.rename(output / path.name)


def _packed_before(path: Path) -> bool:
    if path.name in (PACK_NAME, SKIPPED_NAME, SOURCES_NAME):
        return True
    if path.name not in SPLITS or not path.is_dir():
        return False
    return all(_is_shard_file(inner.name) for inner in path.iterdir())


def _is_shard_file(name: str) -> bool:
    return name == INDEX_NAME or name.endswith(".tar")


class _RemoteTarget(Target):
    def __init__(self, storage: Storage, work: Path) -> None:
        super().__init__(storage, work)
        self._uploads: deque[tuple[str, ShardEntry, Future[None]]] = deque()
        self._pool: ThreadPoolExecutor | None = None
        self._splits: dict[str, Storage] = {split: storage.child(split) for split in SPLITS}

    @contextmanager
    def opened(self, job: Mapping[str, Any], overwrite: bool) -> Iterator[None]:
        """Hold the target, see the base class."""
        self._pool = ThreadPoolExecutor(_UPLOADS)
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
        saved = self._saved()
        there = self.storage.names()
        mark = self._mark() if _MARK in there else None
        if saved.get("job") == job and saved.get("cleared") and mark is not None and mark.get("id") == saved.get("id"):
            return
        files = {"": [name for name in there if name != _MARK]}
        for split in SPLITS:
            files[split] = self._splits[split].names()
        foreign = [name for name in files[""] if name not in (PACK_NAME, SKIPPED_NAME, SOURCES_NAME)]
        foreign += [f"{s}/{name}" for s in SPLITS for name in files[s] if not _is_shard_file(name)]
        if not foreign and not overwrite and mark is not None and mark.get("id") != saved.get("id"):
            raise DataError(
                f"--output: {self.storage.show()} is being packed from {mark.get('host')} since {mark.get('since')}, "
                "or that call was interrupted: call the same command there with the same --scratch to go on, or "
                "--overwrite true to begin anew"
            )
        self._require_own([*files[""], *(s for s in SPLITS if files[s])], foreign, overwrite)
        self.abandon()
        identity = secrets.token_hex(8)
        self._save(job=job, id=identity, cleared=False)
        since = time.strftime("%Y-%m-%d %H:%M:%S %z")
        mark = {"id": identity, "host": socket.gethostname(), "since": since}
        self.storage.write(_MARK, json.dumps(mark).encode())
        for name in sorted(files[""], key=lambda name: name != PACK_NAME):
            self.storage.remove(name)
        for split in SPLITS:
            for name in sorted(files[split], key=lambda name: name != INDEX_NAME):
                self._splits[split].remove(name)
        self._save(job=job, id=identity, cleared=True)

    def _mark(self) -> dict[str, Any] | None:
        try:
            mark = json.loads(self.storage.read(_MARK))
        except MissingError:
            return None
        except ValueError:
            return {}
        return mark if isinstance(mark, dict) else {}

    def holds(self, split: str, entry: ShardEntry) -> bool:
        storage = self._splits[split]
        try:
            return storage.size(entry["name"]) == entry["bytes"] and _digest(storage, entry["name"]) == entry["sha256"]
        except MissingError:
            return False

    def store(self, split: str, entry: ShardEntry) -> None:
        assert self._pool is not None
        self._uploads.append((split, entry, self._pool.submit(self._upload, split, entry)))
        while len(self._uploads) >= _UPLOADS:
            self._await_upload()

    def _upload(self, split: str, entry: ShardEntry) -> None:
        self._splits[split].put(entry["name"], self.shard_path(split, entry["name"]))

    def _await_upload(self) -> None:
        split, entry, upload = self._uploads.popleft()
        upload.result()
        self._note(split, entry)
        self.shard_path(split, entry["name"]).unlink()

    def settle(self) -> None:
        while self._uploads:
            self._await_upload()

    def finish_split(self, index: ShardIndex) -> None:
        save_index(self._splits[index["split"]], index)

    def is_made(self) -> bool:
        return False

    def finish(self, report: PackReport, settings: Mapping[str, Any]) -> None:
        write_report(self.storage, report, settings)

    def publish(self) -> None:
        pass
