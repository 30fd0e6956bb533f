"""Whether a folder of many shards starts as fast, in as little memory, as one of few.

``python -m benchmarks.many_shards`` prints a line for each number of shards.

The many are hard links to a few small shards of 64 clips each, with an index as long as that of a real folder.
"""

from __future__ import annotations

import os
import statistics
import tempfile
from pathlib import Path

from jsonargparse import auto_cli

from benchmarks.stream import run
from benchmarks.stream_peers import OURS, Job
from sfdkit.data.pack.commands import PackPuppets
from sfdkit.data.shards.index import load_index, save_index

CLIPS = 64


def make_many(few: Path, folder: Path, shards: int) -> Path:
    """Fill a folder with links to the shards of another one, and an index of them."""
    folder.mkdir(parents=True)
    index = load_index(few)
    entries = index["shards"]
    many = []
    for number in range(shards):
        entry = entries[number % len(entries)]
        name = f"train-{number:06d}.tar"
        os.link(few / entry["name"], folder / name)
        many.append({**entry, "name": name})
    save_index(folder, {**index, "shards": many})  # type: ignore[typeddict-item]
    return folder


def many_shards(counts: list[int] | None = None, workers: int = 1, repeats: int = 3) -> None:
    """Print seconds to the first batch and memory for each number of shards.

    Args:
        counts: Numbers of shards; 10, 100, 1000 and 10000 by default.
        workers: Worker processes.
        repeats: Measurements, of which the median counts.
    """
    with tempfile.TemporaryDirectory() as temporary:
        few = Path(temporary) / "few"
        PackPuppets(
            str(few),
            identities=4 * CLIPS,
            validation_identities=0,
            test_identities=0,
            resolution=32,
            frames_per_clip=4,
            clips_per_shard=CLIPS,
        ).run()
        print(
            f"{'shards':>8}{'clips':>10}{'index MB':>10}{'first batch s':>15}{'peak MB':>9}"
            f"{'main MB':>9}{'worker MB':>11}    (main, worker: without programs and libraries)"
        )
        for count in counts or [10, 100, 1000, 10000]:
            folder = make_many(few / "train", Path(temporary) / str(count), count)
            seconds, memories = [], []
            for repeat in range(repeats):
                answer, memory = run(Job(OURS, str(folder), workers=workers, seconds=2, seed=repeat))
                if "error" in answer:
                    raise SystemExit(answer["error"])
                seconds.append(answer["first_batch"])
                memories.append(memory)
            total, main, worker = (statistics.median(each) / 1e6 for each in zip(*memories, strict=True))
            size = (folder / "index.json").stat().st_size / 1e6
            print(
                f"{count:>8}{CLIPS * count:>10}{size:>10.2f}{statistics.median(seconds):>15.3f}{total:>9.0f}"
                f"{main:>9.0f}{worker:>11.0f}"
            )


if __name__ == "__main__":
    auto_cli(many_shards, as_positional=False)
