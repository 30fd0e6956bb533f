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
    varying = {name: exact(values) for name, values in factors.items() if not is_constant(values)}
    skipped = tuple(name for name in factors if name not in varying)
    if not varying:
        return Probe({}, skipped)
    r2 = ridge(code, torch.stack(list(varying.values()), 1), folds).r2
    return Probe(dict(zip(varying, r2.tolist(), strict=True)), skipped)


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
    raw = exact(features)
    x, y = standardise(raw), standardise(targets)
    turn: Tensor | None = None
    if x.shape[1] > x.shape[0]:  # ridge regression does not see rotations: as many directions as frames are enough
        turn = torch.linalg.svd(x, full_matrices=False).Vh.T
        x = x @ turn
    rows = [folds == fold for fold in range(count)]
    parts = [_Moments.of(x[r], y[r]) for r in rows]
    whole = _Moments.sum(parts)
    inner = x.new_zeros(count, len(STRENGTHS), y.shape[1])
    for one in range(count):
        for other in range(one + 1, count):
            fit = (whole - parts[one] - parts[other]).solve()
            inner[one] += fit.squared_error(x[rows[other]], y[rows[other]])
            inner[other] += fit.squared_error(x[rows[one]], y[rows[one]])
    error = x.new_zeros(len(STRENGTHS), y.shape[1])
    missed = x.new_zeros(y.shape[1])
    for fold in range(count):
        squares = (whole - parts[fold]).solve().squared_error(x[rows[fold]], y[rows[fold]])
        error += squares
        missed += squares.gather(0, inner[fold].argmin(0, keepdim=True))[0]
    weights = whole.solve().weights
    best = error.argmin(0)
    chosen = torch.stack([weights[strength, :, q] for q, strength in enumerate(best.tolist())], 1)
    chosen = chosen if turn is None else turn @ chosen
    scale = exact(targets).std(0, correction=0) / _spread(raw)[:, None]
    return Ridge(1.0 - missed / y.square().sum(0), chosen * scale.where(scale.isfinite(), 0.0))


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


class _Fits(NamedTuple):
    """One ridge fit per strength."""

    weights: Tensor
    """S P Q."""
    offset: Tensor
    """S Q."""

    def squared_error(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the squared error summed over frames, S Q."""
        return torch.stack([(x @ w + b - y).square().sum(0) for w, b in zip(self.weights, self.offset, strict=True)])


class _Moments(NamedTuple):
    """Sums over frames: all that a least-squares fit needs, and they can be added and taken away."""

    frames: Tensor
    x: Tensor
    y: Tensor
    xx: Tensor
    xy: Tensor

    @classmethod
    def of(cls, x: Tensor, y: Tensor) -> _Moments:
        return cls(x.new_tensor(float(len(x))), x.sum(0), y.sum(0), x.T @ x, x.T @ y)

    @classmethod
    def sum(cls, parts: Sequence[_Moments]) -> _Moments:
        return cls(*(torch.stack(column).sum(0) for column in zip(*parts, strict=True)))

    def __sub__(self, other: _Moments) -> _Moments:
        return _Moments(*(a - b for a, b in zip(self, other, strict=True)))

    def solve(self) -> _Fits:
        """Return the fits of all strengths, with an offset that is not shrunk."""
        mean_x, mean_y = self.x / self.frames, self.y / self.frames
        spread = self.xx - torch.outer(self.x, mean_x)
        cross = self.xy - torch.outer(self.x, mean_y)
        eye = torch.eye(len(spread), dtype=spread.dtype)
        weights = torch.stack(
            [
                torch.cholesky_solve(cross, torch.linalg.cholesky(spread + strength * self.frames * eye))
                for strength in STRENGTHS
            ]
        )
        return _Fits(weights, mean_y - mean_x @ weights)
