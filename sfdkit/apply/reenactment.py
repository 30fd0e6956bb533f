"""Reenactment on tensors: a source face moved by driving frames, or by motion coefficients.

Legend: ``T`` frames of a track, ``K`` driving frames of one batch, ``R`` resolution of the animator, ``M`` motion
coefficients.

Example:
    >>> animator = load_animator("last.ckpt").animator                            # doctest: +SKIP
    >>> driving = open_frame_source("clip.mp4", animator.resolution, CropRule())  # doctest: +SKIP
    >>> source = read_source("face.png", animator.resolution, CropRule())         # doctest: +SKIP
    >>> for part in animate_frames(animator, source, driving):                    # doctest: +SKIP
    ...     part.image                                                            # K 3 R R in [0, 1]
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor

from sfdkit.model.animator import FaceAnimator

MotionMode: TypeAlias = Literal["absolute", "relative"]


class Animated(NamedTuple):
    """The results of one batch of driving frames."""

    driving: Tensor | None
    """K 3 R R in [0, 1]: the driving frames; None where the motion came from a track."""
    image: Tensor
    """K 3 R R in [0, 1]: the source face under their motion."""


def animate_frames(
    animator: FaceAnimator,
    source: Tensor,
    frames: Iterable[Tensor],
    mode: MotionMode = "absolute",
    batch_size: int = 8,
) -> Iterator[Animated]:
    """Animate a source with a stream of driving frames; memory does not grow with the length of the stream.

    Absolute motion takes the driver's coefficients as they are, ``b(d_t)``. Relative motion adds the driver's change
    to the source's own, ``b(s) + b(d_t) - b(d_0)``; it keeps the source's pose at the first frame and needs a first
    driving frame whose pose is about the source's.

    Args:
        animator: In eval mode, on the device to compute on.
        source: 3 R R, uint8 in 0..255 or float in [0, 1].
        frames: 3 R R each, uint8 in 0..255 or float in [0, 1].
        mode: ``absolute`` or ``relative``.
        batch_size: Driving frames per step; the last batch may be smaller.

    Yields:
        One batch at a time, on the animator's device.
    """
    render = _Renderer(animator, source, mode)
    for driving, motion in read_motion(animator, frames, batch_size):
        yield Animated(driving, render(motion))


def animate_track(
    animator: FaceAnimator, source: Tensor, motion: Tensor, mode: MotionMode = "absolute", batch_size: int = 8
) -> Iterator[Animated]:
    """Animate a source with motion coefficients, as :func:`animate_frames` does with the frames they were read from.

    Args:
        animator: In eval mode, on the device to compute on.
        source: 3 R R, uint8 in 0..255 or float in [0, 1].
        motion: T M, for example ``MotionTrack.load(path, animator).motion``.
        mode: ``absolute`` or ``relative``.
        batch_size: Frames per step; the last batch may be smaller.

    Yields:
        One batch at a time, on the animator's device.
    """
    render = _Renderer(animator, source, mode)
    for part in motion.split(batch_size):
        yield Animated(None, render(part.to(animator.descriptors.weight.device)))


def read_motion(animator: FaceAnimator, frames: Iterable[Tensor], batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Read the motion of a stream of frames; memory does not grow with the length of the stream.

    Args:
        animator: In eval mode, on the device to compute on.
        frames: 3 R R each, uint8 in 0..255 or float in [0, 1].
        batch_size: Frames per step; the last batch may be smaller.

    Yields:
        Frames K 3 R R in [0, 1] and their motion coefficients K M, on the animator's device.
    """
    stream = iter(frames)
    while batch := list(islice(stream, batch_size)):
        with torch.no_grad():
            driving = as_float(torch.stack(batch), animator.descriptors.weight.device)
            motion = animator.motion(driving)
        yield driving, motion


class _Renderer:
    """Renders one source under one batch of motion after the other."""

    def __init__(self, animator: FaceAnimator, source: Tensor, mode: MotionMode) -> None:
        self.animator = animator
        self.relative = mode == "relative"
        self.first: Tensor | None = None
        with torch.no_grad():
            self.state = animator.source_state(as_float(source, animator.descriptors.weight.device)[None])

    def __call__(self, motion: Tensor) -> Tensor:
        """Render K 3 R R under motion K M."""
        with torch.no_grad():
            if self.relative:
                self.first = motion[:1] if self.first is None else self.first
                motion = self.state.descriptors.motion + motion - self.first
            return self.animator.generate(self.state.expand(len(motion)), motion).image


def as_float(image: Tensor, device: torch.device) -> Tensor:
    """Return pictures on ``device`` as float32 in [0, 1]; uint8 is divided by 255."""
    image = image.to(device)
    return image.float() / 255.0 if image.dtype == torch.uint8 else image.float()
