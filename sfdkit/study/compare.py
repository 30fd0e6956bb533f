"""Means and standard deviations over seeds, and the test whether two means differ."""

from __future__ import annotations

import statistics
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

from scipy import stats


@dataclass(frozen=True)
class Spread:
    """A metric over seeds."""

    count: int
    mean: float
    deviation: float | None  # standard deviation of the sample (divided by n - 1); None for one seed


@dataclass(frozen=True)
class Difference:
    """A run against the reference."""

    value: float  # mean of the run less mean of the reference
    t: float | None = None
    df: float | None = None  # degrees of freedom
    p: float | None = None  # two-sided; None without a test


def spread(values: Sequence[float]) -> Spread:
    """Return count, mean and standard deviation of a sample of at least one value."""
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return Spread(len(values), statistics.fmean(values), deviation)


def difference(one: Sequence[float], reference: Sequence[float]) -> Difference:
    """Compare two means by Welch's t-test, which does not assume equal variances.

    After B. L. Welch, "The generalization of 'Student's' problem when several different population variances are
    involved", Biometrika 34, 1947, https://doi.org/10.1093/biomet/34.1-2.28.

    Returns:
        The difference; t, degrees of freedom and p are None with fewer than two seeds on a side, or where both sides
        have zero variance.
    """
    value = statistics.fmean(one) - statistics.fmean(reference)
    if min(len(one), len(reference)) < 2 or len(set(one)) == len(set(reference)) == 1:
        return Difference(value)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # SciPy's, of a side with zero variance
        test = stats.ttest_ind(one, reference, equal_var=False)
    return Difference(value, float(test.statistic), float(test.df), float(test.pvalue))
