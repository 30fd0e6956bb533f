"""Self- and cross-reenactment over many clips, measured pair by pair.

Legend: ``G`` pairs of one batch, ``K`` driving frames of each, ``R`` resolution, ``F`` frames of all pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor
from tqdm import tqdm

from sfdkit.evaluate.samples import Frames, Pair, load_frames, render_truth, true_landmarks
from sfdkit.face_networks.types import FaceMeasurer, Measured
from sfdkit.metrics.exact import exact
from sfdkit.metrics.faces import (
    correlation,
    csim,
    identity_distance,
    landmark_error,
    reading_columns,
    reading_errors,
)
from sfdkit.metrics.image import LEAST_MS_SSIM, frame_l1, frame_ms_ssim, frame_psnr, frame_ssim
from sfdkit.model.animator import FaceAnimator
from sfdkit.puppets.factors import MotionFactors
from sfdkit.puppets.landmarks import LANDMARKS
from sfdkit.ranks import ranks
from sfdkit.types import Generated

_PIECE = 64
"""Driving frames of a pair that are in memory at a time."""
READABLE = 0.5
"""Correlation with the factor from which on a network is said to read it."""


class Gauges(NamedTuple):
    """What measures pictures besides L1, PSNR and SSIM; None for what is not at hand."""

    measurer: FaceMeasurer | None = None
    """Reads faces, on the device of the pictures."""
    lpips: Callable[[Tensor, Tensor], Tensor] | None = None
    """Perceptual distance of pictures F 3 R R from others, in [0, 1]: F values."""


class Scored(NamedTuple):
    """One pair in figures: a row of pairs.csv."""

    pair: Pair
    values: dict[str, float]
    """Means over the driving frames, by the names that :mod:`sfdkit.evaluate.rows` explains."""


class Follow(NamedTuple):
    """One factor, read in every frame of all pairs; F values each."""

    result: Tensor
    truth: Tensor
    still: Tensor
    """In the unchanged source."""
    known: Tensor
    """What the factor is in the answer, of puppets; elsewhere NaN."""

    def read_well(self) -> float | None:
        """Return how what is read in the answer correlates with what the factor is; None where that is not known."""
        return correlation(self.truth, self.known)

    def scores(self) -> tuple[float | None, float | None]:
        """Return how the result's reading correlates with the truth's, and how the unchanged source's does."""
        return correlation(self.result, self.truth), correlation(self.still, self.truth)


class Scores(NamedTuple):
    """What a run over many pairs measured."""

    rows: list[Scored]
    follow: dict[str, Follow]
    """By factor; empty without a measurer that reads pose or expression."""


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
        offset = 0.0 if frames.start is None else state.descriptors.motion - animator.motion(frames.start)
        for driving in frames.driving.split(max(1, batch_size // count), dim=1):
            width = driving.shape[1]
            motion = animator.motion(driving.flatten(0, 1)).unflatten(0, (count, width))
            if isinstance(offset, Tensor):
                motion = motion + offset[:, None]
            made = animator.generate(state.expand(width), motion.flatten(0, 1))
            parts.append([t.float().unflatten(0, (count, width)) for t in made])
    image, *rest = (torch.cat(column, dim=1).flatten(0, 1) for column in zip(*parts, strict=True))
    return Generated(image.clamp(0.0, 1.0), *rest)


Sink = Callable[[Pair, Tensor, Tensor, Tensor | None], None]
"""Takes a pair, its results, driving frames and true pictures (K 3 R R each; None where they are not known)."""


def reenact(
    animator: FaceAnimator,
    pairs: Sequence[Pair],
    batch_size: int,
    gauges: Gauges,
    what: str,
    sink: Sink | None = None,
) -> Scores:
    """Drive the source of each pair by its driver and measure every result.

    The answer is the driving frame where both are the same clip, the rendered truth where both are puppets; elsewhere
    there is none, and the driving frame stands in for it for pose and expression, which are the driver's.

    Args:
        animator: In eval mode.
        pairs: Self- or cross-reenactment.
        batch_size: Driven frames per step.
        gauges: What measures besides the distances of pixels.
        what: Names the progress bar.
        sink: Takes the pictures of each pair, for example to keep them.

    Under ``torchrun`` each process measures its share of the pairs, hands those alone to its sink, and returns all.
    """
    where = ranks()
    batches = _batches(pairs, batch_size)
    made: dict[int, _Batch] = {}
    with tqdm(total=len(pairs), desc=what, unit="clip", disable=not where.leads) as bar:
        for number, part in enumerate(batches):
            if where.mine(number):
                made[number] = _measure_long(animator, part, batch_size, gauges, sink)
            bar.update(len(part))
    rows: list[Scored] = []
    followed: dict[str, list[tuple[Tensor, ...]]] = {}
    for part, measured in zip(batches, where.gather(made), strict=True):
        rows += [Scored(pair, _row(measured.values, at)) for at, pair in enumerate(part)]
        for name, columns in measured.follow.items():
            followed.setdefault(name, []).append(columns)
    return Scores(rows, {name: Follow(*map(torch.cat, zip(*p, strict=True))) for name, p in followed.items()})


class _Batch(NamedTuple):
    """What was measured in G pairs."""

    values: dict[str, Tensor]
    """G K each."""
    follow: dict[str, tuple[Tensor, ...]]
    """By factor the columns of :class:`Follow`, G * K each, on the CPU."""


class _Answer(NamedTuple):
    """What should have come out for G pairs."""

    image: Tensor | None
    """G * K 3 R R; None where it is not known."""
    mask: Tensor | None
    """G * K 1 R R: the face; None where it is not known."""


def _answer(part: Sequence[Pair], driving: Tensor) -> _Answer:
    own = part[0].source is part[0].driver
    if not part[0].has_truth:
        return _Answer(driving if own else None, None)
    image, mask = (t.flatten(0, 1) for t in render_truth(part, driving.device))
    return _Answer(driving if own else image, mask)


def _measure_long(
    animator: FaceAnimator, part: Sequence[Pair], batch_size: int, gauges: Gauges, sink: Sink | None
) -> _Batch:
    """Measure pairs piece by piece, so that long videos need no more memory than short ones, unless they are kept."""
    frames = len(part[0].driver.chosen) - 1
    if frames <= max(batch_size, _PIECE):
        pieces = [part]
    else:
        spans = [range(at, min(at + _PIECE, frames)) for at in range(0, frames, _PIECE)]
        pieces = [[pair.part(span) for pair in part] for span in spans]
    batches: list[_Batch] = []
    seen: list[_Seen] = []
    for piece in pieces:
        batch, pictures = _measure(animator, piece, batch_size, gauges)
        batches.append(batch)
        if sink is not None:
            seen.append(tuple(None if p is None else p.cpu() for p in pictures))  # type: ignore[arg-type]
    if sink is not None:
        shown = [None if column[0] is None else torch.cat(column, 1) for column in zip(*seen, strict=True)]  # type: ignore[arg-type]
        for at, pair in enumerate(part):
            result, driving, truth = (None if s is None else s[at] for s in shown)
            assert result is not None and driving is not None
            sink(pair, result, driving, truth)
    values = {name: torch.cat([batch.values[name] for batch in batches], 1) for name in batches[0].values}
    follow = {
        name: tuple(torch.cat(column) for column in zip(*(batch.follow[name] for batch in batches), strict=True))
        for name in batches[0].follow
    }
    return _Batch(values, follow)


_Seen: TypeAlias = tuple[Tensor, Tensor, Tensor | None]


def _measure(animator: FaceAnimator, part: Sequence[Pair], batch_size: int, gauges: Gauges) -> tuple[_Batch, _Seen]:
    """Measure G pairs; also return their results, driving frames and true pictures, G K 3 R R."""
    frames = load_frames(part, next(animator.parameters()).device)
    driving = frames.driving.flatten(0, 1)
    still = frames.source.repeat_interleave(frames.driving.shape[1], 0)
    answer = _answer(part, driving)
    result = drive(animator, frames, batch_size).image
    values: dict[str, Tensor] = {}
    follow: dict[str, tuple[Tensor, ...]] = {}
    if answer.image is not None:
        for prefix, picture in (("", result), ("copy_", still)):
            values |= _distances(prefix, picture, answer.image, answer.mask)
            if gauges.lpips is not None:
                values[f"{prefix}lpips"] = gauges.lpips(picture, answer.image)
    if gauges.measurer is not None:
        read = _read(gauges.measurer, frames, result, driving, answer)
        values |= _read_values(read, gauges.measurer.expression_names, part)
        follow = _followed(read, gauges.measurer.expression_names, part)
    shape = frames.driving.shape[:2]
    truth = None if answer.image is None else answer.image.unflatten(0, shape)
    seen = (result.unflatten(0, shape), frames.driving, truth)
    return _Batch({name: v.unflatten(0, shape).cpu() for name, v in values.items()}, follow), seen


def _distances(prefix: str, image: Tensor, truth: Tensor, mask: Tensor | None) -> dict[str, Tensor]:
    """Return L1, PSNR and SSIM of F pictures, and the same inside the face where it is known."""
    measures = {"l1": frame_l1, "psnr": frame_psnr, "ssim": frame_ssim}
    values = {f"{prefix}{name}": measure(image, truth) for name, measure in measures.items()}
    if min(image.shape[2:]) >= LEAST_MS_SSIM:
        values[f"{prefix}ms_ssim"] = frame_ms_ssim(image, truth)
    if mask is not None:
        values |= {f"{prefix}face_{name}": measure(image, truth, mask) for name, measure in measures.items()}
    return values


class _Read(NamedTuple):
    """What was read in F pictures of each kind."""

    result: Measured
    truth: Measured | None
    """None where there is no answer."""
    driving: Measured
    still: Measured

    @property
    def own(self) -> bool:
        """Whether the driving frames are the answer."""
        return self.truth is self.driving


def _read(measurer: FaceMeasurer, frames: Frames, result: Tensor, driving: Tensor, answer: _Answer) -> _Read:
    with torch.no_grad():
        moved = measurer.measure(driving)
        truth = moved if answer.image is driving else None
        if truth is None and answer.image is not None:
            truth = measurer.measure(answer.image)
        once = measurer.measure(frames.source)
        times = frames.driving.shape[1]
        still = Measured(*(None if t is None else t.repeat_interleave(times, 0) for t in once))
        return _Read(measurer.measure(result), truth, moved, still)


def _read_values(read: _Read, names: Sequence[str], part: Sequence[Pair]) -> dict[str, Tensor]:
    reference = read.truth or read.driving._replace(landmarks=None)  # the driver's face has another shape
    values = reading_errors(read.result, reference, names)
    values |= {f"copy_{name}": v for name, v in reading_errors(read.still, reference, names).items()}
    if read.own and part[0].has_truth:
        values |= {f"floor_{name}": v for name, v in _floor(read.driving, names, part).items()}
    values |= _identity(read)
    if values:
        values["unread"] = torch.stack([~v.isfinite() for v in values.values()]).any(0).float()
    return values


def _floor(truth: Measured, names: Sequence[str], part: Sequence[Pair]) -> dict[str, Tensor]:
    """Return the errors of the measurer itself: what it reads in the true pictures against the known factors."""
    motion = MotionFactors.concat([pair.driver.factors()[1] for pair in part])
    known = Measured()
    if truth.pose is not None:
        known = known._replace(pose=torch.stack([motion.yaw, motion.pitch, motion.roll], 1).to(truth.pose.device))
    if truth.expression is not None and set(names) <= set(motion.names()):
        columns = [getattr(motion, name) for name in names]
        known = known._replace(expression=torch.stack(columns, 1).to(truth.expression.device))
    errors = reading_errors(truth, known, names)
    if truth.landmarks is not None and truth.landmarks.shape[1] == len(LANDMARKS):
        points = true_landmarks(part, truth.landmarks.device).flatten(0, 1)
        errors["landmark_error"] = landmark_error(truth.landmarks, points)
    return errors


def _identity(read: _Read) -> dict[str, Tensor]:
    """Return how much results look like the person they should show, and like the one who drives."""
    if any(measured.embedding is None for measured in (read.result, read.driving, read.still)):
        return {}
    result, driving, still = (m.embedding for m in (read.result, read.driving, read.still))
    assert result is not None and driving is not None and still is not None
    if read.own:
        values = {"csim": csim(result, driving), "copy_csim": csim(still, driving)}
        return values | {"aed": identity_distance(result, driving), "copy_aed": identity_distance(still, driving)}
    values = {"csim_source": csim(result, still), "csim_driver": csim(result, driving)}
    values["csim_gap"] = values["csim_source"] - values["csim_driver"]
    values["copy_csim_driver"] = csim(still, driving)
    gap = 1.0 - values["copy_csim_driver"]
    if read.truth is not None and read.truth.embedding is not None:
        values["truth_csim_source"] = csim(read.truth.embedding, still)
        values["truth_csim_driver"] = csim(read.truth.embedding, driving)
        values["truth_csim_gap"] = gap = values["truth_csim_source"] - values["truth_csim_driver"]
    values["leakage"] = gap - values["csim_gap"]
    return values


def _followed(read: _Read, names: Sequence[str], part: Sequence[Pair]) -> dict[str, tuple[Tensor, ...]]:
    result, truth, still = (reading_columns(m, names) for m in (read.result, read.truth or read.driving, read.still))
    columns = {name: (result[name].cpu(), truth[name].cpu(), still[name].cpu()) for name in truth}
    unknown = {name: torch.full_like(column[1], float("nan")) for name, column in columns.items()}
    known: dict[str, Tensor] = unknown
    if part[0].has_truth:
        motion = MotionFactors.concat([pair.driver.factors()[1] for pair in part])
        known = {name: getattr(motion, name, unknown[name]) for name in columns}
    return {name: (*column, known[name]) for name, column in columns.items()}


def _row(values: Mapping[str, Tensor], at: int) -> dict[str, float]:
    """Return the means over the frames of one pair.

    Frames in which something could not be read are left out of what was read, and a value without any frame is left
    out; a distance of pixels that is not finite stays, as it says that the model has diverged.
    """
    row = {}
    for name, columns in values.items():
        frames = exact(columns[at])
        if not name.endswith(_PIXELS):
            frames = frames[frames.isfinite()]
            if not len(frames):
                continue
        row[name] = float(frames.mean())
    return row


_PIXELS = ("l1", "psnr", "ssim", "lpips")  # and ms_ssim


def _batches(pairs: Sequence[Pair], batch_size: int) -> list[Sequence[Pair]]:
    """Return groups of pairs whose driven frames make about one batch, and that are of one kind.

    Pairs of a group have the same number of frames, all a rendered truth or none, and are all absolute or none.
    """
    kinds: dict[tuple[bool, bool, bool, int], list[Pair]] = {}
    for pair in pairs:
        kind = (not pair.has_truth, pair.start is not None, pair.source is pair.driver, len(pair.driver.chosen))
        kinds.setdefault(kind, []).append(pair)
    batches: list[Sequence[Pair]] = []
    for kind in sorted(kinds):
        step = max(1, batch_size // (kind[-1] - 1))
        batches += [kinds[kind][at : at + step] for at in range(0, len(kinds[kind]), step)]
    return batches
