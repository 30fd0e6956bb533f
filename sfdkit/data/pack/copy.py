"""Copying packed shards between storages, each verified while it passes.

A shard comes into a work folder first and goes to its place when its checksum is right, so that nothing half-written
has a final name. Indexes go last, ``pack.json`` at the very end.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from sfdkit.data.pack.check import shard_folders
from sfdkit.data.pack.packed import PACK_NAME, SKIPPED_NAME
from sfdkit.data.pack.work import clear, working_in
from sfdkit.data.shards.format import INDEX_NAME, ShardEntry, ShardIndex
from sfdkit.data.shards.index import load_index
from sfdkit.errors import ConfigError, DataError, MissingError, ShardError
from sfdkit.storage import Storage

_WORK = ".copying"
_READS = 2  # of a shard that arrives damaged


@dataclass
class CopyReport:
    """What a copy did."""

    copied: int = 0
    kept: int = 0
    """Shards that the target had already."""
    bytes: int = 0
    """Of the shards that were copied."""


@dataclass(frozen=True)
class _Folder:
    source: Storage
    target: Storage
    index: ShardIndex
    text: bytes
    """The index as it lies at the source."""


class _Stopped(Exception):
    """Another thread failed."""


class _Copier:
    """Copies shards, in several threads at a time."""

    def __init__(self, work: Path, verify: bool, bar: tqdm[None]) -> None:
        self._work, self._verify, self._bar = work, verify, bar
        self._lock = threading.Lock()
        self.stopped = threading.Event()

    def copy(self, folder: _Folder, number: int, entry: ShardEntry, present: bool) -> bool:
        """Bring one shard to the target, unless it is there; return whether it was copied.

        Raises:
            ShardError: It is damaged at the source, or at the target after it was written.
            StorageError: A storage does not answer.
        """
        name = entry["name"]
        if present and self._is_right(folder.target, entry):
            self._advance(entry["bytes"])
            return False
        path = self._work / f"{number}-{name}"
        try:
            self._fetch(folder.source, entry, path)
            for _ in range(_READS):
                if folder.target.is_local:
                    folder.target.path().mkdir(parents=True, exist_ok=True)
                    os.replace(path, folder.target.path(name))
                else:
                    folder.target.put(name, path)
                if not self._verify or self._is_right(folder.target, entry):
                    return True
                if not path.exists():
                    break
        finally:
            path.unlink(missing_ok=True)
        folder.target.remove(name)
        raise ShardError(
            f"{folder.target.show(name)} is not what was written when it is read back, its index says sha256 "
            f"{entry['sha256'][:12]}...: check that storage, then copy again"
        )

    def _fetch(self, source: Storage, entry: ShardEntry, path: Path) -> None:
        for _ in range(_READS):
            found = source.fetch(entry["name"], path, self._advance)
            if found == entry["sha256"]:
                return
            self._advance(-(size := path.stat().st_size))
        raise ShardError(
            f"{source.show(entry['name'])} has {size} bytes with sha256 {found[:12]}..., its index says "
            f"{entry['bytes']} and {entry['sha256'][:12]}...: pack it again, or copy from another source"
        )

    def _is_right(self, storage: Storage, entry: ShardEntry) -> bool:
        return storage.holds(entry["name"], entry["bytes"], entry["sha256"], self._check)

    def _check(self, _: int) -> None:
        if self.stopped.is_set():
            raise _Stopped

    def _advance(self, size: int) -> None:
        self._check(size)
        with self._lock:
            self._bar.update(size)


def copy_shards(
    source: Storage, target: Storage, workers: int = 4, verify: bool = True, overwrite: bool = False
) -> CopyReport:
    """Copy a folder of shards, or all splits of a packed folder.

    Args:
        source: A folder with an index, or one with such folders in it.
        target: Folder to fill; shards that it has already are kept.
        workers: Shards that are copied at the same time.
        verify: Read each shard back from the target and compare.
        overwrite: Replace what belongs to another index.

    Returns:
        What was done.

    Raises:
        ConfigError: Nothing can be written to such an address.
        DataError: The target holds other shards, another process writes there, or the disk is full.
        ShardError: There is no index, or a shard is damaged.
        StorageError: A storage does not answer.
    """
    if target.is_read_only:
        raise ConfigError(f"--target: {target.show()} cannot be written: give a local folder or an object store")
    folders = []
    for one in shard_folders(source):
        name = "" if one.root == source.root else one.root.rstrip("/").rsplit("/", 1)[-1]
        index, text = load_index(one), one.read(INDEX_NAME)
        folders.append(_Folder(one, target.child(name) if name else target, index, text))
    more: dict[str, bytes] = {}
    for file in () if folders[0].source.root == source.root else (SKIPPED_NAME, PACK_NAME):
        with suppress(MissingError):
            more[file] = source.read(file)
    try:
        with _work_folder(target) as work:
            report = _copy_all(folders, work, target, workers, verify, overwrite)
            for folder in folders:
                folder.target.write(INDEX_NAME, folder.text)
            for name, text in more.items():
                target.write(name, text)
            return report
    except OSError as error:
        raise DataError(
            f"--target: cannot write {target.show()} ({error.strerror}): check permission and free space; then the "
            "same command resumes"
        ) from error


@contextmanager
def _work_folder(target: Storage) -> Iterator[Path]:
    """Give a folder for shards on their way: on the same disk as a local target."""
    if not target.is_local:
        with tempfile.TemporaryDirectory(prefix="sfdkit-copy-") as folder:
            yield Path(folder)
        return
    work = target.path(_WORK)
    with working_in(work, f"--target: {target.show()}"):
        clear(work)
        try:
            yield work
        finally:
            clear(work)


def _copy_all(
    folders: list[_Folder],
    work: Path,
    target: Storage,
    workers: int,
    verify: bool,
    overwrite: bool,
) -> CopyReport:
    stale = [_stale(folder, overwrite) for folder in folders]
    if any(names is not None for names in stale):
        target.remove(PACK_NAME)
    for folder, names in zip(folders, stale, strict=True):
        for name in names or ():
            folder.target.remove(name)
    report = CopyReport()
    total = sum(entry["bytes"] for folder in folders for entry in folder.index["shards"])
    with tqdm(total=total, unit="B", unit_scale=True, desc="copy") as bar, ThreadPoolExecutor(workers) as pool:
        copier = _Copier(work, verify, bar)
        jobs = {}
        try:
            for number, folder in enumerate(folders):
                present = _names(folder.target)
                for entry in folder.index["shards"]:
                    there = entry["name"] in present
                    jobs[pool.submit(copier.copy, folder, number, entry, there)] = entry
            for job in as_completed(jobs):
                if job.result():
                    report.copied += 1
                    report.bytes += jobs[job]["bytes"]
                else:
                    report.kept += 1
        except BaseException:
            copier.stopped.set()
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return report


def _names(storage: Storage) -> set[str]:
    if storage.is_local and not storage.path().is_dir():
        return set()
    return set(storage.names())


def _stale(folder: _Folder, overwrite: bool) -> list[str] | None:
    """Return what a target must lose before it is filled, its index first; None where it has the same index already.

    Raises:
        DataError: It has another index, and may not be overwritten.
    """
    names = _names(folder.target)
    if INDEX_NAME in names and folder.target.read(INDEX_NAME) == folder.text:
        return None
    if INDEX_NAME in names and not overwrite:
        raise DataError(
            f"--target: {folder.target.show()} holds other shards, its {INDEX_NAME} is not that of "
            f"{folder.source.show()}: choose another folder, or --overwrite true"
        )
    wanted = {entry["name"] for entry in folder.index["shards"]}
    stray = sorted(name for name in names if name.endswith(".tar") and name not in wanted)
    if stray and not overwrite:
        raise DataError(
            f"--target: {folder.target.show()} holds {', '.join(stray[:5])}, which {folder.source.show()} does not: "
            "choose another folder, or --overwrite true"
        )
    return [name for name in (INDEX_NAME,) if name in names] + stray
