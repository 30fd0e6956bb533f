"""Writing shards: clips from any source, encoded, shuffled and put into tars with an index beside them.

    sources -> encoded clips, spooled -> shuffled by the window -> SPLIT/SPLIT-00000.tar ... -> index.json

The tars are a function of the input and the settings alone, byte for byte, whatever the number of processes.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import webdataset
from tqdm import tqdm

from sfdkit.data.format import SCHEMA, ShardEntry, ShardIndex
from sfdkit.data.index import save_index, shard_sha256
from sfdkit.data.packed import PackReport, SplitReport, filling, find_packed, write_report
from sfdkit.data.sources import ClipSource, Skip
from sfdkit.data.spool import Mapper, SpooledClip, spool_clips, worker_map
from sfdkit.errors import DataError

_WINDOW = 16  # shards' worth of clips that are shuffled together; so much disk is used on top of the result


class _SplitWriter:
    """Writes the shards of one split."""

    def __init__(self, folder: Path, clips_per_shard: int, shuffle: random.Random) -> None:
        folder.mkdir()
        self._folder, self._clips_per_shard, self._shuffle = folder, clips_per_shard, shuffle
        self._waiting: list[SpooledClip] = []
        self._spools: set[Path] = set()
        self._identities: set[str] = set()
        self.entries: list[ShardEntry] = []

    def add(self, clips: Sequence[SpooledClip]) -> None:
        """Take clips; full windows become shards."""
        self._waiting.extend(clips)
        self._spools.update(clip.spool for clip in clips)
        while len(self._waiting) >= _WINDOW * self._clips_per_shard:
            self._shuffle.shuffle(self._waiting)
            for _ in range(_WINDOW):
                self._write_shard(self._waiting[: self._clips_per_shard])
                del self._waiting[: self._clips_per_shard]
            self._drop_spools()

    def _drop_spools(self) -> None:
        """Remove the spool files whose clips are all written."""
        needed = {clip.spool for clip in self._waiting}
        for path in self._spools - needed:
            path.unlink()
        self._spools = needed

    def _write_shard(self, clips: Sequence[SpooledClip]) -> None:
        path = self._folder / f"{self._folder.name}-{len(self.entries):05d}.tar"
        with path.open("wb") as stream, webdataset.TarWriter(stream, user="", group="", encoder=False, mtime=0) as tar:
            for clip in clips:
                with clip.spool.open("rb") as spool:
                    spool.seek(clip.start)
                    text, blob = spool.read(clip.json_bytes), spool.read(clip.frames_bytes)
                tar.write({"__key__": clip.key, "json": text})  # one call a member: a call sorts its members by name
                tar.write({"__key__": clip.key, "frames": blob})
                self._identities.add(clip.identity)
        frames = sum(clip.frames for clip in clips)
        size = path.stat().st_size
        self.entries.append(
            ShardEntry(name=path.name, clips=len(clips), frames=frames, bytes=size, sha256=shard_sha256(path))
        )

    def finish(self, dataset: str, resolution: int) -> SplitReport:
        """Write the remaining clips as shards of nearly equal size, then the index."""
        self._shuffle.shuffle(self._waiting)
        shards = -(-len(self._waiting) // self._clips_per_shard)
        for number in range(shards):
            start, stop = (edge * len(self._waiting) // shards for edge in (number, number + 1))
            self._write_shard(self._waiting[start:stop])
        self._waiting = []
        self._drop_spools()
        index = ShardIndex(
            schema=SCHEMA,
            dataset=dataset,
            split=self._folder.name,
            resolution=resolution,
            identities=len(self._identities),
            shards=self.entries,
        )
        save_index(self._folder, index)
        return SplitReport(
            clips=sum(entry["clips"] for entry in self.entries),
            frames=sum(entry["frames"] for entry in self.entries),
            identities=len(self._identities),
            shards=len(self.entries),
            bytes=sum(entry["bytes"] for entry in self.entries),
        )


@dataclass(frozen=True)
class ShardOptions:
    """How clips become shards."""

    dataset: str
    """Name of the data set, for the index."""
    resolution: int
    """Pixels of a side, for the index."""
    clips_per_shard: int = 64
    """The most clips in a shard."""
    seed: int = 0
    """Of the order of the clips."""
    workers: int = 0
    """Processes that decode, crop and encode at the same time; 0 works in this one; the result is the same."""


def _pack_split(
    folder: Path, split: str, sources: Sequence[ClipSource], options: ShardOptions, mapper: Mapper
) -> tuple[SplitReport, list[Skip]]:
    """Write ``folder/split``; a split without clips leaves nothing behind."""
    spool = folder / "spool"
    spool.mkdir()
    shuffle = random.Random(f"{options.seed}/{split}")
    ordered = shuffle.sample(sources, len(sources))
    writer = _SplitWriter(folder / split, options.clips_per_shard, shuffle)
    skips: list[Skip] = []
    clips = 0
    results = mapper(partial(spool_clips, folder=spool), enumerate(ordered))
    with tqdm(results, total=len(ordered), desc=split, unit="source") as bar:
        for result in bar:
            writer.add(result.clips)
            skips += result.skips
            clips += len(result.clips)
            bar.set_postfix(clips=clips, left_out=len(skips), refresh=False)
    if clips:
        report = writer.finish(options.dataset, options.resolution)
    else:
        report = SplitReport(clips=0, frames=0, identities=0, shards=0, bytes=0)
        (folder / split).rmdir()
    shutil.rmtree(spool)
    return report, skips


def pack(
    sources: Mapping[str, Sequence[ClipSource]],
    output: Path,
    settings: Mapping[str, Any],
    options: ShardOptions,
    overwrite: bool = False,
    skips: Sequence[Skip] = (),
) -> PackReport:
    """Write the shards of all splits, or find that they are there already.

    Clips are encoded source by source into spool files and written to tars in a seeded random order, 16 shards' worth
    at a time, so that a shard holds many identities while disk and memory stay bounded.

    Args:
        sources: Split name to the sources of its clips; no identity may be in two splits.
        output: The folder to fill.
        settings: All that the result depends on, as json values: a folder that has them already is kept.
        options: How clips become shards.
        overwrite: Replace what was packed there before.
        skips: What was left out before, to be reported with the rest.

    Returns:
        What there is now.

    Raises:
        DataError: The folder holds something else, was packed with other settings or cannot be written, or no clip is
            left at all.
        ShardError: The folder says that it is complete and is not.
    """
    if not overwrite and (found := find_packed(output, settings)):
        return found
    report = PackReport(output, {}, list(skips))
    with filling(output, overwrite) as folder, worker_map(options.workers) as mapper:
        for split, members in sources.items():
            if members:
                report.splits[split], more = _pack_split(folder, split, members, options, mapper)
                report.skips += more
        if not any(split.clips for split in report.splits.values()):
            raise DataError(f"no clip is left to pack into {output}: {report.failure()}")
        write_report(folder, report, settings)
    return report
