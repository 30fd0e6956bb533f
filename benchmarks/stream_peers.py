"""The loaders that ``benchmarks.stream`` compares, and one measurement of one of them, in a process of its own.

All give the same: clips in random order, ``rows_per_clip`` rows of each, decoded by :mod:`sfdkit.data.shards.decode`,
in batches of uint8. litdata and mosaicml read a copy of the clips in their own format, made before anything is
measured.

``python -m benchmarks.stream_peers JOB`` takes a :class:`Job` as json and prints the answer as the last line.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import webdataset as wds
from torch import Tensor
from torch.utils.data import DataLoader

from sfdkit.data.loader import EpochLoader
from sfdkit.data.pairs import choose_frames
from sfdkit.data.settings import StreamSettings
from sfdkit.data.shard_set import ShardSet
from sfdkit.data.shards.access import read_good_clips
from sfdkit.data.shards.decode import decode_frames
from sfdkit.errors import SfdkitError
from sfdkit.storage import Storage
from sfdkit.storage.urls import redact, scheme_of
from sfdkit.types import Clip

OURS = "sfdkit"
PEERS: dict[str, str] = {"webdataset": "webdataset", "litdata": "litdata", "mosaicml": "streaming"}
"""Loader to compare with -> the module that it needs."""
COPIES = ("litdata", "mosaicml")
"""Loaders that read a copy in a format of their own."""
_SHUFFLE = 64  # clips in webdataset's buffer

Row = tuple[Tensor, str, str]
"""1 + K 3 H W uint8, key, identity."""
Batch = tuple[Tensor, Tensor, list[str], list[str]]
"""Sources, driving frames, keys, identities."""


@dataclass(frozen=True)
class Job:
    """What one process is to do."""

    loader: str
    folder: str
    """Address of the folder of shards."""
    copy: str = ""
    """Folder of the copy, for a loader that reads one."""
    prepare: bool = False
    """Make the copy, and measure nothing."""
    workers: int = 0
    batch_size: int = 16
    rows_per_clip: int = 4
    driving: int = 2
    seconds: float = 5.0
    """Length of the measurement, where ``batches`` is 0."""
    batches: int = 0
    """Batches of the measurement."""
    seed: int = 0


class Measurement(NamedTuple):
    """What was measured."""

    first_batch: float
    """Seconds from opening the index to the first batch."""
    seconds: float
    """Length of the measurement, after the warm-up."""
    rows: int
    """Rows of its batches."""
    cpu_seconds: float
    """Processor time that the process and its workers spent in it."""


def missing(loader: str, address: str) -> str | None:
    """Return why a loader cannot be measured on an address, or None where it can."""
    if find_spec(PEERS[loader]) is None:
        return "not installed"
    scheme = scheme_of(address)
    if loader in COPIES and scheme not in ("", "file"):
        return "it reads a copy in its own format, and the benchmark writes nothing into a remote storage"
    if scheme not in ("", "file", "http", "https"):
        return f"it has no reader of its own for {scheme}"
    return None


class Process(NamedTuple):
    """A line of the system's table of processes."""

    parent: int
    cpu_seconds: float
    """Of the process and of its children that have ended."""
    rss: int
    """Bytes in memory, shared ones included."""


def processes(root: int) -> dict[int, Process]:
    """Return a process and all that descend from it, by their numbers."""
    table = _linux_table() if os.path.exists("/proc/self/stat") else _ps_table()
    found = {root} & table.keys()
    while more := {pid for pid, line in table.items() if line.parent in found} - found:
        found |= more
    return {pid: table[pid] for pid in found}


def _linux_table() -> dict[int, Process]:
    tick, page = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
    table = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with suppress(OSError, IndexError):  # it has ended
                fields = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()
                table[int(name)] = Process(int(fields[1]), sum(map(int, fields[11:15])) / tick, int(fields[21]) * page)
    return table


def _ps_table() -> dict[int, Process]:
    output = subprocess.run(["ps", "-A", "-o", "pid=,ppid=,time=,rss="], capture_output=True, text=True).stdout
    table = {}
    for pid, parent, clock, rss in (line.split() for line in output.splitlines()):
        seconds = 0.0
        for part in clock.replace("-", ":").split(":"):
            seconds = 60 * seconds + float(part)
        table[int(pid)] = Process(int(parent), seconds, 1024 * int(rss))
    return table


def _cpu_seconds() -> float:
    return sum(line.cpu_seconds for line in processes(os.getpid()).values())


def measure(job: Job) -> Measurement:
    """Open a loader, leave its first batches out, and measure the ones after them."""
    start = time.perf_counter()
    batches = _LOADERS[job.loader](job)
    next(batches)
    first_batch = time.perf_counter() - start
    for _ in range(2 + 4 * job.workers):  # what was fetched ahead while the first one was waited for
        next(batches)
    cpu, rows, count, start = _cpu_seconds(), 0, 0, time.perf_counter()
    while count < job.batches if job.batches else time.perf_counter() - start < job.seconds:
        rows += next(batches)
        count += 1
    seconds = time.perf_counter() - start
    return Measurement(first_batch, seconds, rows, _cpu_seconds() - cpu)


def _endless(
    loader: Iterable[Any], rows: Callable[[Any], int], epoch: Callable[[int], None] | None = None
) -> Iterator[int]:
    """Yield the rows of each batch, epoch after epoch."""
    number = 0
    while True:
        if epoch:
            epoch(number)
        seen = 0
        for batch in loader:
            seen += 1
            yield rows(batch)
        if not seen:
            raise SfdkitError("an epoch has no full batch: give fewer --workers, a smaller --batch_size, or more clips")
        number += 1


def _sfdkit(job: Job) -> Iterator[int]:
    settings = StreamSettings(
        shards=ShardSet.of(job.folder),
        training=True,
        batch_size=job.batch_size,
        driving=job.driving,
        rows_per_clip=job.rows_per_clip,
        seed=job.seed,
    )
    loader = EpochLoader(settings, num_workers=job.workers)
    return _endless(loader, lambda batch: len(batch["key"]), loader.set_epoch)


class Rows:
    """Turns clips into rows.

    Args:
        job: How many rows of a clip, and how many frames of a row.
    """

    def __init__(self, job: Job) -> None:
        self._rows, self._driving, self._seed = job.rows_per_clip, job.driving, job.seed
        self._random: tuple[int, random.Random] | None = None

    def __call__(self, meta: bytes, frames: bytes) -> list[Row]:
        """Return the rows of one clip, with frames of its own each."""
        if self._random is None or self._random[0] != os.getpid():  # anew after a fork
            self._random = os.getpid(), random.Random(f"{self._seed}/{os.getpid()}")
        about = json.loads(meta)
        clip = Clip(key=about["key"], meta=about, frames=frames)
        count = len(about["times"])
        return [
            (decode_frames(clip, choose_frames(count, self._driving, self._random[1])), clip["key"], about["identity"])
            for _ in range(self._rows)
        ]

    def of_samples(self, samples: Iterable[dict[str, Any]]) -> Iterator[Row]:
        """Yield the rows of webdataset's samples."""
        for sample in samples:
            yield from self(sample["json"], sample["frames"])


def _stack(rows: list[Row]) -> Batch:
    frames = [row[0].numpy() for row in rows]  # as the kit stacks them
    source = torch.from_numpy(np.stack([of_row[0] for of_row in frames]))
    driving = torch.from_numpy(np.stack([of_row[1:] for of_row in frames]))
    return source, driving, [row[1] for row in rows], [row[2] for row in rows]


def _stack_clips(clips: list[list[Row]]) -> Batch:
    return _stack([row for rows in clips for row in rows])


def _length(batch: Batch) -> int:
    return len(batch[0])


def _webdataset(job: Job) -> Iterator[int]:
    shards = ShardSet.of(job.folder)
    storage = shards.folders[0].storage
    names = [shards.name(number) for number in range(len(shards))]
    urls = [str(storage.path(name)) if storage.is_local else f"{storage.root}/{name}" for name in names]
    pipeline = (
        wds.WebDataset(urls, shardshuffle=len(urls), seed=job.seed)
        .shuffle(_SHUFFLE)
        .compose(Rows(job).of_samples)
        .batched(job.batch_size, collation_fn=_stack, partial=False)
    )
    return _endless(
        wds.WebLoader(pipeline, batch_size=None, num_workers=job.workers, persistent_workers=job.workers > 0), _length
    )


def _clips_per_batch(job: Job) -> int:
    if job.batch_size % job.rows_per_clip:
        raise SfdkitError(f"it needs a --batch_size that is a multiple of --rows_per_clip {job.rows_per_clip}")
    return job.batch_size // job.rows_per_clip


def _litdata(job: Job) -> Iterator[int]:
    from litdata import StreamingDataLoader, StreamingDataset

    data = StreamingDataset(
        job.copy, shuffle=True, drop_last=True, seed=job.seed, transform=partial(_rows_of_sample, Rows(job))
    )
    loader = StreamingDataLoader(
        data,
        batch_size=_clips_per_batch(job),
        num_workers=job.workers,
        collate_fn=_stack_clips,
        persistent_workers=job.workers > 0,
    )
    return _endless(loader, _length)


def _rows_of_sample(rows: Rows, sample: dict[str, Any]) -> list[Row]:
    return rows(bytes(sample["json"]), bytes(sample["frames"]))  # litdata gives views of memory


def _mosaicml(job: Job) -> Iterator[int]:
    import streaming

    class Clips(streaming.StreamingDataset):  # type: ignore[misc]  # its class has no types
        rows = Rows(job)

        def __getitem__(self, at: int) -> list[Row]:
            return _rows_of_sample(self.rows, super().__getitem__(at))

    size = _clips_per_batch(job)
    data = Clips(local=job.copy, shuffle=True, shuffle_seed=job.seed, batch_size=size)
    loader: DataLoader[Any] = DataLoader(
        data,
        batch_size=size,
        num_workers=job.workers,
        collate_fn=_stack_clips,
        drop_last=True,
        persistent_workers=job.workers > 0,
    )
    return _endless(loader, _length)


_LOADERS: dict[str, Callable[[Job], Iterator[int]]] = {
    OURS: _sfdkit,
    "webdataset": _webdataset,
    "litdata": _litdata,
    "mosaicml": _mosaicml,
}


def _samples(folder: str, shard: int) -> Iterator[dict[str, Any]]:
    storage, entry = ShardSet.of(Storage(folder))[shard]
    for clip in read_good_clips(storage, entry, 0, entry["clips"]):
        yield {"json": json.dumps(clip["meta"]).encode(), "frames": clip["frames"]}


def prepare(job: Job) -> None:
    """Copy the clips into the format of another loader, in files as large as the shards."""
    shards = ShardSet.of(job.folder)
    size = max(1 << 16, sum(shards[number][1]["bytes"] for number in range(len(shards))) // len(shards))
    if job.loader == "litdata":
        from litdata import optimize

        optimize(
            fn=partial(_samples, job.folder),
            inputs=list(range(len(shards))),
            output_dir=job.copy,
            chunk_bytes=size,
            num_workers=1,
            verbose=False,
        )
    else:
        from streaming import MDSWriter

        with MDSWriter(out=job.copy, columns={"json": "bytes", "frames": "bytes"}, size_limit=size) as writer:
            for shard in range(len(shards)):
                for sample in _samples(job.folder, shard):
                    writer.write(sample)


def main() -> None:
    """Do the job of the command line; the last line of the output is a json object, with ``error`` where it failed."""
    job = Job(**json.loads(sys.argv[1]))
    answer: dict[str, Any] = {}
    try:
        if job.prepare:
            prepare(job)
        else:
            answer = measure(job)._asdict()
    except SfdkitError as error:
        answer = {"error": str(error), "ours": True}
    except Exception as error:  # other people's code: said in the table, and the comparison goes on
        answer = {"error": redact(f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"), "ours": False}
    print("\n" + json.dumps(answer), flush=True)


def job_text(job: Job) -> str:
    """Return a job as the argument of its process."""
    return json.dumps(asdict(job))


if __name__ == "__main__":
    main()
