"""The report of an evaluation: one html file that needs nothing else, no network and no script."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from sfdkit.effects import Effect
from sfdkit.metrics.dci import Vector
from sfdkit.reenact import READABLE
from sfdkit.report import Value
from sfdkit.rows import COMPARED, SMALL

WIDEST, TALLEST = 1400, 3200
"""Pixels that pictures in the report are shrunk to."""


class Pictures(NamedTuple):
    """What the report shows; each H W 3 uint8."""

    sheet: np.ndarray
    traversal: np.ndarray


class About(NamedTuple):
    """What the figures should be read with."""

    checkpoint: str
    command: str
    """The command line that makes this report."""
    missing: Mapping[str, str]
    """What was not measured: why, and how to get it."""
    groups: Sequence[str]
    """Groups that results are given by."""
    networks: Mapping[str, Value]
    """About the networks that measured."""


def write_page(
    path: Path,
    metrics: Mapping[str, Value],
    vectors: Sequence[Vector],
    effects: Sequence[Effect],
    pictures: Pictures,
    about: About,
) -> None:
    """Write the report; the file appears whole or not at all.

    Args:
        path: The .html file; its folder exists.
        metrics: As in metrics.json.
        vectors: What each motion vector follows in pictures; may be empty.
        effects: What each motion vector moves in results; may be empty.
        pictures: Sheet and traversal.
        about: What the figures should be read with.
    """
    sections = [
        _headline(metrics),
        _distances(metrics, about.networks),
        _follow(metrics),
        _identity(metrics),
        _probes(metrics),
        _vectors(metrics, vectors, effects, pictures.traversal),
        _groups(metrics, about.groups),
        _sheet(pictures.sheet),
        _missing(about.missing),
        _facts(metrics, about),
    ]
    title = f"sfdkit: {Path(about.checkpoint).name} on {metrics.get('evaluation/dataset')}"
    text = (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(title)}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n" + "\n".join(s for s in sections if s) + "\n</main>\n"
        "</body>\n</html>\n"
    )
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)


def picture_uri(pixels: np.ndarray) -> str:
    """Return H W 3 uint8 as a JPEG in a data: address, shrunk to fit :data:`WIDEST` by :data:`TALLEST`."""
    picture = Image.fromarray(pixels)
    picture.thumbnail((WIDEST, TALLEST), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=88, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


_STYLE = """
:root { --ink: #1d2430; --soft: #5b6675; --line: #dfe3e8; --paper: #ffffff; --wash: #f5f7f9;
  --good: #0f766e; --still: #9aa5b1; --bad: #b45309; }
* { box-sizing: border-box; }
html { -webkit-print-color-adjust: exact; print-color-adjust: exact; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Noto Sans", Arial, sans-serif; }
main { max-width: 1020px; margin: 0 auto; padding: 36px 28px 60px; }
h1 { font-size: 27px; line-height: 1.2; margin: 0 0 4px; letter-spacing: -0.01em; }
h2 { font-size: 19px; margin: 46px 0 6px; padding-top: 14px; border-top: 1px solid var(--line); }
h3 { font-size: 15px; margin: 22px 0 6px; }
p { margin: 6px 0 12px; max-width: 76ch; }
.lead, .note { color: var(--soft); }
.note { font-size: 13px; }
code { font: 13px/1.5 ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(146px, 1fr)); gap: 12px; margin: 22px 0 8px; }
.tile { border: 1px solid var(--line); border-radius: 8px; padding: 12px 14px 11px; background: var(--wash); }
.tile b { display: block; white-space: nowrap;
  font-size: 25px; line-height: 1.25; font-weight: 650; font-variant-numeric: tabular-nums; }
.tile small { font-size: 15px; font-weight: 500; }
.tile span { display: block; font-size: 13px; color: var(--soft); line-height: 1.35; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: 8px 0 10px; font-variant-numeric: tabular-nums; font-size: 14px; }
th, td { padding: 5px 11px; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; padding-left: 2px; }
thead th { font-weight: 600; font-size: 13px; color: var(--soft); vertical-align: bottom; }
tr.still td { color: var(--soft); }
.tight { width: 100%; } .tight th { white-space: normal; min-width: 52px; } .tight th, .tight td { padding: 5px 8px; }
tr.group td { font-weight: 600; padding-top: 14px; border-bottom-color: var(--still); }
.small { color: var(--bad); }
.heat td:not(:first-child) { text-align: center; min-width: 68px; border-bottom: 2px solid var(--paper);
  border-right: 2px solid var(--paper); padding: 3px 8px; }
.heat thead th { text-align: center; } .heat thead th:first-child { text-align: left; }
.heat tr.mean td { font-weight: 650; }
.heat td:first-child { border-bottom: 0; }
.columns { columns: 2; column-gap: 36px; } .columns table { break-inside: avoid; margin-top: 0; }
.side { display: grid; grid-template-columns: repeat(auto-fit, minmax(400px, 1fr)); gap: 8px 34px; align-items: start; }
figure { margin: 12px 0; } figcaption { font-size: 13px; color: var(--soft); margin-top: 4px; }
img { max-width: 100%; height: auto; display: block; border: 1px solid var(--line); border-radius: 4px; }
svg { max-width: 100%; height: auto; display: block; font: 13px system-ui, "Segoe UI", Roboto, Arial, sans-serif; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 5px 20px; margin: 10px 0; font-size: 14px; }
dt { font-weight: 600; } dd { margin: 0; overflow-wrap: anywhere; max-width: 80ch; }
.command { display: block; background: var(--wash); border: 1px solid var(--line); border-radius: 6px;
  padding: 9px 12px; white-space: pre-wrap; overflow-wrap: anywhere; }
@media (max-width: 700px) { main { padding: 20px 14px; } .columns { columns: 1; }
  .side { grid-template-columns: 1fr; } dl { grid-template-columns: 1fr; gap: 0; } dd { margin-bottom: 8px; } }
@media print { @page { margin: 13mm; } body { font-size: 10pt; } main { max-width: none; padding: 0; }
  h2 { margin-top: 26px; } h2, h3 { break-after: avoid; } p { orphans: 3; widows: 3; }
  table, svg, tr, figure, .tile { break-inside: avoid; } .wide { overflow: visible; }
  table { font-size: 8.5pt; } th, td, .tight th, .tight td { padding: 3px 5px; } thead th { font-size: 8pt; }
  .tight th { min-width: 0; } .heat td:not(:first-child) { min-width: 0; padding: 2px 4px; }
  img { max-height: 225mm; } }
"""


def _number(metrics: Mapping[str, Value], key: str) -> float | None:
    value = metrics.get(key)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _show(value: float | None, digits: int) -> str:
    """Return a number with a real minus sign; a dash for none."""
    if value is None:
        return "n/a"
    text = f"{value:.{digits}f}"
    return text.replace("-", "&minus;") if float(text) else text.lstrip("-")


def _tile(value: str, words: str) -> str:
    return f'<div class="tile"><b>{value}</b><span>{words}</span></div>'


def _headline(m: Mapping[str, Value]) -> str:
    tiles = []
    for prefix, copy, words in (("self/", "self/copy_", "self-reenactment"), ("cross/", "copy/", "cross-reenactment")):
        psnr, still = _number(m, f"{prefix}psnr"), _number(m, f"{copy}psnr")
        if psnr is not None:
            text = f"{words}; the source unchanged gives {_show(still, 2)} dB"
            tiles.append(_tile(f"{_show(psnr, 2)} <small>dB</small>", text))
    if (face := _number(m, "cross/face_psnr")) is not None:
        text = f"cross, inside the face; unchanged {_show(_number(m, 'copy/face_psnr'), 2)} dB"
        tiles.append(_tile(f"{_show(face, 2)} <small>dB</small>", text))
    if (follow := _number(m, "cross/follow_mean")) is not None:
        tiles.append(_tile(_show(follow, 2), "of 1: how well pose and expression follow the driver"))
    if (leak := _number(m, "cross/leakage")) is not None:
        tiles.append(_tile(_show(leak, 3), "leakage: nearer to the driver's identity than it should be"))
    for key, words in (
        ("effect", "are moved by a basis vector of their own"),
        ("dci", "have a vector that reads them"),
    ):
        if (own := _number(m, f"{key}/own_vectors")) is not None:
            total = _show(_number(m, f"{key}/factors"), 0)
            tiles.append(_tile(f"{own:.0f} <small>of {total}</small>", f"motion factors {words}"))
    about = (
        f"{m.get('evaluation/clips')} clips of {m.get('evaluation/frames_per_clip')} driven frames, "
        f"{m.get('evaluation/pairs')} cross pairs with a true answer; data set {m.get('evaluation/dataset')}, split "
        f"{m.get('evaluation/split')}, {m.get('evaluation/resolution')} pixels."
    )
    return (
        f'<header><h1>What this animator is worth</h1><p class="lead">{escape(about)}</p></header>\n'
        f'<div class="tiles">{"".join(tiles)}</div>'
    )


_MOVED_ROWS = 12
"""The most rows of the table of what vectors move."""
_ROWS = (
    ("Self-reenactment", "self/", False),
    ("source unchanged", "self/copy_", True),
    ("Cross-reenactment", "cross/", False),
    ("source unchanged", "copy/", True),
)
_PIXELS = (
    ("L1 ↓", "l1", 4),
    ("PSNR ↑", "psnr", 2),
    ("SSIM ↑", "ssim", 3),
    ("LPIPS ↓", "lpips", 3),
    ("face L1 ↓", "face_l1", 4),
    ("face PSNR ↑", "face_psnr", 2),
    ("face SSIM ↑", "face_ssim", 3),
)
_READ = (
    ("landmarks, px ↓", "landmark_error", 2),
    ("pose, ° ↓", "pose_error", 2),
    ("yaw", "yaw_error", 2),
    ("pitch", "pitch_error", 2),
    ("roll", "roll_error", 2),
    ("expression ↓", "expression_error", 3),
)


def _distances(m: Mapping[str, Value], networks: Mapping[str, Value]) -> str:
    columns = [c for c in _PIXELS if any(_number(m, prefix + c[1]) is not None for _, prefix, _ in _ROWS)]
    html = [
        "<h2>How far results are from the answer</h2>",
        "<p>In self-reenactment a clip drives its own first frame, and the driving frame is the answer. In "
        "cross-reenactment another person drives; of puppets the answer is rendered. The source unchanged, against the "
        "same answer, is what doing nothing gives.</p>",
        _metric_table(m, _ROWS, columns),
        '<p class="note">On [0, 1]; mean over the frames of a clip, then over clips or pairs. '
        "<i>face</i>: inside the face's mask. "
        "LPIPS, where given: AlexNet, inputs in [-1, 1].</p>",
    ]
    read = [c for c in _READ if any(_number(m, prefix + c[1]) is not None for _, prefix, _ in _ROWS)]
    if read:
        rows = (*_ROWS, ("the network itself", "measure/floor_", True))
        html += [
            "<h3>Read by a network in result and answer</h3>",
            _metric_table(m, rows, read),
            '<p class="note">Landmarks: mean absolute error per coordinate (as AKD) in pixels of these pictures. Pose: '
            "mean absolute error over yaw, pitch and roll. Expression: mean absolute error over "
            f"{escape(', '.join(_factors(m, 'cross/', '_error')) or 'all values')}. Both pictures are read by the same "
            "network, so that its bias cancels; <i>the network itself</i> is its error on frames with known factors. "
            "Real faces have no answer in cross-reenactment: pose and expression are compared with the driver's.</p>",
        ]
    if networks:
        html.append(_networks(networks))
    return "\n".join(html)


def _networks(networks: Mapping[str, Value]) -> str:
    """Say which networks measured, and lay out how well they read faces held out of their training."""
    names = {key.split("/")[-1]: value for key, value in networks.items()}
    plain = {name: value for name, value in names.items() if not isinstance(value, float)}
    columns = [("", ""), ("r2_", "R²"), ("soft_", "blurred"), ("soft_r2_", "R², blurred")]
    what = [n for n in names if n not in plain and not n.startswith(("r2_", "soft_"))]
    lines = []
    for name in what:
        cells = "".join(f"<td>{_plain(names[p + name]) if p + name in names else ''}</td>" for p, _ in columns)
        lines.append(f"<tr><td>{escape(name)}</td>{cells}</tr>")
    html = f"<h3>About the network</h3>\n<p>{escape(', '.join(f'{_words(k)} {_plain(v)}' for k, v in plain.items()))}."
    if not lines:
        return html + "</p>"
    return (
        f"{html} On faces held out of its training, as they are and blurred as results may be (landmarks: mean "
        "distance at 64 pixels; then degrees, and units of the factor):</p>\n"
        + _table(["", "as they are", *(words for _, words in columns[1:])], lines)
    )


def _factors(m: Mapping[str, Value], prefix: str, suffix: str) -> list[str]:
    """Return the names of expression factors."""
    known = ("landmark", "pose", "yaw", "pitch", "roll", "expression")
    names = [k.removeprefix(prefix).removesuffix(suffix) for k in m if k.startswith(prefix) and k.endswith(suffix)]
    return [name for name in names if name not in known and "/" not in name]


def _metric_table(
    m: Mapping[str, Value], rows: Iterable[tuple[str, str, bool]], columns: Sequence[tuple[str, str, int]]
) -> str:
    lines = []
    for words, prefix, still in rows:
        cells = [_number(m, prefix + key) for _, key, _ in columns]
        if any(cell is not None for cell in cells):
            shown = "".join(f"<td>{_show(v, c[2])}</td>" for v, c in zip(cells, columns, strict=True))
            kind = ' class="still"' if still else ""
            lines.append(f"<tr{kind}><td>{escape(words)}</td>{shown}</tr>")
    return _table(["", *(c[0] for c in columns)], lines)


def _table(head: Sequence[str], lines: Sequence[str], kind: str = "") -> str:
    cells = "".join(f"<th>{escape(word)}</th>" for word in head)
    opening = f'<table class="{kind}">' if kind else "<table>"
    return f'<div class="wide">{opening}<thead><tr>{cells}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'


def _follow(m: Mapping[str, Value]) -> str:
    prefix, still = ("cross/", "copy/") if _names(m, "cross/follow_") else ("self/", "self/copy_")
    names = _names(m, f"{prefix}follow_")
    if not names:
        return ""
    bars = [(n, _number(m, f"{prefix}follow_{n}"), _number(m, f"{still}follow_{n}"), _blind(m, n)) for n in names]
    blind = [n for n in names if _blind(m, n)]
    warning = (
        f'\n<p class="note">Pale: the network itself hardly reads {escape(", ".join(blind))} (its reading correlates '
        f"below {READABLE:g} with the known factor), so these bars say little, and the mean leaves them out.</p>"
        if blind
        else ""
    )
    return (
        "<h2>Does the face follow?</h2>\n<p>Correlation, over all frames of all pairs, between what a network reads in "
        "the result and in the answer: 1 is a face that does as the driver does, 0 one that does as it likes. The grey "
        "mark is the unchanged source.</p>\n" + _bars(bars) + warning
    )


def _blind(m: Mapping[str, Value], name: str) -> bool:
    reads = _number(m, f"measure/reads_{name}")
    return reads is not None and reads < READABLE


def _names(m: Mapping[str, Value], prefix: str) -> list[str]:
    return [key.removeprefix(prefix) for key in m if key.startswith(prefix) and not key.endswith("_mean")]


def _bars(bars: Sequence[tuple[str, float | None, float | None, bool]]) -> str:
    """Draw one bar per factor from 0 to at most 1, with a mark for the unchanged source; pale where that is True."""
    left, width, line = 120, 560, 24
    low = -0.25 if any(value is not None and value < 0 for _, *both, _ in bars for value in both) else 0.0

    def place(value: float) -> float:
        return left + width * (min(max(value, low), 1.0) - low) / (1.0 - low)

    height = line * len(bars) + 26
    parts = [f'<svg viewBox="0 0 {left + width + 70} {height}" width="{left + width + 70}" role="img">']
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        x = place(tick)
        parts.append(f'<line x1="{x:.1f}" y1="0" x2="{x:.1f}" y2="{height - 22}" stroke="#dfe3e8"/>')
        parts.append(f'<text x="{x:.1f}" y="{height - 6}" text-anchor="middle" fill="#5b6675">{tick:g}</text>')
    for row, (name, value, still, pale) in enumerate(bars):
        y = row * line + 4
        parts.append(f'<text x="0" y="{y + 13}" fill="#1d2430">{escape(name)}</text>')
        if value is not None:
            x, zero = place(value), place(0.0)
            colour = "#0f766e" if value >= 0 else "#b45309"
            faint = ' fill-opacity="0.3"' if pale else ""
            parts.append(
                f'<rect x="{min(x, zero):.1f}" y="{y}" width="{max(abs(x - zero), 1):.1f}" height="16" rx="2" '
                f'fill="{colour}"{faint}/>'
            )
        if still is not None:
            parts.append(f'<rect x="{place(still) - 1.5:.1f}" y="{y - 2}" width="3" height="20" fill="#9aa5b1"/>')
        text = "does not vary" if value is None else _show(value, 2)
        parts.append(f'<text x="{left + width + 12}" y="{y + 13}" fill="#1d2430">{text}</text>')
    return "".join(parts) + "</svg>"


def _identity(m: Mapping[str, Value]) -> str:
    rows = (
        ("Result", "cross/", False),
        ("true picture", "truth/", True),
        ("source unchanged", "copy/", True),
    )
    figures = []
    for words, prefix, still in rows:
        source, driver = _number(m, f"{prefix}csim_source"), _number(m, f"{prefix}csim_driver")
        if prefix == "copy/" and driver is not None:
            source = 1.0
        if source is not None and driver is not None:
            cells = "".join(f"<td>{_show(v, 3)}</td>" for v in (source, driver, source - driver))
            kind = ' class="still"' if still else ""
            figures.append(f"<tr{kind}><td>{words}</td>{cells}</tr>")
    html = ["<h2>Whose face is it?</h2>"]
    if figures:
        html += [
            "<p>Cosine of face embeddings in cross-reenactment. A result should be as near to the source, and as far "
            f"from the driver, as the true picture is. <b>Leakage {_show(_number(m, 'cross/leakage'), 3)}</b> is how "
            "much smaller the result's gap is; 0 is none. (On real faces the unchanged source stands in for the true "
            "picture.)</p>",
            _table(["cosine of embeddings", "with the source ↑", "with the driver ↓", "gap ↑"], figures),
        ]
    if (own := _number(m, "self/csim")) is not None:
        copy = _show(_number(m, "self/copy_csim"), 3)
        html.append(f"<p>Self-reenactment, with the answer: {_show(own, 3)} (source unchanged {copy}).</p>")
    return "\n".join(html) if len(html) > 1 else ""


_PLACES = (("motion", "motion code"), ("identity", "identity code"), ("backbone", "backbone"))


def _probes(m: Mapping[str, Value]) -> str:
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
    names = _names(m, f"probe/{what}_from_{what}/")
    names = [name for name in names if name != "mean"]
    lines = []
    for name in ("mean", *names):
        cells = []
        for place, _ in _PLACES:
            value = _number(m, f"probe/{what}_from_{place}/{name}")
            ink = (90, 102, 117) if place == "backbone" else (15, 118, 110) if place == what else (180, 83, 9)
            cells.append(f'<td style="{_shade(value, ink)}">{_show(value, 2)}</td>')
        row_kind = ' class="mean"' if name == "mean" else ""
        lines.append(f"<tr{row_kind}><td>{escape(name)}</td>{''.join(cells)}</tr>")
    head = ["from the", *(words for _, words in _PLACES)]
    if what == "motion":
        return _table(head, lines, "heat")
    half = (len(lines) + 1) // 2
    return _table(head, lines[:half], "heat") + _table(head, lines[half:], "heat")


def _shade(value: float | None, ink: tuple[int, int, int]) -> str:
    depth = min(max(value or 0.0, 0.0), 1.0) * 0.85
    colour = "#" + "".join(f"{round(255 + (c - 255) * depth):02x}" for c in ink)
    return f"background:{colour};color:{'#ffffff' if depth > 0.55 else '#1d2430'}"


def _vectors(
    m: Mapping[str, Value], vectors: Sequence[Vector], effects: Sequence[Effect], traversal: np.ndarray
) -> str:
    html = ["<h2>What single basis vectors mean</h2>"]
    if "dci/own_vectors" in m:
        lines = []
        for block in ("motion", "identity"):
            scores = [_number(m, f"dci/{block}/{n}") for n in ("disentanglement", "completeness", "informativeness")]
            if any(score is not None for score in scores):
                lines.append(f"<tr><td>{block}</td>{''.join(f'<td>{_show(s, 3)}</td>' for s in scores)}</tr>")
        own = [v for v in vectors if v.own]
        html += [
            f"<p>What they follow in the pictures that the encoder reads: <b>{m['dci/own_vectors']} of "
            f"{m['dci/factors']}</b> motion factors have a vector of their own, one whose coefficient alone explains "
            "more than half of the factor, and is mostly explained by it. "
            f"{m['dci/active_vectors']} motion coefficients say something; the others were silenced in training.</p>",
            '<div class="side"><div>',
            _table(["code", "disentanglement", "completeness", "informativeness"], lines),
            '<p class="note">DCI after Eastwood and Williams (2018), importance by lasso regression, each block by '
            "itself. It depends on the rotation of the basis, as it should; the probes above do not.</p></div><div>",
        ]
        if own:
            rows = [
                f"<tr><td>{escape(str(v.factor))}</td><td>{v.coefficient}</td><td>{_show(v.explains, 2)}</td>"
                f"<td>{_show(v.share, 2)}</td></tr>"
                for v in sorted(own, key=lambda v: -v.explains)
            ]
            html.append(_table(["factor", "vector", "explained by it", "of the vector"], rows))
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
    return "\n".join([*html, _figure(traversal, caption)])


def _moved(m: Mapping[str, Value], effects: Sequence[Effect]) -> list[str]:
    if not effects:
        return []
    unread = f" Not read well enough to say: {escape(str(m['effect/unread']))}." if "effect/unread" in m else ""
    moving = sorted((e for e in effects if e.factor is not None), key=lambda e: (not e.own, -e.moves))
    rows = [
        f"<tr><td>{e.coefficient}</td><td>{escape(str(e.factor))}</td><td>{_show(e.moves, 2)}</td>"
        f"<td>{_show(e.share, 2)}</td><td>{_show(e.part, 2)}</td><td>{'yes' if e.own else ''}</td></tr>"
        for e in moving[:_MOVED_ROWS]
    ]
    head = ["vector", "moves most", "by, in sd", "share of the vector's effect", "share of the factor's movers", "own"]
    return [
        f"<p>What they move in results, read by the network: <b>{m['effect/own_vectors']} of {m['effect/factors']}</b> "
        "motion factors have a vector of their own, one that does more than half of what all vectors do to the factor, "
        f"and does mostly that (shares of squares).{unread}</p>",
        _table(head, rows),
    ]


def _groups(m: Mapping[str, Value], groups: Sequence[str]) -> str:
    if not groups:
        return ""
    html = [
        "<h2>For whom it works</h2>",
        "<p>The same figures by group of the source, and how far the best and the worst group lie apart. Figures of "
        f"fewer than {SMALL} pairs are marked: they say little.</p>",
    ]
    columns = [key for key in COMPARED if any(k.endswith("/" + key.replace("/", "_")) for k in m)]
    head = ["", "clips", "pairs", *(_heading(key) for key in columns)]
    lines = []
    for group in groups:
        place = f"groups/{group}/"
        lines.append(f'<tr class="group"><td colspan="{len(head)}">{escape(group)}</td></tr>')
        names = [k.removeprefix(place).removesuffix("/self_pairs") for k in m if k.startswith(place)]
        for name in dict.fromkeys(n for n in names if f"{place}{n}/self_pairs" in m):
            counts = {kind: _number(m, f"{place}{name}/{kind}_pairs") or 0 for kind in ("self", "cross")}
            cells = [f"<td{_small(counts[kind])}>{counts[kind]:.0f}</td>" for kind in counts]
            for key in columns:
                figure = _number(m, f"{place}{name}/{key.replace('/', '_')}")
                small = _small(counts[key.split("/")[0]]) if figure is not None else ""
                cells.append(f"<td{small}>{_show(figure, _digits(key))}</td>")
            lines.append(f"<tr><td>{escape(name)}</td>{''.join(cells)}</tr>")
        gaps = [_show(_number(m, f"{place}gap_{k.replace('/', '_')}"), _digits(k)) for k in columns]
        lines.append(f'<tr class="still"><td>gap</td><td></td><td></td>{"".join(f"<td>{g}</td>" for g in gaps)}</tr>')
    html.append(_table(head, lines, "tight"))
    html.append(f'<p class="note"><span class="small">Orange</span>: fewer than {SMALL} pairs.</p>')
    return "\n".join(html)


def _small(count: float) -> str:
    return ' class="small"' if count < SMALL else ""


def _digits(key: str) -> int:
    return 2 if key.endswith(("psnr", "pose_error", "landmark_error")) else 3


def _heading(key: str) -> str:
    kind, name = key.split("/")
    name = name.removesuffix("_error").replace("_", " ").replace("psnr", "PSNR").replace("l1", "L1")
    return f"{kind} {name} {'↑' if COMPARED[key] else '↓'}"


def _sheet(sheet: np.ndarray) -> str:
    words = "The middle driving frame of each clip or pair; errors are enlarged, white in the last column is warped."
    return f"<h2>Look at it</h2>\n{_figure(sheet, words)}"


def _figure(pixels: np.ndarray, words: str) -> str:
    return (
        f'<figure><img src="{picture_uri(pixels)}" alt="{escape(words)}"><figcaption>{escape(words)}</figcaption>'
        "</figure>"
    )


def _missing(missing: Mapping[str, str]) -> str:
    if not missing:
        return ""
    rows = "".join(f"<dt>{escape(what)}</dt><dd>{escape(why)}</dd>" for what, why in missing.items())
    return f"<h2>What was not measured, and how to get it</h2>\n<dl>{rows}</dl>"


_FACTS = (
    ("Steps", "train/steps"),
    ("Training, seconds", "train/seconds"),
    ("Training, images per second", "train/images_per_second"),
    ("Seed of the training", "seed"),
    ("People in training", "identities/train"),
    ("People in these shards", "identities/test"),
    ("Parameters", "model/parameters"),
    ("GMAC per driven frame", "model/gmac_per_driven_frame"),
    ("Basis, largest |QᵀQ - I|", "basis/orthonormality"),
    ("Seed of the pairs", "evaluation/seed"),
    ("Device", "evaluation/device"),
    ("Evaluation, seconds", "evaluation/seconds"),
)


def _facts(m: Mapping[str, Value], about: About) -> str:
    facts = [("Checkpoint", about.checkpoint), *((words, _plain(m.get(key))) for words, key in _FACTS)]
    rows = "".join(f"<dt>{escape(words)}</dt><dd>{escape(value)}</dd>" for words, value in facts)
    return (
        f'<h2>The run</h2>\n<dl>{rows}</dl>\n<code class="command">{escape(about.command)}</code>\n'
        '<p class="note">All figures are in metrics.json, those of each pair in pairs.csv, directions in axes.json. '
        "Figures of different papers do not compare: they differ in crop, resolution and definition.</p>"
    )


def _words(key: str) -> str:
    return key.split("/")[-1].replace("_", " ")


def _plain(value: Value) -> str:
    if value is None:
        return "not known"
    if isinstance(value, bool | str):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
