"""Pictures of what the descriptors hold: a face moved along axes, and the way from one face to another.

Legend: ``S`` steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict, Unpack

import numpy as np
import torch
from torch import Tensor

from sfdkit.apply.animate import LARGEST, as_float, require_positive
from sfdkit.apply.axes import FILE_NAME, Axes, raw_step
from sfdkit.apply.face import What, render
from sfdkit.apply.face import edit as edit_face
from sfdkit.apply.face import interpolate as interpolate_faces
from sfdkit.apply.frame_source import read_source
from sfdkit.apply.frame_writer import check_output, open_output
from sfdkit.checkpoint import load_animator
from sfdkit.device import choose_device
from sfdkit.errors import ConfigError
from sfdkit.files import require_apart, write_picture
from sfdkit.media.crop import CropMethod, CropRule
from sfdkit.media.detect import OPENCV
from sfdkit.media.draw import make_sheet, stack_sheets
from sfdkit.media.frame_rate import require_fps
from sfdkit.model.animator import FaceAnimator, SourceState
from sfdkit.types import Descriptors

LEAST_CELL = 128
"""Pixels below which pictures are enlarged by a whole factor, so that a person can see them."""
STRIP_STEPS = 7
VIDEO_STEPS = 50

Ends = TypedDict("Ends", {"from": float, "to": float})
"""Options of the command line; ``from`` is no name that Python lets an argument have."""
Ends.__doc__ = """The amounts at the two ends.

Args:
    from: The amount at the one end: in the factor's unit, or in standard deviations for a basis vector.
    to: The amount at the other end.
"""


def edit(
    checkpoint: str,
    source: str,
    axis: list[str] | str,
    output: str,
    steps: int | None = None,
    sigma: bool = False,
    axes: str | None = None,
    crop: CropMethod = "face",
    margin: float | None = None,
    detector: str = OPENCV,
    size: int | None = None,
    fps: float = 25.0,
    device: str = "auto",
    trust: list[str] | None = None,
    **ends: Unpack[Ends],
) -> Path:
    """Move a face along axes of its descriptors and show it: a strip of pictures or a video.

    The amounts --from and --to are added to the source's own coefficients, so 0 is the source as the model renders it.

    Args:
        checkpoint: A checkpoint that sfdkit fit wrote.
        source: The face: a picture, or a video or folder of pictures whose first frame is taken.
        axis: A factor such as yaw, or one basis vector such as motion:3 or identity:7; several as [yaw,mouth_open].
        output: A strip of pictures in a .png, a row per axis; or .mp4, .gif or a folder of PNG frames (a name without
            suffix), which go along all axes at once, side by side, and back again.
        steps: Pictures from one end to the other; 7 in a strip, 50 in a video by default.
        sigma: Take the amounts of factors in standard deviations of the coefficients, not in the factor's unit.
        axes: The axes.json that sfdkit evaluate wrote for this checkpoint. By default the one in the folder of the run,
            above checkpoints/, if it is there. none, or no such file: basis vectors alone, in raw coefficients.
        crop: How to cut the face out, as in the training data: face, union or aligned (detected), centre (largest
            square) or none (the whole picture).
        margin: Share of the detected face's size to add on each side, as in the training data; by default what suits
            --crop.
        detector: What finds faces, as in the training data: opencv, or the ONNX file of YuNet.
        size: Height of each face in pixels; by default the model's resolution, enlarged to at least 128.
        fps: Pictures per second of a video.
        device: auto, cpu, cuda, cuda:1, mps.
        trust: Packages besides sfdkit whose classes the checkpoint may name: --trust [mypackage].
        ends: ``from`` and ``to``.

    Returns:
        What was written.

    Raises:
        CheckpointError: The checkpoint is missing or damaged, or the axes are of another model.
        ConfigError: There is no such axis, a number that cannot work, or an output of an unknown kind.
        DataError: The source or the axes cannot be read, no face was found, or the output cannot be written.
    """
    require_apart(output, checkpoint=checkpoint, source=source, axes=axes)
    target, steps = _check(output, steps, size, fps)
    names = [axis] if isinstance(axis, str) else list(axis)
    if not names:
        raise ConfigError("axis: the list is empty; give a factor such as yaw, or a basis vector such as motion:0")
    animator = load_animator(checkpoint, choose_device(device), trust or ()).animator
    known = find_axes(animator, checkpoint, axes)
    amounts = [round(float(a), 9) for a in torch.linspace(ends["from"], ends["to"], steps, dtype=torch.float64)]
    moves = [_steps(animator, known, name, amounts, sigma) for name in names]
    state = _read_state(animator, source, CropRule.of_user(crop, margin, detector))
    rows = [_render(animator, state, edit_face(state.descriptors, move)) for move in moves]
    units = [known.unit(name, sigma) if known else "raw" for name in names]
    titles = [f"{name} ({unit})" for name, unit in zip(names, units, strict=True)]
    cell = size or _cell(animator)
    picture = state.image[0]
    if target.suffix.lower() == ".png":
        captions = ["source", *(f"{amount:+.3g}" for amount in amounts)]
        strips = [make_sheet([[picture, *row]], captions, cell, title) for title, row in zip(titles, rows, strict=True)]
        write_picture(target, stack_sheets(strips))
    else:
        frames = [
            make_sheet([[picture, *faces]], ["source", *(f"{name} {amount:+.3g}" for name in names)], cell)
            for amount, faces in zip(amounts, zip(*rows, strict=True), strict=True)
        ]
        _write_there_and_back(target, frames, fps)
    print(f"wrote {target}: {', '.join(titles)} from {amounts[0]:g} to {amounts[-1]:g}")
    return target


def interpolate(
    checkpoint: str,
    source: str,
    target: str,
    output: str,
    what: What = "motion",
    steps: int | None = None,
    crop: CropMethod = "face",
    margin: float | None = None,
    detector: str = OPENCV,
    size: int | None = None,
    fps: float = 25.0,
    device: str = "auto",
    trust: list[str] | None = None,
) -> Path:
    """Go from one face's descriptors to another's and show it: a strip of pictures or a video.

    All pictures are rendered from the source: its features are warped whatever the coefficients say, and so the person
    hardly changes with the identity coefficients.

    Args:
        checkpoint: A checkpoint that sfdkit fit wrote.
        source: The face to begin with: a picture, or a video or folder of pictures whose first frame is taken.
        target: The face to end with, likewise.
        output: A strip of pictures in a .png; or .mp4, .gif or a folder of PNG frames (a name without suffix), which go
            to the target and back again.
        what: The coefficients that change: motion, identity or both.
        steps: Pictures from one end to the other; 7 in a strip, 50 in a video by default.
        crop: How to cut the faces out, as in the training data: face, union or aligned (detected), centre (largest
            square) or none (the whole picture).
        margin: Share of the detected face's size to add on each side, as in the training data; by default what suits
            --crop.
        detector: What finds faces, as in the training data: opencv, or the ONNX file of YuNet.
        size: Height of each face in pixels; by default the model's resolution, enlarged to at least 128.
        fps: Pictures per second of a video.
        device: auto, cpu, cuda, cuda:1, mps.
        trust: Packages besides sfdkit whose classes the checkpoint may name: --trust [mypackage].

    Returns:
        What was written.

    Raises:
        CheckpointError: The checkpoint is missing, damaged or of another model.
        ConfigError: A number that cannot work, or an output of an unknown kind.
        DataError: A face cannot be read or was not found, or the output cannot be written.
    """
    require_apart(output, checkpoint=checkpoint, source=source, target=target)
    path, steps = _check(output, steps, size, fps)
    animator = load_animator(checkpoint, choose_device(device), trust or ()).animator
    state = _read_state(animator, source, CropRule.of_user(crop, margin, detector))
    other = _read_state(animator, target, CropRule.of_user(crop, margin, detector))
    shares = torch.linspace(0.0, 1.0, steps)
    row = _render(
        animator, state, interpolate_faces(state.descriptors, other.descriptors, shares.to(state.image), what)
    )
    cell = size or _cell(animator)
    title = "identity and motion" if what == "both" else what
    ends = state.image[0], other.image[0]
    if path.suffix.lower() == ".png":
        captions = ["source", *(f"{title} {float(share):.2f}" for share in shares), "target"]
        write_picture(path, make_sheet([[ends[0], *row, ends[1]]], captions, cell))
    else:
        frames = [
            make_sheet([[ends[0], face, ends[1]]], ["source", f"{title} {float(share):.2f}", "target"], cell)
            for share, face in zip(shares, row, strict=True)
        ]
        _write_there_and_back(path, frames, fps)
    print(f"wrote {path}: {title} of {source} to that of {target}, rendered from {source}")
    return path


def find_axes(animator: FaceAnimator, checkpoint: str | Path, axes: str | None) -> Axes | None:
    """Read the axes that belong to a checkpoint.

    Args:
        animator: The checkpoint's.
        checkpoint: Its file.
        axes: An ``axes.json``; None takes the one in the folder above ``checkpoints/``, if there is one; ``none`` none.

    Returns:
        The axes, or None.

    Raises:
        CheckpointError: They were measured on another model.
        DataError: The file named is missing, or a file is no ``axes.json``.
    """
    if axes == "none":
        return None
    path = Path(axes) if axes else Path(checkpoint).resolve().parent.parent / FILE_NAME
    if axes is None and not path.is_file():
        return None
    return Axes.load(path, animator.descriptors)


def _steps(animator: FaceAnimator, axes: Axes | None, name: str, amounts: Sequence[float], sigma: bool) -> Descriptors:
    """Return S steps along one axis."""
    if axes is None and sigma:
        raise ConfigError(f"sigma: standard deviations are in an {FILE_NAME}, and there is none; give --axes FILE")
    steps = [axes.step(name, a, sigma) if axes else raw_step(animator.descriptors, name, a) for a in amounts]
    return Descriptors(*(torch.stack(parts) for parts in zip(*steps, strict=True)))


def _check(output: str, steps: int | None, size: int | None, fps: float) -> tuple[Path, int]:
    """Refuse what cannot work before any work is done; return the output and the number of steps."""
    if size is not None:
        require_positive("size", size, LARGEST)
    require_fps(fps)
    path = check_output(output, None)
    steps = (STRIP_STEPS if path.suffix.lower() == ".png" else VIDEO_STEPS) if steps is None else steps
    if steps < 2:
        raise ConfigError(f"steps: {steps} is not possible; give at least 2, one for either end")
    return path, steps


def _read_state(animator: FaceAnimator, path: str, rule: CropRule) -> SourceState:
    device = next(animator.parameters()).device
    picture = as_float(read_source(path, animator.resolution, rule), device)
    with torch.no_grad():
        return animator.source_state(picture[None])


def _render(animator: FaceAnimator, state: SourceState, faces: Descriptors, batch_size: int = 16) -> list[Tensor]:
    with torch.no_grad():
        parts = [
            render(animator, state, Descriptors(identity, motion)).image
            for identity, motion in zip(*(part.split(batch_size) for part in faces), strict=True)
        ]
    return list(torch.cat(parts).float().clamp(0.0, 1.0))


def _cell(animator: FaceAnimator) -> int:
    return animator.resolution * -(-LEAST_CELL // animator.resolution)


def _write_there_and_back(path: Path, frames: Sequence[np.ndarray], fps: float) -> None:
    with open_output(path, fps, None) as writer:
        for frame in (*frames, *frames[-2:0:-1]):
            writer.write(frame)
