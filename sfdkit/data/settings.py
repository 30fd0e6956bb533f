"""What a stream reads, what its workers send, and what they are told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch

from sfdkit.data.plan import RankPlan, training_ranges, whole_ranges
from sfdkit.data.shard_set import ShardSet
from sfdkit.data.shards.reader import SkipReason
from sfdkit.points import PointSet
from sfdkit.types import FrameBatch


@dataclass(frozen=True)
class StreamSettings:
    """What a stream of one rank reads and how it batches it."""

    shards: ShardSet
    """What there is to read."""
    training: bool
    """True: shuffled, full batches, random frames. False: each clip once, fixed frames."""
    batch_size: int
    """Rows in a batch."""
    driving: int = 1
    """Driving frames per source."""
    rows_per_clip: int = 1
    """Rows that a clip gives in an epoch of training."""
    seed: int = 0
    rank: int = 0
    world: int = 1
    shuffle: int = 64
    """Rows in the shuffle buffer of each lane; the buffer holds whole clips, not decoded."""
    lanes: int = 8
    """Independent readers of a rank, which its workers share out; the order depends on their number."""
    point_set: PointSet | None = None
    """Points of the face that rows bring."""
    skip_budget: float = 0.0
    """Share of the rows of an epoch of this rank that may be lost to damaged clips."""

    def plan(self, epoch: int) -> RankPlan:
        """Return the rows of this rank in an epoch."""
        counts = self.shards.counts()
        ranges = training_ranges(counts, self.seed, epoch) if self.training else whole_ranges(counts)
        return RankPlan(ranges, self.training, self.rank, self.world, self.batch_size, self.rows_per_clip, self.lanes)

    def fingerprint(self) -> dict[str, int | str]:
        """Return all that the order of the batches depends on, the same on all ranks."""
        return {
            "seed": self.seed,
            "world": self.world,
            "batch_size": self.batch_size,
            "driving": self.driving,
            "rows_per_clip": self.rows_per_clip,
            "shuffle": self.shuffle,
            "lanes": self.lanes,
            "shards": self.shards.fingerprint(),
        }


class Skip(NamedTuple):
    """A row that was lost."""

    shard: int
    """Number of the shard."""
    reason: SkipReason
    message: str


class Delivered(NamedTuple):
    """What a worker sends for one batch."""

    batch: FrameBatch | None
    """None where all its rows are lost, which training never is."""
    rows: int
    """Rows that were planned for it."""
    skips: list[Skip]
    """Rows that were lost; in training another clip stands in for each."""
    repeats: int
    """Attempts of reading that had to be repeated since the worker's last batch."""


class Failure(NamedTuple):
    """Comes from a worker in place of a batch when the stream cannot continue; the main process raises it."""

    message: str


class StreamState:
    """What the main process tells its workers through shared memory: where to start."""

    def __init__(self) -> None:
        self._start = torch.zeros(2, dtype=torch.int64).share_memory_()

    def begin(self, epoch: int, batches: int) -> None:
        """Set the next epoch, and the number of batches of this rank that are left out at its start."""
        self._start.copy_(torch.tensor([epoch, batches]))

    @property
    def epoch(self) -> int:
        """The epoch to read."""
        return int(self._start[0])

    @property
    def batches_done(self) -> int:
        """Batches at the start of the epoch that are left out."""
        return int(self._start[1])
