"""Puppets as a source of clips."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from torch import Tensor

from sfdkit.data.pack.sources import CutClip, Skip
from sfdkit.data.shards.format import ClipMeta
from sfdkit.puppets.clips import clip_points, make_clip, to_bytes
from sfdkit.puppets.factors import Split, sample_identity, sample_motion
from sfdkit.puppets.render import render

_TAKE = 10**7  # distance in the numbering of motions between two clips of one puppet


@dataclass(frozen=True)
class PuppetSource:
    """Some clips of rendered puppets; rendered in small batches so that processes share the work evenly."""

    split: Split
    start: int
    stop: int
    clips_per_identity: int
    seed: int
    frames: int
    resolution: int
    fps: float
    pose: float

    @property
    def name(self) -> str:
        """Split and first number."""
        return f"{self.split} puppets from {self.start}"

    def clips(self, skip: Callable[[Skip], None]) -> Iterator[CutClip]:
        """Yield the clips; nothing is ever left out.

        Args:
            skip: Not called.
        """
        for index in range(self.start, self.stop):
            for take in range(self.clips_per_identity):
                images, meta = self._take(index, take) if take else self._clip(index, self.frames)
                yield CutClip(list(images.permute(0, 2, 3, 1).contiguous().numpy()), meta)

    def _clip(self, index: int, frames: int) -> tuple[Tensor, ClipMeta]:
        return make_clip(index, self.split, self.seed, frames, self.resolution, self.fps, self.pose)

    def _take(self, index: int, take: int) -> tuple[Tensor, ClipMeta]:
        """Render a further clip of an identity, with a motion that no other clip has."""
        meta = self._clip(index, 1)[1]
        motion = sample_motion(index + take * _TAKE, self.split, self.seed, self.frames, self.fps, self.pose)
        rendered = render(sample_identity(index, self.split, self.seed), motion, self.resolution)
        meta["key"] = meta["video"] = f"{meta['key']}-{take}"
        meta["times"] = [round(frame / self.fps, 6) for frame in range(self.frames)]
        meta["points"] = clip_points(rendered)
        meta["puppet"]["motion"] = motion.columns()
        return to_bytes(rendered.image), meta
