"""How results follow their driver over the time of one clip.

The correlation over all frames of all pairs (``follow_``) is high already where a result tells which of two people
drives it. That within one clip is not: it is taken for each pair, over its frames, and the median over pairs counts.

Legend: ``K`` driving frames of a pair.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import median

from torch import Tensor

from sfdkit.files import Value
from sfdkit.metrics.exact import exact
from sfdkit.metrics.faces import correlation

LEAST_FRAMES = 16
"""Frames in which both faces were read that a pair needs."""
MOVES = {"yaw": 1.5, "pitch": 1.5, "roll": 1.0, "blink": 0.15, "smile": 0.1, "gaze_x": 0.1, "gaze_y": 0.1}
"""Standard deviation, over the frames of a pair, from which the driver counts as moving: degrees, or blendshapes."""
MOVES_ELSE = 0.05
"""The same for all others."""
PREFIX = "temporal_"


def temporal_values(columns: Mapping[str, Tensor]) -> dict[str, float]:
    """Return the correlation of a result's readings with its reference's over the frames of one pair.

    Args:
        columns: Reading to K 4, as :func:`sfdkit.evaluate.readings.follow_columns` gives it for one pair.

    Returns:
        ``temporal_yaw`` and so on. A reading in which the driver hardly moves (:data:`MOVES`), or that was made in too
        few frames, is left out.
    """
    values = {}
    for name, column in columns.items():
        table = exact(column[:, :2])
        table = table[table.isfinite().all(1)]
        result, wanted = table.unbind(1)
        if len(table) < LEAST_FRAMES or float(wanted.std()) < MOVES.get(name, MOVES_ELSE):
            continue
        if (value := correlation(result, wanted)) is not None:
            values[PREFIX + name] = value
    return values


def temporal_figures(kind: str, names: Iterable[str], rows: Sequence[Mapping[str, float]]) -> dict[str, Value]:
    """Return the median of each temporal correlation over pairs, over how many, and how many were left out.

    Args:
        kind: ``self`` or ``cross``.
        names: Readings.
        rows: Values of the pairs that have frames enough.
    """
    figures: dict[str, Value] = {}
    for name in names if rows else ():
        values = [row[PREFIX + name] for row in rows if PREFIX + name in row]
        figures[f"{kind}/{PREFIX}{name}"] = median(values) if values else None
        figures[f"{kind}/{PREFIX}{name}_clips"] = len(values)
        figures[f"{kind}/{PREFIX}{name}_left_out"] = len(rows) - len(values)
    return figures
