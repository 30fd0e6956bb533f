"""Writing shards: clips from any source, encoded, shuffled and put into tars with an index beside them.

    sources -> encoded clips, a file per source -> shuffled by the window -> SPLIT/SPLIT-00000.tar ... -> index.json

The tars are a function of the input and the settings alone, byte for byte, whatever encodes the clips and however often
it was interrupted: a call after that does the same arithmetic on what is known of the finished sources, verifies the
shards that are stored, and writes those that are not.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import webdataset
from tqdm import tqdm

from sfdkit import __version__
from sfdkit.data.pack.encode import EncodedClip
from sfdkit.data.pack.encoded_split import EncodedSplit
from sfdkit.data.pack.engines import Engine, engine
from sfdkit.data.pack.options import ShardOptions
from sfdkit.data.pack.packed import PackReport, SourceRecord, SplitReport, find_packed, write_report
from sfdkit.data.pack.remote_target import target_of
from sfdkit.data.pack.reuse import Reuse
from sfdkit.data.pack.sources import ClipSource, Skip
from sfdkit.data.pack.target import Target
from sfdkit.data.shards.format import SCHEMA, ShardEntry, ShardIndex
from sfdkit.data.shards.index import describe_shard, save_index
from sfdkit.errors import DataError

_WINDOW = 16  # shards' worth of clips that are shuffled together; so much disk is used on top of the result


class _SplitWriter:
    """Writes the shards of one split."""

    def __init__(
        self, target: Target, split: str, clips_per_shard: int, shuffle: random.Random, encoded: EncodedSplit
    ) -> None:
        self._target, self._split, self._clips_per_shard = target, split, clips_per_shard
        self._shuffle, self._encoded = shuffle, encoded
        self._journal = target.journal(split)
        self._waiting: list[EncodedClip] = []
        self._files: set[Path] = set()
        self._identities: set[str] = set()
        self.places: dict[int, list[tuple[str, str, int]]] = {}
        """Of each source with clips: the split, the shard and the number of each of its clips."""
        self.entries: list[ShardEntry] = []

    def add(self, clips: Sequence[EncodedClip]) -> None:
        """Take clips; full windows become shards."""
        self._waiting.extend(clips)
        self._files.update(clip.file for clip in clips)
        while len(self._waiting) >= _WINDOW * self._clips_per_shard:
            self._shuffle.shuffle(self._waiting)
            for _ in range(_WINDOW):
                self._add_shard(self._waiting[: self._clips_per_shard])
                del self._waiting[: self._clips_per_shard]
            self._drop_files()

    def _drop_files(self) -> None:
        """Remove the files whose clips are all in stored shards."""
        self._target.settle()
        needed = {clip.file for clip in self._waiting}
        for path in self._files - needed:
            path.unlink(missing_ok=True)
        self._files = needed

    def _add_shard(self, clips: Sequence[EncodedClip]) -> None:
        """Store a shard of these clips, if it is not stored yet."""
        self._identities.update(clip.identity for clip in clips)
        name = f"{self._split}-{len(self.entries):05d}.tar"
        entry = self._journal.get(name)
        if entry is None or not self._target.holds(self._split, entry):
            self._encoded.restore(clips)
            path = self._target.shard_path(self._split, name)
            self._write_shard(path, clips)
            entry = describe_shard(path)
            self._target.store(self._split, entry)
        self.entries.append(entry)
        for position, clip in enumerate(clips):
            self.places.setdefault(clip.source, []).append((self._split, name, position))

    def _write_shard(self, path: Path, clips: Sequence[EncodedClip]) -> None:
        with path.open("wb") as stream, webdataset.TarWriter(stream, user="", group="", encoder=False, mtime=0) as tar:
            for clip in clips:
                text, blob = self._encoded.read(clip)
                tar.write({"__key__": clip.key, "json": text})  # one call a member: a call sorts its members by name
                tar.write({"__key__": clip.key, "frames": blob})

    def finish(self, dataset: str, resolution: int, points: str | None) -> SplitReport:
        """Write the remaining clips as shards of nearly equal size, then the index."""
        self._shuffle.shuffle(self._waiting)
        shards = -(-len(self._waiting) // self._clips_per_shard)
        for number in range(shards):
            start, stop = (edge * len(self._waiting) // shards for edge in (number, number + 1))
            self._add_shard(self._waiting[start:stop])
        index = ShardIndex(
            schema=SCHEMA,
            dataset=dataset,
            split=self._split,
            resolution=resolution,
            identities=len(self._identities),
            shards=self.entries,
        )
        if points:
            index["points"] = points
        self._waiting = []
        self._drop_files()
        save_index(self._target.place(self._split), index)
        return SplitReport(
            clips=sum(entry["clips"] for entry in self.entries),
            frames=sum(entry["frames"] for entry in self.entries),
            identities=len(self._identities),
            shards=len(self.entries),
            bytes=sum(entry["bytes"] for entry in self.entries),
        )


def _pack_split(
    target: Target,
    split: str,
    sources: Sequence[ClipSource],
    dataset: str,
    resolution: int,
    points: str | None,
    options: ShardOptions,
    encode: Engine,
    report: PackReport,
) -> None:
    """Make one split and report it; one without clips leaves nothing behind."""
    shuffle = random.Random(f"{options.seed}/{split}")
    ordered = shuffle.sample(sources, len(sources))
    encoded = EncodedSplit(target.encoded(split), ordered, encode, Reuse(target.storage))
    writer = _SplitWriter(target, split, options.clips_per_shard, shuffle, encoded)
    skips: dict[int, list[Skip]] = {}
    clips = left_out = 0
    with tqdm(encoded.results(), total=len(ordered), desc=split, unit="source") as bar:
        for number, result in enumerate(bar):
            writer.add(result.clips)
            skips[number] = result.skips
            clips += len(result.clips)
            left_out += len(result.skips)
            bar.set_postfix(clips=clips, left_out=left_out, refresh=False)
    report.skips += [skip for some in skips.values() for skip in some]
    report.reused += encoded.reused
    report.splits[split] = SplitReport(clips=0, frames=0, identities=0, shards=0, bytes=0)
    if clips:
        report.splits[split] = writer.finish(dataset, resolution, points)
        report.shards |= {f"{split}/{entry['name']}": entry["sha256"] for entry in writer.entries}
    for number, name in enumerate(encoded.fingerprints):
        if name is not None:
            report.records[name] = SourceRecord(writer.places.get(number, []), skips[number])


def pack(
    sources: Mapping[str, Sequence[ClipSource]],
    output: str,
    dataset: str,
    resolution: int,
    settings: Mapping[str, Any],
    options: ShardOptions,
    skips: Sequence[Skip] = (),
) -> PackReport:
    """Write the shards of all splits, or find that they are there already.

    Clips are encoded source by source into files and written to tars in a seeded random order, 16 shards' worth
    at a time, so that a shard holds many identities while disk and memory stay bounded. A call that is interrupted, in
    whatever way, is continued by the next one with the same arguments.

    Args:
        sources: Split name to the sources of its clips; no identity may be in two splits.
        output: The folder to fill: a local path or an address.
        dataset: Name of the data set, for the index.
        resolution: Pixels of a side, for the index.
        settings: All that the result depends on, as json values: a folder that has them already is kept. ``points``
            names the set of points that the clips carry.
        options: How clips become shards. With ``overwrite`` clips of sources that did not change are taken over from
            a local folder.
        skips: What was left out before, to be reported with the rest.

    Returns:
        What there is now.

    Raises:
        DataError: The folder holds something else, was packed with other settings or cannot be written, or no clip is
            left at all.
        ShardError: The folder says that it is complete and is not.
        StorageError: The output does not answer, or refuses.
    """
    points: str | None = settings.get("points")
    target = target_of(output, options.scratch)
    if not options.overwrite and (found := find_packed(target.storage, settings)):
        target.remove_leftovers()
        return found
    report = PackReport(target.storage.show(), {}, list(skips))
    job = {"schema": SCHEMA, "version": __version__, "settings": dict(settings), "sources": _names(sources)}
    with target.opened(job, options.overwrite):
        if target.is_made():
            target.publish()
            found = find_packed(target.storage, settings) or report
            found.found = False
            return found
        with engine(options.engine, options.workers) as encode:
            for split, members in sources.items():
                if members:
                    _pack_split(target, split, members, dataset, resolution, points, options, encode, report)
        if not any(split.clips for split in report.splits.values()):
            target.abandon()
            raise DataError(f"no clip is left to pack into {report.output}: {report.failure()}")
        write_report(target.place(), report, settings)
        target.publish()
    return report


def _names(sources: Mapping[str, Sequence[ClipSource]]) -> str:
    """Return a hash over the names of all sources in their order."""
    digest = hashlib.sha256()
    for split, members in sources.items():
        digest.update(f"{split} {len(members)}\n".encode())
        for source in members:
            digest.update(f"{source.name}\n".encode())
    return digest.hexdigest()
