"""Taking over clips from shards that are about to be replaced: a source that did not change is not encoded twice.

``OUTPUT/sources.json`` says which clips came from which source, and what was left out of it. Once more videos of a data
set have arrived, or some were removed, shards are written anew, since every one of them mixes clips of many people;
cutting and encoding, which take the time, are done for what is new.
"""

from __future__ import annotations

from pathlib import Path

from sfdkit.data.pack.encode import EncodedSource, write_source
from sfdkit.data.pack.packed import SourceRecord, read_records
from sfdkit.data.shards.access import Damage, read_range
from sfdkit.data.shards.format import ShardEntry
from sfdkit.data.shards.index import load_index, require_shards
from sfdkit.data.shards.reader import ClipError
from sfdkit.errors import SfdkitError, ShardError
from sfdkit.storage import Storage


class Reuse:
    """What was packed into a local folder before.

    Args:
        output: The folder; one that holds nothing of use, or is not local, has no source to take over.
    """

    def __init__(self, output: Storage) -> None:
        self._output = output
        self._records: dict[str, SourceRecord] = {}
        self._entries: dict[tuple[str, str], ShardEntry] = {}
        if not output.is_local:
            return
        records, shards = read_records(output)
        try:
            for split in {name.partition("/")[0] for name in shards}:
                index = load_index(output.child(split))
                require_shards(output.child(split), index)
                self._entries |= {(split, entry["name"]): entry for entry in index["shards"]}
        except SfdkitError:
            return
        if shards == {f"{split}/{name}": entry["sha256"] for (split, name), entry in self._entries.items()}:
            passing = ("unreadable", "damaged")  # what may be mended by now
            self._records = {n: one for n, one in records.items() if not any(s.reason in passing for s in one.skips)}

    def __contains__(self, name: str | None) -> bool:
        """Whether the source of this fingerprint was packed before."""
        return name in self._records

    def take_over(self, name: str, number: int, folder: Path) -> EncodedSource | None:
        """Bring the clips of a source into its file of encoded clips.

        Args:
            name: The source's fingerprint.
            number: Of the source now.
            folder: Of the files of encoded clips.

        Returns:
            As of :func:`sfdkit.data.pack.encode.encode_source`; None where the clips are damaged or gone.
        """
        record = self._records[name]
        try:
            return write_source(number, map(self._read, record.clips), record.skips, folder)
        except (ClipError, SfdkitError):
            return None

    def _read(self, place: tuple[str, str, int]) -> tuple[bytes, bytes]:
        """Return the json and the frames of a clip.

        Raises:
            ClipError: The bytes are not those of a clip.
            SfdkitError: They are not what the index says.
        """
        split, shard, position = place
        (item,) = read_range(self._output.child(split), self._entries[split, shard], position, position + 1)
        if isinstance(item, Damage):
            raise ShardError(item.message)
        raw = item.raw()
        return raw.json, raw.frames
