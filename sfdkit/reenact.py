"""Self- and cross-reenactment over many clips, measured.

Legend: ``G`` pairs of one batch, ``K`` driving frames of each, ``R`` resolution.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torchmetrics import MetricCollection
from tqdm import tqdm

from sfdkit.metrics.video import distances
from sfdkit.model.animator import FaceAnimator
from sfdkit.samples import Frames, Pair, load_frames, render_truth
from sfdkit.types import Generated


def drive(animator: FaceAnimator, frames: Frames, batch_size: int) -> Generated:
    """Drive each source with each of its driving frames; a source is encoded once.

    Args:
        animator: In eval mode, on the device of the frames.
        frames: G sources and their G K driving frames.
        batch_size: The most driven frames per step, but at least one of each source.

    Returns:
        G * K rows, those of one source side by side; the image clamped to [0, 1].
    """
    count = len(frames.source)
    parts: list[list[Tensor]] = []
    with torch.no_grad():
        state = animator.source_state(frames.source)
        for driving in frames.driving.split(max(1, batch_size // count), dim=1):
            width = driving.shape[1]
            made = animator.generate(state.expand(width), animator.motion(driving.flatten(0, 1)))
            parts.append([t.float().unflatten(0, (count, width)) for t in made])
    image, flow, mask = (torch.cat(column, dim=1).flatten(0, 1) for column in zip(*parts, strict=True))
    return Generated(image.clamp(0.0, 1.0), flow, mask)


def self_reenactment(animator: FaceAnimator, own: Sequence[Pair], batch_size: int) -> dict[str, float]:
    """Measure ``self/`` and ``self/copy_``.

    Args:
        animator: In eval mode.
        own: Clips, each paired with itself.
        batch_size: Driven frames per step.
    """
    result_, copy_ = _meters(animator, "self/", "self/copy_")
    device = next(animator.parameters()).device
    for part in _batches(own, batch_size, "self"):
        frames = load_frames(part, device)
        video = _videos(frames.driving)
        target = frames.driving.flatten(0, 1)
        result_.update(drive(animator, frames, batch_size).image, target, video)
        copy_.update(_copies(frames), target, video)
    return _computed(result_, copy_)


def cross_reenactment(animator: FaceAnimator, pairs: Sequence[Pair], batch_size: int) -> dict[str, float]:
    """Measure ``cross/``, ``copy/`` and both inside the face.

    Args:
        animator: In eval mode.
        pairs: Puppets driven by other puppets.
        batch_size: Driven frames per step.
    """
    whole, face, copy, copy_face = _meters(animator, "cross/", "cross/face_", "copy/", "copy/face_")
    device = next(animator.parameters()).device
    for part in _batches(pairs, batch_size, "cross"):
        frames = load_frames(part, device)
        video = _videos(frames.driving)
        truth, mask = (t.flatten(0, 1) for t in render_truth(part, device))
        result, still = drive(animator, frames, batch_size).image, _copies(frames)
        whole.update(result, truth, video)
        face.update(result, truth, video, mask)
        copy.update(still, truth, video)
        copy_face.update(still, truth, video, mask)
    return _computed(whole, face, copy, copy_face)


def _meters(animator: FaceAnimator, *prefixes: str) -> list[MetricCollection]:
    device = next(animator.parameters()).device
    return [distances(prefix).to(device) for prefix in prefixes]


def _computed(*meters: MetricCollection) -> dict[str, float]:
    return {name: float(value) for meter in meters for name, value in meter.compute().items()}


def _batches(pairs: Sequence[Pair], batch_size: int, what: str) -> Iterator[Sequence[Pair]]:
    """Yield groups of pairs whose driven frames make about one batch."""
    step = max(1, batch_size // (len(pairs[0].driver.chosen) - 1))
    with tqdm(total=len(pairs), desc=what, unit="clip") as bar:
        for at in range(0, len(pairs), step):
            part = pairs[at : at + step]
            yield part
            bar.update(len(part))


def _videos(driving: Tensor) -> Tensor:
    """Return G * K numbers of the videos that the rows of G K 3 R R belong to."""
    return torch.arange(driving.shape[0], device=driving.device).repeat_interleave(driving.shape[1])


def _copies(frames: Frames) -> Tensor:
    """Return G * K rows of the unchanged sources."""
    return frames.source.repeat_interleave(frames.driving.shape[1], 0)
