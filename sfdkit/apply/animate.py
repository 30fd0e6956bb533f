"""Move the face of a picture as a driving clip or a motion track says: from Python on tensors, or from file to file.

Legend: ``T`` frames of a track, ``K`` driving frames of one batch, ``R`` resolution of the animator, ``M`` motion
coefficients.

Example:
    >>> animator = load_animator("last.ckpt").animator                      # doctest: +SKIP
    >>> driver = open_driver("clip.mp4", animator.resolution, "face", MARGIN)  # doctest: +SKIP
    >>> source = read_source("face.png", animator.resolution, "face", MARGIN)  # doctest: +SKIP
    >>> for part in animate_frames(animator, source, driver):               # doctest: +SKIP
    ...     part.generated.image                                            # K 3 R R in [0, 1]
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor
from tqdm import tqdm

from sfdkit.apply.frame_source import open_driver, read_source
from sfdkit.apply.frame_writer import check_output, open_output
from sfdkit.apply.motion_track import MotionTrack
from sfdkit.checkpoint import load_animator
from sfdkit.device import choose_device
from sfdkit.errors import ConfigError
from sfdkit.files import require_apart
from sfdkit.media.crop import CropMethod, CropRule
from sfdkit.media.detect import OPENCV
from sfdkit.media.draw import enlarge, to_uint8
from sfdkit.model.animator import FaceAnimator
from sfdkit.types import Generated

LARGEST = 4096
"""Pixels of height up to which results can be asked for."""

MotionMode: TypeAlias = Literal["absolute", "relative"]


class Animated(NamedTuple):
    """One batch of driving frames and what was made of it."""

    driving: Tensor | None
    """K 3 R R in [0, 1]: the frames whose motion was taken; None where a track gave it."""
    generated: Generated
    """K rows."""


class Written(NamedTuple):
    """What :func:`animate` wrote."""

    output: Path
    frames: int
    fps: float
    width: int
    """Pixels, of the whole picture when it shows source and driving as well."""
    height: int
    seconds: float
    """How long it took, from the first driving frame to the finished file."""


def animate_frames(
    animator: FaceAnimator,
    source: Tensor,
    frames: Iterable[Tensor],
    mode: MotionMode = "absolute",
    batch_size: int = 8,
) -> Iterator[Animated]:
    """Animate one source with a stream of driving frames; memory does not grow with the length of the stream.

    Absolute motion takes the driver's coefficients as they are, ``b(d_t)``. Relative motion adds the driver's change
    to the source's own, ``b(s) + b(d_t) - b(d_0)``; it keeps the source's pose at the first frame and needs a first
    driving frame whose pose is about the source's.

    Args:
        animator: In eval mode, on the device that is to do the work.
        source: 3 R R, uint8 in 0..255 or float in [0, 1].
        frames: 3 R R each, uint8 in 0..255 or float in [0, 1].
        mode: ``absolute`` or ``relative``.
        batch_size: Driving frames per step; the last batch may be smaller.

    Yields:
        One batch at a time, on the animator's device.
    """
    move = _Mover(animator, source, mode)
    for driving, motion in read_motion(animator, frames, batch_size):
        yield Animated(driving, move(motion))


def animate_track(
    animator: FaceAnimator, source: Tensor, motion: Tensor, mode: MotionMode = "absolute", batch_size: int = 8
) -> Iterator[Animated]:
    """Animate one source with motion coefficients, as :func:`animate_frames` does with the frames they were read from.

    Args:
        animator: In eval mode, on the device that is to do the work.
        source: 3 R R, uint8 in 0..255 or float in [0, 1].
        motion: T M, for example ``MotionTrack.load(path, animator).motion``.
        mode: ``absolute`` or ``relative``.
        batch_size: Frames per step; the last batch may be smaller.

    Yields:
        One batch at a time, on the animator's device.
    """
    move = _Mover(animator, source, mode)
    for part in motion.split(batch_size):
        yield Animated(None, move(part.to(next(animator.parameters()).device)))


def read_motion(animator: FaceAnimator, frames: Iterable[Tensor], batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Read the motion of a stream of frames; memory does not grow with the length of the stream.

    Args:
        animator: In eval mode, on the device that is to do the work.
        frames: 3 R R each, uint8 in 0..255 or float in [0, 1].
        batch_size: Frames per step; the last batch may be smaller.

    Yields:
        Frames K 3 R R in [0, 1] and their motion coefficients K M, on the animator's device.
    """
    device = next(animator.parameters()).device
    stream = iter(frames)
    while batch := list(islice(stream, batch_size)):
        with torch.no_grad():
            driving = as_float(torch.stack(batch), device)
            motion = animator.motion(driving)
        yield driving, motion


class _Mover:
    """Renders one source under one batch of motion after the other."""

    def __init__(self, animator: FaceAnimator, source: Tensor, mode: MotionMode) -> None:
        self.animator = animator
        self.relative = mode == "relative"
        self.first: Tensor | None = None
        with torch.no_grad():
            self.state = animator.source_state(as_float(source, next(animator.parameters()).device)[None])

    def __call__(self, motion: Tensor) -> Generated:
        """Render K rows under motion K M."""
        with torch.no_grad():
            if self.relative:
                self.first = motion[:1] if self.first is None else self.first
                motion = self.state.descriptors.motion + motion - self.first
            return self.animator.generate(self.state.expand(len(motion)), motion)


def as_float(image: Tensor, device: torch.device) -> Tensor:
    """Return pictures on ``device`` as float32 in [0, 1]; uint8 is divided by 255."""
    image = image.to(device)
    return image.float() / 255.0 if image.dtype == torch.uint8 else image.float()


def animate(
    checkpoint: str,
    source: str,
    output: str,
    driving: str | None = None,
    motion: str | None = None,
    mode: MotionMode = "absolute",
    crop: CropMethod = "face",
    source_crop: CropMethod | None = None,
    margin: float | None = None,
    detector: str = OPENCV,
    batch_size: int = 8,
    side_by_side: bool = False,
    fps: float | None = None,
    device: str = "auto",
    audio: bool = True,
    size: int | None = None,
    trust: list[str] | None = None,
) -> Written:
    """Move the face of a picture as the face of a driving clip moves, or as a motion track says.

    Give either driving or motion. Frames are decoded, animated and written batch by batch: a long clip needs no more
    memory than a short one.

    Args:
        checkpoint: A checkpoint that sfdkit fit wrote.
        source: The face to move: a picture, or a video or folder of pictures whose first frame is taken.
        output: A file .mp4 or .gif; a name without suffix becomes a folder of PNG frames; .png takes a single driving
            picture.
        driving: The motion: a video, a folder of pictures in the order of their names, or one picture.
        motion: The motion: a track that sfdkit motion extract wrote with this checkpoint. It has no sound.
        mode: absolute takes the driver's pose and expression; relative adds their change to the source's own, which
            needs a first driving frame in about the source's pose.
        crop: How to cut the face out, as in the training data: face, union or aligned (detected), centre (largest
            square) or none (the whole picture).
        source_crop: The same for the source alone; as crop by default.
        margin: Share of the detected face's size to add on each side, as in the training data; by default what suits
            --crop.
        detector: What finds faces, as in the training data: opencv, or the ONNX file of YuNet.
        batch_size: Driving frames per step.
        side_by_side: Show source, driving (unless a track drives) and result beside each other.
        fps: Frames per second of the output. A driving video is resampled in time and keeps its length, and so is a
            track, by linear interpolation; the pictures of a folder are taken to be that far apart. Its own rate by
            default, 25 for a folder.
        device: auto, cpu, cuda, cuda:1, mps.
        audio: Keep the sound of the driving video in an mp4.
        size: Height of the written face in pixels; the model's resolution by default.
        trust: Packages besides sfdkit whose classes the checkpoint may name: --trust [mypackage].

    Returns:
        What was written.

    Raises:
        CheckpointError: The checkpoint is missing, damaged or of another model, or the track is another model's.
        ConfigError: Both driving and motion, or neither; a number that cannot work, or an output of an unknown kind.
        DataError: Source, driving or motion cannot be read, no face was found, or the output cannot be written.
    """
    require_positive("batch_size", batch_size)
    if size is not None:
        require_positive("size", size, LARGEST)
    if (driving is None) == (motion is None):
        raise ConfigError(
            f"give either --driving (a clip) or --motion (a track); {'neither' if motion is None else 'both'} is given"
        )
    require_apart(output, checkpoint=checkpoint, source=source, driving=driving, motion=motion)
    target = check_output(output, driving or motion)
    animator = load_animator(checkpoint, choose_device(device), trust or ()).animator
    still = read_source(source, animator.resolution, CropRule.of_user(source_crop or crop, margin, detector))
    if motion is not None:
        track = MotionTrack.load(motion, animator)
        _require_change(mode, motion, len(track.motion))
        track = track if fps is None else track.at_rate(fps)
        rate, frames, sound = track.fps, len(track.motion), None
        parts = animate_track(animator, still, track.motion, mode, batch_size)
    else:
        assert driving is not None
        driver = open_driver(driving, animator.resolution, CropRule.of_user(crop, margin, detector), fps)
        _require_change(mode, driving, driver.frames)
        rate, frames, sound = driver.fps, driver.frames, driver.audio if audio else None
        parts = animate_frames(animator, still, driver, mode, batch_size)
    height, began = size or animator.resolution, time.perf_counter()
    written, width = 0, 0
    with (
        open_output(target, rate, sound) as writer,
        tqdm(total=frames or None, desc="animate", unit="frame") as bar,
    ):
        for shown, generated in parts:
            for picture in _pictures(still, shown, generated, height, side_by_side):
                writer.write(to_uint8(picture))
                width = picture.shape[-1]
            written += len(generated.image)
            bar.update(len(generated.image))
    result = Written(target, written, rate, width, height, time.perf_counter() - began)
    _report(result, next(animator.parameters()).device)
    return result


def require_positive(name: str, value: int, most: int | None = None) -> None:
    """Check a count that a user wrote.

    Raises:
        ConfigError: It is smaller than 1, or larger than ``most``.
    """
    if value < 1 or (most is not None and value > most):
        limit = "of at least 1" if most is None else f"of 1 to {most}"
        raise ConfigError(f"{name}: {value} is not possible; give a whole number {limit}")


def _require_change(mode: MotionMode, clip: str, frames: int) -> None:
    if mode == "relative" and frames == 1:
        raise ConfigError(
            f"mode: relative adds the change since the first driving frame, and {clip} holds no other; "
            "use --mode absolute, or a clip"
        )


def _pictures(source: Tensor, driving: Tensor | None, generated: Generated, height: int, side_by_side: bool) -> Tensor:
    """Return K 3 H W: the results, or source, driving (where there is one) and result beside each other."""
    result = generated.image.float().clamp(0.0, 1.0)
    if side_by_side:
        still = as_float(source, result.device).expand_as(result)
        result = torch.cat([still, result] if driving is None else [still, driving, result], dim=-1)
    return enlarge(result, height)


def _report(result: Written, device: torch.device) -> None:
    length = result.frames / result.fps
    print(
        f"wrote {result.output}: {result.frames} frames, {length:.2f} s at {result.fps:g} fps, "
        f"{result.width}x{result.height}; {result.frames / result.seconds:.1f} frames per second on {device}"
    )
