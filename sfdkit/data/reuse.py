"""Taking over clips from shards that are about to be replaced: a source that did not change is not encoded twice.

``OUTPUT/sources.json`` says which clips came from which source, and what was left out of it. Once more videos of a data
set have arrived, or some were removed, shards are written anew, since every one of them mixes clips of many people;
cutting and encoding, which take the time, are done for what is new.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

from sfdkit import __version__
from sfdkit.data.access import Damage, read_range
from sfdkit.data.format import ShardEntry
from sfdkit.data.identities import fingerprint
from sfdkit.data.index import load_index
from sfdkit.data.packed import Made, read_made
from sfdkit.data.reader import ClipError
from sfdkit.data.sources import ClipSource, FrameSource
from sfdkit.data.spool import QUALITY, Spooled, spool_ready
from sfdkit.errors import SfdkitError
from sfdkit.storage import Storage


def print_of(source: ClipSource) -> str | None:
    """Return a hash over all that the clips of a source depend on; None for sources that are made and not read."""
    if not isinstance(source, FrameSource):
        return None
    about = [__version__, QUALITY, source.key, source.dataset, asdict(source.cut), fingerprint([source])]
    return hashlib.sha256(json.dumps(about).encode()).hexdigest()[:24]


class Reuse:
    """What was packed into a local folder before.

    Args:
        output: The folder; one that holds nothing of use, or is not local, has no source to take over.
    """

    def __init__(self, output: Storage) -> None:
        self._output = output
        self._made: dict[str, Made] = {}
        self._entries: dict[tuple[str, str], ShardEntry] = {}
        if not output.is_local:
            return
        try:
            self._made = read_made(output)
            for split in {split for made in self._made.values() for split, _, _ in made.clips}:
                for entry in load_index(output.child(split))["shards"]:
                    self._entries[split, entry["name"]] = entry
        except SfdkitError:
            self._made = {}

    def __contains__(self, name: str | None) -> bool:
        """Whether the source of this print was packed before."""
        return name in self._made

    def spool(self, name: str, number: int, folder: Path) -> Spooled | None:
        """Bring the clips of a source into its spool file.

        Args:
            name: The source's print, see :func:`print_of`.
            number: Of the source now.
            folder: Of the spool files.

        Returns:
            As of :func:`sfdkit.data.spool.spool_clips`; None where the clips are damaged or not there any more.
        """
        clips = []
        for split, shard, position in self._made[name].clips:
            entry = self._entries.get((split, shard))
            if entry is None:
                return None
            try:
                (item,) = read_range(self._output.child(split), entry, position, position + 1)
                if isinstance(item, Damage):
                    return None
                raw = item.raw()
            except (ClipError, SfdkitError):
                return None
            clips.append((raw.json, raw.frames))
        return spool_ready(number, clips, self._made[name].skips, folder)
