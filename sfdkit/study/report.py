"""The report of a study: tables of mean and spread, differences to the reference, curves."""

from __future__ import annotations

import base64
import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from sfdkit.errors import DataError
from sfdkit.files import atomic_write
from sfdkit.study.curves import HEAD, curve_rows
from sfdkit.study.jobs import Job
from sfdkit.study.plot import dot_plot, line_plot, scatter_plot
from sfdkit.study.results import CURVES, LEVEL, TABLE, Results, read_earlier
from sfdkit.study.spec import Column, Study

_ABSENT = "\N{EN DASH}"
_CLASSES = {"better)": "better", "worse)": "worse", "significant)": "weak", "no test)": "weak"}
"""How a cell of differences ends, and its class in HTML."""
_SUMMARY = ("seeds", "mean", "deviation", "difference", "t", "df", "p", "verdict")

Table = list[list[str]]
"""A head, then a row for each run."""


def write_report(study: Study, jobs: Sequence[Job], folder: Path, earlier: Path | None = None) -> str:
    """Write the report's files.

    Args:
        study: The study.
        jobs: Its jobs.
        folder: Where to; it exists.
        earlier: The ``report.csv`` of a report of the same study, which with the ``curves.csv`` beside it stands in for
            jobs that are not finished.

    Returns:
        What to print: the table, what is missing, and where the report is.

    Raises:
        DataError: There is nothing to report, it cannot be written, or ``earlier`` is no report of the study.
    """
    results = Results(study, jobs, read_earlier(earlier, study) if earlier else None)
    means, plots = _means(results), _plots(results)
    files = {TABLE: _rows_csv(results), "summary.csv": _summary_csv(results)}
    if results.curves:
        files[CURVES] = _csv(HEAD, curve_rows(results.curves))
    files |= _pages(results, means, plots) | {name: svg for name, (_, svg) in plots.items()}
    try:
        for name, text in files.items():
            with atomic_write(folder / name) as part:
                part.write_text(text, encoding="utf-8")
    except OSError as error:
        raise DataError(f"cannot write the report into {folder}: {error.strerror}; name another --output") from error
    lines = [_plain_table(means), *([""] if results.missing else [])]
    lines += [f"missing: {words}" for words in results.missing]
    lines += [f"note: {words}" for words in results.notes]
    lines.append(f"wrote {', '.join(name for name in files if name not in plots)} and {len(plots)} plots to {folder}")
    return "\n".join(lines)


def _pages(results: Results, means: Table, plots: Mapping[str, tuple[str, str]]) -> dict[str, str]:
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
    context: dict[str, Any] = {
        "study": results.study,
        "level": LEVEL,
        "compared": len(results.tested) * (len(results.study.runs) - 1),
        "devices": sorted({str(d) for run in results.study.runs for d in results.of(run, "evaluation/device")}),
        "means": means,
        "differences": _differences(results),
        "missing": results.missing,
        "notes": results.notes,
        "plots": [(name, title, base64.b64encode(svg.encode()).decode()) for name, (title, svg) in plots.items()],
    }
    context["about"] = environment.get_template("about.txt").render(context).strip()
    return {name: environment.get_template(name).render(context) for name in ("report.md", "report.html")}


def _means(results: Results) -> Table:
    study, table = results.study, [["run", "seeds", *map(_head, results.study.metrics)]]
    for run in study.runs:
        count = sum(job.run == run for job, _ in results.rows)
        table.append([run, f"{count} of {len(study.seeds)}", *(_mean(results, run, c, count) for c in study.metrics)])
    return table


def _head(column: Column) -> str:
    return column.label + {"higher": " ↑", "lower": " ↓", None: ""}[column.direction]


def _mean(results: Results, run: str, column: Column, count: int) -> str:
    """Write mean and deviation of a metric, or its texts; ``count`` is how many seeds of the run are finished."""
    found = results.spread(run, column.key)
    if found is None:
        return ", ".join(sorted({str(value) for value in results.of(run, column.key)})) or _ABSENT
    some = f" (n={found.count})" if found.count != count else ""
    deviation = f" ± {_number(found.deviation, like=found.mean)}" if found.deviation else ""
    return f"{_number(found.mean)}{deviation}{some}"


def _differences(results: Results) -> Table:
    """Return the differences to the reference; the head alone where there is nothing to compare."""
    columns, others = results.tested, [run for run in results.study.runs if run != results.study.reference]
    rows = [[run, *(_difference(results, run, column) for column in columns)] for run in others if columns]
    return [["run", *map(_head, columns)], *rows]


def _difference(results: Results, run: str, column: Column) -> str:
    found, like = results.difference(run, column.key), results.spread(run, column.key)
    if found is None or like is None:
        return _ABSENT
    p = "" if found.p is None else f"p {found.p:.3f}, "
    sign = "+" if found.value >= 0 else ""
    return f"{sign}{_number(found.value, like=like.mean)} ({p}{results.verdict(run, column)})"


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
    """Return file name to title and SVG."""
    study, plots = results.study, dict[str, tuple[str, str]]()
    for key in study.curves:
        for kind, words in (("steps", "steps"), ("seconds", "seconds of training")):
            if series := results.bands(key, kind):
                svg = line_plot(series, words, key)
                plots[f"{key.replace('/', '-')}-{kind}.svg"] = (f"{key} against {words}", svg)
    for column in results.tested:
        rows = {run: values for run in study.runs if (values := results.numbers(run, column.key))}
        svg = dot_plot(rows, _head(column), study.reference)
        plots[f"{column.key.replace('/', '-')}.svg"] = (f"{column.label}: each seed, and the mean", svg)
    labels = {column.key: _head(column) for column in study.metrics}
    for across, up in study.scatter:
        dots = {run: results.pairs(run, across, up) for run in study.runs}
        if dots := {run: pairs for run, pairs in dots.items() if pairs}:
            name = f"{up.replace('/', '-')}-against-{across.replace('/', '-')}.svg"
            plots[name] = (f"{labels[up]} against {labels[across]}", scatter_plot(dots, labels[across], labels[up]))
    return plots


def _plain_table(table: Table) -> str:
    first, *others = zip(*table, strict=True)
    columns = [[cell.ljust(max(map(len, first))) for cell in first]]
    columns += [[cell.rjust(max(map(len, column))) for cell in column] for column in others]
    return "\n".join("  ".join(row) for row in zip(*columns, strict=True))


def _rows_csv(results: Results) -> str:
    keys = sorted({key for _, metrics in results.rows for key in metrics})
    rows = [[job.run, job.seed, *map(metrics.get, keys)] for job, metrics in results.rows]
    return _csv(["run", "seed_given", *keys], rows)


def _summary_csv(results: Results) -> str:
    rows = []
    for name, run in results.study.runs.items():
        for column in results.study.metrics:
            found, against = results.spread(name, column.key), results.difference(name, column.key)
            if found:
                values = [*astuple(found), *(astuple(against) if against else [None] * 4)]
                numbers = [float(f"{value:.6g}") if isinstance(value, float) else value for value in values]
                about = [name, run.title, column.key, column.direction]
                rows.append([*about, *numbers, results.verdict(name, column)])
    return _csv(["run", "title", "metric", "direction", *_SUMMARY], rows)


def _csv(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Write a table; None is an empty cell."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([head, *rows])
    return text.getvalue()
