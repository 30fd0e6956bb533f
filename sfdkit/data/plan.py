"""Who reads what: pure arithmetic on the index, no file is opened here.

Legend: a *slot* is one worker of one rank; there are ``world * workers`` of them, and slot ``rank * workers + worker``
is worker ``worker`` of ``rank``. The shards, in the order of the epoch, make one long row of clips, of which each slot
takes a contiguous stretch; thus a shard may be shared by two slots, and one shard serves any number of ranks.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import NamedTuple

from sfdkit.data.format import ShardIndex


class ClipRange(NamedTuple):
    """Some neighbouring clips of one shard."""

    shard: int
    """Number of the shard in the index."""
    start: int
    """Number of the first clip."""
    stop: int
    """Number of the first clip that does not belong to the range any more."""


def generator(*parts: int) -> random.Random:
    """Return a random generator that depends on all ``parts`` and on nothing else, the same in every process."""
    return random.Random("/".join(str(part) for part in parts))


def shard_order(shards: int, seed: int, epoch: int) -> list[int]:
    """Return the permutation of the shards for an epoch, the same on all ranks."""
    order = list(range(shards))
    generator(seed, epoch).shuffle(order)
    return order


def stretch(clips: int, slots: int, slot: int) -> tuple[int, int]:
    """Return the first clip of a slot's stretch and the first one after it; stretches differ by one clip at most."""
    return slot * clips // slots, (slot + 1) * clips // slots


def slot_ranges(index: ShardIndex, order: Sequence[int], slots: int, slot: int) -> list[ClipRange]:
    """Return the clips of one slot; over all slots each clip comes exactly once.

    Args:
        index: The index of the folder of shards.
        order: All shard numbers, in the order of the epoch.
        slots: Number of ranks times workers.
        slot: Which of them.

    Returns:
        Ranges in the order of reading; an empty list where there are more slots than clips.
    """
    counts = [index["shards"][number]["clips"] for number in order]
    start, stop = stretch(sum(counts), slots, slot)
    ranges = []
    first = 0
    for number, clips in zip(order, counts, strict=True):
        low, high = max(start - first, 0), min(stop - first, clips)
        if low < high:
            ranges.append(ClipRange(number, low, high))
        first += clips
    return ranges


def training_ranges(index: ShardIndex, seed: int, epoch: int, slots: int, slot: int) -> list[ClipRange]:
    """Return the clips of one slot in an epoch of training.

    As :func:`slot_ranges` in the order of the epoch, but with more slots than clips the slots share clips, so that none
    is without work.
    """
    order = shard_order(len(index["shards"]), seed, epoch)
    clips = sum(entry["clips"] for entry in index["shards"])
    if slots > clips:
        slots, slot = clips, slot % clips
    return slot_ranges(index, order, slots, slot)


def training_batches(clips: int, slots: int, rows_per_clip: int, batch_size: int) -> int:
    """Return the number of full batches that each slot gives in an epoch of training.

    It is the least number that uses each clip of each slot ``rows_per_clip`` times at least; what is missing to full
    batches is filled by starting the slot's stretch again.
    """
    return -(-(-(-clips // slots) * rows_per_clip) // batch_size)
