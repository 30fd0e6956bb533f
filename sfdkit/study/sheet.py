"""The runs of a study side by side: what each makes of the same pairs of faces."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from sfdkit.checkpoint import load_animator
from sfdkit.data.shards.index import load_index
from sfdkit.errors import ConfigError, DataError
from sfdkit.evaluate.frames import Frames, load_frames, render_truth
from sfdkit.evaluate.pictures import LEAST_CELL
from sfdkit.evaluate.plan import plan_clips
from sfdkit.evaluate.run import drive
from sfdkit.evaluate.samples import read_samples
from sfdkit.media.draw import make_sheet, write_cell
from sfdkit.media.tensors import to_uint8
from sfdkit.study.jobs import Job
from sfdkit.study.spec import Study

_FRAMES = 2
"""Driving frames of each clip; the last one drives."""


def draw_study(
    study: Study, jobs: Sequence[Job], seed: int, count: int, pairs_seed: int, device: torch.device
) -> np.ndarray:
    """Draw what the trained runs of a seed make of the same pairs of different people, one row for each run.

    Above them stand source, driving face and, of puppets, the truth.

    Args:
        study: The study, which names the shards.
        jobs: Its jobs.
        seed: Of the trainings.
        count: Pairs, one column each.
        pairs_seed: Draws them.
        device: To compute on.

    Returns:
        H W 3 uint8.

    Raises:
        CheckpointError: A checkpoint cannot be read.
        ConfigError: The study has no such seed.
        DataError: No run of the seed has been trained, or the shards have one person alone.
        ShardError: The shards are missing or damaged.
    """
    if seed not in study.seeds:
        raise ConfigError(f"seed: {seed} is none of {', '.join(map(str, study.seeds))}, which {study.path} has")
    trained = [job for job in jobs if job.seed == seed and job.state() in ("trained", "done", "changed")]
    if not trained:
        raise DataError(f"no run of seed {seed} has been trained in {jobs[0].folder.parent.parent}: sfdkit study run")
    shards = str(study.evaluate["shards"])
    pairs = plan_clips(read_samples(shards, load_index(shards), None, _FRAMES), count, pairs_seed).cross_pairs
    if not pairs:
        raise DataError(f"{shards} has one person alone, and pairs of two are drawn; name others in {study.path}")
    frames = load_frames(pairs, device)
    frames = Frames(frames.source, frames.driving[:, -1:])
    rows = {"source": frames.source, "driving": frames.driving[:, 0]}
    if all(pair.has_truth for pair in pairs):
        rows["truth"] = render_truth(pairs, device)[0][:, -1]
    for job in trained:
        rows[job.run] = drive(load_animator(job.checkpoint, device).animator, frames, len(pairs)).image
    return _draw(rows)


def _draw(rows: dict[str, Tensor]) -> np.ndarray:
    pictures = [list(map(to_uint8, row)) for row in rows.values()]
    side = pictures[0][0].shape[0]
    side *= -(-LEAST_CELL // side)
    named = [[write_cell([name], side), *row] for name, row in zip(rows, pictures, strict=True)]
    return make_sheet(named, ["", *(f"pair {number + 1}" for number in range(len(pictures[0])))], side)
