"""Means, spreads, and whether two means differ by more than the spread."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

_TINY = 1e-300
_ROUNDS = 1000


@dataclass(frozen=True)
class Spread:
    """A metric over seeds."""

    count: int
    mean: float
    deviation: float | None
    """Standard deviation of the sample (divided by n - 1); None for one seed."""


@dataclass(frozen=True)
class Difference:
    """A run against the reference."""

    value: float
    """Mean of the run less mean of the reference."""
    t: float | None
    freedom: float | None
    """Degrees of freedom."""
    p: float | None
    """Two-sided; None where there is no spread to compare with."""


def spread(values: Sequence[float]) -> Spread:
    """Return count, mean and standard deviation of a sample of at least one value."""
    count = len(values)
    mean = math.fsum(values) / count
    if count < 2:
        return Spread(count, mean, None)
    return Spread(count, mean, math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (count - 1)))


def difference(one: Spread, reference: Spread) -> Difference:
    """Compare two means by Welch's t-test, which lets the spreads differ.

    After B. L. Welch, "The generalization of 'Student's' problem when several different population variances are
    involved", Biometrika 34, 1947, https://doi.org/10.1093/biomet/34.1-2.28.

    Returns:
        The difference; t, degrees of freedom and p are None with fewer than two seeds on a side, or where neither side
        has any spread.
    """
    value = one.mean - reference.mean
    if one.deviation is None or reference.deviation is None:
        return Difference(value, None, None, None)
    parts = [s.deviation**2 / s.count for s in (one, reference) if s.deviation is not None]
    if sum(parts) == 0:
        return Difference(value, None, None, None)
    t = value / math.sqrt(sum(parts))
    freedom = sum(parts) ** 2 / (parts[0] ** 2 / (one.count - 1) + parts[1] ** 2 / (reference.count - 1))
    return Difference(value, t, freedom, two_sided(t, freedom))


def two_sided(t: float, freedom: float) -> float:
    """Return the probability that Student's t is further from 0 than ``t``, on either side."""
    return incomplete_beta(freedom / 2, 0.5, freedom / (freedom + t * t))


def incomplete_beta(a: float, b: float, x: float) -> float:
    """Return the regularised incomplete beta function ``I_x(a, b)``.

    By its continued fraction, https://dlmf.nist.gov/8.17#v, evaluated by Lentz's method.

    Args:
        a: Above 0.
        b: Above 0.
        x: 0 … 1.
    """
    if x <= 0 or x >= 1:
        return min(1.0, max(0.0, x))
    if x > (a + 1) / (a + b + 2):  # the fraction converges quickly below this
        return 1 - incomplete_beta(b, a, 1 - x)
    scale = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x))
    upper, lower, fraction = 1.0, 0.0, 1.0
    for number in range(_ROUNDS):
        term = _term(number, a, b, x)
        lower = 1 / _away_from_zero(1 + term * lower)
        upper = _away_from_zero(1 + term / upper)
        fraction *= upper * lower
        if number and abs(upper * lower - 1) < 1e-15:
            break
    return scale / (a * fraction)


def _term(number: int, a: float, b: float, x: float) -> float:
    """Return the numerators of the fraction 1 + d1/(1 + d2/(1 + ...))."""
    if number == 0:
        return -(a + b) * x / (a + 1)
    half, odd = divmod(number + 1, 2)
    if odd:
        return -(a + half) * (a + b + half) * x / ((a + 2 * half) * (a + 2 * half + 1))
    return half * (b - half) * x / ((a + 2 * half - 1) * (a + 2 * half))


def _away_from_zero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY
