"""From figures of pairs to figures of a model: means, groups, and the table of all pairs.

The values of a pair (:class:`sfdkit.evaluate.reenact.Scored`), each a mean over its driving frames:

``l1 psnr ssim lpips`` and ``face_*``
    Distance of the result from the answer, on [0, 1]; inside the mask of the face.
``landmark_error pose_error yaw_error … expression_error mouth_open_error …``
    What a network reads in the result against what it reads in the answer: pixels, degrees, units of the factor.
``csim_source csim_driver csim_gap``, in self-reenactment ``csim``
    Cosine of the result's embedding with the source frame's, with the driving frame's, the first less the second; with
    the answer's.
``leakage``
    By how much the gap is smaller than that of the true picture (of the unchanged source, where there is no truth).
``copy_*``
    The same for the unchanged source in place of the result.
``truth_*``
    The same for the true picture in place of the result.
``floor_*``
    In self-reenactment: what the network reads in the driving frames against their known factors, its own error.
``unread``
    Share of the frames in which something could not be read; those are left out of what was read.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from sfdkit.errors import ConfigError
from sfdkit.evaluate.reenact import Scored
from sfdkit.evaluate.samples import Sample

SMALL = 5
"""A figure of a group with fewer pairs is marked as small."""

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

_PLACES = {"copy_": "copy/", "truth_": "truth/"}


def means(rows: Iterable[Scored], kind: str) -> dict[str, float]:
    """Return the means over pairs by their keys in metrics.json.

    Args:
        rows: The pairs.
        kind: ``self`` or ``cross``. Values of the unchanged source go to ``self/copy_*`` and ``copy/*``.

    Returns:
        Key to the mean over the pairs that have the value.
    """
    columns: dict[str, list[float]] = {}
    for row in rows:
        for name, value in row.values.items():
            columns.setdefault(name, []).append(value)
    return {key_of(name, kind): sum(values) / len(values) for name, values in columns.items()}


def key_of(name: str, kind: str) -> str:
    """Return the key in metrics.json of a value of a pair."""
    if kind == "cross":
        for prefix, place in _PLACES.items():
            if name.startswith(prefix):
                return place + name.removeprefix(prefix)
    if name.startswith("floor_"):
        return f"measure/{name}"
    return f"{kind}/{name}"


def write_pairs(path: Path, own: Sequence[Scored], cross: Sequence[Scored]) -> None:
    """Write one line per pair; the file appears whole or not at all.

    Args:
        path: The file; its folder exists.
        own: Pairs of self-reenactment.
        cross: Pairs of cross-reenactment.
    """
    rows = [("self", row) for row in own] + [("cross", row) for row in cross]
    names = sorted({name for _, row in rows for name in row.values})
    groups = sorted({name for _, row in rows for name in _groups(row.pair.source)})
    head = ["kind", "source", "driver", "source_identity", "driver_identity", *(f"source_{name}" for name in groups)]
    part = path.with_name(path.name + ".part")
    with part.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow([*head, *names])
        for kind, row in rows:
            source, driver = row.pair.source, row.pair.driver
            about = [kind, source.clip["key"], driver.clip["key"], source.identity, driver.identity]
            about += [_groups(source).get(name, "") for name in groups]
            figures = [f"{row.values[name]:.6g}" if name in row.values else "" for name in names]
            table.writerow([*about, *figures])
    os.replace(part, path)


def choose_groups(asked: Sequence[str] | None, samples: Sequence[Sample]) -> list[str]:
    """Return the groups to report by.

    Args:
        asked: What a user asked for; None for all there are.
        samples: The clips.

    Raises:
        ConfigError: No clip says anything about a group that was asked for.
    """
    known = sorted({name for sample in samples for name in _groups(sample)})
    for name in asked or ():
        if name not in known:
            have = f"the groups there are {', '.join(known)}" if known else "they name no groups at all"
            raise ConfigError(
                f"groups: no clip of these shards belongs to a group {name!r}; {have}. Groups of your own stand in the "
                "json of each clip, under groups"
            )
    return known if asked is None else list(asked)


def by_group(groups: Sequence[str], own: Sequence[Scored], cross: Sequence[Scored]) -> dict[str, float]:
    """Return means by group of the source, and how far its best and its worst value lie apart.

    Args:
        groups: Such as ``skin``.
        own: Pairs of self-reenactment.
        cross: Pairs of cross-reenactment.

    Returns:
        ``groups/skin/dark/cross_psnr`` and so on for all of :data:`COMPARED`, ``groups/skin/dark/self_pairs`` and
        ``cross_pairs``, their numbers, and ``groups/skin/gap_cross_psnr``, the best value less the worst, or the other
        way round where lower is better: never negative.
    """
    figures: dict[str, float] = {}
    for group in groups:
        found: dict[str, dict[str, float]] = {}
        for value in sorted({_groups(r.pair.source)[group] for r in [*own, *cross] if group in _groups(r.pair.source)}):
            for kind, rows in (("self", own), ("cross", cross)):
                chosen = [row for row in rows if _groups(row.pair.source).get(group) == value]
                figures[f"groups/{group}/{value}/{kind}_pairs"] = len(chosen)
                for key, mean in means(chosen, kind).items():
                    if key in COMPARED:
                        found.setdefault(key.replace("/", "_"), {})[value] = mean
        for name, values in found.items():
            figures |= {f"groups/{group}/{value}/{name}": mean for value, mean in values.items()}
            if len(values) > 1:
                figures[f"groups/{group}/gap_{name}"] = max(values.values()) - min(values.values())
    return figures


def _groups(sample: Sample) -> Mapping[str, str]:
    return sample.clip["meta"]["groups"]
