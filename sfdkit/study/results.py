"""What the runs of a study have measured so far, over seeds and against the reference."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from sfdkit.errors import DataError
from sfdkit.files import Value
from sfdkit.study.compare import Difference, Spread, difference, spread
from sfdkit.study.curves import Band, Curves, bands, read_curve_rows, read_curves
from sfdkit.study.jobs import Job, read_json
from sfdkit.study.spec import Column, Study

LEVEL = 0.05
"""A difference with a smaller p is significant."""
TABLE, CURVES = "report.csv", "curves.csv"
"""Files of a report that another one can read."""


class Earlier(NamedTuple):
    """What an earlier report holds, by run and seed."""

    metrics: dict[tuple[str, int], dict[str, Value]]
    curves: dict[tuple[str, int], Curves]


class Results:
    """The metrics of all finished jobs of a study, and the curves of all that have logged any.

    Args:
        study: The study.
        jobs: Its jobs.
        earlier: Of an earlier report, for jobs that are not finished here.

    Raises:
        DataError: There are neither metrics nor curves yet.
    """

    def __init__(self, study: Study, jobs: Sequence[Job], earlier: Earlier | None = None) -> None:
        self.study = study
        earlier = earlier or Earlier({}, {})
        self.rows: list[tuple[Job, dict[str, Value]]] = []
        """Finished jobs with their metrics."""
        self.missing: list[str] = []
        """What is known of each job that is not finished."""
        self.notes: list[str] = []
        self.curves: dict[tuple[str, int], Curves] = {}
        """By run and seed, of all that have logged any."""
        for job in jobs:
            place, state, metrics = (job.run, job.seed), job.state(), read_json(job.folder / "metrics.json")
            curves = read_curves(job.folder / "logs", study.curves)
            if state in ("done", "changed") and metrics:
                self.rows.append((job, metrics))
            elif found := earlier.metrics.get(place):
                self.rows.append((job, found))
                curves = earlier.curves.get(place, {})
                self.notes.append(f"{job.name} is from an earlier report")
            else:
                self.missing.append(f"{job.name}: {_missing(job, state)}")
            if state == "changed":
                self.notes.append(
                    f"{job.name} was finished under another definition than {study.path.name} and its files have now "
                    f"({'; '.join(job.changes())}); sfdkit study run --redo true runs it again"
                )
            if curves:
                self.curves[place] = curves
        if not self.rows and not self.curves:
            raise DataError(
                f"no run of the study has given anything in {jobs[0].folder.parent.parent}; call sfdkit study run "
                f"{study.path.parent}, or name the folder of the results with --runs"
            )

    def of(self, run: str, key: str) -> list[Value]:
        """Return a metric of a run for each seed that is finished and has it."""
        found = [metrics.get(key) for job, metrics in self.rows if job.run == run]
        return [value for value in found if value is not None]

    def numbers(self, run: str, key: str) -> list[float]:
        """Return those of a run's values of a metric that are numbers."""
        return [float(v) for v in self.of(run, key) if isinstance(v, int | float) and not isinstance(v, bool)]

    def pairs(self, run: str, first: str, second: str) -> list[tuple[float, float]]:
        """Return two metrics of a run for each seed that is finished and has both as numbers."""
        both = [(metrics.get(first), metrics.get(second)) for job, metrics in self.rows if job.run == run]
        return [(float(a), float(b)) for a, b in both if isinstance(a, int | float) and isinstance(b, int | float)]

    def spread(self, run: str, key: str) -> Spread | None:
        """Return mean and deviation of a metric over seeds; None where no seed has it."""
        values = self.numbers(run, key)
        return spread(values) if values else None

    def difference(self, run: str, key: str) -> Difference | None:
        """Return a run against the reference; None for the reference itself, or where either is missing."""
        one, other = self.numbers(run, key), self.numbers(self.study.reference, key)
        return difference(one, other) if run != self.study.reference and one and other else None

    def verdict(self, run: str, column: Column) -> str:
        """Say whether a difference is significant, and its direction."""
        found = self.difference(run, column.key)
        if found is None:
            return ""
        if found.p is None:
            if min(len(self.numbers(name, column.key)) for name in (run, self.study.reference)) < 2:
                return "one seed, no test"
            return "the same" if found.value == 0 else "zero variance, no test"
        if found.p >= LEVEL:
            return "not significant"
        more = "higher" if found.value > 0 else "lower"
        if column.direction is None:
            return more
        return "better" if more == column.direction else "worse"

    def bands(self, key: str, kind: str) -> dict[str, list[Band]]:
        """Return a curve of each run that has it, over seeds, against ``steps`` or ``seconds``."""
        found = {}
        for name in self.study.runs:
            seeds = [curves.get(key, []) for (run, _), curves in self.curves.items() if run == name]
            if points := bands(seeds)[kind]:
                found[name] = points
        return found

    @property
    def tested(self) -> list[Column]:
        """The columns that are compared with the reference: those with a direction that some run has."""
        columns = [column for column in self.study.metrics if column.direction]
        return [c for c in columns if any(self.numbers(run, c.key) for run in self.study.runs)]


def read_earlier(path: Path, study: Study) -> Earlier:
    """Read the ``report.csv`` of an earlier report, and the ``curves.csv`` beside it where there is one.

    Args:
        path: The first.
        study: The study of which it must be.

    Raises:
        DataError: One cannot be read, or is no report of this study.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"--earlier {path}: it cannot be read ({error}); give the {TABLE} of a report") from error
    found = {}
    for row in rows:
        run, seed = row.pop("run", None), row.pop("seed_given", "")
        if run not in study.runs or not str(seed).isdigit():
            raise DataError(f"--earlier {path}: it is no {TABLE} of {study.path}, which has no run {run!r} {seed!r}")
        found[run, int(seed)] = {key: _value(text) for key, text in row.items() if text}
    drawn = path.with_name(CURVES)
    try:
        return Earlier(found, read_curve_rows(drawn) if drawn.exists() else {})
    except (OSError, KeyError, ValueError, csv.Error) as error:
        raise DataError(f"--earlier: {drawn} cannot be read ({error}); restore it, or remove it") from error


def _value(text: str) -> Value:
    """Return what a cell of a table holds: a number where it reads as one."""
    try:
        return float(text)
    except ValueError:
        return text


def _missing(job: Job, state: str) -> str:
    if failure := read_json(job.folder / "failed.json"):
        last = failure["tail"][-1].strip()[:300]
        return f"failed, sfdkit {failure['command']} ended with status {failure['status']}: {last}"
    if state == "trained":
        return "trained, not evaluated yet"
    if state in ("done", "changed"):
        return "its metrics.json is gone"
    if state == "left":
        return "begun under another definition"
    if progress := read_json(job.folder / "progress.json"):
        of = f" of {progress['steps']}" if progress.get("steps") else ""
        return f"running or interrupted, at step {progress['step']}{of}"
    return "not started"
