"""A folder of packed splits: what was packed with which settings.

OUTPUT/pack.json            settings and counts; written last, so a folder that has it is complete
OUTPUT/skipped.csv          file, reason, detail of what was left out
OUTPUT/sources.json         which clips came from which video, see sfdkit.data.pack.reuse
OUTPUT/SPLIT/index.json     see sfdkit.data.shards.format
OUTPUT/SPLIT/SPLIT-00000.tar ...
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, NamedTuple

from sfdkit.data.pack.sources import Skip
from sfdkit.data.shards.format import SCHEMA
from sfdkit.data.shards.index import load_index, require_shards
from sfdkit.errors import DataError, MissingError, ShardError
from sfdkit.storage import Storage

PACK_NAME = "pack.json"
SKIPPED_NAME = "skipped.csv"
SOURCES_NAME = "sources.json"
SPLITS: tuple[Literal["train", "validation", "test"], ...] = ("train", "validation", "test")


_WHAT_AND_WHERE = {"input", "files", "seed", "clips_per_shard", "validation_share", "test_share"}
"""Settings that say which clips there are and where they go, and nothing of how a clip is made."""


class SourceRecord(NamedTuple):
    """What became of one source."""

    clips: list[tuple[str, str, int]]
    """Of each clip the split, the shard, and its number in it."""
    skips: list[Skip]


@dataclass
class SplitReport:
    """What one split holds."""

    clips: int
    frames: int
    identities: int
    shards: int
    bytes: int
    frames_without_points: int = 0
    clips_without_points: int = 0
    """Clips in none of whose frames points of the face were found."""


@dataclass
class PackReport:
    """What a call of :func:`sfdkit.data.pack.writer.pack` made or found."""

    output: str
    """Address, as messages show it."""
    splits: dict[str, SplitReport]
    skips: list[Skip] = field(default_factory=list)
    found: bool = False
    """Whether the folder was already complete with the same settings, so that nothing was done."""
    records: dict[str, SourceRecord] = field(default_factory=dict)
    """By the fingerprint of the source, see :mod:`sfdkit.data.pack.fingerprints`."""
    shards: dict[str, str] = field(default_factory=dict)
    """SHA-256 of each shard, by split and name."""
    reused: int = 0
    """Sources whose clips were taken over from what was there before."""
    points: str | None = None
    """The set of points of the face that the clips carry."""

    def table(self) -> str:
        """Return the counts of each split, the frames without points and what was left out, as text."""
        return "\n".join([*self._counts(), *self._unknown(), *self._left_out()])

    def _counts(self) -> list[str]:
        rows = [("split", "clips", "frames", "identities", "shards", "MB")]
        for name, split in self.splits.items():
            size = f"{split.bytes / 1e6:.1f}"
            rows.append((name, str(split.clips), str(split.frames), str(split.identities), str(split.shards), size))
        return [f"{row[0]:<12}" + "".join(f"{cell:>12}" for cell in row[1:]) for row in rows]

    def _unknown(self) -> list[str]:
        if self.points is None:
            return []
        frames, missing, clips = (
            sum(getattr(split, name) for split in self.splits.values())
            for name in ("frames", "frames_without_points", "clips_without_points")
        )
        none = f"; {clips} clips have none" if clips else ""
        return [f"points {self.points} not found in {missing} of {frames} frames{none}"]

    def _left_out(self) -> list[str]:
        lines = []
        for reason, number in Counter(skip.reason for skip in self.skips).most_common():
            files = list(dict.fromkeys(skip.file for skip in self.skips if skip.reason == reason))
            more = f" and {len(files) - 8} more" if len(files) > 8 else ""
            lines.append(f"left out, {reason}: {number} in {', '.join(files[:8])}{more}")
        return lines

    def failure(self) -> str:
        """Return why there is no clip, as text."""
        details = [f"{skip.file}: {skip.detail}" for skip in self.skips[:3]]
        return "; ".join([*self._left_out(), *details])


def find_packed(output: Storage, settings: Mapping[str, Any]) -> PackReport | None:
    """Return the report of a complete folder that was packed with the same settings.

    Args:
        output: The folder.
        settings: All that the result depends on, as json values.

    Returns:
        The report, or None where there is no complete folder.

    Raises:
        DataError: The folder was packed with other settings, which are named.
        ShardError: It says that it is complete, and a shard is missing or has another size.
        StorageError: The storage does not answer.
    """
    path = output.show(PACK_NAME)
    if output.is_local and not output.path(PACK_NAME).is_file():
        return None
    try:
        pack = json.loads(output.read(PACK_NAME))
        before, splits = pack["settings"], {name: SplitReport(**split) for name, split in pack["splits"].items()}
    except MissingError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} cannot be read ({error}): pack again with --overwrite true") from error
    wanted = json.loads(json.dumps(settings))
    changed = [key for key in {**before, **wanted} if before.get(key) != wanted.get(key)]
    if changed:
        changes = ", ".join(f"{key}: {before.get(key)!r} there, {wanted.get(key)!r} now" for key in changed)
        kept = output.is_local and set(changed) <= _WHAT_AND_WHERE
        raise DataError(
            f"{output.show()} was packed with other settings ({changes}): choose another --output, or --overwrite true"
            + (", which takes over the clips of videos that did not change" if kept else "")
        )
    for name in (name for name, split in splits.items() if split.clips):
        require_shards(output.child(name), load_index(output.child(name)))
    return PackReport(output.show(), splits, _read_skips(output), found=True, points=wanted.get("points"))


def write_report(output: Storage, report: PackReport, settings: Mapping[str, Any]) -> None:
    """Write ``skipped.csv``, then ``pack.json``, into a folder."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\r\n")
    writer.writerow(Skip._fields)
    writer.writerows(report.skips)
    output.write(SKIPPED_NAME, table.getvalue().encode())
    if report.records:
        records = {name: {"clips": one.clips, "skips": one.skips} for name, one in report.records.items()}
        known = {"shards": report.shards, "sources": records}
        output.write(SOURCES_NAME, json.dumps(known, ensure_ascii=False).encode())
    splits = {name: asdict(split) for name, split in report.splits.items()}
    pack = {"schema": SCHEMA, "settings": dict(settings), "splits": splits}
    output.write(PACK_NAME, (json.dumps(pack, indent=2, ensure_ascii=False) + "\n").encode())


def read_records(output: Storage) -> tuple[dict[str, SourceRecord], dict[str, str]]:
    """Return what became of each source, by its fingerprint, and each shard's checksum; empty where it is not known."""
    try:
        known = json.loads(output.read(SOURCES_NAME))
        records = {
            name: SourceRecord(
                [(split, shard, int(k)) for split, shard, k in one["clips"]], [Skip(*s) for s in one["skips"]]
            )
            for name, one in known["sources"].items()
        }
        return records, dict(known["shards"])
    except (MissingError, ValueError, KeyError, TypeError, AttributeError):
        return {}, {}


def _read_skips(output: Storage) -> list[Skip]:
    try:
        table = io.StringIO(output.read(SKIPPED_NAME).decode(), newline="")
        return [Skip(**row) for row in csv.DictReader(table)]
    except (MissingError, ValueError, TypeError) as error:
        raise ShardError(
            f"{output.show(SKIPPED_NAME)} cannot be read ({error}): pack again with --overwrite true"
        ) from error
