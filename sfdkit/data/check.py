"""Verifying a folder of shards against its index, clip by clip."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from sfdkit.data.decode import decode_frames
from sfdkit.data.format import INDEX_NAME, ShardEntry, ShardIndex, frame_bytes
from sfdkit.data.index import shard_sha256
from sfdkit.data.reader import read_clips
from sfdkit.errors import ShardError
from sfdkit.types import Clip

_AGAIN = "copy the shard again, or pack again with --overwrite true"
_FIELDS: dict[str, type | tuple[type, ...]] = {
    "identity": str,
    "video": str,
    "dataset": str,
    "licence": str,
    "fps": (int, float),
    "times": list,
    "crop": dict,
    "groups": dict,
}


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

    folder: Path
    index: ShardIndex
    shards: list[ShardCheck] = field(default_factory=list)
    identities: set[str] = field(default_factory=set)
    keys: set[str] = field(default_factory=set)

    @property
    def problems(self) -> list[str]:
        """All that is wrong, each with its shard's path."""
        found = [shard.problem for shard in self.shards if shard.problem]
        promised, actual = self.index["identities"], len(self.identities)
        if not found and actual != promised:
            found.append(
                f"{self.folder / INDEX_NAME} promises {promised} identities, the clips have {actual}: {_AGAIN}"
            )
        return found

    def table(self) -> str:
        """Return one line per shard and a total."""
        width = max(5, *(len(shard.name) for shard in self.shards))
        lines = [f"{self.folder}", f"{'shard':<{width}}{'clips':>9}{'frames':>10}{'MB':>10}  state"]
        for shard in self.shards:
            state = "DAMAGED" if shard.problem else "ok"
            lines.append(f"{shard.name:<{width}}{shard.clips:>9}{shard.frames:>10}{shard.bytes / 1e6:>10.1f}  {state}")
        clips, frames = sum(s.clips for s in self.shards), sum(s.frames for s in self.shards)
        size = sum(s.bytes for s in self.shards) / 1e6
        total = f"{len(self.identities)} identities, {self.index['resolution']} px, {self.index['split']}"
        lines.append(f"{'total':<{width}}{clips:>9}{frames:>10}{size:>10.1f}  {total}")
        return "\n".join(lines)


def shard_folders(folder: Path) -> list[Path]:
    """Return the folder itself where it has an index, else those of its direct subfolders that have one.

    Raises:
        ShardError: There is no index.
    """
    if (folder / INDEX_NAME).is_file() or not folder.is_dir():
        return [folder]
    found = sorted(path.parent for path in folder.glob(f"*/{INDEX_NAME}"))
    if not found:
        raise ShardError(f"neither {folder} nor a folder in it has an {INDEX_NAME}: pack it with `sfdkit shards pack`")
    return found


def verify(report: FolderCheck, decode: bool = False) -> Iterator[ShardCheck]:
    """Compare each shard of a folder with the index: bytes, checksum, members, json, packing, counts, unique keys.

    Args:
        report: The folder and its index; what is found is added to it. Damage is recorded and the next shard is read.
        decode: Decode each picture too.

    Yields:
        What was found in each shard.

    Raises:
        ShardError: A tar lies in the folder that its index does not list.
    """
    listed = {entry["name"] for entry in report.index["shards"]}
    extra = sorted(path.name for path in report.folder.glob("*.tar") if path.name not in listed)
    if extra:
        raise ShardError(
            f"{report.folder} holds {', '.join(extra[:5])}, which its index does not list: remove it, or pack again"
        )
    for entry in report.index["shards"]:
        shard = ShardCheck(entry["name"])
        report.shards.append(shard)
        try:
            _check_shard(report.folder / entry["name"], entry, shard, report, decode)
        except ShardError as error:
            shard.problem = str(error)
        yield shard


def _check_shard(path: Path, entry: ShardEntry, shard: ShardCheck, report: FolderCheck, decode: bool) -> None:
    if not path.is_file():
        raise ShardError(f"{path} is in the index and not in the folder: {_AGAIN}")
    shard.bytes = path.stat().st_size
    _same(path, "bytes", entry["bytes"], shard.bytes)
    _same(path, "sha256", entry["sha256"], shard_sha256(path))
    for clip in read_clips(path):
        _check_clip(path, clip, report, decode)
        shard.clips += 1
        shard.frames += len(clip["meta"]["times"])
    _same(path, "clips", entry["clips"], shard.clips)
    _same(path, "frames", entry["frames"], shard.frames)


def _same(path: Path, what: str, expected: object, actual: object) -> None:
    if expected != actual:
        raise ShardError(f"{path}: {what} is {actual}, its index says {expected}: {_AGAIN}")


def _check_clip(path: Path, clip: Clip, report: FolderCheck, decode: bool) -> None:
    key, meta = clip["key"], clip["meta"]
    if key in report.keys:
        raise ShardError(f"{path}: the key {key!r} is used twice in {report.folder}: pack again with --overwrite true")
    report.keys.add(key)
    for name, kind in _FIELDS.items():
        if not isinstance(meta.get(name), kind):
            raise ShardError(
                f"{path}: clip {key!r} has {name} = {meta.get(name)!r} in its json: pack again with --overwrite true"
            )
    report.identities.add(meta["identity"])
    _same(path, f"resolution of clip {key!r}", report.index["resolution"], meta["resolution"])
    count = len(meta["times"])
    if any(later < earlier for earlier, later in zip(meta["times"], meta["times"][1:], strict=False)):
        raise ShardError(f"{path}: the times of clip {key!r} go backwards: pack again with --overwrite true")
    for index in range(count):
        picture = frame_bytes(clip["frames"], index)
        if picture[:2] != b"\xff\xd8" or picture[-2:] != b"\xff\xd9":
            raise ShardError(f"{path}: frame {index} of clip {key!r} is no whole JPEG ({len(picture)} bytes): {_AGAIN}")
    if decode:
        decode_frames(clip, range(count))
