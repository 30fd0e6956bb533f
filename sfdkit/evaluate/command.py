"""What an animator is worth: figures, pictures and a report from a folder of shards.

Legend: ``G`` clips or pairs of one batch, ``K`` driving frames of each, ``R`` resolution.

Files: ``metrics.json``, ``pairs.csv`` (a row per pair), ``axes.json`` (:mod:`sfdkit.apply.axes`), ``sheet.png``,
``traversal.png`` and ``report.html``, which shows it all.

The keys of ``metrics.json``. First distances, each prefix followed by ``l1``, ``psnr``, ``ssim`` or ``lpips``: on
[0, 1], mean over the frames of a clip, then over clips or pairs.

``self/``
    Self-reenactment: frame 0 of a clip is driven by other frames of the clip, which are the truth as well.
``self/copy_``
    The source frame itself against the same truth: what doing nothing gives.
``cross/``
    Cross-reenactment of puppets: one is driven by another, and the truth is rendered.
``copy/``
    The source frame itself against the truth of ``cross/``. Real faces have no such truth; for them there is no
    ``cross/``, and ``copy/`` repeats ``self/copy_``.
``self/ms_ssim`` …
    From 161 pixels a side on.
``self/fid``, ``self/kid``, ``cross/fid`` …, ``self/fid_frames`` …
    With ``--measure.features``: distance of the set of results from the set of true pictures (without truth: of driving
    frames), and of how many. KID from 100 pictures on.
``self/face_``, ``self/copy_face_``, ``cross/face_``, ``copy/face_``
    The same of puppets inside the face's mask; not for ``lpips``.

What networks read in faces, where one is given (``--measure``). Result and truth are read by the same network, so that
its bias cancels. Real faces driven by others have no truth: pose and expression are compared with the driver's.

``self/``, ``self/copy_``, ``cross/``, ``copy/`` with ``landmark_error``, ``pose_error``, ``yaw_error`` …,
``expression_error``, ``mouth_open_error`` …
    Pixels (mean absolute per coordinate, as AKD), degrees (mean absolute over yaw, pitch and roll, and each), units of
    the factor (mean absolute over all, and each).
``rotation_error``, ``eye_openness_error``, ``mouth_openness_error``
    Degrees of the rotation between head poses (ARD); of networks that give 68 landmarks, height over width.
``self/aed``, ``self/copy_aed``
    Squared distance of face embeddings (AED of the First Order Motion Model; PIRenderer's is ``expression_error``).
``cross/follow_yaw``, ``cross/follow_mouth_open`` …, ``self/follow_…``, ``copy/follow_…``, ``self/copy_follow_…``
    Correlation over all frames between what is read in the result and in the truth; of the unchanged source for
    ``copy``: what the likeness of people alone gives. null where the truth does not vary. ``follow_mean``: over
    those that the network reads (``measure/reads_…`` at least 0.5, where that is known).
``cross/csim_source``, ``cross/csim_driver``, ``cross/csim_gap``
    Cosine of the result's face embedding with the source frame's, with the driving frame's, and the difference.
``truth/csim_…``, ``copy/csim_driver``
    The same for the true pictures of puppets; of the unchanged source.
``cross/leakage``
    The gap of the true picture (of real faces: of the unchanged source) less that of the result: by how much the result
    is nearer to the driver than it should be.
``self/csim``, ``self/copy_csim``
    Cosine of the result's embedding with the driving frame's.
``self/unread``, ``cross/unread``
    Share of the frames in which something could not be read; they are left out.
``measure/floor_yaw_error`` …
    The network's own error, on the driving frames of puppets against their known factors.
``measure/reads_yaw`` …
    Correlation over the same frames between what it reads and what the factor is: below 0.5 a follow score says little.
``regressor/…``, ``networks/…``
    About the networks: which, and how well they read faces held out of their training.

What the descriptors hold, on puppets (:mod:`sfdkit.metrics.probes`, :mod:`sfdkit.metrics.dci`); ``BLOCK`` is
``motion``, ``identity`` or, for probes, ``backbone``.

``probe/motion_from_BLOCK/yaw`` …, ``probe/identity_from_BLOCK/skin_tone`` …, and ``mean``
    R2 out of fold of a ridge regression of the factor, folds by identity. ``probe/skipped``: factors that are constant.
``dci/BLOCK/disentanglement``, ``completeness``, ``informativeness``
    Of the motion factors from the motion coefficients, and of the identity factors from the identity coefficients.
``dci/own_vectors`` of ``dci/factors``
    Motion factors that have a vector of their own in what the encoder reads, as
    :func:`sfdkit.metrics.dci.describe_vectors` defines it.
``effect/own_vectors`` of ``effect/factors``, ``effect/<factor>/vector``, ``effect/<factor>/moves``
    Motion factors that have a vector of their own in what the generator draws, which one, and how many standard
    deviations one of its coefficient moves the factor, see :class:`sfdkit.evaluate.effects.Effect`; ``effect/unread``
    names the factors that the network does not read well enough.
``dci/active_vectors``
    Motion coefficients that say something, see :meth:`sfdkit.evaluate.describe.Codes.spoken`; DCI and vectors are of
    these.
``basis/orthonormality``
    Largest entry of ``|Q^T Q - I|``.

``groups/skin/dark/cross_psnr`` …, ``groups/skin/dark/cross_pairs``, ``groups/skin/gap_cross_psnr`` …
    Means by group of the source, the number of pairs, and best less worst.
"""

from __future__ import annotations

import inspect
import math
import platform
import shlex
import time
from collections.abc import Container, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from sfdkit.apply.axes import FILE_NAME as AXES
from sfdkit.checkpoint import LoadedAnimator, load_animator
from sfdkit.data.shards.format import ShardIndex
from sfdkit.data.shards.index import load_index
from sfdkit.device import choose_device
from sfdkit.errors import CheckpointError, ConfigError
from sfdkit.evaluate.describe import (
    describe_samples,
    examine,
    known_factors,
    make_axes,
    orthonormality,
    why_no_probes,
)
from sfdkit.evaluate.effects import measure_effects
from sfdkit.evaluate.gauges import open_gauges
from sfdkit.evaluate.keep import Collector, Keep
from sfdkit.evaluate.protocols import ProtocolName, plan_protocol, read_videos, with_best_frames
from sfdkit.evaluate.reenact import READABLE, Follow, reenact
from sfdkit.evaluate.report import About, Pictures, write_page
from sfdkit.evaluate.rows import by_group, choose_groups, means, write_pairs
from sfdkit.evaluate.samples import Pair, Sample, read_samples
from sfdkit.evaluate.sheet import draw_sheet, draw_traversal
from sfdkit.face_networks.types import MeasureSettings
from sfdkit.files import Value, distance_table, make_folder, require_apart, write_metrics, write_picture
from sfdkit.metrics.protocol import cross_pairs as draw_pairs
from sfdkit.model.animator import FaceAnimator
from sfdkit.model.summary import gmac_per_driven_frame, parameters
from sfdkit.ranks import join_ranks

_TABLE = (
    ("self-reenactment", "self/"),
    ("  source unchanged", "self/copy_"),
    ("self, inside the face", "self/face_"),
    ("  source unchanged", "self/copy_face_"),
    ("cross-reenactment", "cross/"),
    ("  source unchanged", "copy/"),
    ("cross, inside the face", "cross/face_"),
    ("  source unchanged", "copy/face_"),
)
FRAMES = 8
"""Driving frames of each clip without a protocol."""
LEAST_BATCH, MOST_BATCH, BATCH_PIXELS = 16, 128, 1 << 21
"""Driven frames per step: on a CPU the least, on a GPU as many as have so many pixels together."""
_MEASURE = MeasureSettings()
_FILES = ("report.html", "metrics.json", "pairs.csv", AXES, "sheet.png", "traversal.png")


def evaluate(
    checkpoint: str,
    shards: str,
    output: str,
    clips: int | None = None,
    cross_pairs: int = 64,
    frames: int | None = None,
    batch_size: int | None = None,
    device: str = "auto",
    seed: int = 0,
    sheet_rows: int = 8,
    trust: list[str] | None = None,
    measure: MeasureSettings = _MEASURE,
    probes: bool | None = None,
    groups: list[str] | None = None,
    protocol: ProtocolName | None = None,
    pairs: str | None = None,
    keep: Keep | None = None,
) -> dict[str, Value]:
    """Measure a checkpoint on a folder of shards and show what it does and what its descriptors hold.

    Writes metrics.json, pairs.csv, axes.json, sheet.png, traversal.png and report.html. Puppets have a true answer for
    one face driven by another, and known factors; what has no answer in other data is left out, and the report says so.
    ``torchrun --nproc_per_node 4 -m sfdkit evaluate ...`` shares the pairs out over four processes and GPUs.

    Args:
        checkpoint: A checkpoint that sfdkit fit wrote.
        shards: A folder with index.json, of the model's resolution, for example shards/puppets64/test.
        output: The folder for the results; files of the same names are replaced.
        clips: Clips to use, from the start of the index, or of a protocol videos by name; all by default.
        cross_pairs: Pairs of clips of different people, drawn by the seed.
        frames: Driving frames of each pair, evenly spread: 8 by default, with a protocol all there are.
        batch_size: Driven frames per step: 16 by default, on a GPU up to 128, fewer at high resolutions.
        device: auto, cpu, cuda, cuda:1, mps.
        seed: Draws the pairs.
        sheet_rows: Rows of the sheet for self-reenactment, and as many for pairs.
        trust: Packages besides sfdkit whose classes the checkpoint may name: --trust [mypackage].
        measure: Networks that read faces.
        probes: Probe the descriptors for the factors of puppets; by default where the clips hold factors.
        groups: Report by these groups of the clips: --groups [skin,glasses]; all there are by default.
        protocol: How the field pairs frames: reconstruction, cross, cross_best or pairs, on whole videos; by default
            clips drive themselves and each other.
        pairs: For --protocol pairs: a csv with the columns source and driving, and best_frame if motion is relative.
        keep: Keep the results beside what they should be, as videos or frames.

    Returns:
        What metrics.json holds; of several processes the first alone writes, and others return the distances.

    Raises:
        CheckpointError: The checkpoint is missing, damaged, of another model, or its results are not finite.
        ConfigError: A number that cannot work, shards of another resolution than the model's, a group that no clip
            belongs to, or probes of clips without factors.
        ShardError: The folder has no index, or a shard is missing or damaged.
    """
    asked = dict(locals())
    numbers = {
        "clips": 1 if clips is None else clips,
        "frames": FRAMES if frames is None else frames,
        "batch_size": LEAST_BATCH if batch_size is None else batch_size,
    }
    for name, value in (numbers | {"sheet_rows": sheet_rows}).items():
        if value < 1:
            raise ConfigError(f"{name}: {value} is not possible; give a whole number of at least 1")
    if cross_pairs < 0:
        raise ConfigError(f"cross_pairs: {cross_pairs} is not possible; give 0 for none, or more")
    for name in _FILES:
        require_apart(Path(output) / name, checkpoint=checkpoint, pairs=pairs)
    began = time.perf_counter()
    where = join_ranks()
    index = load_index(shards)
    folder = make_folder(Path(output))
    loaded = load_animator(checkpoint, choose_device(device), trust or ())
    animator = loaded.animator
    _require_resolution(animator, index, checkpoint, shards)
    samples = read_samples(shards, index, clips, frames or FRAMES)
    chosen = choose_groups(groups, samples)
    no_probes = "they were switched off" if probes is False else why_no_probes(samples)
    if probes and no_probes:
        raise ConfigError(f"probes: {shards} cannot be probed: {no_probes}; leave --probes out, or give such shards")
    puppets = all(sample.is_puppet for sample in samples)
    place = next(animator.parameters()).device
    size = batch_size or _batch_for(place, animator.resolution)
    opened = open_gauges(measure, animator.resolution, puppets, place)

    own, drawn = _pairs_of(samples, cross_pairs, seed)
    if protocol is not None or pairs is not None:
        asked_for = plan_protocol(protocol, read_videos(shards, index, clips), cross_pairs, seed, frames, pairs)
        own, drawn = asked_for.own, asked_for.cross
        if asked_for.best:
            drawn = with_best_frames(animator, drawn, opened.gauges.measurer, size)
    true_pairs = [pair for pair in drawn if pair.has_truth]
    wanted = keep or opened.features or opened.gauges.measurer is not None
    shown_pairs = true_pairs or (drawn if wanted else [])
    if not own and not shown_pairs:
        raise ConfigError(
            f"protocol: {protocol} drives one real face by another, so there is no truth, and nothing is to be kept "
            "or measured; give --keep, --measure.features or another network of --measure"
        )
    collected = {
        kind: Collector(folder, keep, kind, opened.features, place, pairs)
        for kind, pairs in (("self", own), ("cross", shown_pairs))
    }
    by_self = reenact(animator, own, size, opened.gauges, "self", collected["self"].sink)
    by_cross = reenact(animator, shown_pairs, size, opened.gauges, "cross", collected["cross"].sink)
    measured = means(by_self.rows, "self") | means(by_cross.rows, "cross")
    for kind, one in collected.items():
        measured |= {f"{kind}/{name}": value for name, value in one.distances().items()}
    if not true_pairs and "self/copy_l1" in measured:
        measured |= {f"copy/{name}": measured[f"self/copy_{name}"] for name in ("l1", "psnr", "ssim")}
    _require_finite(measured, checkpoint)
    if not where.leads:
        return dict(measured)

    metrics: dict[str, Value] = {**measured, **opened.about, **_about(loaded, index)}
    read_well = {name: columns.read_well() for name, columns in by_self.follow.items()}
    metrics |= {f"measure/reads_{name}": value for name, value in read_well.items() if value is not None}
    blind = {name for name, value in read_well.items() if value is not None and value < READABLE}
    metrics |= _follow(by_self.follow, "self/", "self/copy_", blind)
    metrics |= _follow(by_cross.follow, "cross/", "copy/", blind)
    metrics |= by_group(chosen, by_self.rows, by_cross.rows)
    codes = describe_samples(animator, samples, size)
    truth = None if no_probes else known_factors(samples)
    findings = examine(codes, truth) if truth else None
    metrics |= findings.metrics if findings else {}
    metrics["basis/orthonormality"] = orthonormality(animator)
    counts = {"clips": len(own), "pairs": len(true_pairs), "seed": seed}
    if protocol is None:
        counts["frames_per_clip"] = frames or FRAMES
    metrics |= {f"evaluation/{name}": value for name, value in counts.items()}
    metrics["evaluation/protocol"] = protocol or "spread"
    metrics["evaluation/driven_frames"] = sum(len(p.driver.chosen) - 1 for p in [*own, *shown_pairs])

    rows = _pairs_of(samples, sheet_rows, seed) if protocol else (own, drawn)
    sheet = draw_sheet(animator, rows[0][:sheet_rows], rows[1][:sheet_rows])
    vectors = findings.motion if findings else []
    measurer = opened.gauges.measurer
    moved = None if measurer is None else measure_effects(animator, samples, codes, truth, measurer, size)
    metrics |= moved.metrics() if moved else {}
    effects = moved.vectors if moved else []
    spread = codes.motion.std(0, correction=0) * codes.spoken()
    traversal = draw_traversal(animator, samples[0], spread, effects)
    write_picture(folder / "sheet.png", sheet)
    write_picture(folder / "traversal.png", traversal)
    write_pairs(folder / "pairs.csv", by_self.rows, by_cross.rows)
    make_axes(animator, codes, truth, findings).save(folder / AXES)
    metrics["evaluation/seconds"] = time.perf_counter() - began
    write_metrics(folder / "metrics.json", metrics)
    missing = opened.missing | _missing(true_pairs, drawn, protocol == "reconstruction", no_probes, chosen)
    about = About(checkpoint, _command(asked), missing, chosen, opened.about)
    write_page(folder / "report.html", metrics, vectors, effects, Pictures(sheet, traversal), about)
    if measured:
        print(distance_table(metrics, _TABLE))
    without = f", {len(shown_pairs)} without" if shown_pairs and not true_pairs else ""
    print(f"{len(own)} clips, {len(true_pairs)} pairs with truth{without}; wrote {', '.join(_FILES)} to {folder}")
    return metrics


def _batch_for(device: torch.device, resolution: int) -> int:
    """Return the driven frames per step that suit a device."""
    if device.type == "cpu":
        return LEAST_BATCH
    return min(MOST_BATCH, max(LEAST_BATCH, BATCH_PIXELS // resolution**2))


def _pairs_of(samples: Sequence[Sample], count: int, seed: int) -> tuple[list[Pair], list[Pair]]:
    """Return each clip paired with itself, and pairs of clips of different people."""
    drawn = draw_pairs([sample.identity for sample in samples], count, seed)
    return [Pair(sample, sample) for sample in samples], [Pair(samples[i], samples[j]) for i, j in drawn]


def _follow(read: Mapping[str, Follow], result: str, still: str, blind: Container[str]) -> dict[str, Value]:
    """Return the follow scores of results and of unchanged sources, and their means without ``blind`` factors."""
    metrics: dict[str, Value] = {}
    scores = {name: columns.scores() for name, columns in read.items()}
    for prefix, at in ((result, 0), (still, 1)):
        metrics |= {f"{prefix}follow_{name}": pair[at] for name, pair in scores.items()}
        there = [v for name, pair in scores.items() if (v := pair[at]) is not None and name not in blind]
        if there:
            metrics[f"{prefix}follow_mean"] = sum(there) / len(there)
    return metrics


def _missing(
    true_pairs: Sequence[Pair], pairs: Sequence[Pair], alone: bool, no_probes: str | None, groups: Sequence[str]
) -> dict[str, str]:
    """Return what is not in the report besides what no network reads, and how to get it."""
    missing: dict[str, str] = {}
    if alone:
        missing["Cross-reenactment"] = "the protocol drives people by themselves; take another --protocol, or none"
    elif not pairs:
        missing["Cross-reenactment"] = "there is no pair of two people; give clips of several people, --cross_pairs > 0"
    elif not true_pairs:
        missing["Truth of cross-reenactment"] = (
            "nobody knows how one real face looks with the motion of another: only puppets have a rendered truth. "
            "Evaluate on shards of puppets, or read identity, pose and expression by networks (--measure)"
        )
    if no_probes:
        missing["Probes, DCI and directions"] = f"{no_probes}. Evaluate on the test shards of puppets"
    if not groups:
        missing["Results by group"] = "the clips name no groups; they stand in the json of each clip, under groups"
    return missing


def _command(asked: Mapping[str, Any]) -> str:
    """Return the command line that gives these results, without what is as by default."""
    words = ["sfdkit", "evaluate"]
    for name, parameter in inspect.signature(evaluate).parameters.items():
        value = asked[name]
        if isinstance(value, MeasureSettings):
            different = {f.name: getattr(value, f.name) for f in fields(value) if getattr(value, f.name) != f.default}
            words += [word for key, file in different.items() for word in (f"--{name}.{key}", str(file))]
        elif value != parameter.default:
            words += [f"--{name}", f"[{','.join(value)}]" if isinstance(value, list) else str(value)]
    return shlex.join(words)


def _require_resolution(animator: FaceAnimator, index: ShardIndex, checkpoint: str, shards: str) -> None:
    if animator.resolution != index["resolution"]:
        raise ConfigError(
            f"shards: {shards} holds pictures of {index['resolution']} pixels and the model in {checkpoint} makes "
            f"{animator.resolution}; pack the data with --resolution {animator.resolution}"
        )


def _require_finite(measured: dict[str, float], checkpoint: str) -> None:
    wrong = [name for name, value in measured.items() if not math.isfinite(value)]
    if wrong:
        raise CheckpointError(
            f"{checkpoint}: {wrong[0]} is {measured[wrong[0]]}, so the model makes pictures without finite values; "
            "its training has diverged: take an earlier checkpoint, or train with a lower learning rate"
        )


def _about(loaded: LoadedAnimator, index: ShardIndex) -> dict[str, Value]:
    """Return what else the figures should be read with; None where the checkpoint does not say."""
    device = next(loaded.animator.parameters()).device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return {
        **{f"train/{key}": loaded.train.get(key) for key in ("steps", "seconds", "images_per_second")},
        "seed": loaded.train.get("seed"),
        "identities/train": loaded.train.get("identities"),
        "identities/test": index["identities"],
        "model/parameters": parameters(loaded.animator),
        "model/gmac_per_driven_frame": gmac_per_driven_frame(loaded.animator),
        "evaluation/dataset": index["dataset"],
        "evaluation/split": index["split"],
        "evaluation/resolution": index["resolution"],
        "evaluation/device": f"{device.type}: {name}",
    }
