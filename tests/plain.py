"""Sources of plain pictures, quick to encode, and packing them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sfdkit.data.pack.engines import EngineName
from sfdkit.data.pack.options import ShardOptions
from sfdkit.data.pack.packed import PackReport
from sfdkit.data.pack.sources import ClipSource, CutClip, Skip
from sfdkit.data.pack.writer import pack
from sfdkit.data.shards.format import ClipMeta


@dataclass(frozen=True)
class PlainSource:
    """Some clips of one colour each; it notes its calls in a folder, by the node of a Ray cluster where it has one."""

    split: str
    number: int
    notes: Path | None = None
    pause: float = 0.0
    clips_each: int = 2

    @property
    def name(self) -> str:
        return f"{self.split}-{self.number:03d}"

    def clips(self, skip: Callable[[Skip], None]) -> Iterator[CutClip]:
        if self.notes:
            (self.notes / f"{self.name}@{node()}").touch()
        time.sleep(self.pause)
        if self.number % 7 == 6:
            skip(Skip(self.name, "short", "for a test"))
        for take in range(self.clips_each):
            key = f"{self.name}-{take}"
            frames = [np.full((32, 32, 3), (9 * self.number % 256, 99 * take, 40 * f), np.uint8) for f in range(3)]
            crop: Any = {"method": "none", "box": [0.0, 0.0, 32.0, 32.0], "margin": 0.0, "detector": ""}
            meta = ClipMeta(
                key=key,
                identity=self.name,
                video=key,
                dataset="plain",
                licence="CC0-1.0",
                fps=10.0,
                times=[0.0, 0.1, 0.2],
                resolution=32,
                crop=crop,
                groups={},
            )
            yield CutClip(frames, meta)


def node() -> str:
    """The Ray node of this process, if any."""
    try:
        import ray
    except ImportError:
        return "here"
    return str(ray.get_runtime_context().get_node_id()) if ray.is_initialized() else "here"


def plain_sources(train: int = 20, validation: int = 4, **values: Any) -> dict[str, Sequence[ClipSource]]:
    counts = {"train": train, "validation": validation}
    return {split: [PlainSource(split, number, **values) for number in range(count)] for split, count in counts.items()}


def pack_plain(
    output: Path | str,
    sources: dict[str, Sequence[ClipSource]] | None = None,
    workers: int = 0,
    engine: EngineName = "processes",
    seed: int = 0,
    overwrite: bool = False,
    scratch: Path | None = None,
) -> PackReport:
    """Pack 20 sources of two clips into shards of at most four, and 4 sources for validation."""
    options = ShardOptions(
        clips_per_shard=4,
        seed=seed,
        workers=workers,
        engine=engine,
        scratch=str(scratch) if scratch else None,
        overwrite=overwrite,
    )
    settings = {"source": "plain", "seed": seed}
    return pack(plain_sources() if sources is None else sources, str(output), "plain", 32, settings, options)


def contents(folder: Path) -> dict[str, bytes]:
    """All files below a folder."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
