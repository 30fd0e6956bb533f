"""Sections of the report about what the descriptors hold and what the vectors do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

from sfdkit.evaluate.effects import Effect
from sfdkit.evaluate.report.html import make_figure, make_table, names_under, number_of, show
from sfdkit.files import Value
from sfdkit.metrics.dci import Vector

_MOVED_ROWS = 12
"""The most rows of the table of what vectors move."""


_PLACES = (("motion", "motion code"), ("identity", "identity code"), ("backbone", "backbone"))


def probe_section(m: Mapping[str, Value]) -> str:
    """Return what the codes hold."""
    if "probe/frames" not in m:
        return ""
    motion, identity = (_heat(m, what) for what in ("motion", "identity"))
    skipped = f" Constant in these clips: {escape(str(m['probe/skipped']))}." if "probe/skipped" in m else ""
    return (
        "<h2>What the descriptors hold</h2>\n<p>R² of a linear (ridge) probe that reads a known factor out of a code, "
        f"in {m['probe/frames']} frames of {m['probe/identities']} people, always in people it was not fitted on. 1 is "
        "all of it, 0 no more than the mean. <span style='color:#0f766e'>Green</span>: should be high. "
        "<span style='color:#b45309'>Orange</span>: should be low, as it is leakage. Grey: what the backbone offers."
        f"{skipped}</p>\n"
        f'<h3>Motion factors</h3>\n{motion}\n<h3>Identity factors</h3>\n<div class="columns">{identity}</div>\n'
        '<p class="note">Light and background count as identity here, as every clip has its own. A colour wheel (hue) '
        "is not linear, so its figures stay low.</p>"
    )


def _heat(m: Mapping[str, Value], what: str) -> str:
    names = names_under(m, f"probe/{what}_from_{what}/")
    names = [name for name in names if name != "mean"]
    lines = []
    for name in ("mean", *names):
        cells = []
        for place, _ in _PLACES:
            value = number_of(m, f"probe/{what}_from_{place}/{name}")
            ink = (90, 102, 117) if place == "backbone" else (15, 118, 110) if place == what else (180, 83, 9)
            cells.append(f'<td style="{_shade(value, ink)}">{show(value, 2)}</td>')
        row_kind = ' class="mean"' if name == "mean" else ""
        lines.append(f"<tr{row_kind}><td>{escape(name)}</td>{''.join(cells)}</tr>")
    head = ["from the", *(words for _, words in _PLACES)]
    if what == "motion":
        return make_table(head, lines, "heat")
    half = (len(lines) + 1) // 2
    return make_table(head, lines[:half], "heat") + make_table(head, lines[half:], "heat")


def _shade(value: float | None, ink: tuple[int, int, int]) -> str:
    depth = min(max(value or 0.0, 0.0), 1.0) * 0.85
    colour = "#" + "".join(f"{round(255 + (c - 255) * depth):02x}" for c in ink)
    return f"background:{colour};color:{'#ffffff' if depth > 0.55 else '#1d2430'}"


def vector_section(
    m: Mapping[str, Value], vectors: Sequence[Vector], effects: Sequence[Effect], traversal: np.ndarray
) -> str:
    """Return what single vectors follow and move."""
    html = ["<h2>What single basis vectors mean</h2>"]
    if "dci/own_vectors" in m:
        lines = []
        for block in ("motion", "identity"):
            scores = [number_of(m, f"dci/{block}/{n}") for n in ("disentanglement", "completeness", "informativeness")]
            if any(score is not None for score in scores):
                lines.append(f"<tr><td>{block}</td>{''.join(f'<td>{show(s, 3)}</td>' for s in scores)}</tr>")
        own = [v for v in vectors if v.own]
        html += [
            f"<p>What they follow in the pictures that the encoder reads: <b>{m['dci/own_vectors']} of "
            f"{m['dci/factors']}</b> motion factors have a vector of their own, one whose coefficient alone explains "
            "more than half of the factor, and is mostly explained by it. "
            f"{m['dci/active_vectors']} motion coefficients say something; the others were silenced in training.</p>",
            '<div class="side"><div>',
            make_table(["code", "disentanglement", "completeness", "informativeness"], lines),
            '<p class="note">DCI after Eastwood and Williams (2018), importance by lasso regression, each block by '
            "itself. It depends on the rotation of the basis, as it should; the probes above do not.</p></div><div>",
        ]
        if own:
            rows = [
                f"<tr><td>{escape(str(v.factor))}</td><td>{v.coefficient}</td><td>{show(v.explains, 2)}</td>"
                f"<td>{show(v.share, 2)}</td></tr>"
                for v in sorted(own, key=lambda v: -v.explains)
            ]
            html.append(make_table(["factor", "vector", "explained by it", "of the vector"], rows))
        html.append("</div></div>")
    html += _moved(m, effects)
    caption = (
        "Each row changes one motion coefficient of the first test face by up to three standard deviations, and leaves "
        "the others as they are."
    )
    if effects:
        caption += (
            " Vectors that are a factor's own come first, then by how many standard deviations they move the factor "
            "named; read down the left column first."
        )
    return "\n".join([*html, make_figure(traversal, caption)])


def _moved(m: Mapping[str, Value], effects: Sequence[Effect]) -> list[str]:
    if not effects:
        return []
    unread = f" Not read well enough to say: {escape(str(m['effect/unread']))}." if "effect/unread" in m else ""
    moving = sorted((e for e in effects if e.factor is not None), key=lambda e: (not e.own, -e.moves))
    rows = [
        f"<tr><td>{e.coefficient}</td><td>{escape(str(e.factor))}</td><td>{show(e.moves, 2)}</td>"
        f"<td>{show(e.share, 2)}</td><td>{show(e.part, 2)}</td><td>{'yes' if e.own else ''}</td></tr>"
        for e in moving[:_MOVED_ROWS]
    ]
    head = ["vector", "moves most", "by, in sd", "share of the vector's effect", "share of the factor's movers", "own"]
    return [
        f"<p>What they move in results, read by the network: <b>{m['effect/own_vectors']} of {m['effect/factors']}</b> "
        "motion factors have a vector of their own, one that does more than half of what all vectors do to the factor, "
        f"and does mostly that (shares of squares).{unread}</p>",
        make_table(head, rows),
    ]
