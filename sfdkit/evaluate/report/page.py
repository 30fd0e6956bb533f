"""Fills the templates of the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from sfdkit.evaluate.networks import READABLE
from sfdkit.evaluate.report.images import Bar, jpeg_uri, plot_follow, png_uri
from sfdkit.evaluate.summarise import COMPARED
from sfdkit.evaluate.temporal import LEAST_FRAMES, MOVES, MOVES_ELSE
from sfdkit.evaluate.vector_effects import Effect
from sfdkit.files import Value, atomic_write
from sfdkit.metrics.dci import Vector
from sfdkit.metrics.faces import POSE

SMALL = 5
"""A figure of a group with fewer pairs is marked as small."""
_NO_EXPRESSION = {"landmark", "blendshape", "pose", *POSE, "expression", "rotation", "eye_openness", "mouth_openness"}
"""Errors that are not those of a single expression factor."""

Column: TypeAlias = tuple[str, str, int]


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
    sheet: np.ndarray,
    traversal: np.ndarray,
    about: About,
) -> None:
    """Write the report; the file appears whole or not at all.

    Args:
        path: The .html file; its folder exists.
        metrics: As in metrics.json.
        vectors: What each motion vector follows in pictures; may be empty.
        effects: What each motion vector moves in results; may be empty.
        sheet: H W 3 uint8.
        traversal: H W 3 uint8.
        about: What the figures should be read with.
    """
    environment = Environment(
        loader=PackageLoader("sfdkit.evaluate.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"fixed": fixed, "plain": plain_text, "shade": shade, "present": present}
    text = environment.get_template("report.html").render(
        m=metrics,
        about=about,
        checkpoint_name=Path(about.checkpoint).name,
        sheet=jpeg_uri(sheet),
        traversal=jpeg_uri(traversal),
        networks=_networks(about.networks),
        expression=[n for n in _names(metrics, "cross/", "_error") if n not in _NO_EXPRESSION],
        factors={block: _names(metrics, f"probe/{block}_from_{block}/") for block in ("motion", "identity")},
        identity_groups=_names(metrics, "probe/identity_groups_from_identity/"),
        followed=[v for v in sorted(vectors, key=lambda v: -v.explains) if v.exclusive],
        movers=sorted((e for e in effects if e.factor is not None), key=lambda e: (not e.exclusive, -e.moves)),
        moved=bool(effects),
        groups={group: _members(metrics, group) for group in about.groups},
        compared=_compared(metrics),
        temporal=list(
            dict.fromkeys(n for k in ("self/", "cross/") for n in _names(metrics, f"{k}temporal_", "_clips"))
        ),
        moves=(MOVES, MOVES_ELSE, LEAST_FRAMES),
        small=SMALL,
        **_follow(metrics),
    )
    with atomic_write(path) as part:
        part.write_text(text, encoding="utf-8")


def fixed(value: Value, digits: int) -> str:
    """Return a number with so many decimals and a real minus sign; n/a for none."""
    if not isinstance(value, int | float):
        return "n/a"
    text = f"{value:.{digits}f}"
    return text.replace("-", "\N{MINUS SIGN}") if float(text) else text.lstrip("-")


def plain_text(value: Value) -> str:
    """Return a value as text."""
    if value is None:
        return "not known"
    if isinstance(value, bool | str):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"


def shade(value: Value, ink: tuple[int, int, int]) -> str:
    """Return the style of a cell of a heat map: white for 0, nearly ``ink`` for 1."""
    depth = min(max(value if isinstance(value, int | float) else 0.0, 0.0), 1.0) * 0.85
    colour = "#" + "".join(f"{round(255 + (c - 255) * depth):02x}" for c in ink)
    return f"background:{colour};color:{'#ffffff' if depth > 0.55 else '#1d2430'}"


def present(
    columns: Sequence[Column], rows: Sequence[tuple[str, str, str]], metrics: Mapping[str, Value]
) -> list[Column]:
    """Return the columns of a table that have a figure in some line.

    Args:
        columns: Head, end of the key, and digits.
        rows: Words, beginning of the keys, and class.
        metrics: As in metrics.json.
    """
    return [c for c in columns if any(isinstance(metrics.get(prefix + c[1]), int | float) for _, prefix, _ in rows)]


def _names(metrics: Mapping[str, Value], prefix: str, suffix: str = "") -> list[str]:
    """Return the middle of keys that begin and end so, without deeper keys and means."""
    keys = [key for key in metrics if key.startswith(prefix) and key.endswith(suffix)]
    names = [key.removeprefix(prefix).removesuffix(suffix) for key in keys]
    return [name for name in names if "/" not in name and name != "mean"]


def _members(metrics: Mapping[str, Value], group: str) -> list[str]:
    """Return the values of a group, such as dark and light of skin."""
    place, end = f"groups/{group}/", "/self_pairs"
    return [k.removeprefix(place).removesuffix(end) for k in metrics if k.startswith(place) and k.endswith(end)]


def _compared(metrics: Mapping[str, Value]) -> list[dict[str, Any]]:
    """Return the columns of the table by group."""
    columns = []
    for key, higher in COMPARED.items():
        kind, name = key.split("/")
        if any(k.endswith(f"/{kind}_{name}") for k in metrics):
            words = name.removesuffix("_error").replace("_", " ").replace("psnr", "PSNR").replace("l1", "L1")
            digits = 2 if name.endswith(("psnr", "pose_error", "landmark_error")) else 3
            head = f"{kind} {words} {'↑' if higher else '↓'}"
            columns.append({"head": head, "key": f"{kind}_{name}", "kind": kind, "digits": digits})
    return columns


def _networks(networks: Mapping[str, Value]) -> dict[str, Any]:
    """Return which networks measured, and how well they read faces held out of their training."""
    named = {key.split("/")[-1]: value for key, value in networks.items()}
    about = [f"{n.replace('_', ' ')} {plain_text(v)}" for n, v in named.items() if not isinstance(v, float)]
    read = [n for n, v in named.items() if isinstance(v, float) and not n.startswith(("r2_", "soft_"))]
    columns = ("", "r2_", "soft_", "soft_r2_")
    rows = {n: [plain_text(named[p + n]) if p + n in named else "" for p in columns] for n in read}
    return {"about": ", ".join(about), "rows": rows}


def _follow(metrics: Mapping[str, Value]) -> dict[str, Any]:
    """Return the plot of follow scores, of cross-reenactment where there are any, and what the network cannot read."""
    bars: list[Bar] = []
    for prefix, unchanged_prefix in (("self/", "self/copy_"), ("cross/", "copy/")):
        names = [name for name in _names(metrics, f"{prefix}follow_") if name != "mean"]
        reads = [metrics.get(f"measure/reads_{name}") for name in names]
        pale = [isinstance(value, int | float) and value < READABLE for value in reads]
        values, unchanged = ([metrics.get(f"{p}follow_{name}") for name in names] for p in (prefix, unchanged_prefix))
        bars = [Bar(*bar) for bar in zip(names, values, unchanged, pale, strict=True)] or bars  # type: ignore[arg-type]
    return {
        "follow": png_uri(plot_follow(bars)) if bars else None,
        "blind": [bar.name for bar in bars if bar.pale],
        "readable": READABLE,
    }
