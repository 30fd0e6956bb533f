"""Tiny folders of shards for tests: real tars, real JPEGs, one colour per clip and one brightness per frame."""

from __future__ import annotations

import colorsys
import io
import json
import tarfile
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import Image
from torch import Tensor

from sfdkit.data.shards.decode import decode_frames
from sfdkit.data.shards.format import SCHEMA, ShardIndex, pack_frames
from sfdkit.data.shards.index import describe_shard, load_index, save_index
from sfdkit.data.shards.tar import TarReader
from sfdkit.points import PointSet


class Member(NamedTuple):
    """A regular file in a tar."""

    name: str
    position: int
    """Byte in the shard at which its header starts."""
    data: bytes


def read_members(source: Path | BinaryIO) -> Iterator[Member]:
    """Read all members of a tar as the reader of shards does."""
    with source.open("rb") if isinstance(source, Path) else nullcontext(source) as stream:
        tar = TarReader(stream, str(source))
        while (header := tar.next_header()) is not None:
            data = tar.read(header.position, header.size, f"member {header.name!r}")
            yield Member(header.name, header.position, data)


def frame_colour(clip: int, frame: int) -> tuple[int, int, int]:
    """The RGB colour of a frame: the hue tells the clip, the brightness the frame."""
    red, green, blue = colorsys.hsv_to_rgb(clip * 0.618 % 1.0, 0.7, 0.5 + 0.08 * (frame % 6))
    return round(255 * red), round(255 * green), round(255 * blue)


def jpeg(colour: tuple[int, int, int], resolution: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((resolution, resolution, 3), colour, np.uint8)).save(buffer, "JPEG", quality=92)
    return buffer.getvalue()


def decode_picture(picture: bytes, resolution: int) -> Tensor:
    """Decode the only frame of a clip: 3 R R uint8."""
    meta = {"resolution": resolution, "times": [0.0]}
    return decode_frames({"key": "only", "meta": meta, "frames": pack_frames([picture])}, [0])[0]


def clip_key(split: str, clip: int) -> str:
    return f"{split}-{clip:05d}"


def frame_points(clip: int, frame: int, of: PointSet, resolution: int) -> list[list[float]]:
    """Points of the face in a frame, in pixels, that tell clip, frame and point."""
    count = len(of.names)
    return [
        [resolution * (clip % 8 + point / count) / 8, resolution * (frame + point / count) / 8]
        for point in range(count)
    ]


def clip_members(
    split: str, clip: int, frames: int, resolution: int, dataset: str = "puppets", points: PointSet | None = None
) -> list[tuple[str, bytes]]:
    """The two members of a clip: name and bytes; points were found in all its frames but the second."""
    key = clip_key(split, clip)
    meta = {
        "key": key,
        "identity": f"{split}-person-{clip}",
        "video": key,
        "dataset": dataset,
        "licence": "CC0-1.0",
        "fps": 12.5,
        "times": [frame / 12.5 for frame in range(frames)],
        "resolution": resolution,
        "crop": {"method": "none", "box": [0.0, 0.0, resolution, resolution], "margin": 0.0, "detector": ""},
        "groups": {"parity": "even" if clip % 2 == 0 else "odd"},
    }
    if points is not None:
        places = [frame_points(clip, frame, points, resolution) if frame != 1 else None for frame in range(frames)]
        meta["points"] = {"set": points.name, "frames": places}
    pictures = [jpeg(frame_colour(clip, frame), resolution) for frame in range(frames)]
    return [(f"{key}.json", json.dumps(meta).encode()), (f"{key}.frames", pack_frames(pictures))]


def write_tar(path: Path, members: list[tuple[str, bytes]], tar_format: int = tarfile.USTAR_FORMAT) -> None:
    with tarfile.open(path, "w", format=tar_format) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def make_shards(
    folder: Path,
    split: str,
    clips_per_shard: list[int],
    frames: int = 6,
    resolution: int = 32,
    dataset: str = "puppets",
    points: PointSet | None = None,
) -> Path:
    """Write ``folder / split`` with one tar per entry of ``clips_per_shard`` and the index; return that folder."""
    target = folder / split
    target.mkdir(parents=True)
    entries = []
    clip = 0
    for number, clips in enumerate(clips_per_shard):
        path = target / f"{split}-{number:05d}.tar"
        members: list[tuple[str, bytes]] = []
        for _ in range(clips):
            members += clip_members(split, clip, frames, resolution, dataset, points)
            clip += 1
        write_tar(path, members)
        entries.append(describe_shard(path))
    index: ShardIndex = {
        "schema": SCHEMA,
        "dataset": dataset,
        "split": split,
        "resolution": resolution,
        "identities": clip,
        "shards": entries,
    }
    if points is not None:
        index["points"] = points.name
    save_index(target, index)
    return target


def reindex(folder: Path) -> None:
    """Bring the index up to what the tars in a folder hold now."""
    index = load_index(folder)
    index["shards"] = [describe_shard(folder / entry["name"]) for entry in index["shards"]]
    save_index(folder, index)
