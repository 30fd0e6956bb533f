"""What moves a face: a clip or a motion track, as batches of motion coefficients. This module needs no torch.

Legend: ``T`` frames, ``K`` frames of one batch, ``R`` resolution of the animator, ``M`` motion coefficients.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, repeat

import numpy as np

from sfdkit.apply.frame_source import FrameSource
from sfdkit.apply.motion_track import MotionTrack
from sfdkit.apply.reenactment import read_motion
from sfdkit.apply.runner import Runner
from sfdkit.media.video_writer import Sound

_BATCH = 8


@dataclass(frozen=True)
class Driver:
    """Gives motion batch by batch; each call of :meth:`batches` begins anew."""

    runner: Runner
    source: FrameSource | MotionTrack
    loops: int = 1
    """How often it is played."""

    @property
    def fps(self) -> float:
        """Frames per second."""
        return self.source.fps

    @property
    def frames(self) -> int:
        """How many frames to expect; 0 where nothing is known."""
        once = len(self.source.motion) if isinstance(self.source, MotionTrack) else self.source.frames
        return once * self.loops

    @property
    def sound(self) -> Sound | None:
        """Its sound, if any."""
        if isinstance(self.source, MotionTrack) or not self.source.clip.has_sound:
            return None
        clip = self.source.clip
        return Sound(clip.path, clip.start, None if clip.end is None else clip.end - clip.start)

    def batches(self, batch_size: int) -> Iterator[tuple[np.ndarray | None, np.ndarray]]:
        """Yield driving frames, K R R 3 uint8, None for a track; and their coefficients, K M."""
        if isinstance(self.source, MotionTrack):
            motion = np.concatenate([self.source.motion] * self.loops)
            for start in range(0, len(motion), batch_size):
                yield None, motion[start : start + batch_size]
        else:
            played = chain.from_iterable(repeat(self.source, self.loops))
            yield from read_motion(self.runner, played, batch_size)

    @cached_property
    def motion(self) -> np.ndarray:
        """All coefficients, T M, of playing it once."""
        once = Driver(self.runner, self.source)
        return np.concatenate([motion for _, motion in once.batches(_BATCH)])
