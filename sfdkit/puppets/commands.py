"""Commands that show puppets."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from sfdkit.errors import ConfigError
from sfdkit.media.frame_rate import require_fps
from sfdkit.media.video_writer import VideoWriter
from sfdkit.puppets.clips import to_bytes
from sfdkit.puppets.factors import IdentityFactors, MotionFactors, Split, sample_identity, sample_motion
from sfdkit.puppets.render import render


def _output(path: str, suffixes: tuple[str, ...]) -> Path:
    target = Path(path)
    if target.suffix.lower() not in suffixes:
        raise ConfigError(f"output={path!r} ends in {target.suffix!r}: use {' or '.join(suffixes)}")
    if not target.parent.is_dir():
        raise ConfigError(f"output={path!r}: the folder {str(target.parent)!r} does not exist; make it first")
    return target


def _picture(image: Tensor) -> Image.Image:
    return Image.fromarray(to_bytes(image).permute(1, 2, 0).numpy())


def _save(picture: Image.Image, target: Path) -> None:
    try:
        picture.save(target)
    except OSError as error:
        raise ConfigError(f"output={str(target)!r} cannot be written: {error}; choose another place") from error


def sheet(output: str, identities: int = 8, motions: int = 6, resolution: int = 128, seed: int = 0) -> None:
    """Write a picture of many puppets: one identity per column, one motion per row.

    Args:
        output: The .png to write.
        identities: Number of columns.
        motions: Number of rows.
        resolution: Of each cell, in pixels.
        seed: Of the puppets.

    Raises:
        ConfigError: A number is below 1, or the output cannot be written.
    """
    for name, value in (("identities", identities), ("motions", motions), ("resolution", resolution)):
        if value < 1:
            raise ConfigError(f"{name}={value}: give at least 1")
    target = _output(output, (".png",))
    who = IdentityFactors.concat([sample_identity(k, "test", seed) for k in range(identities)])
    rows = []
    for k in tqdm(range(motions), desc="rows", leave=False):
        image = render(who, sample_motion(k, "test", seed, frames=1), resolution).image
        rows.append(torch.cat(list(image), dim=2))
    _save(_picture(torch.cat(rows, dim=1)), target)
    print(f"{target}: {identities} identities (columns) under {motions} motions (rows), {resolution} pixels each")


def require_pose(pose: float) -> None:
    """Refuse a factor on the reach of the pose that the renderer is not made for.

    Raises:
        ConfigError: It is not from 0 to 1.
    """
    if not 0 <= pose <= 1:
        raise ConfigError(f"pose={pose}: give a factor from 0 (the head keeps still) to 1")


def render_file(
    output: str,
    identity: int,
    motion: int,
    split: Split = "test",
    seed: int = 0,
    resolution: int = 256,
    frames: int = 50,
    fps: float = 25.0,
    pose: float = 1.0,
) -> None:
    """Render one identity under the motion of any clip, as a picture or as a video.

    Args:
        output: A .png gets the first frame, a .mp4 or .gif the whole clip.
        identity: Number of the identity.
        motion: Number of the clip whose motion is used.
        split: Split of both: train, validation or test.
        seed: Of the puppets.
        resolution: Height and width in pixels.
        frames: Number of frames of a video.
        fps: Frames in a second.
        pose: Factor on the reach of head turns, shifts and size, from 0 to 1.

    Raises:
        ConfigError: A number is out of its range, or the output cannot be written.
    """
    target = _output(output, (".png", ".mp4", ".gif"))
    require_fps(fps)
    for name, value in (("resolution", resolution), ("frames", frames)):
        if value < 1:
            raise ConfigError(f"{name}={value}: give at least 1")
    require_pose(pose)
    who, what = sample_identity(identity, split, seed), sample_motion(motion, split, seed, frames, fps, pose)
    if target.suffix.lower() == ".png":
        _save(_picture(render(who, what[0], resolution).image[0]), target)
    else:
        _save_video(who, what, resolution, target, fps)
    print(f"{target}: identity {identity} under motion {motion} of {split}, {resolution} pixels")


def _save_video(who: IdentityFactors, what: MotionFactors, resolution: int, target: Path, fps: float) -> None:
    with VideoWriter(target, fps) as writer:
        for frame in tqdm(range(len(what)), desc="frames", leave=False):
            writer.write(to_bytes(render(who, what[frame], resolution).image[0]).permute(1, 2, 0).numpy())
