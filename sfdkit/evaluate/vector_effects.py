"""What each motion vector moves in pictures: factors that a network reads in results when one coefficient changes.

A coefficient that follows a factor in what the encoder reads need not move that factor in what the generator draws:
several may repeat each other, and the generator may listen to one of them alone. Hence both are measured.

Legend: ``F`` frames, ``M`` motion coefficients, ``Q`` factors, ``P`` numbers that the network reads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from sfdkit.evaluate.frames import frame_batches, load_frames
from sfdkit.evaluate.networks import READABLE
from sfdkit.evaluate.probes import Codes, Truth
from sfdkit.evaluate.samples import Pair, Sample
from sfdkit.face_networks.types import FaceMeasurer
from sfdkit.metrics.dci import HALF
from sfdkit.metrics.exact import exact
from sfdkit.metrics.faces import reading_columns
from sfdkit.metrics.probes import grouped_folds, ridge, varying
from sfdkit.model.animator import FaceAnimator

FACES = 16
"""The most faces on which vectors are tried."""


class Effect(NamedTuple):
    """What one motion vector moves."""

    coefficient: int
    """Its number."""
    factor: str | None
    """The factor that it moves most; None where it moves none."""
    moves: float
    """By how much: standard deviations of the factor over the frames, per standard deviation of the coefficient."""
    purity: float
    """Share of this factor in the squares of all that the vector moves."""
    fraction_of_factor: float
    """Share of this vector in the squares of what all vectors move of the factor."""
    exclusive: bool
    """Whether ``purity`` and ``fraction_of_factor`` are both more than half: the vector is the factor's own."""


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
        exclusive = [vector for vector in self.vectors if vector.exclusive]
        found: dict[str, float | int | str] = {
            "effect/own_vectors": len(exclusive),
            "effect/factors": len(self.factors),
        }
        if self.unread:
            found["effect/unread"] = ", ".join(self.unread)
        found |= {f"effect/{vector.factor}/vector": vector.coefficient for vector in exclusive}
        return found | {f"effect/{vector.factor}/moves": vector.moves for vector in exclusive}


class _Reader(NamedTuple):
    """Turns what the network reads into factors."""

    landmarks: bool
    """Whether landmarks are among the numbers."""
    weights: Tensor
    """P Q: change of each factor per unit of each number that the network reads."""
    spread: Tensor
    """Q: standard deviation of each factor over the frames."""
    r2: dict[str, float]
    """Q factors."""
    unread: dict[str, float]


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
    R2 in people outside the fit is below :data:`sfdkit.evaluate.networks.READABLE` are left out. Without known factors
    the network's own pose and expression are the factors. The faces are the source frames of the first :data:`FACES`
    samples.

    Returns:
        None where no factor can be read.
    """
    device = next(animator.parameters()).device
    reader = _fit_reader(measurer, samples, codes, truth, batch_size, device)
    if reader is None:
        return None
    sigma = codes.motion.std(0, correction=0) * codes.active()
    moved = torch.zeros(len(sigma), len(reader.r2))
    source = load_frames([Pair(sample, sample) for sample in samples[:FACES]], device).source
    with torch.no_grad():
        state = animator.source_state(source)
        parts = torch.arange(len(source), device=device).split(batch_size)
        for index in tqdm(sigma.nonzero().flatten().tolist(), desc="effects", unit="vector"):
            ends = []
            for way in (1.0, -1.0):
                motion = state.descriptors.motion.clone()
                motion[:, index] += way * float(sigma[index])
                image = torch.cat([animator.generate(state.rows(some), motion[some]).image for some in parts])
                ends.append(_table(_numbers(measurer, image.float().clamp(0.0, 1.0), reader.landmarks)))
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
    parts = [_numbers(measurer, images, landmarks) for images in frame_batches(samples, batch_size, device)]
    if not parts[0]:
        return None
    names, table = list(parts[0]), torch.cat([_table(part) for part in parts])
    good = table.isfinite().all(1)
    if not good.any():
        return None
    table = table[good]
    columns = truth.motion if truth else dict(zip(names, table.unbind(1), strict=True))
    factors = {name: c[good] if truth else c for name, c in columns.items()}
    factors = varying(factors)
    if truth is None:
        r2, weights = dict.fromkeys(factors, 1.0), torch.eye(len(names))[:, [names.index(name) for name in factors]]
    else:
        folds = grouped_folds([who for who, ok in zip(codes.people, good.tolist(), strict=True) if ok])
        fit = ridge(table, torch.stack(list(factors.values()), 1), folds)
        r2, weights = dict(zip(factors, fit.r2.tolist(), strict=True)), fit.weights.float()
    kept = [k for k, name in enumerate(factors) if r2[name] >= READABLE]
    if not kept:
        return None
    known = {name: value for name, value in r2.items() if value >= READABLE}
    unread = {name: value for name, value in r2.items() if name not in known}
    spread = _table(factors).std(0, correction=0)[kept]
    return _Reader(landmarks, weights[:, kept], spread, known, unread)


def judge_effects(moved: Tensor, names: Sequence[str]) -> list[Effect]:
    """Return what each vector moves, from M Q standard deviations of Q factors per one of each coefficient."""
    squares = exact(moved).square()
    rows, columns = squares.sum(1), squares.sum(0)
    effects = []
    for index, row in enumerate(squares):
        at = int(row.argmax())
        if not rows[index] > 0:
            effects.append(Effect(index, None, 0.0, 0.0, 0.0, False))
            continue
        purity, fraction = float(row[at] / rows[index]), float(row[at] / columns[at])
        exclusive = purity > HALF and fraction > HALF
        effects.append(Effect(index, names[at], abs(float(moved[index, at])), purity, fraction, exclusive))
    return effects


def _numbers(measurer: FaceMeasurer, images: Tensor, landmarks: bool) -> dict[str, Tensor]:
    """Return what a network reads of motion in pictures F 3 R R, on the CPU: name to F values."""
    read = measurer.measure(images)
    columns = reading_columns(read, measurer.expression_names)
    if landmarks and read.landmarks is not None:
        columns |= {f"landmark {k}": values for k, values in enumerate(read.landmarks.flatten(1).unbind(1))}
    return {name: values.float().cpu() for name, values in columns.items()}


def _table(columns: Mapping[str, Tensor]) -> Tensor:
    return torch.stack([values.float() for values in columns.values()], 1)
