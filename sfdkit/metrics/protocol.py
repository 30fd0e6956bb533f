"""Who is driven by whom: pairs of clips, drawn by seed."""

from __future__ import annotations

import random
from bisect import bisect_left, bisect_right
from collections.abc import Sequence


def cross_pairs(identities: Sequence[str], count: int, seed: int) -> list[tuple[int, int]]:
    """Draw pairs of clips of two different people.

    The drawing is uniform over all ordered pairs of clips of different identities, without a pair drawn twice.

    Args:
        identities: The identity of each clip.
        count: How many pairs are wanted.
        seed: The same seed gives the same pairs.

    Returns:
        Up to ``count`` pairs (clip that gives the identity, clip that gives the motion); fewer when there are no more.
    """
    clips = len(identities)
    order = sorted(range(clips), key=lambda clip: (identities[clip], clip))  # clips of one person stand side by side
    names = [identities[clip] for clip in order]
    groups = [(bisect_left(names, name), bisect_right(names, name)) for name in names]
    offsets = [0]
    for first, after in groups:
        offsets.append(offsets[-1] + clips - (after - first))
    pairs = []
    for number in random.Random(seed).sample(range(offsets[-1]), min(count, offsets[-1])):
        source = bisect_right(offsets, number) - 1
        first, after = groups[source]
        driving = number - offsets[source]
        pairs.append((order[source], order[driving if driving < first else driving + after - first]))
    return pairs
