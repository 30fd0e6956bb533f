"""What a stream reads, and what the main process and its workers share while it runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, get_args

import torch
from torch import Tensor

from sfdkit.data.format import ShardIndex
from sfdkit.data.index import index_clips
from sfdkit.data.plan import stretch, training_batches
from sfdkit.data.reader import SkipReason

REASONS: tuple[SkipReason, ...] = get_args(SkipReason)


@dataclass(frozen=True)
class StreamSettings:
    """What a stream of one rank reads and how it batches it."""

    folder: str
    """The folder of shards."""
    index: ShardIndex
    """Its index."""
    training: bool
    """True: endless shuffled turns, full batches, random frames. False: each clip once in order, fixed frames."""
    batch_size: int
    """Rows in a batch."""
    driving: int = 1
    """Driving frames per source."""
    rows_per_clip: int = 1
    """Rows that an opened clip gives in each turn of training."""
    seed: int = 0
    rank: int = 0
    world: int = 1
    shuffle: int = 64
    """Rows in the shuffle buffer of each worker; the buffer holds whole clips, not decoded."""
    skip_budget: float = 0.0
    """Share of the rows of an epoch of this rank that may be lost to damaged clips, those read ahead included."""

    def batches(self, workers: int, worker: int) -> int:
        """Return the number of batches that one of ``workers`` workers of this rank gives in an epoch."""
        if not self.training:
            return -(-self._clips(workers, worker) // self.batch_size)
        return training_batches(index_clips(self.index), self.world * workers, self.rows_per_clip, self.batch_size)

    def rows(self, workers: int) -> int:
        """Return the number of rows that all workers of this rank give in an epoch."""
        if self.training:
            return workers * self.batches(workers, 0) * self.batch_size
        return sum(self._clips(workers, worker) for worker in range(workers))

    def _clips(self, workers: int, worker: int) -> int:
        start, stop = stretch(index_clips(self.index), self.world * workers, self.rank * workers + worker)
        return stop - start


class Failure(NamedTuple):
    """Comes from a worker in place of a batch when the stream cannot go on; the main process raises it."""

    message: str


class StreamState:
    """What main process and workers share through shared memory: where to start, and what was skipped.

    Args:
        workers: Number of workers, at least 1.
        shards: Number of shards.
    """

    def __init__(self, workers: int, shards: int) -> None:
        self._start = torch.zeros(2, dtype=torch.int64).share_memory_()
        # One part per worker, because adding to a shared value is not atomic.
        self._skips = torch.zeros(workers, shards, len(REASONS), dtype=torch.int64).share_memory_()

    def begin(self, epoch: int, batches: int) -> None:
        """Set the next epoch and the number of batches that each worker leaves out; forget the skips so far."""
        self._start.copy_(torch.tensor([epoch, batches]))
        self._skips.zero_()

    @property
    def epoch(self) -> int:
        """The epoch to read."""
        return int(self._start[0])

    @property
    def batches_done(self) -> int:
        """Batches at the start of the epoch that each worker leaves out."""
        return int(self._start[1])

    def skip(self, worker: int, shard: int, reason: SkipReason, rows: int) -> None:
        """Count rows that are lost."""
        self._skips[worker, shard, REASONS.index(reason)] += rows

    def skips(self) -> Tensor:
        """Return the rows that all workers lost in this epoch: shards x reasons, int64."""
        return self._skips.sum(0)
