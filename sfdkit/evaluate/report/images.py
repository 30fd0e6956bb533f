"""Images of the report as data: addresses."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

WIDEST, TALLEST = 1400, 3200
"""Pixels that pictures in the report are shrunk to."""


class Bar(NamedTuple):
    """How well one factor follows."""

    name: str
    value: float | None
    unchanged: float | None
    """Of the unchanged source."""
    pale: bool
    """Whether the network hardly reads it."""


def jpeg_uri(pixels: np.ndarray) -> str:
    """Return H W 3 uint8 as a JPEG in a data: address, shrunk to fit :data:`WIDEST` by :data:`TALLEST`."""
    picture = Image.fromarray(pixels)
    picture.thumbnail((WIDEST, TALLEST), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=88, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def png_uri(figure: Figure) -> str:
    """Return a plot as a PNG in a data: address."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=144, bbox_inches="tight")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def plot_follow(bars: Sequence[Bar]) -> Figure:
    """Plot one bar per factor, with a mark for the unchanged source."""
    figure = Figure(figsize=(8.0, 0.25 * len(bars) + 0.4))
    axes = figure.subplots()
    for row, bar in enumerate(bars):
        if bar.value is not None:
            colour = "#0f766e" if bar.value >= 0 else "#b45309"
            axes.barh(row, bar.value, height=0.68, color=colour, alpha=0.3 if bar.pale else 1.0)
        if bar.unchanged is not None:
            axes.plot([bar.unchanged, bar.unchanged], [row - 0.42, row + 0.42], color="#9aa5b1", linewidth=3)
        text = "does not vary" if bar.value is None else f"{bar.value:.2f}".replace("-", "\N{MINUS SIGN}")
        axes.text(1.02, row, text, va="center", fontsize=9, color="#1d2430")
    below = any(value is not None and value < 0 for bar in bars for value in (bar.value, bar.unchanged))
    axes.set(xlim=(-0.25 if below else 0.0, 1.0), ylim=(len(bars) - 0.5, -0.5))
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1])
    axes.set_yticks(range(len(bars)), [bar.name for bar in bars])
    axes.tick_params(length=0, labelsize=9)
    axes.grid(axis="x", color="#dfe3e8")
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)
    return figure
