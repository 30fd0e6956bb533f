"""The report of a study: tables of mean and spread, differences to the reference, curves."""

from __future__ import annotations

import base64
import csv
import io
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from sfdkit.errors import DataError
from sfdkit.files import Value
from sfdkit.study.compare import Difference, Spread, difference, spread
from sfdkit.study.curves import Band, bands, read_curves
from sfdkit.study.jobs import Job, read_json
from sfdkit.study.plot import dot_plot, line_plot
from sfdkit.study.spec import Column, Run, Study

_ABSENT = "\N{EN DASH}"
_CLASSES = {"better)": "better", "worse)": "worse", "spread)": "weak", "one seed)": "weak"}
"""How a cell of differences ends, and its class in HTML."""
LEVEL = 0.05
"""A difference with a smaller p counts as more than the spread."""


@dataclass(frozen=True)
class Row:
    """A job that is finished."""

    job: Job
    metrics: dict[str, Value]

    def number(self, key: str) -> float | None:
        """Return a metric that is a number, else None."""
        value = self.metrics.get(key)
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


class Results:
    """What the jobs of a study have given so far.

    Args:
        study: The study.
        jobs: Its jobs.

    Raises:
        DataError: Nothing at all is there yet.
    """

    def __init__(self, study: Study, jobs: Sequence[Job]) -> None:
        self.study = study
        self.rows: list[Row] = []
        self.missing: list[str] = []
        self.notes: list[str] = []
        for job in jobs:
            state, metrics = job.state(), read_json(job.folder / "metrics.json")
            if state in ("done", "changed") and metrics is not None:
                self.rows.append(Row(job, metrics))
            else:
                self.missing.append(f"{job.name}: {_missing(job, state)}")
            if state == "changed":
                self.notes.append(
                    f"{job.name} was finished under another definition than {study.path.name} and its files have now "
                    f"({'; '.join(job.changes())}); sfdkit study run --redo true runs it again"
                )
        self.curves = {
            run.name: [read_curves(job.folder / "logs", study.curves) for job in jobs if job.run == run.name]
            for run in study.runs
        }
        if not self.rows and not any(curve for seeds in self.curves.values() for curve in seeds):
            where = jobs[0].folder.parent.parent
            raise DataError(
                f"no run of the study has given anything in {where}; call sfdkit study run {study.path.parent}, or "
                "name the folder of the results with --runs"
            )

    def spread(self, run: str, key: str) -> Spread | None:
        """Return a metric of a run over the seeds that are finished and have it."""
        values = self.values(run, key)
        return spread(values) if values else None

    def values(self, run: str, key: str) -> list[float]:
        """Return a metric of a run, one for each seed that is finished and has it."""
        numbers = [row.number(key) for row in self.rows if row.job.run == run]
        return [number for number in numbers if number is not None]

    def difference(self, run: str, key: str) -> Difference | None:
        """Return a run against the reference; None for the reference itself, or where either is missing."""
        one, other = self.values(run, key), self.values(self.study.reference, key)
        return difference(one, other) if run != self.study.reference and one and other else None

    def verdict(self, run: str, column: Column) -> str:
        """Say whether a difference is more than the spread between seeds."""
        found = self.difference(run, column.key)
        if found is None:
            return ""
        if found.p is None:
            one, other = self.spread(run, column.key), self.spread(self.study.reference, column.key)
            assert one is not None and other is not None
            if min(one.count, other.count) < 2:
                return "no spread: one seed"
            return "the same" if found.value == 0 else "no spread: all seeds alike"
        if found.p >= LEVEL:
            return "within the spread"
        higher = found.value > 0
        if column.direction is None:
            return "higher" if higher else "lower"
        return "better" if higher == (column.direction == "higher") else "worse"

    def bands(self, run: str, key: str) -> dict[str, list[Band]]:
        """Return a curve of a run over its seeds, against ``steps`` and against ``seconds``."""
        return bands([seed.get(key, []) for seed in self.curves[run]])

    @property
    def tested(self) -> list[Column]:
        """The columns whose differences are looked at: those with a direction that some run has."""
        return [
            column
            for column in self.study.columns
            if column.direction and any(row.number(column.key) is not None for row in self.rows)
        ]


def _missing(job: Job, state: str) -> str:
    status = read_json(job.folder / "status.json") or {}
    progress = read_json(job.folder / "progress.json") or {}
    if status.get("state") == "failed":
        last = (status.get("tail") or ["no output"])[-1]
        return f"failed, sfdkit {status.get('command')} ended with status {status.get('status')}: {last[:300]}"
    if state == "trained":
        return "trained, not evaluated yet"
    if state in ("done", "changed"):
        return "its metrics.json is gone"
    of = f" of {progress['steps']}" if progress.get("steps") else ""
    return f"running or cut off, at step {progress['step']}{of}" if progress else "not started"


def write_report(study: Study, jobs: Sequence[Job], folder: Path) -> str:
    """Write the report's files.

    Args:
        study: The study.
        jobs: Its jobs.
        folder: Where to; it exists.

    Returns:
        What to print: the table, what is missing, and where the report is.

    Raises:
        DataError: There is nothing to report, or it cannot be written.
    """
    results = Results(study, jobs)
    plots = _plots(results)
    files = {
        "report.csv": _rows_csv(results),
        "summary.csv": _summary_csv(results),
        **_pages(results, plots),
        **{name: svg for name, (_, svg) in plots.items()},
    }
    try:
        for name, text in files.items():
            part = folder / f"{name}.part"
            part.write_text(text, encoding="utf-8")
            os.replace(part, folder / name)
    except OSError as error:
        raise DataError(f"cannot write the report into {folder}: {error.strerror}; name another --output") from error
    lines = [_plain_table(_means(results)), *([""] if results.missing else [])]
    lines += [f"missing: {words}" for words in results.missing]
    lines += [f"note: {words}" for words in results.notes]
    lines.append(f"wrote report.md, report.html, report.csv, summary.csv and {len(plots)} plots to {folder}")
    return "\n".join(lines)


Table = list[list[str]]


def _means(results: Results) -> Table:
    """Return the table of means: a head, then a row for each run."""
    study = results.study
    table = [["run", "seeds", *(_head(column) for column in study.columns)]]
    for run in study.runs:
        count = sum(row.job.run == run.name for row in results.rows)
        cells = [_cell(results, run, column, count) for column in study.columns]
        table.append([run.name, f"{count} of {len(study.seeds)}", *cells])
    return table


def _head(column: Column) -> str:
    return column.label + {"higher": " ↑", "lower": " ↓", None: ""}[column.direction]


def _cell(results: Results, run: Run, column: Column, count: int) -> str:
    found = results.spread(run.name, column.key)
    if found is None:
        texts = {
            str(row.metrics[column.key])
            for row in results.rows
            if row.job.run == run.name and column.key in row.metrics
        }
        return ", ".join(sorted(texts - {"None"})) or _ABSENT
    some = f" (n={found.count})" if found.count != count else ""
    if not found.deviation:
        return f"{_number(found.mean)}{some}"
    return f"{_number(found.mean)} ± {_number(found.deviation, like=found.mean)}{some}"


def _differences(results: Results) -> Table:
    """Return the table of differences to the reference; without rows where there is nothing to compare."""
    columns = results.tested
    table = [["run", *(_head(column) for column in columns)]]
    for run in results.study.runs:
        if run.name == results.study.reference:
            continue
        cells = []
        for column in columns:
            found = results.difference(run.name, column.key)
            if found is None:
                cells.append(_ABSENT)
                continue
            like = results.spread(run.name, column.key)
            assert like is not None
            p = "" if found.p is None else f"p {found.p:.3f}, "
            size = _number(found.value, like=like.mean)
            cells.append(f"{'+' if found.value >= 0 else ''}{size} ({p}{results.verdict(run.name, column)})")
        table.append([run.name, *cells])
    return table


def _number(value: float, like: float | None = None) -> str:
    """Write a number with four significant digits, or with the decimals that ``like`` would have."""
    size = abs(value if like is None else like)
    if size >= 1e6:
        return f"{value / 1e6:,.2f} M"
    decimals = 4 if size == 0 else min(6, max(0, 3 - math.floor(math.log10(size))))
    if like is None and value == int(value) and size >= 1:
        decimals = 0
    return f"{value:,.{decimals}f}"


def _plots(results: Results) -> dict[str, tuple[str, str]]:
    """Return file name to title and svg."""
    study, plots = results.study, dict[str, tuple[str, str]]()
    for key in study.curves:
        found = {run.name: results.bands(run.name, key) for run in study.runs}
        for kind, words in (("steps", "steps"), ("seconds", "seconds of training")):
            series = {name: curve[kind] for name, curve in found.items() if curve[kind]}
            if series:
                title = f"{key} against {words}"
                plots[f"{key.replace('/', '-')}-{kind}.svg"] = (title, line_plot(series, words, key))
    for column in results.tested:
        rows = {run.name: values for run in study.runs if (values := results.values(run.name, column.key))}
        svg = dot_plot(rows, _head(column), study.reference)
        plots[f"{column.key.replace('/', '-')}.svg"] = (f"{column.label}: each seed, and the mean", svg)
    return plots


def _plain_table(table: Table) -> str:
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in table
    )


def _pages(results: Results, plots: Mapping[str, tuple[str, str]]) -> dict[str, str]:
    """Return the Markdown and the HTML page by file name; HTML holds its plots in itself."""
    environment = Environment(
        loader=PackageLoader("sfdkit.study"),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["cell_class"] = lambda cell: next((c for end, c in _CLASSES.items() if cell.endswith(end)), "")
    devices = sorted(
        {str(row.metrics["evaluation/device"]) for row in results.rows if "evaluation/device" in row.metrics}
    )
    context: dict[str, Any] = {
        "study": results.study,
        "level": LEVEL,
        "compared": len(results.tested) * (len(results.study.runs) - 1),
        "devices": devices,
        "means": _means(results),
        "differences": _differences(results),
        "missing": results.missing,
        "notes": results.notes,
        "plots": [(name, title, base64.b64encode(svg.encode()).decode()) for name, (title, svg) in plots.items()],
    }
    context["about"] = environment.get_template("about.txt").render(context).strip()
    return {name: environment.get_template(name).render(context) for name in ("report.md", "report.html")}


def _rows_csv(results: Results) -> str:
    keys = sorted({key for row in results.rows for key in row.metrics})
    lines: list[list[object]] = [["run", "seed_given", *keys]]
    for row in results.rows:
        values = (row.metrics.get(key) for key in keys)
        lines.append([row.job.run, row.job.seed, *("" if value is None else value for value in values)])
    return _csv(lines)


def _summary_csv(results: Results) -> str:
    head = [
        "run",
        "title",
        "metric",
        "direction",
        "seeds",
        "mean",
        "deviation",
        "difference",
        "t",
        "freedom",
        "p",
        "verdict",
    ]
    lines: list[list[object]] = [[*head]]
    for run in results.study.runs:
        for column in results.study.columns:
            found = results.spread(run.name, column.key)
            if found is None:
                continue
            against = results.difference(run.name, column.key)
            numbers = (against.value, against.t, against.freedom, against.p) if against else (None,) * 4
            values = [found.count, found.mean, found.deviation, *numbers, results.verdict(run.name, column)]
            cells = ["" if v is None else float(f"{v:.6g}") if isinstance(v, float) else v for v in values]
            lines.append([run.name, run.title, column.key, column.direction or "", *cells])
    return _csv(lines)


def _csv(lines: Sequence[Sequence[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()
