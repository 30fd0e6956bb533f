"""Files for tests: a checkpoint of a tiny animator, folders of puppet shards, short videos."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torchvision.io import encode_jpeg

from sfdkit.apply.axes import Axes, BlockAxes, Direction
from sfdkit.data.shards.format import SCHEMA, ClipMeta, ShardIndex, pack_frames
from sfdkit.data.shards.index import describe_shard, save_index
from sfdkit.media.video_writer import Sound, VideoWriter
from sfdkit.model.animator import FaceAnimator
from sfdkit.model.fingerprints import basis_fingerprint
from sfdkit.puppets.clips import make_clip
from tests.tiny import tiny_animator

TRAIN = {"steps": 7, "seconds": 1.5, "frames": 56, "images_per_second": 37.3, "identities": 5}
_MODEL = "sfdkit.model"


def lively_animator(seed: int = 0, code_share: float = 0.0) -> FaceAnimator:
    """Return a tiny animator whose motion, flow and picture depend on the driving frame, as a fresh one's do not."""
    animator = tiny_animator(32, seed, code_share=code_share).eval()
    last = animator.motion_head.layers[-1]
    with torch.no_grad():
        motion = animator.motion(torch.rand(16, 3, 32, 32))
        last.weight.div_(motion.std(0)[:, None])
        last.bias.sub_(motion.mean(0)).div_(motion.std(0))
        animator.generator.places.linear.weight.normal_(std=0.5)
        for name, parameter in animator.generator.named_parameters():
            if name.endswith(".motion.weight"):
                parameter.normal_(std=0.3)
        for parameter in animator.template.maps if animator.template else ():
            parameter.normal_()
    return animator


def known_axes(seed: int = 0) -> Axes:
    """Return axes of :func:`lively_animator`."""
    directions = {
        "yaw": Direction(np.array([0.05, 0.0, 0.02, 0.0], np.float32), "degrees"),
        "mouth_open": Direction(np.array([0.0, 0.0, 0.0, 1.0], np.float32), "of its range"),
    }
    return Axes(
        basis_fingerprint(lively_animator(seed).descriptors),
        BlockAxes(np.zeros(4, np.float32), np.array([1.0, 0.5, 0.5, 2.0], np.float32), (), directions),
        BlockAxes(np.zeros(12, np.float32), np.ones(12, np.float32)),
    )


def write_checkpoint(path: Path, animator: FaceAnimator) -> Path:
    """Write ``animator``, made by :func:`tiny_animator` at 32 pixels, as ``sfdkit fit`` would."""
    average = {f"module.{name}": value for name, value in animator.state_dict().items()}
    stored = {
        "state_dict": {},
        "animator_average": {"n_averaged": torch.tensor(7), **average},
        "sfdkit": {"schema": 1, "train": TRAIN, "seed": 3, "animator": _config(animator.code_share)},
    }
    torch.save(stored, path)
    return path


def _config(code_share: float) -> dict[str, Any]:
    parts = {
        "encoder": ("encoders.TimmEncoder", {"name": "test_byobnet", "resolution": 32, "max_stride": 16}),
        "descriptors": ("descriptors.DescriptorLayer", {"identity_size": 12, "motion_size": 4}),
        "generator": (
            "generator.Generator",
            {"resolution": 32, "latent_size": 16, "width": 8, "max_channels": 16, "style_size": 16, "detail": 4},
        ),
    }
    built = {name: {"class_path": f"{_MODEL}.{path}", "init_args": args} for name, (path, args) in parts.items()}
    return {
        "class_path": f"{_MODEL}.animator.FaceAnimator",
        "init_args": {**built, "motion_points": 2, "code_share": code_share},
    }


def write_puppets(folder: Path, shards: Sequence[int] = (3, 2), frames: int = 5, real: bool = False) -> Path:
    """Write a folder of puppet shards at 32 pixels.

    Args:
        folder: The folder to create.
        shards: Clips in each shard.
        frames: Frames of each clip.
        real: Leave the factors out, as if the faces were real.
    """
    folder.mkdir(parents=True)
    entries = []
    for number, clips in enumerate(shards):
        made = [make_clip(sum(shards[:number]) + k, "test", 0, frames, 32) for k in range(clips)]
        path = folder / f"shard-{number:03d}.tar"
        _write_tar(path, made, real)
        entries.append(describe_shard(path))
    index = ShardIndex(
        schema=SCHEMA, dataset="puppets", split="test", resolution=32, identities=sum(shards), shards=entries
    )
    save_index(folder, index)
    return folder


def _write_tar(path: Path, clips: Sequence[tuple[torch.Tensor, ClipMeta]], real: bool) -> None:
    with tarfile.open(path, "w") as tar:
        for pictures, meta in clips:
            about = {key: value for key, value in meta.items() if key != "puppet" or not real}
            packed = pack_frames([encode_jpeg(p, quality=95).numpy().tobytes() for p in pictures])
            for suffix, data in (("json", json.dumps(about).encode()), ("frames", packed)):
                member = tarfile.TarInfo(f"{meta['key']}.{suffix}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))


def write_video(path: Path, frames: Sequence[np.ndarray], fps: float = 10, audio_from: Path | None = None) -> Path:
    """Write H W 3 uint8 frames as a video."""
    with VideoWriter(path, fps, audio_from and Sound(audio_from)) as writer:
        for frame in frames:
            writer.write(frame)
    return path


def puppet_frames(index: int = 0, frames: int = 6, resolution: int = 48) -> list[np.ndarray]:
    """Return the pictures of a puppet clip, H W 3 uint8 each."""
    return [
        np.ascontiguousarray(p.permute(1, 2, 0).numpy()) for p in make_clip(index, "test", 0, frames, resolution)[0]
    ]
