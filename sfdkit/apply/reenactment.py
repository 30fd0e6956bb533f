"""Reenactment: a source face moved by driving frames, or by motion coefficients. This module needs no torch.

Legend: ``T`` frames of a track, ``K`` driving frames of one batch, ``R`` resolution of the animator, ``M`` motion
coefficients.

Example:
    >>> runner = TorchRunner(load_animator("last.ckpt").animator)    # or Animator("exported")    # doctest: +SKIP
    >>> driving = open_frame_source("clip.mp4", runner.resolution, CropRule())    # doctest: +SKIP
    >>> source = read_source("face.png", runner.resolution, CropRule())           # doctest: +SKIP
    >>> for part in animate_frames(runner, source, driving):                      # doctest: +SKIP
    ...     part.image                                                            # K R R 3 uint8
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import NamedTuple

import numpy as np

from sfdkit.apply.runner import Runner
from sfdkit.apply.steering import MotionMode, Steered, Steering


class Animated(NamedTuple):
    """The results of one batch of driving frames."""

    driving: np.ndarray | None
    """K R R 3 uint8: the driving frames; None where the motion came from a track."""
    image: np.ndarray
    """K R R 3 uint8: the source face under their motion."""


def animate_frames(
    runner: Runner,
    source: np.ndarray,
    frames: Iterable[np.ndarray],
    how: Steering | MotionMode = "absolute",
    batch_size: int = 8,
) -> Iterator[Animated]:
    """Animate a source with a stream of driving frames; memory does not grow with the length of the stream.

    Absolute motion takes the driver's coefficients as they are, ``b(d_t)``. Relative motion adds the driver's change
    to the source's own, ``b(s) + b(d_t) - b(d_0)``; it keeps the source's pose at the first frame and needs a first
    driving frame whose pose is about the source's.

    Args:
        runner: What runs the animator.
        source: R R 3 uint8.
        frames: R R 3 uint8 each.
        how: ``absolute``, ``relative``, or all of how the motion is taken over.
        batch_size: Driving frames per step; the last batch may be smaller.

    Yields:
        One batch at a time.
    """
    render = SourceRenderer(runner, source, how)
    for driving, motion in read_motion(runner, frames, batch_size):
        yield Animated(driving, render(motion))


def animate_track(
    runner: Runner, source: np.ndarray, motion: np.ndarray, how: Steering | MotionMode = "absolute", batch_size: int = 8
) -> Iterator[Animated]:
    """Animate a source with motion coefficients, as :func:`animate_frames` does with the frames they were read from.

    Args:
        runner: What runs the animator.
        source: R R 3 uint8.
        motion: T M float32, for example ``MotionTrack.load(path, runner).motion``.
        how: As for :func:`animate_frames`.
        batch_size: Frames per step; the last batch may be smaller.

    Yields:
        One batch at a time.
    """
    render = SourceRenderer(runner, source, how)
    for start in range(0, len(motion), batch_size):
        yield Animated(None, render(motion[start : start + batch_size]))


def read_motion(
    runner: Runner, frames: Iterable[np.ndarray], batch_size: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Read the motion of a stream of frames; memory does not grow with the length of the stream.

    Args:
        runner: What runs the animator.
        frames: R R 3 uint8 each.
        batch_size: Frames per step; the last batch may be smaller.

    Yields:
        Frames K R R 3 uint8 and their motion coefficients K M float32.
    """
    stream = iter(frames)
    while batch := list(islice(stream, batch_size)):
        driving = np.stack(batch)
        yield driving, runner.motion(driving)


class SourceRenderer:
    """Renders one source under one batch of motion after the other.

    Args:
        runner: What runs the animator.
        source: R R 3 uint8.
        how: As for :func:`animate_frames`.
    """

    def __init__(self, runner: Runner, source: np.ndarray, how: Steering | MotionMode) -> None:
        self.runner = runner
        self.source = runner.source(source)
        self.own = runner.describe(self.source).motion
        self.steer = Steered(_steering(how))

    def __call__(self, motion: np.ndarray) -> np.ndarray:
        """Render K R R 3 under motion K M."""
        return self.runner.render(self.source, self.steer(self.steer.follow(motion), self.own))


class MovingRenderer:
    """Renders a face whose own picture changes from frame to frame, as in a video.

    Args:
        runner: What runs the animator.
        how: As for :func:`animate_frames`.
    """

    def __init__(self, runner: Runner, how: Steering | MotionMode) -> None:
        self.runner = runner
        self.steer = Steered(_steering(how))

    def __call__(self, pictures: Mapping[int, np.ndarray], motion: np.ndarray) -> dict[int, np.ndarray]:
        """Render the pictures, row of the motion K M to R R 3 uint8; rows without a picture are followed alone."""
        motion, made = self.steer.follow(motion), {}
        for row, picture in pictures.items():
            source = self.runner.source(picture)
            steered = self.steer(motion[row], self.runner.describe(source).motion)
            made[row] = self.runner.render(source, steered[None])[0]
        return made


def _steering(how: Steering | MotionMode) -> Steering:
    return how if isinstance(how, Steering) else Steering(how)
