"""Disentanglement, completeness and informativeness of a code, and what each of its numbers stands for.

Legend: ``F`` frames, ``P`` numbers of a code, ``Q`` factors.

After Eastwood and Williams, "A framework for the quantitative evaluation of disentangled representations", ICLR 2018,
https://openreview.net/forum?id=By-7dz-AZ. All of it depends on the rotation of the code, as it should: it asks whether
single vectors of the basis mean something, which the probes (:mod:`sfdkit.metrics.probes`) do not ask.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from sfdkit.metrics.probes import standardise, varying

HALF = 0.5
"""What a vector of a factor's own has to explain more than."""
_STRENGTHS = tuple(10.0 ** (-0.5 * power) for power in range(1, 8))
"""Lasso strengths from strong to weak, per standardised column: 1 would switch everything off."""
_STEPS, _TOLERANCE = 400, 1e-4


class DCI(NamedTuple):
    """The three scores of a code, each at most 1."""

    disentanglement: float
    """Whether each number of the code serves one factor: mean over numbers, weighted by their share of importance, of
    1 - entropy (base Q) of a number's importance over factors."""
    completeness: float
    """Whether each factor is held by one number: mean over factors of 1 - entropy (base P) of the importance over
    numbers; 0 for a factor that no number serves."""
    informativeness: float
    """Mean over factors of R2 out of fold of the regression that gave the importance."""


class Vector(NamedTuple):
    """What one vector of the basis stands for."""

    coefficient: int
    """Which one."""
    factor: str | None
    """The factor that it tells most about; None where it tells nothing about any."""
    explains: float
    """Share of that factor's variance that this coefficient alone explains."""
    share: float
    """Share of the coefficient's variance that this factor alone explains."""
    together: float
    """Share of the coefficient's variance that all factors together explain."""
    exclusive: bool
    """Whether ``factor`` has this vector for its own, see :func:`describe_vectors`."""


def dci(code: Tensor, factors: Mapping[str, Tensor], folds: Tensor) -> DCI:
    """Score a code.

    Importance is the absolute coefficient of a lasso regression of each standardised factor on the standardised code,
    fitted on all frames; its strength is chosen, for each factor by itself, by the R2 out of fold that
    ``informativeness`` reports. Constant factors are left out.

    Args:
        code: F P.
        factors: Name to F values; at least one varies.
        folds: F fold numbers, all frames of a person in one fold.

    Raises:
        ValueError: No factor varies.
    """
    known = varying(factors)
    if not known:
        raise ValueError("no factor varies in these frames")
    x, y = standardise(code), standardise(torch.stack(list(known.values()), 1))
    error = x.new_zeros(len(_STRENGTHS), y.shape[1])
    for fold in range(int(folds.max()) + 1):
        test = folds == fold
        mean_x, mean_y = x[~test].mean(0), y[~test].mean(0)
        for row, weights in enumerate(lasso_path(x[~test] - mean_x, y[~test] - mean_y, _STRENGTHS)):
            error[row] += ((x[test] - mean_x) @ weights + mean_y - y[test]).square().sum(0)
    best, chosen = error.min(0)
    path = lasso_path(x, y, _STRENGTHS)
    importance = torch.stack([path[strength, :, q] for q, strength in enumerate(chosen.tolist())], 1).abs()
    informativeness = float((1.0 - best / y.square().sum(0)).mean())
    return DCI(disentanglement(importance), completeness(importance), informativeness)


def disentanglement(importance: Tensor) -> float:
    """Return the disentanglement of a matrix of importance, P Q, all at least 0; 0 where all of it is 0."""
    total = importance.sum()
    if not float(total) > 0:
        return 0.0
    return float(((1.0 - _entropy(importance, 1)) * importance.sum(1) / total).sum())


def completeness(importance: Tensor) -> float:
    """Return the completeness of a matrix of importance, P Q, all at least 0."""
    served = importance.sum(0) > 0
    return float(torch.where(served, 1.0 - _entropy(importance, 0), 0.0).mean())


def _entropy(importance: Tensor, dim: int) -> Tensor:
    """Return the entropy along ``dim``, in units of its greatest possible value; a lone entry has none."""
    shares = importance / importance.sum(dim, keepdim=True).clamp(min=1e-300)
    return -(shares * shares.clamp(min=1e-300).log()).sum(dim) / max(math.log(importance.shape[dim]), 1e-300)


def lasso_path(x: Tensor, y: Tensor, strengths: Sequence[float]) -> Tensor:
    """Return lasso weights, ``argmin 1/(2 F) |y - x w|^2 + strength |w|_1``, for several strengths.

    By accelerated proximal gradient steps (FISTA, https://doi.org/10.1137/080716542), each strength starting from the
    last one's weights; all targets at once, from the matrix of second moments alone. ``x`` F P and ``y`` F Q have mean
    0; ``strengths`` go from strong to weak; the weights are S P Q float64.
    """
    gram, cross = x.T @ x / len(x), x.T @ y / len(x)
    step = 1.0 / max(float(torch.linalg.matrix_norm(gram, 2)), 1e-12)
    weights, path = torch.zeros_like(cross), []
    for strength in strengths:
        ahead, momentum = weights, 1.0
        for _ in range(_STEPS):
            moved = ahead - step * (gram @ ahead - cross)
            new = moved.sign() * (moved.abs() - step * strength).clamp(min=0)
            after = (1 + math.sqrt(1 + 4 * momentum**2)) / 2
            ahead = new + (momentum - 1) / after * (new - weights)
            change = float((new - weights).abs().max())
            weights, momentum = new, after
            if change < _TOLERANCE * step:
                break
        path.append(weights)
    return torch.stack(path)


def describe_vectors(code: Tensor, factors: Mapping[str, Tensor], folds: Tensor) -> list[Vector]:
    """Say for each coefficient of a code which factor it stands for.

    All shares are R2 out of fold, at least 0, of least-squares fits with a constant, the predictor and its square, so
    that a factor that a coefficient follows in a gentle curve counts as followed.

    **A factor has a vector of its own** if some coefficient explains more than half of the factor, and that factor
    explains more than half of what all factors together explain of the coefficient; where several coefficients do, the
    one that explains most is the factor's own. ``factor`` is the factor whose own vector this is, else the one of which
    the coefficient explains most.

    Args:
        code: F P.
        factors: Name to F values; constant ones are left out.
        folds: F fold numbers, all frames of a person in one fold.

    Returns:
        P descriptions, in the order of the coefficients.
    """
    known = varying(factors)
    names = list(known)
    x = standardise(code)
    if not names:
        return [Vector(i, None, 0.0, 0.0, 0.0, False) for i in range(x.shape[1])]
    y = standardise(torch.stack(list(known.values()), 1))
    explains = torch.stack([_fit_r2(x[:, i, None], y, folds) for i in range(x.shape[1])])  # P Q
    share = torch.stack([_fit_r2(y[:, q, None], x, folds) for q in range(y.shape[1])], 1)  # P Q
    together = torch.maximum(_fit_r2(y, x, folds), share.amax(1))
    mostly = (explains > HALF) & (share > HALF * together[:, None])
    owner = {int(explains[:, q].where(mostly[:, q], -1.0).argmax()): q for q in range(len(names)) if mostly[:, q].any()}
    vectors = []
    for i in range(x.shape[1]):
        q = owner.get(i, int(explains[i].argmax()))
        told = float(explains[i, q])
        factor = names[q] if told > 0 else None
        vectors.append(Vector(i, factor, told, float(share[i, q]), float(together[i]), i in owner))
    return vectors


def _fit_r2(predictors: Tensor, targets: Tensor, folds: Tensor) -> Tensor:
    """Return R2 out of fold, at least 0, of quadratic least-squares fits of each of m targets on n predictors.

    All columns, F n and F m, are standardised; constant targets give 0.
    """
    design = torch.cat([torch.ones_like(predictors[:, :1]), predictors, predictors.square()], 1)
    error = targets.new_zeros(targets.shape[1])
    rows = [folds == fold for fold in range(int(folds.max()) + 1)]
    grams = torch.stack([design[r].T @ design[r] for r in rows])
    cross = torch.stack([design[r].T @ targets[r] for r in rows])
    fits = torch.linalg.pinv(grams.sum(0) - grams, hermitian=True, rtol=1e-10) @ (cross.sum(0) - cross)
    for test, fit in zip(rows, fits, strict=True):
        error += (design[test] @ fit - targets[test]).square().sum(0)
    total = targets.square().sum(0)
    return torch.where(total > 0, (1.0 - error / total.clamp(min=1e-12)).clamp(min=0.0), 0.0)
