"""A folder of packed splits: what was packed with which settings, and the safe way to fill it.

OUTPUT/pack.json            settings and counts; written last, so a folder that has it is complete
OUTPUT/skipped.csv          file, reason, detail of what was left out
OUTPUT/SPLIT/index.json     see sfdkit.data.format
OUTPUT/SPLIT/SPLIT-00000.tar ...
"""

from __future__ import annotations

import csv
import json
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from sfdkit.data.format import INDEX_NAME, SCHEMA
from sfdkit.data.index import load_index, require_shards
from sfdkit.data.sources import Skip
from sfdkit.errors import DataError, ShardError

PACK_NAME = "pack.json"
SKIPPED_NAME = "skipped.csv"
SPLITS: tuple[Literal["train", "validation", "test"], ...] = ("train", "validation", "test")

_PARTIAL = ".packing"


@dataclass
class SplitReport:
    """What one split holds."""

    clips: int
    frames: int
    identities: int
    shards: int
    bytes: int


@dataclass
class PackReport:
    """What a call of :func:`sfdkit.data.pack.pack` made or found."""

    output: Path
    splits: dict[str, SplitReport]
    skips: list[Skip] = field(default_factory=list)
    found: bool = False
    """Whether the folder was already complete with the same settings, so that nothing was done."""

    def table(self) -> str:
        """Return the counts of each split and what was left out, as text."""
        return "\n".join([*self._counts(), *self._left_out()])

    def _counts(self) -> list[str]:
        rows = [("split", "clips", "frames", "identities", "shards", "MB")]
        for name, split in self.splits.items():
            size = f"{split.bytes / 1e6:.1f}"
            rows.append((name, str(split.clips), str(split.frames), str(split.identities), str(split.shards), size))
        return [f"{row[0]:<12}" + "".join(f"{cell:>12}" for cell in row[1:]) for row in rows]

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


def find_packed(output: Path, settings: Mapping[str, Any]) -> PackReport | None:
    """Return the report of a complete folder that was packed with the same settings.

    Args:
        output: The folder.
        settings: All that the result depends on, as json values.

    Returns:
        The report, or None where there is no complete folder.

    Raises:
        DataError: The folder was packed with other settings, which are named.
        ShardError: It says that it is complete, and a shard is missing or has another size.
    """
    path = output / PACK_NAME
    if not path.is_file():
        return None
    try:
        pack = json.loads(path.read_text(encoding="utf-8"))
        before, splits = pack["settings"], {name: SplitReport(**split) for name, split in pack["splits"].items()}
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} cannot be read ({error}): pack again with --overwrite true") from error
    wanted = json.loads(json.dumps(settings))
    changed = [key for key in {**before, **wanted} if before.get(key) != wanted.get(key)]
    if changed:
        changes = ", ".join(f"{key}: {before.get(key)!r} there, {wanted.get(key)!r} now" for key in changed)
        raise DataError(
            f"{output} was packed with other settings ({changes}): choose another --output, or --overwrite true"
        )
    for name in (name for name, split in splits.items() if split.clips):
        require_shards(output / name, load_index(output / name))
    return PackReport(output, splits, _read_skips(output), found=True)


@contextmanager
def filling(output: Path, overwrite: bool) -> Iterator[Path]:
    """Give a folder to write into; after the block its contents move to ``output``.

    After an exception ``output`` is as it was before.

    Args:
        output: The folder to fill; made where it does not exist.
        overwrite: Replace splits that were packed before.

    Raises:
        DataError: The folder holds something else, cannot be written, or the disk is full.
    """
    partial = output / _PARTIAL
    try:
        existed = output.exists()
        output.mkdir(parents=True, exist_ok=True)
        present = sorted(path.name for path in output.iterdir() if path.name != _PARTIAL)
        foreign = [name for name in present if not _packed_before(output / name)]
        if foreign:
            raise DataError(
                f"--output: {output} holds {', '.join(foreign[:5])}, which was not packed; choose an empty folder"
            )
        if present and not overwrite:
            raise DataError(
                f"--output: {output} already holds {', '.join(present)}; choose another folder, or --overwrite true"
            )
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        try:
            yield partial
            _publish(partial, output, present)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
            if not existed and not any(output.iterdir()):
                output.rmdir()
    except OSError as error:
        raise DataError(
            f"--output: cannot write {output} ({error.strerror}): check permission and free space"
        ) from error


def _packed_before(path: Path) -> bool:
    if path.name in (PACK_NAME, SKIPPED_NAME):
        return True
    if path.name not in SPLITS or not path.is_dir():
        return False
    return all(inner.name == INDEX_NAME or inner.suffix == ".tar" for inner in path.iterdir())


def _publish(partial: Path, output: Path, present: Sequence[str]) -> None:
    """Replace what was there by what is new; ``pack.json`` goes first and comes last."""
    (output / PACK_NAME).unlink(missing_ok=True)
    for name in present:
        path = output / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    for path in sorted(partial.iterdir(), key=lambda path: path.name == PACK_NAME):
        path.rename(output / path.name)


def write_report(folder: Path, report: PackReport, settings: Mapping[str, Any]) -> None:
    """Write ``pack.json`` and ``skipped.csv`` into a folder."""
    with (folder / SKIPPED_NAME).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(Skip._fields)
        writer.writerows(report.skips)
    splits = {name: asdict(split) for name, split in report.splits.items()}
    pack = {"schema": SCHEMA, "settings": dict(settings), "splits": splits}
    (folder / PACK_NAME).write_text(json.dumps(pack, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _read_skips(folder: Path) -> list[Skip]:
    try:
        with (folder / SKIPPED_NAME).open(newline="", encoding="utf-8") as file:
            return [Skip(**row) for row in csv.DictReader(file)]
    except (OSError, TypeError) as error:
        raise ShardError(
            f"{folder / SKIPPED_NAME} cannot be read ({error}): pack again with --overwrite true"
        ) from error
