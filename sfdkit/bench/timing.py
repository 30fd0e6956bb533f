"""Timing calls: medians with spread, and two things in turn."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

Stages = Mapping[str, Callable[[], object]]
"""Name to what is timed; each call returns when its work is done, on a GPU as well."""


class Spread(NamedTuple):
    """Median and quartiles."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Return those of at least one value."""
        low, median, high = np.percentile(values, [25, 50, 75])
        return cls(float(median), float(low), float(high))


def time_in_turn(subjects: Sequence[Stages], repeats: int, warm_up: int) -> list[dict[str, list[float]]]:
    """Time the stages of all subjects in turn, so that what else the machine does hits all alike.

    Every round runs each stage of each subject once; the order of the subjects turns round from one to the next.

    Args:
        subjects: Their stages.
        repeats: Rounds that count.
        warm_up: Rounds before them.

    Returns:
        For each subject the seconds of each stage, one number per round.
    """
    taken: list[dict[str, list[float]]] = [{name: [] for name in stages} for stages in subjects]
    for number in range(-warm_up, repeats):
        order = range(len(subjects))
        for subject in order if number % 2 else reversed(order):
            for name, run in subjects[subject].items():
                start = time.perf_counter()
                run()
                seconds = time.perf_counter() - start
                if number >= 0:
                    taken[subject][name].append(seconds)
    return taken


def ratios(one: Mapping[str, Sequence[float]], other: Mapping[str, Sequence[float]]) -> dict[str, Spread]:
    """Return how many times as long ``other`` took as ``one``, round by round, for the stages that both have."""
    return {
        name: Spread.of([b / a for a, b in zip(one[name], other[name], strict=True)]) for name in one if name in other
    }
