"""Who reads what, and in which order: pure arithmetic on the index, no file is opened here.

Legend: an *epoch's sequence of clips* is made of stretches of shards in a random order; each *rank* takes a contiguous
part of it. A clip gives ``rows_per_clip`` *rows* of batches. A rank's rows are divided among its *lanes*, of which each
has a contiguous part, shuffles it with a buffer of its own, and gives every ``lanes``-th batch. Workers share out the
lanes, so that the order of a rank's batches does not depend on the number of workers.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple

from sfdkit.errors import ConfigError


class ClipRange(NamedTuple):
    """Some neighbouring clips of one shard."""

    shard: int
    """Number of the shard."""
    start: int
    """Number of the first clip."""
    stop: int
    """Number of the first clip that does not belong to the range any more."""


def generator(*parts: int) -> random.Random:
    """Return a random generator that depends on all ``parts`` and on nothing else, the same in every process."""
    return random.Random("/".join(str(part) for part in parts))


def training_ranges(counts: Sequence[tuple[Sequence[int], float]], seed: int, epoch: int) -> list[ClipRange]:
    """Return the stretches of shards that an epoch of training reads, in its order, the same on all ranks.

    A folder of weight 1 comes once and whole; of weight 2.5, twice, and half of its clips a third time, the other half
    in the next epoch. The number of clips is the same in all epochs.

    Args:
        counts: For each folder the number of clips of each of its shards, and its weight.
        seed: Of the order.
        epoch: Of the order as well.

    Raises:
        ConfigError: A weight is so small that none of the folder's clips is used.
    """
    ranges = []
    first = 0
    for folder, weight in counts:
        total, whole = sum(folder), int(weight)
        part = round(total * (weight - whole))
        if not whole and not part:
            raise ConfigError(f"data.root: with the weight {weight:g} a folder of {total} clips gives none: raise it")
        stretches = [(0, total)] * whole
        if part:
            start = epoch * part % total
            stretches += [(start, min(total, start + part)), (0, max(0, start + part - total))]
        for start, stop in stretches:
            place = 0
            for shard, clips in enumerate(folder, first):
                low, high = max(0, start - place), min(clips, stop - place)
                if low < high:
                    ranges.append(ClipRange(shard, low, high))
                place += clips
        first += len(folder)
    generator(seed, epoch).shuffle(ranges)
    return ranges


def whole_ranges(counts: Sequence[tuple[Sequence[int], float]]) -> list[ClipRange]:
    """Return all shards, each whole and once whatever its folder's weight, in their order."""
    shards = (clips for folder, _ in counts for clips in folder)
    return [ClipRange(shard, 0, clips) for shard, clips in enumerate(shards) if clips]


def shuffled(count: int, buffer: int, rng: random.Random) -> Iterator[int]:
    """Yield the numbers below ``count`` in the order in which a shuffle buffer gives them up."""
    held: list[int] = []
    for number in range(count):
        if len(held) < buffer:
            held.append(number)
        elif held:
            place = rng.randrange(len(held))
            yield held[place]
            held[place] = number
        else:
            yield number
    rng.shuffle(held)
    yield from held


class RankPlan:
    """The rows of one rank in one epoch.

    In training each clip gives ``rows_per_clip`` rows, and every rank gives the same number of full batches; what is
    missing to them is filled by starting the rank's clips again. Otherwise each clip gives one row and the last batch
    may be short.

    Args:
        ranges: The epoch's sequence of clips; at least one.
        training: See above.
        rank: Number of the rank.
        world: Number of ranks.
        batch_size: Rows in a batch.
        rows_per_clip: In training.
        lanes: The most lanes; there are no more than batches.
    """

    def __init__(
        self,
        ranges: Sequence[ClipRange],
        training: bool,
        rank: int,
        world: int,
        batch_size: int,
        rows_per_clip: int,
        lanes: int,
    ) -> None:
        self._ranges = list(ranges)
        self._ends = list(accumulate(part.stop - part.start for part in self._ranges))
        total = self._ends[-1]
        if training and world > total:
            rank, world = rank % total, total  # ranks share clips, so that none is without work
        self._first, stop = rank * total // world, (rank + 1) * total // world
        self.clips = stop - self._first
        """Clips of this rank."""
        self.batch_size = batch_size
        self.rows_per_clip = rows_per_clip if training else 1
        if training:
            self.batches = -(-(-(-total // world) * rows_per_clip) // batch_size)
            """Batches of this rank; in training the same on all ranks."""
            self.rows = self.batches * batch_size
            """Rows of this rank."""
        else:
            self.batches = -(-self.clips // batch_size)
            self.rows = self.clips
        self.lanes = max(1, min(lanes, self.batches))
        """Number of lanes; batch ``b`` comes from lane ``b % lanes``."""
        short = self.batches * batch_size - self.rows
        last = (self.batches - 1) % self.lanes
        sizes = [self.lane_batches(lane) * batch_size - (short if lane == last else 0) for lane in range(self.lanes)]
        self._lane_ends = list(accumulate(sizes))

    def lane_batches(self, lane: int) -> int:
        """Return the number of batches of a lane."""
        return -(-(self.batches - lane) // self.lanes)

    def lane_rows(self, lane: int) -> tuple[int, int]:
        """Return the first row of a lane and the first one after it."""
        return self._lane_ends[lane - 1] if lane else 0, self._lane_ends[lane]

    def clip(self, visit: int) -> tuple[int, int]:
        """Return the number of a shard, and of a clip in it, that a visit reads.

        Row ``r`` is of visit ``r // rows_per_clip``. Visits count the clips of this rank, and go round when they have
        come to the last.
        """
        position = self._first + visit % self.clips
        place = bisect_right(self._ends, position)
        part = self._ranges[place]
        return part.shard, part.start + position - (self._ends[place - 1] if place else 0)


def ranges_of(clips: Iterable[tuple[int, int]]) -> Iterator[ClipRange]:
    """Join clips, each given by the numbers of its shard and in it, to ranges; their order stays."""
    part: ClipRange | None = None
    for shard, number in clips:
        if part is not None and (part.shard, part.stop) == (shard, number):
            part = part._replace(stop=number + 1)
            continue
        if part is not None:
            yield part
        part = ClipRange(shard, number, number + 1)
    if part is not None:
        yield part
