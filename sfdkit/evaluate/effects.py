"""What each motion vector does to pictures: the factors that a network reads in results when one coefficient changes.

A coefficient that follows a factor in what the encoder reads need not move that factor in what the generator draws:
several may repeat each other, and the generator may listen to one of them alone. Hence both are measured.

Legend: ``F`` frames, ``G`` faces, ``M`` motion coefficients, ``Q`` factors, ``P`` numbers that the network reads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from sfdkit.evaluate.describe import Codes, Truth
from sfdkit.evaluate.reenact import READABLE
from sfdkit.evaluate.samples import Pair, Sample, frame_batches, load_frames
from sfdkit.face_networks.types import FaceMeasurer, Measured
from sfdkit.metrics.dci import HALF
from sfdkit.metrics.exact import exact
from sfdkit.metrics.faces import reading_columns
from sfdkit.metrics.probes import grouped_folds, is_constant, ridge
from sfdkit.model.animator import FaceAnimator

FACES = 16
"""The most faces on which vectors are tried."""


class Effect(NamedTuple):
    """What one motion vector moves."""

    coefficient: int
    """Which one."""
    factor: str | None
    """The factor that it moves most; None where it moves none."""
    moves: float
    """By how much: standard deviations of the factor over the frames, per standard deviation of the coefficient."""
    share: float
    """Share of this factor in the squares of all that the vector moves."""
    part: float
    """Share of this vector in the squares of what all vectors move of the factor."""
    own: bool
    """Whether ``share`` and ``part`` are both more than half: the vector is the factor's own."""


class Effects(NamedTuple):
    """What was measured of all motion vectors."""

    vectors: list[Effect]
    """M, in the order of the coefficients."""
    factors: dict[str, float]
    """Factors that could be read, with the R2 of the reading; 1 where nothing says how good it is."""
    unread: dict[str, float]
    """Factors left out, with the R2 of their reading."""

    def metrics(self) -> dict[str, float | int | str]:
        """Return what metrics.json holds."""
        found: dict[str, float | int | str] = {
            "effect/own_vectors": sum(vector.own for vector in self.vectors),
            "effect/factors": len(self.factors),
        }
        if self.unread:
            found["effect/unread"] = ", ".join(self.unread)
        for vector in self.vectors:
            if vector.own:
                found[f"effect/{vector.factor}/vector"] = vector.coefficient
                found[f"effect/{vector.factor}/moves"] = vector.moves
        return found


class _Reader(NamedTuple):
    """Turns what the network reads into factors."""

    measurer: FaceMeasurer
    weights: Tensor
    """P Q: change of each factor per unit of each number that the network reads."""
    spread: Tensor
    """Q: standard deviation of each factor over the frames."""
    r2: dict[str, float]
    """Q factors."""
    unread: dict[str, float]
    landmarks: bool
    """Whether the numbers hold the landmarks."""

    def numbers(self, images: Tensor) -> Tensor:
        """Return what the network reads in pictures F 3 R R: F P."""
        return _table(_numbers(self.measurer.measure(images), self.measurer.expression_names, self.landmarks))


def measure_effects(
    animator: FaceAnimator,
    samples: Sequence[Sample],
    codes: Codes,
    truth: Truth | None,
    measurer: FaceMeasurer,
    batch_size: int,
) -> Effects | None:
    """Change each motion coefficient of some faces by one standard deviation up and down, and read the results.

    Known factors are read by ridge regression of each factor on all that the network reads in the frames; those whose
    R2 in people outside the fit is below :data:`sfdkit.evaluate.reenact.READABLE` are left out. Without known factors
    the network's own pose and expression are the factors.

    Args:
        animator: In eval mode.
        samples: The clips; the source frames of the first :data:`FACES` are the faces.
        codes: Of all frames.
        truth: Of the same frames; None where nothing is known.
        measurer: Reads faces.
        batch_size: Pictures per step.

    Returns:
        None where no factor can be read.
    """
    device = next(animator.parameters()).device
    reader = _fit_reader(measurer, samples, codes, truth, batch_size, device)
    if reader is None:
        return None
    sigma = codes.motion.std(0, correction=0) * codes.spoken()
    moved = torch.zeros(len(sigma), len(reader.r2))
    still = load_frames([Pair(sample, sample) for sample in samples[:FACES]], device).source
    with torch.no_grad():
        state = animator.source_state(still)
        for index in tqdm(sigma.nonzero().flatten().tolist(), desc="effects", unit="vector"):
            ends = []
            for way in (1.0, -1.0):
                motion = state.descriptors.motion.clone()
                motion[:, index] += way * float(sigma[index])
                some = torch.arange(len(motion), device=device).split(batch_size)
                images = [animator.generate(state.rows(rows), motion[rows]).image for rows in some]
                ends.append(reader.numbers(torch.cat(images).float().clamp(0.0, 1.0)))
            change = (ends[0] - ends[1]) / 2 @ reader.weights
            moved[index] = (change / reader.spread).nanmean(0).nan_to_num()
    return Effects(judge_effects(moved, list(reader.r2)), reader.r2, reader.unread)


def _fit_reader(
    measurer: FaceMeasurer,
    samples: Sequence[Sample],
    codes: Codes,
    truth: Truth | None,
    batch_size: int,
    device: torch.device,
) -> _Reader | None:
    landmarks = truth is not None
    parts = []
    for images in frame_batches(samples, batch_size, device):
        parts.append(_numbers(measurer.measure(images), measurer.expression_names, landmarks))
    if not parts[0]:
        return None
    names, table = list(parts[0]), torch.cat([_table(part) for part in parts])
    good = table.isfinite().all(1)
    if not good.any():
        return None
    table = table[good]
    if truth is None:
        factors = {name: table[:, k] for k, name in enumerate(names) if not is_constant(table[:, k])}
        r2, weights = dict.fromkeys(factors, 1.0), torch.eye(len(names))[:, [names.index(name) for name in factors]]
    else:
        factors = {name: values[good] for name, values in truth.motion.items() if not is_constant(values[good])}
        folds = grouped_folds([who for who, ok in zip(codes.people, good.tolist(), strict=True) if ok])
        fit = ridge(table, torch.stack(list(factors.values()), 1), folds)
        r2, weights = dict(zip(factors, fit.r2.tolist(), strict=True)), fit.weights.float()
    kept = [k for k, name in enumerate(factors) if r2[name] >= READABLE]
    if not kept:
        return None
    spread = _table(factors).std(0, correction=0)[kept]
    known = {name: r2[name] for k, name in enumerate(factors) if k in kept}
    return _Reader(measurer, weights[:, kept], spread, known, {n: r2[n] for n in r2 if n not in known}, landmarks)


def judge_effects(moved: Tensor, names: Sequence[str]) -> list[Effect]:
    """Say what each vector moves.

    Args:
        moved: M Q, standard deviations of each factor per standard deviation of each coefficient.
        names: Q.
    """
    squares = exact(moved).square()
    rows, columns = squares.sum(1), squares.sum(0)
    effects = []
    for index, row in enumerate(squares):
        at = int(row.argmax())
        if not rows[index] > 0:
            effects.append(Effect(index, None, 0.0, 0.0, 0.0, False))
            continue
        share, part = float(row[at] / rows[index]), float(row[at] / columns[at])
        effects.append(
            Effect(index, names[at], abs(float(moved[index, at])), share, part, share > HALF and part > HALF)
        )
    return effects


def _numbers(read: Measured, names: Sequence[str], with_landmarks: bool) -> Mapping[str, Tensor]:
    """Return all that was read of motion, on the CPU, name to F values."""
    columns = reading_columns(read, names)
    if with_landmarks and read.landmarks is not None:
        flat = read.landmarks.flatten(1)
        columns |= {f"landmark {k}": flat[:, k] for k in range(flat.shape[1])}
    return {name: values.float().cpu() for name, values in columns.items()}


def _table(columns: Mapping[str, Tensor]) -> Tensor:
    return torch.stack([values.float() for values in columns.values()], 1)
