"""Probes: how well a linear map reads known factors out of a code, in faces of people it was not fitted on.

Legend: ``F`` frames, ``P`` numbers of a code, ``Q`` factors, ``S`` ridge strengths.

A high figure for ``motion from motion`` says that the code holds the factor; one for ``identity from motion`` says that
the person leaks into the motion code. Two things to know about the latter: light and background count as identity
here, as every clip has its own; and what a person wears in the picture (a wide face, say) moves the points of the
motion code a little, without any training for it. Frames of one person never stand on both sides of a split: with a
split by frame a probe would recognise the person and know the identity factors by heart.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import torch
from torch import Tensor

from sfdkit.metrics.exact import exact

FOLDS = 5
LEAST_IDENTITIES = 3
"""Below this there is nothing to choose the ridge strength on."""
STRENGTHS = tuple(10.0**power for power in range(-4, 3))
"""Ridge strengths to choose from, per frame and per feature of variance 1."""
_CONSTANT = 1e-7
"""Standard deviation, relative to the size of the values, below which a column counts as constant."""


class Ridge(NamedTuple):
    """A ridge regression that was measured in people outside the fit."""

    r2: Tensor
    """Q: 1 - squared error / squared deviation from the mean over all frames, each predicted by a fit without its
    person; at most 1, negative where the mean of the factor would have been the better answer."""
    weights: Tensor
    """P Q: change of the target per unit of the feature, from a fit on all frames with the strength chosen on them."""


class Probe(NamedTuple):
    """How well a code tells each factor."""

    r2: dict[str, float]
    """Factor to R2 out of fold, see :class:`Ridge`."""
    skipped: tuple[str, ...]
    """Factors that are constant in these frames."""

    @property
    def mean(self) -> float:
        """The mean over the factors; NaN when there is none."""
        return sum(self.r2.values()) / len(self.r2) if self.r2 else float("nan")


def probe(code: Tensor, factors: Mapping[str, Tensor], folds: Tensor) -> Probe:
    """Measure how well ridge regression reads each factor out of a code.

    Args:
        code: F P.
        factors: Name to F values; 0 and 1 for what is there or not.
        folds: F numbers of the fold of each frame, from :func:`grouped_folds`.
    """
    known = varying(factors)
    skipped = tuple(name for name in factors if name not in known)
    if not known:
        return Probe({}, skipped)
    r2 = ridge(code, torch.stack(list(known.values()), 1), folds).r2
    return Probe(dict(zip(known, r2.tolist(), strict=True)), skipped)


def grouped_folds(groups: Sequence[str], count: int = FOLDS, seed: int = 0) -> Tensor:
    """Deal frames out to folds of about the same size, all frames of a group to the same fold.

    Args:
        groups: The group of each frame: who it shows.
        count: Number of folds; fewer where there are fewer groups.
        seed: Shuffles the groups.

    Returns:
        F fold numbers, int64.
    """
    sizes = Counter(groups)
    names = sorted(sizes)
    random.Random(seed).shuffle(names)
    filled = [0] * min(count, len(names))
    fold_of: dict[str, int] = {}
    for name in sorted(names, key=lambda name: -sizes[name]):  # a stable sort: the shuffle decides between equals
        fold_of[name] = filled.index(min(filled))
        filled[fold_of[name]] += sizes[name]
    return torch.tensor([fold_of[group] for group in groups])


def ridge(features: Tensor, targets: Tensor, folds: Tensor) -> Ridge:
    """Fit targets by ridge regression and measure the fit out of fold, in closed form and float64.

    For each fold the strength is chosen among :data:`STRENGTHS`, for each target by itself, by the squared error in
    each of the other folds of a fit without both. Features are standardised over all frames, which uses no target;
    constant ones count as 0.

    Args:
        features: F P.
        targets: F Q, none constant.
        folds: F numbers of at least 3 folds.

    Raises:
        ValueError: Fewer than 3 folds.
    """
    count = int(folds.max()) + 1
    if count < LEAST_IDENTITIES:
        raise ValueError(f"ridge regression needs at least {LEAST_IDENTITIES} folds, got {count}")
    x, y = standardise(features), standardise(targets)
    turn = torch.eye(x.shape[1], dtype=x.dtype)
    if x.shape[1] > x.shape[0]:  # ridge regression does not see rotations: as many directions as frames are enough
        turn = torch.linalg.svd(x, full_matrices=False).Vh.T
        x = x @ turn

    def errors(*left_out: int) -> list[Tensor]:
        """Return the squared errors, S Q, in each of some folds of the fits without all of them."""
        weights, offset = _fit(*(t[torch.stack([folds != fold for fold in left_out]).all(0)] for t in (x, y)))
        return [(x[folds == f] @ weights + offset - y[folds == f]).square().sum(1) for f in left_out]

    outer = torch.stack([errors(fold)[0] for fold in range(count)])
    inner = torch.zeros_like(outer)
    for one, other in combinations(range(count), 2):
        in_one, in_other = errors(one, other)
        inner[one] += in_other
        inner[other] += in_one
    missed = outer.gather(1, inner.argmin(1, keepdim=True))[:, 0].sum(0)
    best = outer.sum(0).argmin(0)
    weights = turn @ _fit(x, y)[0][best, :, torch.arange(y.shape[1])].T
    scale = exact(targets).std(0, correction=0) / _spread(exact(features))[:, None]
    return Ridge(1.0 - missed / y.square().sum(0), weights * scale.where(scale.isfinite(), 0.0))


def _fit(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return weights S P Q and offsets S 1 Q, which are not shrunk, of one ridge fit per strength."""
    mean_x, mean_y = x.mean(0), y.mean(0)
    gram, cross = (x - mean_x).T @ (x - mean_x) / len(x), (x - mean_x).T @ (y - mean_y) / len(x)
    eye = torch.eye(len(gram), dtype=gram.dtype)
    weights = torch.stack([torch.cholesky_solve(cross, torch.linalg.cholesky(gram + s * eye)) for s in STRENGTHS])
    return weights, (mean_y - mean_x @ weights)[:, None]


def standardise(columns: Tensor) -> Tensor:
    """Return columns of mean 0 and variance 1 in float64 on the CPU; constant columns become 0."""
    values = exact(columns)
    return (values - values.mean(0)) / _spread(values)


def is_constant(values: Tensor) -> bool:
    """Return whether F values are equal, up to rounding."""
    return bool(_spread(exact(values)[:, None]).isinf())


def _spread(values: Tensor) -> Tensor:
    """Return the standard deviation of each column; infinite for constant ones, so that dividing gives 0."""
    spread = values.std(0, correction=0)
    return spread.where(spread > _CONSTANT * values.abs().amax(0).clamp(min=_CONSTANT), float("inf"))


def varying(columns: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return those of named columns of F values that are not constant."""
    return {name: values for name, values in columns.items() if not is_constant(values)}
