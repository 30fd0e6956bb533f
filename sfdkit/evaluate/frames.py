"""Decoded frames of samples and pairs, and the true results of puppets.

Legend: ``G`` pairs of one batch, ``K`` driving frames of each, ``R`` resolution, ``L`` landmarks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from sfdkit.data.shards.decode import decode_frames
from sfdkit.evaluate.samples import Pair, Sample
from sfdkit.puppets.clips import to_bytes
from sfdkit.puppets.face import measure
from sfdkit.puppets.factors import IdentityFactors, MotionFactors
from sfdkit.puppets.geometry import head_pose
from sfdkit.puppets.landmarks import find_landmarks
from sfdkit.puppets.render import render
from sfdkit.puppets.surface_flow import SurfaceFlow, surface_flow


class Frames(NamedTuple):
    """The frames of G pairs, float in [0, 1]."""

    source: Tensor
    """G 3 R R."""
    driving: Tensor
    """G K 3 R R."""
    start: Tensor | None = None
    """G 3 R R: what motion is taken relative to; None for absolute motion."""


class Pictures(NamedTuple):
    """The pictures of one pair, K 3 R R in [0, 1] each, or of G pairs, G K 3 R R."""

    result: Tensor
    driving: Tensor
    truth: Tensor | None
    """None where it is not known."""

    @property
    def wanted(self) -> Tensor:
        """What results are compared with as sets: the truth, or the driving frames where it is not known."""
        return self.driving if self.truth is None else self.truth

    def apply(self, change: Callable[[Tensor], Tensor]) -> Pictures:
        """Return all of them changed."""
        return Pictures(change(self.result), change(self.driving), None if self.truth is None else change(self.truth))

    @staticmethod
    def join(parts: Sequence[Pictures]) -> Pictures:
        """Join pictures of G pairs, G K 3 R R each, along their frames."""
        truth = [part.truth for part in parts if part.truth is not None]
        result, driving = (torch.cat([part[side] for part in parts], 1) for side in (0, 1))  # type: ignore[misc]
        return Pictures(result, driving, torch.cat(truth, 1) if truth else None)


def load_frames(pairs: Sequence[Pair], device: torch.device) -> Frames:
    """Decode the frames of pairs that have equally many driving frames."""
    driving = torch.stack([decode_frames(pair.driver.clip, range(1, len(pair.driver.chosen))) for pair in pairs])
    starts = [pair.start for pair in pairs if pair.start is not None]
    return Frames(
        first_frames([pair.source for pair in pairs], device),
        driving.to(device).float() / 255.0,
        first_frames(starts, device) if len(starts) == len(pairs) else None,
    )


def first_frames(samples: Sequence[Sample], device: torch.device) -> Tensor:
    """Decode the first frame of each of G samples: G 3 R R."""
    return torch.stack([decode_frames(sample.clip, [0])[0] for sample in samples]).to(device).float() / 255.0


def frame_batches(samples: Sequence[Sample], batch_size: int, device: torch.device) -> Iterator[Tensor]:
    """Yield the source and the driving frames of all samples in order, float in [0, 1] on the device.

    All batches but the last have ``batch_size`` frames, of one or several samples.
    """
    waiting = torch.empty(0, dtype=torch.uint8)
    for sample in samples:
        frames = decode_frames(sample.clip, range(len(sample.chosen)))
        waiting = torch.cat([waiting, frames]) if len(waiting) else frames
        while len(waiting) >= batch_size:
            yield waiting[:batch_size].to(device).float() / 255.0
            waiting = waiting[batch_size:]
    if len(waiting):
        yield waiting.to(device).float() / 255.0


def render_truth(pairs: Sequence[Pair], device: torch.device) -> tuple[Tensor, Tensor]:
    """Render each source puppet under the motion of its driver: the true result of cross-reenactment.

    The pictures are rounded to 8 bits, as those in the shards are; they do not pass through JPEG.

    Returns:
        Pictures G K 3 R R in [0, 1] and face masks G K 1 R R in [0, 1].
    """
    identity, motion = _factors(pairs, device)
    truth = render(identity, motion, pairs[0].source.clip["meta"]["resolution"])
    shape = len(pairs), len(motion) // len(pairs)
    return (to_bytes(truth.image).float() / 255.0).unflatten(0, shape), truth.mask.unflatten(0, shape)


def true_landmarks(pairs: Sequence[Pair], device: torch.device) -> Tensor:
    """Return the landmarks of the pictures of :func:`render_truth`, without rendering them: G K L 2 in pixels."""
    identity, motion = _factors(pairs, device)
    face = measure(identity.grid(), motion.grid())
    points = find_landmarks(head_pose(motion.grid()), face, pairs[0].source.clip["meta"]["resolution"])
    return points.unflatten(0, (len(pairs), -1))


def true_flow(pairs: Sequence[Pair], device: torch.device) -> SurfaceFlow:
    """Return how the heads of the pictures of :func:`render_truth` move from their sources, G * K rows."""
    identity, motion = _factors(pairs, device)
    sources = [pair.source.first_motion().expand(pair.driver.driving_count) for pair in pairs]
    source = MotionFactors.concat(sources).to(device)
    return surface_flow(identity, source, motion, pairs[0].source.clip["meta"]["resolution"])


def true_motion(pairs: Sequence[Pair]) -> MotionFactors:
    """Return the known motion of the driving frames of G pairs of puppets, G * K rows."""
    return MotionFactors.concat([pair.driver.factors()[1] for pair in pairs])


def _factors(pairs: Sequence[Pair], device: torch.device) -> tuple[IdentityFactors, MotionFactors]:
    """Return whose face the true results show, and in which motion, G * K rows each."""
    identity = IdentityFactors.concat([pair.source.factors()[0].expand(pair.driver.driving_count) for pair in pairs])
    return identity.to(device), true_motion(pairs).to(device)
