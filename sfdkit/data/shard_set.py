"""The shards that a stream reads: of one folder, or of several that are mixed with weights."""

from __future__ import annotations

import base64
import hashlib
from array import array
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path

from sfdkit.data.shards.format import ShardEntry, ShardIndex
from sfdkit.data.shards.index import as_storage, load_index, split_tables
from sfdkit.errors import ConfigError, ShardError
from sfdkit.points import PointSet, point_set
from sfdkit.storage import Storage


@dataclass(frozen=True)
class Folder:
    """A folder of shards of one split."""

    storage: Storage
    index: ShardIndex
    weight: float = 1.0
    """How often an epoch of training uses each of its clips, where 1 is once."""


class ShardSet:
    """All shards of some folders, numbered through.

    What the indexes say is kept in a few arrays: as objects of their own, the entries of ten thousand shards take twice
    the memory, and each forked worker ends up with a copy of them, as counting references writes to every one.

    Args:
        folders: At least one; their indexes are read with ``fill=False``.

    Raises:
        ShardError: The table of a shard is damaged.
    """

    def __init__(self, folders: Sequence[Folder]) -> None:
        entries = [(folder, entry) for folder in folders for entry in folder.index["shards"]]
        self.folders = tuple(replace(folder, index={**folder.index, "shards": [], "tables": ""}) for folder in folders)
        """The folders, their indexes without the shards."""
        self._ends = list(accumulate(len(folder.index["shards"]) for folder in folders))
        self._names = "".join(entry["name"] for _, entry in entries)
        self._name_ends = array("Q", accumulate(len(entry["name"]) for _, entry in entries))
        self._clips = array("Q", (entry["clips"] for _, entry in entries))
        self._frames = array("Q", (entry["frames"] for _, entry in entries))
        self._bytes = array("Q", (entry["bytes"] for _, entry in entries))
        self._table_ends = array("Q", accumulate(8 * clips for clips in self._clips))
        tables, digests = bytearray(), bytearray()
        texts = (text for folder in folders for text in split_tables(folder.index, folder.storage.show()))
        for (folder, entry), text in zip(entries, texts, strict=True):
            try:
                table = base64.b64decode(text, validate=True)
                digests += bytes.fromhex(entry["sha256"])
            except ValueError as error:
                raise _damaged(folder, entry, str(error)) from error
            tables += table
        self._tables, self._digests = bytes(tables), bytes(digests)

    @classmethod
    def of(cls, folder: str | Path | Storage) -> ShardSet:
        """Return the shards of one folder."""
        storage = as_storage(folder)
        return cls([Folder(storage, load_index(storage, fill=False))])

    def __len__(self) -> int:
        """Return the number of shards."""
        return self._ends[-1]

    def _folder(self, shard: int) -> Folder:
        return self.folders[bisect_right(self._ends, shard)]

    def _name(self, shard: int) -> str:
        return self._names[self._name_ends[shard - 1] if shard else 0 : self._name_ends[shard]]

    def __getitem__(self, shard: int) -> tuple[Storage, ShardEntry]:
        """Return where a shard lies, and its entry in the index."""
        end, clips = self._table_ends[shard], self._clips[shard]
        entry = ShardEntry(
            name=self._name(shard),
            clips=clips,
            frames=self._frames[shard],
            bytes=self._bytes[shard],
            sha256=self._digests[32 * shard : 32 * shard + 32].hex(),
            table=base64.b64encode(self._tables[end - 8 * clips : end]).decode(),
        )
        return self._folder(shard).storage, entry

    def name(self, shard: int) -> str:
        """Return the address of a shard for messages; the file's name alone where there is one folder."""
        name = self._name(shard)
        return name if len(self.folders) == 1 else self._folder(shard).storage.show(name)

    def point_set(self) -> PointSet | None:
        """Return the set of points that the folders carry; None where none does.

        Raises:
            ConfigError: They carry different ones, or one that this version does not know.
        """
        carried = {folder.storage.show(): name for folder in self.folders if (name := folder.index.get("points"))}
        if len(set(carried.values())) > 1:
            where = ", ".join(f"{name} in {folder}" for folder, name in carried.items())
            raise ConfigError(
                f"data.root mixes folders with different sets of points ({where}); pack them with the same one, or "
                "train without points: --data.points false"
            )
        return next((point_set(name, f"the index in {where}") for where, name in carried.items()), None)

    @property
    def repeats(self) -> int:
        """Attempts of reading after the first, in this process."""
        return sum(folder.storage.repeats for folder in self.folders)

    @property
    def clips(self) -> int:
        """Number of clips, each counted once."""
        return sum(self._clips)

    def counts(self) -> list[tuple[Sequence[int], float]]:
        """Return for each folder the number of clips of each of its shards, and its weight."""
        starts = [0, *self._ends]
        return [
            (self._clips[start:end], folder.weight)
            for folder, start, end in zip(self.folders, starts, self._ends, strict=False)
        ]

    def fingerprint(self) -> str:
        """Return a hash over the contents of all shards and the weights."""
        weights = repr([(folder.weight, end) for folder, end in zip(self.folders, self._ends, strict=True)])
        return hashlib.sha256(self._digests + weights.encode()).hexdigest()[:16]


def _damaged(folder: Folder, entry: ShardEntry, what: str) -> ShardError:
    where = folder.storage.show(entry["name"])
    return ShardError(f"The index of {where} is damaged ({what}). Pack the folder again.")
