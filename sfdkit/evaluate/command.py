"""``sfdkit evaluate``: measures a checkpoint on a folder of shards.

Four steps: :mod:`sfdkit.evaluate.plan` decides who is driven by whom, :mod:`~sfdkit.evaluate.run` drives and measures
pair by pair, :mod:`~sfdkit.evaluate.summarise` turns rows into figures, :mod:`~sfdkit.evaluate.write` writes the files.
``docs/evaluate.md`` lists the keys of metrics.json.
"""

from __future__ import annotations

import inspect
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from jsonargparse.typing import NonNegativeInt, PositiveInt

from sfdkit.checkpoint import load_animator
from sfdkit.data.shards.format import ShardIndex
from sfdkit.data.shards.index import load_index
from sfdkit.device import choose_device
from sfdkit.errors import ConfigError
from sfdkit.evaluate.facts import evaluation_facts
from sfdkit.evaluate.networks import open_networks
from sfdkit.evaluate.plan import (
    Plan,
    ProtocolName,
    add_best_frames,
    choose_groups,
    measurable,
    plan_clips,
    plan_protocol,
)
from sfdkit.evaluate.probes import why_no_probes
from sfdkit.evaluate.report.page import About
from sfdkit.evaluate.result_files import Keep
from sfdkit.evaluate.run import run_plan
from sfdkit.evaluate.samples import Sample, read_samples, read_videos
from sfdkit.evaluate.summarise import pair_figures, require_finite, summarise
from sfdkit.evaluate.write import FILES, distance_table, write_files
from sfdkit.face_networks.types import MeasureSettings
from sfdkit.files import Value, make_folder, require_apart
from sfdkit.model.animator import FaceAnimator
from sfdkit.ranks import join_ranks
from sfdkit.weights.shipped import find_weights

FRAMES = 8
"""Driving frames of each clip without a protocol."""
LEAST_BATCH, MOST_BATCH, BATCH_PIXELS = 16, 128, 1 << 21
"""Driven frames per step: on a CPU the least, on a GPU as many as have so many pixels together."""
_MEASURE = MeasureSettings()
_KINDS, _SHOWN = ("self", "cross"), ("yaw", "pitch", "roll", "jaw_open", "smile", "blink")
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
_READ = (
    ("cosine of result and source, cross", "cross/csim_source"),
    ("  of two frames of one clip", "cross/csim_same_clip"),
    ("  of result and driver", "cross/csim_driver"),
    *((f"{kind}, follows {name} within a clip", f"{kind}/temporal_{name}") for kind in _KINDS for name in _SHOWN),
)


def evaluate(
    checkpoint: str,
    shards: str,
    output: str,
    clips: PositiveInt | None = None,
    cross_pairs: NonNegativeInt = 64,
    frames: PositiveInt | None = None,
    batch_size: PositiveInt | None = None,
    device: str = "auto",
    seed: int = 0,
    sheet_rows: PositiveInt = 8,
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
        checkpoint: A checkpoint that sfdkit fit wrote, a weights file of sfdkit model pack, a folder of sfdkit model
            save, a name such as puppets64 that sfdkit model list shows, hf://user/name[@revision][/folder] on the
            Hugging Face hub, or the https address of a weights file.
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
        ConfigError: Shards of another resolution than the model's, a group that no clip belongs to, or probes of clips
            without factors.
        ShardError: The folder has no index, or a shard is missing or damaged.
    """
    command, began = _command_line(locals()), time.perf_counter()
    source = find_weights(checkpoint)
    for name in FILES:
        require_apart(Path(output) / name, checkpoint=source, pairs=pairs)
    where = join_ranks()
    index = load_index(shards)
    folder = make_folder(Path(output))
    loaded = load_animator(source, choose_device(device), trust or ())
    animator, torch_device = loaded.animator, next(loaded.animator.parameters()).device
    require_resolution(animator, index, checkpoint, shards)
    size = batch_size or default_batch_size(torch_device, animator.resolution)
    samples = read_samples(shards, index, clips, frames or FRAMES)
    shown_groups = choose_groups(groups, samples)
    no_probes = _why_no_probes(probes, samples, shards)
    networks = open_networks(measure, animator.resolution, all(sample.is_puppet for sample in samples), torch_device)

    plan = plan_clips(samples, cross_pairs, seed)
    if protocol is not None or pairs is not None:
        plan = plan_protocol(protocol, read_videos(shards, index, clips), cross_pairs, seed, frames, pairs)
        plan = add_best_frames(animator, plan, networks.measurer, size)
    measured = measurable(plan, protocol, keep is not None or networks.read_without_truth)

    run = run_plan(animator, measured, networks, size, folder, keep)
    distances = pair_figures(run)
    require_finite(distances, checkpoint)
    if not where.leads:
        return dict(distances)

    summary = summarise(loaded, index, run, samples, networks, shown_groups, not no_probes, size)
    facts = evaluation_facts(
        index, torch_device, plan, measured, protocol, None if protocol else frames or FRAMES, seed
    )
    metrics = {**distances, **summary.metrics, **facts, "evaluation/seconds": time.perf_counter() - began}
    missing = {**networks.missing, **_missing(plan, protocol, no_probes, shown_groups)}
    about = About(checkpoint, command, missing, shown_groups, networks.about)
    sheet = (plan_clips(samples, sheet_rows, seed) if protocol else plan).first(sheet_rows)
    write_files(folder, animator, sheet, samples[0], run, summary, metrics, about)
    _print_summary(metrics, measured, folder)
    return metrics


def default_batch_size(device: torch.device, resolution: int) -> int:
    """Return the driven frames per step that suit a device."""
    if device.type == "cpu":
        return LEAST_BATCH
    return min(MOST_BATCH, max(LEAST_BATCH, BATCH_PIXELS // resolution**2))


def require_resolution(animator: FaceAnimator, index: ShardIndex, checkpoint: str, shards: str) -> None:
    """Check that a model makes pictures of the size that shards hold, which all figures are of.

    Raises:
        ConfigError: It does not.
    """
    if animator.resolution != index["resolution"]:
        raise ConfigError(
            f"shards: {shards} holds pictures of {index['resolution']} pixels and the model in {checkpoint} makes "
            f"{animator.resolution}; pack the data with --resolution {animator.resolution}"
        )


def _why_no_probes(asked: bool | None, samples: Sequence[Sample], shards: str) -> str | None:
    """Return why nothing is probed, or None; refuse what was asked for and cannot be done."""
    reason = "they were switched off" if asked is False else why_no_probes(samples)
    if asked and reason:
        raise ConfigError(f"probes: {shards} cannot be probed: {reason}; leave --probes out, or give such shards")
    return reason


def _print_summary(metrics: Mapping[str, Value], measured: Plan, folder: Path) -> None:
    if any(f"{prefix}l1" in metrics for _, prefix in _TABLE):
        print(distance_table(metrics, _TABLE))
    for words, key in _READ:
        if isinstance(value := metrics.get(key), float):
            print(f"{words:<44}{value:7.3f}")
    known = len(measured.with_truth)
    pairs = f"{known} pairs with truth" + (
        f", {len(measured.cross_pairs) - known} without" if measured.cross_pairs[known:] else ""
    )
    print(f"{len(measured.self_pairs)} clips, {pairs}; wrote {', '.join(FILES)} to {folder}")


def _missing(plan: Plan, protocol: str | None, no_probes: str | None, groups: Sequence[str]) -> dict[str, str]:
    """Return what is not in the report for want of data, and how to get it."""
    missing: dict[str, str] = {}
    if protocol == "reconstruction":
        missing["Cross-reenactment"] = "the protocol drives people by themselves; take another --protocol, or none"
    elif not plan.cross_pairs:
        missing["Cross-reenactment"] = "there is no pair of two people; give clips of several people, --cross_pairs > 0"
    elif not plan.with_truth:
        missing["Truth of cross-reenactment"] = (
            "nobody knows how one real face looks with the motion of another: only puppets have a rendered truth. "
            "Evaluate on shards of puppets, or read identity, pose and expression by networks (--measure)"
        )
    if no_probes:
        missing["Probes, DCI and directions"] = f"{no_probes}. Evaluate on the test shards of puppets"
    if not groups:
        missing["Results by group"] = "the clips name no groups; they stand in the json of each clip, under groups"
    return missing


def _command_line(options: Mapping[str, Any]) -> str:
    """Return the command line with these options of :func:`evaluate`, without those that are as by default."""
    words = ["sfdkit", "evaluate"]
    for name, parameter in inspect.signature(evaluate).parameters.items():
        value = options[name]
        if isinstance(value, MeasureSettings):
            changed = [field for field in fields(value) if getattr(value, field.name) != field.default]
            words += [word for f in changed for word in (f"--{name}.{f.name}", str(getattr(value, f.name)))]
        elif value != parameter.default:
            words += [f"--{name}", f"[{','.join(value)}]" if isinstance(value, list) else str(value)]
    return shlex.join(words)
