"""Plots as SVG: mean lines with bands, and dots by row. The same figures give the same file, byte by byte."""

from __future__ import annotations

import io
import statistics
from collections.abc import Mapping, Sequence

import matplotlib
from matplotlib.figure import Figure
from matplotlib.style import library

from sfdkit.study.curves import Band

_STYLE = {
    **library["tableau-colorblind10"],  # ten colours, C0 to C9, that can be told apart by nearly all people
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "sfdkit",  # names in the file do not change from one call to the next
    "axes.grid": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": "#e4e4e4",
}
_DASHES = ("-", "--", ":")


def line_plot(series: Mapping[str, Sequence[Band]], across: str, up: str) -> str:
    """Draw mean lines with a band of one standard deviation on each side.

    Args:
        series: Name to points.
        across: Words for the x axis.
        up: Words for the y axis.

    Returns:
        SVG.
    """
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(8.0, 4.0))
        axes = figure.add_subplot()
        for number, (name, points) in enumerate(series.items()):
            x, mean = [point.x for point in points], [point.mean for point in points]
            low, high = ([p.mean + side * (p.deviation or 0.0) for p in points] for side in (-1, 1))
            marker = "o" if len(points) == 1 else ""
            axes.plot(x, mean, _DASHES[number // 10 % 3], marker=marker, color=f"C{number}", label=name)
            axes.fill_between(x, low, high, color=f"C{number}", alpha=0.15, linewidth=0)
        axes.set(xlabel=across, ylabel=up, xlim=(0, None))
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
        return _svg(figure)


def dot_plot(rows: Mapping[str, Sequence[float]], across: str, reference: str) -> str:
    """Draw a row of dots for each run, one for each seed, a bar at the mean, and a line at the reference's mean.

    Args:
        rows: Name of each run to the values of its seeds.
        across: Words for the x axis.
        reference: Name of the reference, which may be missing.

    Returns:
        SVG.
    """
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(6.0, 0.8 + 0.3 * len(rows)))
        axes = figure.add_subplot()
        for number, (name, values) in enumerate(rows.items()):
            mean, colour = statistics.fmean(values), f"C{number}"
            axes.plot(values, [number] * len(values), "o", color=colour, alpha=0.55, markeredgewidth=0)
            axes.plot([mean], [number], "|", color=colour, markersize=14, markeredgewidth=3)
            if name == reference:
                axes.axvline(mean, color="#888888", linestyle=":")
        axes.set(xlabel=across, yticks=range(len(rows)), yticklabels=list(rows), ylim=(len(rows) - 0.5, -0.5))
        return _svg(figure)


def scatter_plot(rows: Mapping[str, Sequence[tuple[float, float]]], across: str, up: str) -> str:
    """Draw a dot for each seed of each run, and the name of the run at their mean.

    Args:
        rows: Name of each run to x and y of its seeds; the x axis is logarithmic where they differ by more than ten.
        across: Words for the x axis.
        up: Words for the y axis.

    Returns:
        SVG.
    """
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(6.0, 4.0))
        axes = figure.add_subplot()
        for number, (name, pairs) in enumerate(rows.items()):
            x, y = zip(*pairs, strict=True)
            axes.plot(x, y, "o", color=f"C{number}", alpha=0.7, markeredgewidth=0)
            middle = statistics.fmean(x), statistics.fmean(y)
            axes.annotate(name, middle, (7, 5), textcoords="offset points", color=f"C{number}")
        every = [x for pairs in rows.values() for x, _ in pairs]
        if min(every) > 0 and max(every) > 10 * min(every):
            axes.set_xscale("log")
        axes.set(xlabel=across, ylabel=up)
        axes.margins(0.2, 0.1)
        return _svg(figure)


def _svg(figure: Figure) -> str:
    text, nothing = io.StringIO(), dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(text, format="svg", bbox_inches="tight", metadata=nothing)
    return text.getvalue()
