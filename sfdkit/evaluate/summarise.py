"""Step 3 of an evaluation: figures of a model from the values of its pairs.

``docs/evaluate.md`` explains the keys of metrics.json, and the values of a pair, which are columns of pairs.csv.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import NamedTuple

from sfdkit.checkpoint import LoadedAnimator
from sfdkit.data.shards.format import ShardIndex
from sfdkit.errors import CheckpointError
from sfdkit.evaluate.facts import model_facts
from sfdkit.evaluate.networks import READABLE, Networks
from sfdkit.evaluate.probes import Codes, Findings, Truth, encode_samples, known_factors, orthonormality, run_probes
from sfdkit.evaluate.run import Follow, Row, Run
from sfdkit.evaluate.samples import Sample
from sfdkit.evaluate.temporal import LEAST_FRAMES, PREFIX, temporal_figures
from sfdkit.evaluate.vector_effects import Effects, measure_effects
from sfdkit.files import Value

COMPARED = {
    "self/psnr": True,
    "self/face_psnr": True,
    "cross/psnr": True,
    "cross/face_psnr": True,
    "cross/l1": False,
    "cross/landmark_error": False,
    "cross/pose_error": False,
    "cross/expression_error": False,
    "cross/csim_source": True,
    "cross/leakage": False,
}
"""What is given by group, and whether higher is better."""
_REPEATED = ("l1", "psnr", "ssim", "sharpness")
"""Distances of the unchanged source that stand in for those of cross-reenactment without truth."""


class Summary(NamedTuple):
    """All figures of an evaluation, and what the files beside metrics.json are made of."""

    metrics: dict[str, Value]
    codes: Codes
    truth: Truth | None
    """The known factors; None where nothing is probed."""
    findings: Findings | None
    effects: Effects | None


def summarise(
    loaded: LoadedAnimator,
    index: ShardIndex,
    run: Run,
    samples: Sequence[Sample],
    networks: Networks,
    groups: Sequence[str],
    probe: bool,
    batch_size: int,
) -> Summary:
    """Return all figures but those of :func:`pair_figures`.

    The frames of ``samples`` are encoded, ``batch_size`` per step, and probed for their known factors if ``probe``
    says so; motion vectors are tried on the faces of ``samples``.
    """
    animator = loaded.animator
    codes = encode_samples(animator, samples, batch_size)
    truth = known_factors(samples) if probe else None
    findings = run_probes(codes, truth) if truth else None
    effects = None
    if networks.measurer is not None:
        effects = measure_effects(animator, samples, codes, truth, networks.measurer, batch_size)
    metrics: dict[str, Value] = {**networks.about, **model_facts(loaded, index), **follow_figures(run)}
    metrics |= group_figures(groups, run.self_pairs.rows, run.cross_pairs.rows)
    metrics["basis/orthonormality"] = orthonormality(animator)
    for found in (findings and findings.metrics, effects and effects.metrics()):
        metrics |= found or {}
    return Summary(metrics, codes, truth, findings, effects)


def pair_figures(run: Run) -> dict[str, float]:
    """Return the means over pairs and the distances of sets; without truth ``copy/`` repeats ``self/copy_``."""
    figures = means(run.self_pairs.rows, "self") | means(run.cross_pairs.rows, "cross")
    for kind, scores in (("self", run.self_pairs), ("cross", run.cross_pairs)):
        figures |= {f"{kind}/{name}": value for name, value in scores.sets.items()}
        figures |= _frames_without_face(kind, scores.rows)
    if not any(row.pair.has_truth for row in run.cross_pairs.rows):
        figures |= {f"copy/{n}": figures[key] for n in _REPEATED if (key := f"self/copy_{n}") in figures}
    return figures


def _frames_without_face(kind: str, rows: Sequence[Row]) -> dict[str, float]:
    """Return in how many frames no face was found: of results, and of what they are compared with."""
    figures: dict[str, float] = {}
    for name in ("no_face", "reference_no_face"):
        counts = [row.values[name] * row.pair.driver.driving_count for row in rows if name in row.values]
        figures |= {f"{kind}/{name}_frames": round(sum(counts))} if counts else {}
    return figures


def require_finite(figures: Mapping[str, float], checkpoint: str) -> None:
    """Refuse a model whose pictures are not finite.

    Raises:
        CheckpointError: A figure is not finite.
    """
    for name, value in figures.items():
        if not math.isfinite(value):
            raise CheckpointError(
                f"{checkpoint}: {name} is {value}, so the model makes pictures without finite values; "
                "its training has diverged: take an earlier checkpoint, or train with a lower learning rate"
            )


def means(rows: Iterable[Row], kind: str) -> dict[str, float]:
    """Return the mean of each value over the pairs that have it; ``kind`` is ``self`` or ``cross``."""
    columns: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        for name, value in row.values.items():
            if not name.startswith(PREFIX):  # of these the median counts
                columns[_key(name, kind)].append(value)
    return {key: sum(values) / len(values) for key, values in columns.items()}


def _key(name: str, kind: str) -> str:
    if name.startswith("floor_"):
        return f"measure/{name}"
    place, _, rest = name.partition("_")
    if kind == "cross" and place in ("copy", "truth"):
        return f"{place}/{rest}"
    return f"{kind}/{name}"


def follow_figures(run: Run) -> dict[str, Value]:
    """Return how well results follow, and how well the network reads each factor where that is known.

    The means leave out factors that the network does not read (:data:`READABLE`).
    """
    reads = {name: value for name, f in run.self_pairs.follow.items() if (value := f.read_well()) is not None}
    blind = {name for name, value in reads.items() if value < READABLE}
    figures: dict[str, Value] = {f"measure/reads_{name}": value for name, value in reads.items()}
    figures |= _follow(run.self_pairs.follow, ("self/", "self/copy_"), blind)
    for kind, scores in (("self", run.self_pairs), ("cross", run.cross_pairs)):
        real = [row for row in scores.rows if not row.pair.has_truth]
        long = [row.values for row in real if row.pair.driver.driving_count >= LEAST_FRAMES]
        figures |= temporal_figures(kind, scores.follow, long)
    return figures | _follow(run.cross_pairs.follow, ("cross/", "copy/"), blind)


def _follow(read: Mapping[str, Follow], prefixes: tuple[str, str], blind: Container[str]) -> dict[str, Value]:
    figures: dict[str, Value] = {}
    scores = {name: follow.scores() for name, follow in read.items()}
    for at, prefix in enumerate(prefixes):
        figures |= {f"{prefix}follow_{name}": pair[at] for name, pair in scores.items()}
        known = [pair[at] for name, pair in scores.items() if name not in blind]
        there = [value for value in known if value is not None]
        if there:
            figures[f"{prefix}follow_mean"] = sum(there) / len(there)
    return figures


def group_figures(groups: Sequence[str], self_rows: Sequence[Row], cross_rows: Sequence[Row]) -> dict[str, float]:
    """Return means by group of the source, and how far its best and its worst value lie apart.

    ``groups/skin/dark/cross_psnr`` and so on for all of :data:`COMPARED`; ``groups/skin/dark/self_pairs`` and
    ``cross_pairs``; and ``groups/skin/gap_cross_psnr``, the largest mean less the smallest.
    """
    figures: dict[str, float] = {}
    for group in groups:
        found: dict[str, list[float]] = defaultdict(list)
        for value in sorted(
            {row.pair.source.groups[group] for row in [*self_rows, *cross_rows] if group in row.pair.source.groups}
        ):
            place = f"groups/{group}/{value}"
            for kind, rows in (("self", self_rows), ("cross", cross_rows)):
                chosen = [row for row in rows if row.pair.source.groups.get(group) == value]
                figures[f"{place}/{kind}_pairs"] = len(chosen)
                for key, mean in means(chosen, kind).items():
                    if key in COMPARED:
                        name = key.replace("/", "_")
                        figures[f"{place}/{name}"] = mean
                        found[name].append(mean)
        figures |= {f"groups/{group}/gap_{n}": max(v) - min(v) for n, v in found.items() if len(v) > 1}
    return figures
