"""The clips of an evaluation, reduced to the frames it needs, and the truth of puppets under another puppet's motion.

Legend: ``G`` pairs of one batch, ``K`` driving frames of each, ``R`` resolution.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from sfdkit.data.pairs import spread_frames
from sfdkit.data.shards.access import read_good_clips
from sfdkit.data.shards.decode import decode_frames
from sfdkit.data.shards.format import ShardIndex, frame_bytes, pack_frames
from sfdkit.data.shards.index import as_storage, index_clips, require_shards
from sfdkit.puppets.clips import factors_from_meta, to_bytes
from sfdkit.puppets.face import measure
from sfdkit.puppets.factors import IdentityFactors, MotionFactors
from sfdkit.puppets.geometry import head_pose
from sfdkit.puppets.landmarks import find_landmarks
from sfdkit.puppets.render import render
from sfdkit.storage import Storage
from sfdkit.types import Clip


class Sample(NamedTuple):
    """One clip with the frames of the evaluation alone, still encoded."""

    clip: Clip
    """Its ``frames`` hold the source, then the K driving frames; its json is that of the whole clip."""
    chosen: list[int]
    """1 + K: the numbers that these frames have in the whole clip."""

    @property
    def identity(self) -> str:
        """Name of the person."""
        return self.clip["meta"]["identity"]

    @property
    def is_puppet(self) -> bool:
        """Whether the clip can be rendered with another identity or motion."""
        return "puppet" in self.clip["meta"]

    def part(self, frames: Sequence[int]) -> Sample:
        """Return the source with some of the driving frames, by their number among these."""
        packed = pack_frames([frame_bytes(self.clip["frames"], number) for number in (0, *(k + 1 for k in frames))])
        chosen = [self.chosen[0], *(self.chosen[k + 1] for k in frames)]
        return Sample(Clip(key=self.clip["key"], meta=self.clip["meta"], frames=packed), chosen)

    def factors(self) -> tuple[IdentityFactors, MotionFactors]:
        """Return the puppet's identity, one row, and its motion in the driving frames, K rows."""
        identity, motion = factors_from_meta(self.clip["meta"])
        return identity, motion[torch.tensor(self.chosen[1:])]


class Pair(NamedTuple):
    """Who is driven by whom; in self-reenactment twice the same clip."""

    source: Sample
    """Gives its first frame."""
    driver: Sample
    """Gives the motion of its driving frames."""
    start: Sample | None = None
    """Its first frame is the driver in about the source's pose: motion is taken relative to it. None for the motion of
    the driving frames as it is."""

    def part(self, frames: Sequence[int]) -> Pair:
        """Return the pair with some of its driving frames."""
        driver = self.driver.part(frames)
        return Pair(driver if self.source is self.driver else self.source, driver, self.start)

    @property
    def has_truth(self) -> bool:
        """Whether the true answer can be rendered."""
        return self.source.is_puppet and self.driver.is_puppet


class Frames(NamedTuple):
    """The frames of G pairs, float in [0, 1]."""

    source: Tensor
    """G 3 R R."""
    driving: Tensor
    """G K 3 R R."""
    start: Tensor | None = None
    """G 3 R R: what motion is taken relative to; None for motion as it is."""


def read_samples(folder: str | Path | Storage, index: ShardIndex, clips: int | None, driving: int) -> list[Sample]:
    """Read the clips of a folder of shards; no frame is decoded.

    Memory: 1 + ``driving`` JPEG files per clip.

    Args:
        folder: The folder.
        index: Its index.
        clips: How many, from the start of the index; None for all.
        driving: Driving frames per clip, evenly spread after frame 0, which is the source. A shorter clip repeats some,
            a clip of one frame drives itself.

    Raises:
        ShardError: A shard is missing, damaged, or not what the index says.
    """
    storage = as_storage(folder)
    require_shards(storage, index)
    wanted = min(index_clips(index), clips or index_clips(index))
    samples: list[Sample] = []
    with tqdm(total=wanted, desc="read", unit="clip") as bar:
        for entry in index["shards"]:
            for clip in read_good_clips(storage, entry, 0, min(entry["clips"], wanted - len(samples))):
                samples.append(_reduce(clip, driving))
                bar.update()
    return samples


def _reduce(clip: Clip, driving: int) -> Sample:
    chosen = spread_frames(len(clip["meta"]["times"]), driving)
    packed = pack_frames([frame_bytes(clip["frames"], number) for number in chosen])
    return Sample(Clip(key=clip["key"], meta=clip["meta"], frames=packed), chosen)


def frame_batches(samples: Sequence[Sample], batch_size: int, device: torch.device) -> Iterator[Tensor]:
    """Yield the source and the driving frames of all clips, clip by clip, float in [0, 1] on the device.

    A batch holds frames of several clips: all batches but the last are full.

    Args:
        samples: The clips.
        batch_size: Frames of a batch.
        device: Where they are wanted.
    """
    waiting: list[Tensor] = []
    for number, sample in enumerate(samples):
        waiting.append(decode_frames(sample.clip, range(len(sample.chosen))))
        last = number == len(samples) - 1
        if last or sum(map(len, waiting)) >= batch_size:
            *full, rest = torch.cat(waiting).split(batch_size)
            waiting = [rest]
            if last or len(rest) == batch_size:
                full, waiting = [*full, rest], []
            for frames in full:
                yield frames.to(device).float() / 255.0


def load_frames(pairs: Sequence[Pair], device: torch.device) -> Frames:
    """Decode the source frame and the driving frames of each pair."""
    still = torch.stack([decode_frames(pair.source.clip, [0])[0] for pair in pairs])
    moving = torch.stack([decode_frames(pair.driver.clip, range(1, len(pair.driver.chosen))) for pair in pairs])
    still, moving = (frames.to(device).float() / 255.0 for frames in (still, moving))
    if any(pair.start is None for pair in pairs):
        return Frames(still, moving)
    start = torch.stack([decode_frames(pair.start.clip, [0])[0] for pair in pairs if pair.start is not None])
    return Frames(still, moving, start.to(device).float() / 255.0)


def render_truth(pairs: Sequence[Pair], device: torch.device) -> tuple[Tensor, Tensor]:
    """Render each source puppet under the motion of its driver: the true answer of cross-reenactment.

    The pictures are rounded to 8 bits, as those in the shards are; they do not pass through JPEG.

    Args:
        pairs: G pairs of puppets.
        device: Where to render.

    Returns:
        Pictures G K 3 R R in [0, 1] and face masks G K 1 R R in [0, 1].
    """
    identity, motion = _factors(pairs, device)
    truth = render(identity, motion, pairs[0].source.clip["meta"]["resolution"])
    shape = len(pairs), len(motion) // len(pairs)
    return (to_bytes(truth.image).float() / 255.0).unflatten(0, shape), truth.mask.unflatten(0, shape)


def _factors(pairs: Sequence[Pair], device: torch.device) -> tuple[IdentityFactors, MotionFactors]:
    """Return who is seen in the true answers of G pairs, and in which motion, G * K rows each."""
    drawn = [(source.factors()[0], driver.factors()[1]) for source, driver, _ in pairs]
    identity = IdentityFactors.concat([who.expand(len(what)) for who, what in drawn])
    return identity.to(device), MotionFactors.concat([what for _, what in drawn]).to(device)


def true_landmarks(pairs: Sequence[Pair], device: torch.device) -> Tensor:
    """Return the landmarks of the pictures of :func:`render_truth`, without rendering them.

    Args:
        pairs: G pairs of puppets.
        device: Where to compute.

    Returns:
        G K L 2 in pixels, see :attr:`sfdkit.puppets.render.Rendered.landmarks`.
    """
    identity, motion = _factors(pairs, device)
    face = measure(identity.grid(), motion.grid())
    points = find_landmarks(head_pose(motion.grid()), face, pairs[0].source.clip["meta"]["resolution"])
    return points.unflatten(0, (len(pairs), -1))
