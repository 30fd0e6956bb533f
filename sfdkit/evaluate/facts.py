"""Facts in metrics.json: about the model and its training, and about the evaluation itself."""

from __future__ import annotations

import platform

import torch

from sfdkit.checkpoint import LoadedAnimator
from sfdkit.data.shards.format import ShardIndex
from sfdkit.evaluate.distances import detail_region
from sfdkit.evaluate.plan import Plan
from sfdkit.files import Value
from sfdkit.model.summary import gmac_per_driven_frame, parameters


def model_facts(loaded: LoadedAnimator, index: ShardIndex) -> dict[str, Value]:
    """Return facts about the model, its training and the people; None where the checkpoint does not say."""
    return {
        **{f"train/{key}": loaded.train.get(key) for key in ("steps", "seconds", "images_per_second")},
        "seed": loaded.train.get("seed"),
        "identities/train": loaded.train.get("identities"),
        "identities/test": index["identities"],
        "model/parameters": parameters(loaded.animator),
        "model/gmac_per_driven_frame": gmac_per_driven_frame(loaded.animator),
    }


def evaluation_facts(
    index: ShardIndex,
    device: torch.device,
    plan: Plan,
    measured: Plan,
    protocol: str | None,
    frames_per_clip: int | None,
    seed: int,
) -> dict[str, Value]:
    """Return all keys ``evaluation/...`` but the seconds.

    Args:
        index: Of the shards.
        device: Of the model.
        plan: All pairs of the protocol.
        measured: Those of them that were measured.
        protocol: Its name; None for none.
        frames_per_clip: Driving frames of each clip; None with a protocol.
        seed: Of the pairs.
    """
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    facts: dict[str, Value] = {
        "dataset": index["dataset"],
        "split": index["split"],
        "resolution": index["resolution"],
        "device": f"{device.type}: {name}",
        "protocol": protocol or "spread",
        "seed": seed,
        "clips": len(plan.self_pairs),
        "pairs": len(plan.with_truth),
        "driven_frames": measured.frames,
    }
    if region := detail_region([*measured.self_pairs, *measured.with_truth]):
        facts["detail_region"] = region
    if frames_per_clip is not None:
        facts["frames_per_clip"] = frames_per_clip
    return {f"evaluation/{key}": value for key, value in facts.items()}
