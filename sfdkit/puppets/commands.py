"""The commands ``sfdkit puppets sheet`` and ``sfdkit puppets render``."""

from __future__ import annotations

from pathlib import Path

import torch
from jsonargparse.typing import ClosedUnitInterval, PositiveInt
from torch import Tensor
from tqdm import tqdm

from sfdkit.errors import ConfigError
from sfdkit.files import write_picture
from sfdkit.media.frame_rate import Fps
from sfdkit.media.video_writer import WRITE_SUFFIXES, VideoWriter
from sfdkit.puppets.clips import to_bytes
from sfdkit.puppets.factors import IdentityFactors, Split, sample_identity, sample_motion
from sfdkit.puppets.render import render


def _output(path: str, suffixes: tuple[str, ...]) -> Path:
    target = Path(path)
    if target.suffix.lower() not in suffixes:
        raise ConfigError(f"output={path!r} ends in {target.suffix!r}: use {' or '.join(suffixes)}")
    if not target.parent.is_dir():
        raise ConfigError(f"output={path!r}: the folder {str(target.parent)!r} does not exist; make it first")
    return target


def _save(image: Tensor, target: Path) -> None:
    write_picture(target, to_bytes(image).permute(1, 2, 0).numpy())


def sheet(
    output: str,
    identities: PositiveInt = 8,
    motions: PositiveInt = 6,
    resolution: PositiveInt = 128,
    seed: int = 0,
) -> None:
    """Write a picture of many puppets: one identity per column, one motion per row.

    Args:
        output: The .png to write.
        identities: Number of columns.
        motions: Number of rows.
        resolution: Of each cell, in pixels.
        seed: Of the puppets.

    Raises:
        ConfigError: The output has another suffix, or its folder is missing.
        DataError: It cannot be written.
    """
    target = _output(output, (".png",))
    who = IdentityFactors.concat([sample_identity(k, "test", seed) for k in range(identities)])
    rows = []
    for k in tqdm(range(motions), desc="rows", leave=False):
        image = render(who, sample_motion(k, "test", seed, frames=1), resolution).image
        rows.append(torch.cat(list(image), dim=2))
    _save(torch.cat(rows, dim=1), target)
    print(f"{target}: {identities} identities (columns) under {motions} motions (rows), {resolution} pixels each")


def render_file(
    output: str,
    identity: int,
    motion: int,
    split: Split = "test",
    seed: int = 0,
    resolution: PositiveInt = 256,
    frames: PositiveInt = 50,
    fps: Fps = 25.0,
    pose: ClosedUnitInterval = 1.0,
) -> None:
    """Render one identity under the motion of any clip, as a picture or as a video.

    Args:
        output: A .png gets the first frame, a .mp4, .webp or .gif the whole clip.
        identity: Number of the identity.
        motion: Number of the clip whose motion is used.
        split: Split of both: train, validation or test.
        seed: Of the puppets.
        resolution: Height and width in pixels.
        frames: Number of frames of a video.
        fps: Frames per second.
        pose: Factor on the reach of head turns, shifts and size, from 0 to 1.

    Raises:
        ConfigError: The output has another suffix, or its folder is missing.
        DataError: It cannot be written.
    """
    target = _output(output, (".png", *WRITE_SUFFIXES))
    who, what = sample_identity(identity, split, seed), sample_motion(motion, split, seed, frames, fps, pose)
    if target.suffix.lower() == ".png":
        _save(render(who, what[0], resolution).image[0], target)
    else:
        with VideoWriter(target, fps) as writer:
            for frame in tqdm(range(len(what)), desc="frames", leave=False):
                writer.write(to_bytes(render(who, what[frame], resolution).image[0]).permute(1, 2, 0).numpy())
    print(f"{target}: identity {identity} under motion {motion} of {split}, {resolution} pixels")
