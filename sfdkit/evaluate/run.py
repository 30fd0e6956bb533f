"""Step 2 of an evaluation: drive the source of each pair, and measure every result.

Legend: ``G`` pairs of one batch, ``K`` driving frames of each, ``R`` resolution, ``F`` frames of all pairs.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor
from tqdm import tqdm

from sfdkit.evaluate.distances import distances, flow_errors, true_frames
from sfdkit.evaluate.frames import Frames, Pictures, load_frames
from sfdkit.evaluate.networks import Networks
from sfdkit.evaluate.plan import Plan
from sfdkit.evaluate.readings import follow_columns, read_faces, reading_values
from sfdkit.evaluate.result_files import Keep, ResultFiles
from sfdkit.evaluate.samples import Pair
from sfdkit.evaluate.temporal import temporal_values
from sfdkit.metrics.exact import exact
from sfdkit.metrics.faces import correlation
from sfdkit.metrics.features import SetDistances
from sfdkit.model.animator import FaceAnimator
from sfdkit.ranks import ranks
from sfdkit.types import Generated

_PIECE = 64
"""The most driving frames of a long pair that are in memory at a time."""
_PIXELS = ("l1", "psnr", "ssim", "lpips")
"""Ends of the names of distances of pixels."""

Sink: TypeAlias = Callable[[Pair, Pictures], None]
"""Takes what was made of a pair, for example to keep it."""
_Values: TypeAlias = dict[str, Tensor]
"""Name to G K values, or G K 4 columns, on the CPU."""


class Row(NamedTuple):
    """One pair in figures: a row of pairs.csv."""

    pair: Pair
    values: dict[str, float]
    """Means over the driving frames, and of real faces correlations over them, as ``docs/evaluate.md`` explains."""


class Follow(NamedTuple):
    """One factor, read in every frame of all pairs; F values each."""

    result: Tensor
    truth: Tensor
    unchanged: Tensor
    """In the unchanged source."""
    known: Tensor
    """What the factor is in the true result, of puppets; elsewhere NaN."""

    def read_well(self) -> float | None:
        """Return how what is read in the truth correlates with what the factor is; None where that is not known."""
        return correlation(self.truth, self.known)

    def scores(self) -> tuple[float | None, float | None]:
        """Return how the result's reading correlates with the truth's, and how the unchanged source's does."""
        return correlation(self.result, self.truth), correlation(self.unchanged, self.truth)


class Scores(NamedTuple):
    """What was measured in the pairs of one kind."""

    rows: list[Row]
    follow: dict[str, Follow]
    """By factor; empty without a network that reads pose or expression."""
    sets: Mapping[str, float]
    """Distances between the set of results and the set of what they should be: ``fid``, ``kid``, ``fid_frames``."""


class Run(NamedTuple):
    """What was measured in all pairs."""

    self_pairs: Scores
    cross_pairs: Scores


def run_plan(
    animator: FaceAnimator, plan: Plan, networks: Networks, batch_size: int, folder: Path, keep: Keep | None
) -> Run:
    """Run all pairs of a plan, ``batch_size`` driven frames per step, and keep results in ``folder`` if asked to.

    The animator is in eval mode; ``networks`` measure besides the distances of pixels.
    """
    scores = []
    for kind, pairs in (("self", plan.self_pairs), ("cross", plan.cross_pairs)):
        sinks: list[Sink] = [] if keep is None else [ResultFiles(folder, keep, kind, pairs).write]
        sets = None
        if networks.features is not None:
            sets = SetDistances(networks.features, next(animator.parameters()).device)
            sinks.append(lambda _, pictures, sets=sets: sets.add(pictures.result, pictures.wanted))  # type: ignore[misc]
        measured = reenact(animator, pairs, batch_size, networks, kind, sinks)
        scores.append(measured if sets is None else measured._replace(sets=sets.compute()))
    return Run(*scores)


def reenact(
    animator: FaceAnimator,
    pairs: Sequence[Pair],
    batch_size: int,
    networks: Networks,
    what: str,
    sinks: Sequence[Sink] = (),
) -> Scores:
    """Drive the source of each pair by its driver and measure every result.

    The truth is the driving frame where both are the same clip, and is rendered where both are puppets; elsewhere it is
    not known, and pose and expression are compared with the driver's. Under ``torchrun`` each process measures its
    share of the pairs, hands those alone to its sinks, and returns all. ``what`` names the progress bar.
    """
    where = ranks()
    batches = _batches(pairs, batch_size)
    mine: dict[int, tuple[_Values, _Values]] = {}
    with tqdm(total=len(pairs), desc=what, unit="clip", disable=not where.leads) as bar:
        for number, batch in enumerate(batches):
            if where.mine(number):
                mine[number] = _measure_batch(animator, batch, batch_size, networks, sinks)
            bar.update(len(batch))
    rows: list[Row] = []
    follow: dict[str, list[Tensor]] = defaultdict(list)
    for batch, (values, columns) in zip(batches, where.gather(mine), strict=True):
        for at, pair in enumerate(batch):
            row = _means({name: v[at] for name, v in values.items()})
            # puppets have known factors, and are followed over all frames
            over_time = {} if pair.has_truth else temporal_values({name: c[at] for name, c in columns.items()})
            rows.append(Row(pair, row | over_time))
        for name, column in columns.items():
            follow[name].append(column.flatten(0, 1))
    return Scores(rows, {name: Follow(*torch.cat(parts).unbind(1)) for name, parts in follow.items()}, {})


def drive(animator: FaceAnimator, frames: Frames, batch_size: int) -> Generated:
    """Drive each of G sources with each of its K driving frames; a source is encoded once.

    A step drives at most ``batch_size`` frames, but at least one of each source.

    Returns:
        G * K rows, those of one source side by side; the image clamped to [0, 1].
    """
    count = len(frames.source)
    parts: list[list[Tensor]] = []
    with torch.no_grad():
        state = animator.source_state(frames.source)
        offset = None if frames.start is None else state.descriptors.motion - animator.motion(frames.start)
        for driving in frames.driving.split(max(1, batch_size // count), dim=1):
            width = driving.shape[1]
            motion = animator.motion(driving.flatten(0, 1))
            if offset is not None:
                motion = motion + offset.repeat_interleave(width, 0)
            made = animator.generate(state.expand(width), motion)
            parts.append([t.float().unflatten(0, (count, width)) for t in made])
    image, *rest = (torch.cat(column, dim=1).flatten(0, 1) for column in zip(*parts, strict=True))
    return Generated(image.clamp(0.0, 1.0), *rest)


def _batches(pairs: Sequence[Pair], batch_size: int) -> list[Sequence[Pair]]:
    """Group pairs so that their driven frames make about one batch.

    The pairs of a batch have equally many frames, all a rendered truth or none, and all absolute or relative motion.
    """
    kinds: dict[tuple[bool, bool, bool, int], list[Pair]] = defaultdict(list)
    for pair in pairs:
        kinds[not pair.has_truth, pair.start is not None, pair.is_self, pair.driver.driving_count].append(pair)
    batches: list[Sequence[Pair]] = []
    for kind in sorted(kinds):
        step = max(1, batch_size // kind[-1])
        batches += [kinds[kind][at : at + step] for at in range(0, len(kinds[kind]), step)]
    return batches


def _measure_batch(
    animator: FaceAnimator, batch: Sequence[Pair], batch_size: int, networks: Networks, sinks: Sequence[Sink]
) -> tuple[_Values, _Values]:
    """Measure G pairs, long ones piece by piece: they need no more memory than short ones, unless a sink wants them."""
    frames = batch[0].driver.driving_count
    step = frames if frames <= max(batch_size, _PIECE) else _PIECE
    measured: list[tuple[_Values, _Values]] = []
    seen: list[Pictures] = []
    for at in range(0, frames, step):
        piece = batch if step == frames else [pair.part(range(at, min(at + step, frames))) for pair in batch]
        values, columns, pictures = _measure(animator, piece, batch_size, networks)
        measured.append((values, columns))
        if sinks:
            seen.append(pictures.apply(Tensor.cpu))
    if sinks:
        whole = Pictures.join(seen)
        for number, pair in enumerate(batch):
            for sink in sinks:
                sink(pair, whole.apply(itemgetter(number)))
    values, columns = ({n: torch.cat([part[n] for part in p], 1) for n in p[0]} for p in zip(*measured, strict=True))
    return values, columns


def _measure(
    animator: FaceAnimator, pairs: Sequence[Pair], batch_size: int, networks: Networks
) -> tuple[_Values, _Values, Pictures]:
    """Return values and columns of readings of G pairs, and their pictures, G K 3 R R."""
    frames = load_frames(pairs, next(animator.parameters()).device)
    driving = frames.driving.flatten(0, 1)
    unchanged = frames.source.repeat_interleave(frames.driving.shape[1], 0)
    known = true_frames(pairs, driving)
    truth = None if known is None else known.image
    made = drive(animator, frames, batch_size)
    result = made.image
    values: _Values = {}
    columns: _Values = {}
    if known is not None:
        for prefix, picture in (("", result), ("copy_", unchanged)):
            values |= {prefix + name: v for name, v in distances(picture, known, networks.lpips).items()}
        if pairs[0].has_truth:
            values |= flow_errors(made.flow, pairs, known)
    if networks.measurer is not None:
        read = read_faces(networks.measurer, pairs, frames, result, truth)
        values |= reading_values(read)
        columns = follow_columns(read)
    shape = frames.driving.shape[:2]
    pictures = Pictures(result, driving, truth).apply(lambda flat: flat.unflatten(0, shape))
    values, columns = ({n: v.unflatten(0, shape).cpu() for n, v in t.items()} for t in (values, columns))
    return values, columns, pictures


def _means(values: Mapping[str, Tensor]) -> dict[str, float]:
    """Return the means over the frames of one pair.

    Frames in which something could not be read are left out of what was read, and a value without any frame is left
    out; a distance of pixels that is not finite stays, as it says that the model has diverged.
    """
    means = {}
    for name, column in values.items():
        frames = exact(column)
        if not name.endswith(_PIXELS):
            frames = frames[frames.isfinite()]
        if len(frames):
            means[name] = float(frames.mean())
    return means
