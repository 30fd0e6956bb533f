"""The report of an evaluation: one html file that needs nothing else, no network and no script."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sfdkit.evaluate.effects import Effect
from sfdkit.evaluate.report.descriptors import probe_section, vector_section
from sfdkit.evaluate.report.figures import (
    distance_section,
    follow_section,
    group_section,
    headline_section,
    identity_section,
)
from sfdkit.evaluate.report.html import STYLE, make_figure, plain_text
from sfdkit.files import Value
from sfdkit.metrics.dci import Vector


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


_FACTS = (
    ("Protocol", "evaluation/protocol"),
    ("Driven frames", "evaluation/driven_frames"),
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
        headline_section(metrics),
        distance_section(metrics, about.networks),
        follow_section(metrics),
        identity_section(metrics),
        probe_section(metrics),
        vector_section(metrics, vectors, effects, pictures.traversal),
        group_section(metrics, about.groups),
        _sheet(pictures.sheet),
        _missing(about.missing),
        _facts(metrics, about),
    ]
    title = f"sfdkit: {Path(about.checkpoint).name} on {metrics.get('evaluation/dataset')}"
    text = (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(title)}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>{STYLE}</style>\n</head>\n<body>\n<main>\n" + "\n".join(s for s in sections if s) + "\n</main>\n"
        "</body>\n</html>\n"
    )
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)


def _sheet(sheet: np.ndarray) -> str:
    words = "The middle driving frame of each clip or pair; errors are enlarged, white in the last column is warped."
    return f"<h2>Look at it</h2>\n{make_figure(sheet, words)}"


def _missing(missing: Mapping[str, str]) -> str:
    if not missing:
        return ""
    rows = "".join(f"<dt>{escape(what)}</dt><dd>{escape(why)}</dd>" for what, why in missing.items())
    return f"<h2>What was not measured, and how to get it</h2>\n<dl>{rows}</dl>"


def _facts(m: Mapping[str, Value], about: About) -> str:
    facts = [("Checkpoint", about.checkpoint), *((words, plain_text(m.get(key))) for words, key in _FACTS)]
    rows = "".join(f"<dt>{escape(words)}</dt><dd>{escape(value)}</dd>" for words, value in facts)
    return (
        f'<h2>The run</h2>\n<dl>{rows}</dl>\n<code class="command">{escape(about.command)}</code>\n'
        '<p class="note">All figures are in metrics.json, those of each pair in pairs.csv, directions in axes.json. '
        "Figures of different papers do not compare: they differ in crop, resolution and definition.</p>"
    )
