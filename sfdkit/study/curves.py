"""What a training logged along the way, from TensorBoard's event files."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sfdkit.config.compose import read_config
from sfdkit.study.compare import spread

_SECONDS = "val/seconds"
_KEEP = {"scalars": 0, "images": 1, "histograms": 1, "distributions": 1}  # entries to keep in memory; 0 keeps all


class Point(NamedTuple):
    """A scalar at a moment of a training."""

    step: int  # steps made so far
    seconds: float | None  # of training so far, set-up and validation left out; None where they were not logged
    value: float


Curves: TypeAlias = dict[str, list[Point]]
"""Scalars of one training by name."""


HEAD = ("run", "seed_given", "scalar", *Point._fields)
"""Of a table of curves."""


class Band(NamedTuple):
    """A scalar over seeds."""

    x: float
    mean: float
    deviation: float | None  # None for one seed


def read_curves(logs: Path, keys: Sequence[str]) -> Curves:
    """Read scalars of one training, also of one that was interrupted and resumed: then the later of two values counts.

    Args:
        logs: Folder with event files.
        keys: Names of the scalars; those that were never logged are left out.
    """
    if not logs.is_dir():
        return {}
    events = EventAccumulator(str(logs), size_guidance=_KEEP)
    events.Reload()
    there = events.Tags()["scalars"]

    each = _batches_of_a_step(logs)

    def scalars(key: str) -> dict[int, float]:
        found = {-(-(event.step + 1) // each): event.value for event in events.Scalars(key)}  # logged by batch
        return dict(sorted(found.items()))

    clock = {0: 0.0, **scalars(_SECONDS)} if _SECONDS in there else {}

    def seconds(step: int) -> float | None:
        return float(np.interp(step, list(clock), list(clock.values()))) if clock else None

    return {
        key: [Point(step, seconds(step), value) for step, value in scalars(key).items()] for key in keys if key in there
    }


def _batches_of_a_step(logs: Path) -> int:
    """Return ``model.accumulate_grad_batches`` of a training, from the configuration that lies beside its logs."""
    path = logs / "config.yaml"
    saved = read_config(path) if path.is_file() else {}
    return int((saved.get("model") or {}).get("accumulate_grad_batches", 1))


def curve_rows(curves: Mapping[tuple[str, int], Curves]) -> list[list[str | float | None]]:
    """Return curves by run and seed as the rows of a table under :data:`HEAD`; :func:`read_curve_rows` reads it."""
    return [
        [run, seed, key, *point]
        for (run, seed), found in curves.items()
        for key, points in found.items()
        for point in points
    ]


def read_curve_rows(path: Path) -> dict[tuple[str, int], Curves]:
    """Read the table of :func:`curve_rows`, a CSV file.

    Raises:
        KeyError, OSError, ValueError: It cannot be read, or is no such table.
    """
    found: dict[tuple[str, int], Curves] = {}
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            seconds = float(row["seconds"]) if row["seconds"] else None
            curves = found.setdefault((row["run"], int(row["seed_given"])), {})
            curves.setdefault(row["scalar"], []).append(Point(int(row["step"]), seconds, float(row["value"])))
    return found


def bands(curves: Sequence[Sequence[Point]]) -> dict[str, list[Band]]:
    """Return mean and standard deviation over seeds at each step that all of them have reached and logged.

    Args:
        curves: One for each seed.

    Returns:
        ``steps``: against the steps made; ``seconds``: against the seconds that the seeds had taken on average.
    """
    by_step = [{point.step: point for point in curve} for curve in curves if curve]
    result: dict[str, list[Band]] = {"steps": [], "seconds": []}
    for step in sorted(set.intersection(*map(set, by_step))) if by_step else ():
        points = [seed[step] for seed in by_step]
        values = spread([point.value for point in points])
        result["steps"].append(Band(step, values.mean, values.deviation))
        times = [point.seconds for point in points if point.seconds is not None]
        if len(times) == len(points):
            result["seconds"].append(Band(sum(times) / len(times), values.mean, values.deviation))
    return result
