"""Pieces of the report: numbers, tables, tiles and pictures as html."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape

import numpy as np
from PIL import Image

from sfdkit.evaluate.rows import COMPARED, SMALL
from sfdkit.files import Value

WIDEST, TALLEST = 1400, 3200
"""Pixels that pictures in the report are shrunk to."""


STYLE = """
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


def picture_uri(pixels: np.ndarray) -> str:
    """Return H W 3 uint8 as a JPEG in a data: address, shrunk to fit :data:`WIDEST` by :data:`TALLEST`."""
    picture = Image.fromarray(pixels)
    picture.thumbnail((WIDEST, TALLEST), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=88, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def number_of(metrics: Mapping[str, Value], key: str) -> float | None:
    """Return a metric as a number; None where there is none."""
    value = metrics.get(key)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def show(value: float | None, digits: int) -> str:
    """Return a number with a real minus sign; a dash for none."""
    if value is None:
        return "n/a"
    text = f"{value:.{digits}f}"
    return text.replace("-", "&minus;") if float(text) else text.lstrip("-")


def make_tile(value: str, words: str) -> str:
    """Return a large figure with words under it."""
    return f'<div class="tile"><b>{value}</b><span>{words}</span></div>'


def make_table(head: Sequence[str], lines: Sequence[str], kind: str = "") -> str:
    """Return a table of lines that are html already."""
    cells = "".join(f"<th>{escape(word)}</th>" for word in head)
    opening = f'<table class="{kind}">' if kind else "<table>"
    return f'<div class="wide">{opening}<thead><tr>{cells}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'


def names_under(m: Mapping[str, Value], prefix: str) -> list[str]:
    """Return what the metrics of a prefix are called, means left out."""
    return [key.removeprefix(prefix) for key in m if key.startswith(prefix) and not key.endswith("_mean")]


def make_figure(pixels: np.ndarray, words: str) -> str:
    """Return a picture with words under it."""
    return (
        f'<figure><img src="{picture_uri(pixels)}" alt="{escape(words)}"><figcaption>{escape(words)}</figcaption>'
        "</figure>"
    )


def digits_of(key: str) -> int:
    """Return how many decimals a metric is shown with."""
    return 2 if key.endswith(("psnr", "pose_error", "landmark_error")) else 3


def heading_of(key: str) -> str:
    """Return the column head of a metric by group."""
    kind, name = key.split("/")
    name = name.removesuffix("_error").replace("_", " ").replace("psnr", "PSNR").replace("l1", "L1")
    return f"{kind} {name} {'↑' if COMPARED[key] else '↓'}"


def small_class(count: float) -> str:
    """Return the attribute that marks figures of few pairs."""
    return ' class="small"' if count < SMALL else ""


def words_of(key: str) -> str:
    """Return the last part of a key in words."""
    return key.split("/")[-1].replace("_", " ")


def plain_text(value: Value) -> str:
    """Return a value as text."""
    if value is None:
        return "not known"
    if isinstance(value, bool | str):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
