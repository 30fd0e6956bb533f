"""Verifying a folder of shards against its index, clip by clip, and listing what an index promises."""

from __future__ import annotations

import hashlib
import math
import os
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO

from sfdkit.data.pack.packed import SPLITS
from sfdkit.data.shards.decode import decode_frames
from sfdkit.data.shards.format import INDEX_NAME, ShardEntry, ShardIndex, clip_table, frame_bytes
from sfdkit.data.shards.reader import parse_clip, read_raw_clips
from sfdkit.errors import MissingError, ShardError
from sfdkit.points import POINT_SETS
from sfdkit.storage import Storage
from sfdkit.types import Clip

_AGAIN = "copy the shard again, or pack again with --overwrite true"


@dataclass
class ShardCheck:
    """What was found in one shard."""

    name: str
    clips: int = 0
    frames: int = 0
    bytes: int = 0
    problem: str = ""
    """Empty where the shard is as its index says."""


@dataclass
class FolderCheck:
    """What was found in one folder of shards."""

    folder: Storage
    index: ShardIndex
    shards: list[ShardCheck] = field(default_factory=list)
    identities: set[str] = field(default_factory=set)
    keys: set[str] = field(default_factory=set)
    without_points: int = 0
    """Frames in which points of the face were not found, where they were looked for."""

    @property
    def problems(self) -> list[str]:
        """All that is wrong, each with its shard's path."""
        found = [shard.problem for shard in self.shards if shard.problem]
        promised, actual = self.index["identities"], len(self.identities)
        if not found and actual != promised:
            found.append(
                f"{self.folder.show(INDEX_NAME)} promises {promised} identities, the clips have {actual}: {_AGAIN}"
            )
        return found

    def table(self) -> str:
        """Return one line per shard and a total."""
        width = max(5, *(len(shard.name) for shard in self.shards))
        lines = [self.folder.show(), f"{'shard':<{width}}{'clips':>9}{'frames':>10}{'MB':>10}  state"]
        for shard in self.shards:
            state = "DAMAGED" if shard.problem else "ok"
            lines.append(f"{shard.name:<{width}}{shard.clips:>9}{shard.frames:>10}{shard.bytes / 1e6:>10.1f}  {state}")
        clips, frames = sum(s.clips for s in self.shards), sum(s.frames for s in self.shards)
        size = sum(s.bytes for s in self.shards) / 1e6
        total = f"{len(self.identities)} identities, {self.index['resolution']} px, {self.index['split']}"
        if of := self.index.get("points"):
            total += f", points {of} not found in {self.without_points} frames"
        lines.append(f"{'total':<{width}}{clips:>9}{frames:>10}{size:>10.1f}  {total}")
        return "\n".join(lines)


def listing(indexes: Sequence[ShardIndex], shards: bool = False) -> str:
    """Return one line per index, and per shard where wanted."""
    header = ("data set", "split", "resolution", "shards", "clips", "frames", "identities", "points", "MB")
    rows: list[tuple[str, ...]] = [header]
    for index in indexes:
        entries = index["shards"]
        clips, frames, size = (sum(int(entry[what]) for entry in entries) for what in ("clips", "frames", "bytes"))
        numbers = (index["resolution"], len(entries), clips, frames, index["identities"])
        points = index.get("points", "-")
        rows.append((index["dataset"], index["split"], *map(str, numbers), points, f"{size / 1e6:.1f}"))
        for entry in entries if shards else ():
            megabytes = f"{entry['bytes'] / 1e6:.1f}"
            rows.append(
                (f"  {entry['name']}", "", "", "", str(entry["clips"]), str(entry["frames"]), "", "", megabytes)
            )
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )


def shard_folders(folder: Storage) -> list[Storage]:
    """Return the folder itself where it has an index, else those of its direct subfolders that have one.

    Where a storage cannot list folders, the subfolders that packing makes are tried.

    Raises:
        ShardError: There is no index.
        StorageError: The storage does not answer.
    """
    if folder.is_local:
        path = folder.path()
        if (path / INDEX_NAME).is_file() or not path.is_dir():
            return [folder]
        found = [folder.child(inner.parent.name) for inner in sorted(path.glob(f"*/{INDEX_NAME}"))]
    else:
        if folder.exists(INDEX_NAME):
            return [folder]
        found = [folder.child(split) for split in SPLITS if folder.child(split).exists(INDEX_NAME)]
    if not found:
        raise ShardError(
            f"neither {folder.show()} nor a folder in it has an {INDEX_NAME}: check the address, or pack it with "
            "`sfdkit shards pack`"
        )
    return found


def verify(report: FolderCheck, decode: bool = False) -> Iterator[ShardCheck]:
    """Compare each shard of a folder with the index: bytes, checksums, members, json, packing, counts, unique keys.

    Args:
        report: The folder and its index; what is found is added to it. Damage is recorded and the next shard is read.
        decode: Decode each picture too.

    Yields:
        What was found in each shard.

    Raises:
        ShardError: A tar lies in the folder that its index does not list.
        StorageError: The storage does not answer.
    """
    listed = {entry["name"] for entry in report.index["shards"]}
    names = [] if report.folder.is_read_only else report.folder.names()
    if extra := [name for name in names if name.endswith(".tar") and name not in listed]:
        raise ShardError(
            f"{report.folder.show()} holds {', '.join(extra[:5])}, which its index does not list: remove it, or pack "
            "again"
        )
    for entry in report.index["shards"]:
        shard = ShardCheck(entry["name"])
        report.shards.append(shard)
        try:
            _check_shard(entry, shard, report, decode)
        except MissingError:
            shard.problem = f"{report.folder.show(entry['name'])} is in the index and not in the folder: {_AGAIN}"
        except ShardError as error:
            shard.problem = str(error)
        yield shard


def _check_shard(entry: ShardEntry, shard: ShardCheck, report: FolderCheck, decode: bool) -> None:
    show = report.folder.show(entry["name"])
    with report.folder.on_disk(entry["name"]) as path:
        shard.bytes = path.stat().st_size
        _same(show, "bytes", entry["bytes"], shard.bytes)
        with path.open("rb") as file:
            _same(show, "sha256", entry["sha256"], hashlib.file_digest(file, "sha256").hexdigest())
            file.seek(0)
            _check_clips(show, file, entry, shard, report, decode)


def _check_clips(
    show: str, file: BinaryIO, entry: ShardEntry, shard: ShardCheck, report: FolderCheck, decode: bool
) -> None:
    try:
        offsets, checksums = clip_table(entry)
    except ValueError as error:
        raise ShardError(f"{show}: its table in the index is damaged ({error}): {_AGAIN}") from error
    table = list(zip(offsets, offsets[1:], checksums, strict=False))
    for raw in read_raw_clips(file, show):
        if shard.clips < len(table):
            checksum = zlib.crc32(os.pread(file.fileno(), raw.stop - raw.position, raw.position))
            what = f"first byte, end and CRC-32 of clip {shard.clips}"
            _same(show, what, table[shard.clips], (raw.position, raw.stop, checksum))
        clip = parse_clip(raw)
        _check_clip(show, clip, report, decode)
        shard.clips += 1
        shard.frames += len(clip["meta"]["times"])
    _same(show, "clips", entry["clips"], shard.clips)
    _same(show, "frames", entry["frames"], shard.frames)


def _same(path: str, what: str, expected: object, actual: object) -> None:
    if expected != actual:
        raise ShardError(f"{path}: {what} is {actual}, its index says {expected}: {_AGAIN}")


def _check_clip(path: str, clip: Clip, report: FolderCheck, decode: bool) -> None:
    key, meta = clip["key"], clip["meta"]
    if key in report.keys:
        raise ShardError(
            f"{path}: the key {key!r} is used twice in {report.folder.show()}: pack again with --overwrite true"
        )
    report.keys.add(key)
    report.identities.add(meta["identity"])
    _same(path, f"resolution of clip {key!r}", report.index["resolution"], meta["resolution"])
    count = len(meta["times"])
    if any(later < earlier for earlier, later in zip(meta["times"], meta["times"][1:], strict=False)):
        raise ShardError(f"{path}: the times of clip {key!r} go backwards: pack again with --overwrite true")
    for index in range(count):
        picture = frame_bytes(clip["frames"], index)
        if picture[:2] != b"\xff\xd8" or picture[-2:] != b"\xff\xd9":
            raise ShardError(f"{path}: frame {index} of clip {key!r} is no whole JPEG ({len(picture)} bytes): {_AGAIN}")
    _check_points(path, clip, report)
    if decode:
        decode_frames(clip, range(count))


def _check_points(path: str, clip: Clip, report: FolderCheck) -> None:
    """Compare the points of a clip with the set that the index names."""
    key, found = clip["key"], clip["meta"].get("points")
    name = found["set"] if isinstance(found, dict) and "set" in found else None
    _same(path, f"set of points of clip {key!r}", report.index.get("points"), name)
    if not isinstance(found, dict):
        return
    if name not in POINT_SETS:
        raise ShardError(
            f"{path}: the points of clip {key!r} are of the set {name!r}, which this version does not know"
        )
    points, count = len(POINT_SETS[name].names), len(clip["meta"]["times"])
    frames = found.get("frames")
    if not isinstance(frames, list) or len(frames) != count:
        raise ShardError(f"{path}: the points of clip {key!r} are no list of {count} frames: pack again")
    for number, frame in enumerate(frames):
        if frame is not None and not _are_points(frame, points):
            raise ShardError(
                f"{path}: the points of frame {number} of clip {key!r} are not {points} pairs of numbers: pack again"
            )
    report.without_points += frames.count(None)


def _are_points(frame: object, count: int) -> bool:
    """Whether it is so many pairs of finite numbers."""
    if not isinstance(frame, list) or len(frame) != count:
        return False
    pairs = [tuple(pair) if isinstance(pair, list) else () for pair in frame]
    return all(len(pair) == 2 and all(isinstance(v, int | float) and math.isfinite(v) for v in pair) for pair in pairs)
