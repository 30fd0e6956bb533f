"""Where packed shards go, so that a pack which was interrupted resumes. Outputs elsewhere are in ``remote_target``.

OUTPUT/.packing, or SCRATCH/HASH for an output that is not local, is the work folder:

lock                    held by the process that packs
job.json                the settings that the rest belongs to; with others it is thrown away
SPLIT/encoded/          see sfdkit.data.pack.encode
SPLIT/shards.jsonl      the journal: the index entry of each shard that is stored, one a line
result/                 shards of a local output, moved to OUTPUT when all are made; else the shard on its way
old/, cleared           what was in a local OUTPUT before, and the mark that all of it is in old/
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tqdm import tqdm

from sfdkit.data.pack.packed import PACK_NAME, SKIPPED_NAME, SOURCES_NAME, SPLITS
from sfdkit.data.pack.work import clear, working_in
from sfdkit.data.shards.format import INDEX_NAME, ShardEntry
from sfdkit.errors import DataError
from sfdkit.files import atomic_write
from sfdkit.storage import Storage

WORK = ".packing"


class Target:
    """An output, and the work folder of what is on its way there. This one is a folder of this machine.

    Shards are made in the work folder and moved to the output when all are there: a failure changes nothing in it.

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
        made = not self.storage.is_local or self.storage.path().exists()
        try:
            with working_in(self.work, f"--output: {self.storage.show()}"):
                done = False
                try:
                    self._prepare(json.loads(json.dumps(job)), overwrite)
                    yield
                    done = True
                finally:
                    if done or not self._keep():
                        self.abandon()
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            raise DataError(
                f"--output: cannot write {self.storage.show()} ({where}{error.strerror or error}): "
                "check permission and free space; then the same command resumes"
            ) from error
        finally:
            if not made and self.storage.path().is_dir() and not any(self.storage.path().iterdir()):
                self.storage.path().rmdir()

    def _keep(self) -> bool:
        sources = sum(1 for _ in self.work.glob("*/encoded/*.json"))
        if sources:
            text = f"{sources} finished sources are kept in {self.work}: the same command resumes from there"
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

    def _prepare(self, job: dict[str, Any], overwrite: bool) -> None:
        """Find out whether an earlier call left something to resume, or make ready for a new one."""
        same = self._saved().get("job") == job and (self.is_made() or not (self.work / "cleared").exists())
        if same and self.is_made():
            return
        output = self.storage.path()
        files = {
            path.name: [inner.name for inner in path.iterdir()] if path.is_dir() else None
            for path in sorted(output.iterdir())
            if path.name != WORK
        }
        foreign = [name for name, inner in files.items() if not is_packed(name, inner)]
        self._require_own(list(files), foreign, overwrite)
        if not same:
            self.abandon()
            self._save(job=job)

    def _saved(self) -> dict[str, Any]:
        try:
            saved = json.loads((self.work / "job.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return saved if isinstance(saved, dict) else {}

    def _save(self, **values: Any) -> None:
        with atomic_write(self.work / "job.json") as part:
            part.write_text(json.dumps(values), encoding="utf-8")

    def _require_own(self, present: list[str], foreign: list[str], overwrite: bool) -> None:
        """Refuse an output that holds what was not packed, or something at all that may not be replaced."""
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
        with suppress(FileNotFoundError):
            for line in (self.work / split / "shards.jsonl").read_text(encoding="utf-8").splitlines():
                with suppress(ValueError, KeyError, TypeError):  # it was being written when the process ended
                    entry: ShardEntry = json.loads(line)
                    found[entry["name"]] = entry
        return found

    def _note(self, split: str, entry: ShardEntry) -> None:
        with (self.work / split / "shards.jsonl").open("a", encoding="utf-8") as file:
            file.write("\n" + json.dumps(entry))  # a line that was cut stays alone

    def shard_path(self, split: str, name: str) -> Path:
        """Return where to write a shard before :meth:`store`."""
        folder = self.result / split
        folder.mkdir(parents=True, exist_ok=True)
        return folder / name

    def place(self, split: str = "") -> Storage:
        """Return where shards of a split, or the report, are stored."""
        return Storage(self.result / split)

    def holds(self, split: str, entry: ShardEntry) -> bool:
        """Return whether a shard is stored and has the checksum of its entry."""
        return self.place(split).holds(entry["name"], entry["bytes"], entry["sha256"])

    def store(self, split: str, entry: ShardEntry) -> None:
        """Take a shard that lies at :meth:`shard_path`."""
        self._note(split, entry)

    def settle(self) -> None:
        """Wait until all shards so far are stored."""

    def is_made(self) -> bool:
        """Return whether an earlier call made everything and only :meth:`publish` is left."""
        return (self.result / PACK_NAME).is_file()

    def publish(self) -> None:
        """Replace what was there by the new result.

        ``pack.json`` is removed first and written last, so a folder that has it is complete.
        """
        output, old, cleared = self.storage.path(), self.work / "old", self.work / "cleared"
        if not cleared.exists():
            old.mkdir(exist_ok=True)
            for path in sorted(output.iterdir(), key=lambda path: path.name != PACK_NAME):
                if path.name != WORK:
                    path.rename(old / path.name)
            cleared.touch()
        for path in sorted(self.result.iterdir(), key=lambda path: path.name == PACK_NAME):
            path.rename(output / path.name)


def is_packed(name: str, inner: list[str] | None) -> bool:
    """Return whether packing makes a file of this name, or a folder with these files in it."""
    if inner is None:
        return name in (PACK_NAME, SKIPPED_NAME, SOURCES_NAME)
    return name in SPLITS and all(each == INDEX_NAME or each.endswith(".tar") for each in inner)
