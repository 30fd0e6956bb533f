"""What an animator is worth: figures and a picture from a folder of shards.

Legend: ``G`` clips or pairs of one batch, ``K`` driving frames of each, ``R`` resolution.

The keys of ``metrics.json``, each followed by ``l1``, ``psnr`` or ``ssim``: on [0, 1], mean over the frames of a clip,
then over clips or pairs.

``self/``
    Self-reenactment: frame 0 of a clip is driven by other frames of the clip, which are the truth as well.
``self/copy_``
    The source frame itself against the same truth: what doing nothing gives.
``cross/`` and ``cross/face_``
    Cross-reenactment of puppets: one is driven by another, and the truth is rendered. ``face_``: inside the face's
    mask.
``copy/`` and ``copy/face_``
    The source frame itself against the truth of ``cross/``. Real faces have no such truth; for them there is no
    ``cross/``, and ``copy/`` repeats ``self/copy_``.
"""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from sfdkit.animate import choose_device, require_positive
from sfdkit.checkpoint import LoadedAnimator, load_animator
from sfdkit.data.format import ShardIndex
from sfdkit.data.index import load_index
from sfdkit.errors import CheckpointError, ConfigError
from sfdkit.metrics.protocol import cross_pairs as draw_pairs
from sfdkit.model.animator import FaceAnimator
from sfdkit.model.summary import gmac_per_driven_frame, parameters
from sfdkit.reenact import cross_reenactment, self_reenactment
from sfdkit.report import Value, distance_table, make_folder, write_metrics, write_picture
from sfdkit.samples import Pair, read_samples
from sfdkit.sheet import draw_sheet

_TABLE = (
    ("self-reenactment", "self/"),
    ("  source unchanged", "self/copy_"),
    ("cross-reenactment", "cross/"),
    ("  source unchanged", "copy/"),
    ("cross, inside the face", "cross/face_"),
    ("  source unchanged", "copy/face_"),
)


def evaluate(
    checkpoint: str,
    shards: str,
    output: str,
    clips: int | None = None,
    cross_pairs: int = 64,
    frames: int = 8,
    batch_size: int = 16,
    device: str = "auto",
    seed: int = 0,
    sheet_rows: int = 8,
    trust: list[str] | None = None,
) -> dict[str, Value]:
    """Measure a checkpoint on a folder of shards and show what it does.

    Writes metrics.json and sheet.png. Puppets have a true answer for one face driven by another; for other data the
    pictures of such pairs are drawn, but nothing is measured.

    Args:
        checkpoint: A checkpoint that sfdkit fit wrote.
        shards: A folder with index.json, of the model's resolution, for example shards/puppets64/test.
        output: The folder for the results; files of the same names are replaced.
        clips: Clips to use, from the start of the index; all by default.
        cross_pairs: Pairs of clips of different people, drawn by the seed.
        frames: Driving frames per clip, evenly spread.
        batch_size: Driven frames per step.
        device: auto, cpu, cuda, cuda:1, mps.
        seed: Draws the pairs.
        sheet_rows: Rows of the sheet for self-reenactment, and as many for pairs.
        trust: Packages besides sfdkit whose classes the checkpoint may name: --trust [mypackage].

    Returns:
        What metrics.json holds.

    Raises:
        CheckpointError: The checkpoint is missing, damaged, of another model, or its results are not finite.
        ConfigError: A number that cannot work, or shards of another resolution than the model's.
        ShardError: The folder has no index, or a shard is missing or damaged.
    """
    numbers = {"clips": 1 if clips is None else clips, "frames": frames, "batch_size": batch_size}
    for name, value in (numbers | {"sheet_rows": sheet_rows}).items():
        require_positive(name, value)
    if cross_pairs < 0:
        raise ConfigError(f"cross_pairs: {cross_pairs} is not possible; give 0 for none, or more")
    began = time.perf_counter()
    index = load_index(shards)
    folder = make_folder(Path(output))
    loaded = load_animator(checkpoint, choose_device(device), trust or ())
    _require_resolution(loaded.animator, index, checkpoint, shards)
    samples = read_samples(shards, index, clips, frames)
    own = [Pair(sample, sample) for sample in samples]
    pairs = [Pair(samples[i], samples[j]) for i, j in draw_pairs([s.identity for s in samples], cross_pairs, seed)]
    true_pairs = [pair for pair in pairs if pair.has_truth]
    measured = _measure(loaded.animator, own, true_pairs, batch_size)
    _require_finite(measured, checkpoint)
    counts = {"clips": len(own), "frames_per_clip": frames, "pairs": len(true_pairs), "seed": seed}
    metrics: dict[str, Value] = {**measured, **_about(loaded, index)}
    metrics |= {f"evaluation/{name}": value for name, value in counts.items()}
    metrics["evaluation/seconds"] = time.perf_counter() - began
    write_metrics(folder / "metrics.json", metrics)
    sheet = draw_sheet(loaded.animator, own[:sheet_rows], pairs[:sheet_rows])
    write_picture(folder / "sheet.png", sheet)
    print(distance_table(metrics, _TABLE))
    print(f"{len(own)} clips, {len(true_pairs)} pairs with truth; wrote metrics.json and sheet.png to {folder}")
    return metrics


def _measure(
    animator: FaceAnimator, own: Sequence[Pair], true_pairs: Sequence[Pair], batch_size: int
) -> dict[str, float]:
    measured = self_reenactment(animator, own, batch_size)
    if true_pairs:
        return measured | cross_reenactment(animator, true_pairs, batch_size)
    return measured | {f"copy/{name}": measured[f"self/copy_{name}"] for name in ("l1", "psnr", "ssim")}


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
