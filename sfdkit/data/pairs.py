"""Which frames of a clip become the source and the driving frames.

The source frame is encoded once for all its driving frames, so several driving frames per source are cheap pairs.
"""

from __future__ import annotations

import random


def choose_frames(frames: int, driving: int, rng: random.Random) -> list[int]:
    """Choose a source frame and driving frames at random for training.

    Args:
        frames: Number of frames in the clip.
        driving: Number of driving frames wanted.
        rng: The generator to draw from.

    Returns:
        ``1 + driving`` frame numbers, the source first. No frame comes twice while there are enough; in a shorter clip
        the driving frames repeat, and only a clip of one frame drives itself.
    """
    if frames > driving:
        return rng.sample(range(frames), 1 + driving)
    order = rng.sample(range(frames), frames)
    others = order[1:] or order
    rounds = -(-driving // len(others))
    return order[:1] + (others * rounds)[:driving]


def spread_frames(frames: int, driving: int) -> list[int]:
    """Choose frames for validation: the first one as the source, the driving ones evenly over the rest.

    Args:
        frames: Number of frames in the clip.
        driving: Number of driving frames wanted.

    Returns:
        ``1 + driving`` frame numbers, the source first; the last driving frame is the last of the clip.
    """
    return [0] + [max(min(1, frames - 1), round(number * (frames - 1) / driving)) for number in range(1, driving + 1)]
