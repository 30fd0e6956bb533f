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

import av
import cv2

from sfdkit import __version__
from sfdkit.data.pack.identities import fingerprint
from sfdkit.data.pack.packed import Made, read_made
from sfdkit.data.pack.sources import ClipSource, FrameSource
from sfdkit.data.pack.spool import QUALITY, Spooled, spool_ready
from sfdkit.data.shards.access import Damage, read_range
from sfdkit.data.shards.format import ShardEntry
from sfdkit.data.shards.index import load_index, require_shards
from sfdkit.data.shards.reader import ClipError
from sfdkit.errors import SfdkitError, ShardError
from sfdkit.media.picture import list_pictures
from sfdkit.storage import Storage


def print_of(source: ClipSource) -> str | None:
    """Return a hash over what the clips of a source depend on; None for sources that are not read from files there are.

    Files count by name, size and time of change, and so does a detector's file; with them go the libraries' versions.
    """
    if not isinstance(source, FrameSource):
        return None
    try:
        files = list_pictures(source.path) if source.path.is_dir() else [source.path]
        detector = Path(source.cut.rule.face.detector)
        if detector.is_file():
            files = [*files, detector]
        times = [file.stat().st_mtime_ns for file in files]
        what = [source.key, source.dataset, asdict(source.cut), fingerprint([source]), times]
    except OSError:
        return None
    about = [__version__, cv2.__version__, av.__version__, QUALITY, *what]
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
        made, shards = read_made(output)
        try:
            for split in {name.partition("/")[0] for name in shards}:
                index = load_index(output.child(split))
                require_shards(output.child(split), index)
                self._entries |= {(split, entry["name"]): entry for entry in index["shards"]}
        except SfdkitError:
            return
        if shards == {f"{split}/{name}": entry["sha256"] for (split, name), entry in self._entries.items()}:
            passing = ("unreadable", "damaged")  # what may be mended by now
            self._made = {n: one for n, one in made.items() if not any(s.reason in passing for s in one.skips)}

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
            As of :func:`sfdkit.data.pack.spool.spool_clips`; None where the clips are damaged or not there any more.
        """
        made = self._made[name]
        try:
            return spool_ready(number, map(self._read, made.clips), made.skips, folder)
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
