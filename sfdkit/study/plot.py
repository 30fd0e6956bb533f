"""Plots as SVG: lines with bands, and dots by row. Each is a text that stands alone and fits into a web page."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import NamedTuple

from sfdkit.study.curves import Band

_COLOURS = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#e69f00",
    "#56b4e9",
    "#000000",
    "#7f5fa8",
    "#8c6d31",
    "#777777",
)
"""The first seven can be told apart by people who do not see all colours (Okabe and Ito)."""
_DASHES = ("", "6 3", "2 3")
_FONT = "font-family='system-ui, sans-serif' font-size='12'"


class Dots(NamedTuple):
    """A row of :func:`dot_plot`."""

    name: str
    values: Sequence[float]
    mean: float


def line_plot(series: Mapping[str, Sequence[Band]], across: str, up: str) -> str:
    """Draw mean lines with a band of one standard deviation on each side.

    Args:
        series: Name to points; those without points are left out.
        across: Words for the x axis.
        up: Words for the y axis.
    """
    drawn = {name: points for name, points in series.items() if points}
    height, left, top, right = 380, 80, 14, 570
    width, bottom = right + max(190, 44 + _room(drawn)), height - 46
    spans = [(p.mean - (p.deviation or 0), p.mean + (p.deviation or 0)) for points in drawn.values() for p in points]
    xs = [p.x for points in drawn.values() for p in points]
    x = _Axis(0.0, max(xs, default=1.0), left, right)
    y = _Axis(min((low for low, _ in spans), default=0.0), max((high for _, high in spans), default=1.0), bottom, top)
    parts = [*_grid(x, y, left, right, top, bottom)]
    for number, (name, points) in enumerate(drawn.items()):
        colour, dash = _COLOURS[number % len(_COLOURS)], _DASHES[number // len(_COLOURS) % len(_DASHES)]
        if any(p.deviation is not None for p in points):
            edge = [(p.x, p.mean + (p.deviation or 0)) for p in points]
            edge += [(p.x, p.mean - (p.deviation or 0)) for p in reversed(points)]
            parts.append(f"<polygon points='{_path(edge, x, y)}' fill='{colour}' opacity='0.15'/>")
        line = _path([(p.x, p.mean) for p in points], x, y)
        parts.append(
            f"<polyline points='{line}' fill='none' stroke='{colour}' stroke-width='1.8' stroke-dasharray='{dash}'/>"
        )
        if len(points) == 1:
            parts.append(f"<circle cx='{x(points[0].x):.1f}' cy='{y(points[0].mean):.1f}' r='3' fill='{colour}'/>")
        at = top + 8 + 19 * number
        parts.append(
            f"<line x1='{right + 14}' x2='{right + 38}' y1='{at}' y2='{at}' stroke='{colour}' stroke-width='2.5' "
            f"stroke-dasharray='{dash}'/><text x='{right + 44}' y='{at + 4}'>{escape(name)}</text>"
        )
    parts.append(f"<text x='{(left + right) / 2}' y='{height - 8}' text-anchor='middle'>{escape(across)}</text>")
    parts.append(
        f"<text transform='translate(14 {(top + bottom) / 2}) rotate(-90)' text-anchor='middle'>{escape(up)}</text>"
    )
    return _svg(width, max(height, top + 19 * len(drawn)), parts)


def dot_plot(rows: Sequence[Dots], across: str, reference: float | None) -> str:
    """Draw a row of dots for each run, one for each seed, a bar at the mean, and a line at the reference's mean."""
    left, top = max(190, 10 + _room(row.name for row in rows)), 8
    width, bottom = left + 530, top + 24 * len(rows)
    right = width - 20
    values = [value for row in rows for value in row.values]
    x = _Axis(min(values, default=0.0), max(values, default=1.0), left, right)
    parts = []
    for tick in x.ticks:
        at = x(tick)
        parts.append(f"<line x1='{at:.1f}' x2='{at:.1f}' y1='{top}' y2='{bottom}' stroke='#e4e4e4'/>")
        parts.append(f"<text x='{at:.1f}' y='{bottom + 16}' text-anchor='middle'>{x.label(tick)}</text>")
    if reference is not None:
        at = x(reference)
        parts.append(
            f"<line x1='{at:.1f}' x2='{at:.1f}' y1='{top}' y2='{bottom}' stroke='#888' stroke-dasharray='3 3'/>"
        )
    for number, row in enumerate(rows):
        at, colour = top + 12 + 24 * number, _COLOURS[number % len(_COLOURS)]
        parts.append(f"<text x='{left - 10}' y='{at + 4}' text-anchor='end'>{escape(row.name)}</text>")
        parts.append(
            f"<line x1='{x(row.mean):.1f}' x2='{x(row.mean):.1f}' y1='{at - 8}' y2='{at + 8}' stroke='{colour}' "
            "stroke-width='3'/>"
        )
        parts += [
            f"<circle cx='{x(value):.1f}' cy='{at}' r='4' fill='{colour}' opacity='0.55'/>" for value in row.values
        ]
    parts.append(f"<text x='{(left + right) / 2}' y='{bottom + 34}' text-anchor='middle'>{escape(across)}</text>")
    return _svg(width, bottom + 42, parts)


class _Axis:
    """From values to pixels, with round ticks."""

    def __init__(self, low: float, high: float, begin: float, end: float) -> None:
        if not high > low:
            low, high = low - (abs(low) or 1.0) * 0.05, high + (abs(high) or 1.0) * 0.05
        rough = (high - low) / 5
        unit = 10 ** math.floor(math.log10(rough))
        self.step = next(unit * m for m in (1, 2, 2.5, 5, 10) if unit * m >= rough * 0.999)
        margin = 0.03 * (high - low)
        self.low, self.high = (0.0 if low == 0 else low - margin), high + margin
        self.begin, self.end = begin, end
        first, last = math.ceil(self.low / self.step - 1e-9), math.floor(self.high / self.step + 1e-9)
        self.ticks = [number * self.step for number in range(first, last + 1)]

    def __call__(self, value: float) -> float:
        return self.begin + (value - self.low) / (self.high - self.low) * (self.end - self.begin)

    def label(self, tick: float) -> str:
        decimals = max(0, -math.floor(math.log10(self.step) + 1e-9) + (1 if f"{self.step:e}".startswith("2.5") else 0))
        return f"{tick:,.{decimals}f}"


def _grid(x: _Axis, y: _Axis, left: int, right: int, top: int, bottom: int) -> list[str]:
    parts = []
    for tick in x.ticks:
        parts.append(f"<text x='{x(tick):.1f}' y='{bottom + 17}' text-anchor='middle'>{x.label(tick)}</text>")
    for tick in y.ticks:
        at = y(tick)
        parts.append(f"<line x1='{left}' x2='{right}' y1='{at:.1f}' y2='{at:.1f}' stroke='#e4e4e4'/>")
        parts.append(f"<text x='{left - 6}' y='{at + 4:.1f}' text-anchor='end'>{y.label(tick)}</text>")
    parts.append(f"<path d='M{left} {top}V{bottom}H{right}' fill='none' stroke='#444'/>")
    return parts


def _path(points: Sequence[tuple[float, float]], x: _Axis, y: _Axis) -> str:
    return " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in points)


def _room(names: Iterable[str]) -> int:
    """Return pixels that hold the longest of the names, in whatever font the reader has."""
    return 10 + 8 * max((len(name) for name in names), default=0)


def _svg(width: float, height: float, parts: Sequence[str]) -> str:
    inner = "\n".join(parts)
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width:.0f} {height:.0f}' width='{width:.0f}' "
        f"height='{height:.0f}' {_FONT}>\n<rect width='100%' height='100%' fill='#fff'/>\n{inner}\n</svg>\n"
    )
