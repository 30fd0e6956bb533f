"""Encoding the clips of a source into a file, where they wait for the shard that they go into.

FOLDER/00000012.clips   the json and the frames of each clip of source 12, one after the other
FOLDER/00000012.json    where each clip lies in it, and what was left out; written when the source is done, and kept
                        when the clips have gone into shards and the file of clips has been removed

This file imports little, so that a new process is quick to start.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from sfdkit.data.pack.sources import ClipSource, Skip
from sfdkit.data.shards.format import pack_frames
from sfdkit.files import atomic_write

QUALITY = 92
"""JPEG quality of the frames."""

_FULL_COLOUR_UP_TO = 128  # pixels of a side up to which colour keeps its full resolution (4:4:4)

Job = tuple[int, ClipSource]
"""Number of a source, which names its files, and the source."""


class EncodedClip(NamedTuple):
    """Where an encoded clip lies."""

    file: Path
    start: int
    json_bytes: int
    frames_bytes: int
    checksum: int
    """CRC-32 of both."""
    key: str
    identity: str
    frames_without_points: int = 0
    """Of those in which points of the face were looked for."""
    without_points: bool = False
    """Whether they were found in none of its frames."""

    @property
    def source(self) -> int:
        """Number of its source."""
        return int(self.file.stem)


class EncodedSource(NamedTuple):
    """All clips of one source."""

    clips: list[EncodedClip]
    skips: list[Skip]
    """What was left out."""


def encode_jpeg(image: np.ndarray, quality: int = QUALITY) -> bytes:
    """Encode a picture; up to 128 pixels a side colour is not subsampled.

    Args:
        image: H W 3 uint8 RGB.
        quality: 1 to 100.
    """
    options = [cv2.IMWRITE_JPEG_QUALITY, quality]
    if max(image.shape[:2]) <= _FULL_COLOUR_UP_TO:
        options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    _, encoded = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)
    return encoded.tobytes()


def encode_source(job: Job, folder: Path) -> EncodedSource:
    """Encode all clips of a source into its file; memory holds one clip."""
    number, source = job
    skips: list[Skip] = []
    return write_source(number, encode_clips(source, skips), skips, folder)


def encode_clips(source: ClipSource, skips: list[Skip]) -> Iterator[tuple[bytes, bytes]]:
    """Yield the json and the frames of each clip, and note what is left out."""
    for frames, meta in source.clips(skips.append):
        text = json.dumps(meta, ensure_ascii=False, separators=(",", ":")).encode()
        yield text, pack_frames([encode_jpeg(frame) for frame in frames])


def write_source(number: int, clips: Iterable[tuple[bytes, bytes]], skips: list[Skip], folder: Path) -> EncodedSource:
    """Write encoded clips of a source into its file.

    Args:
        number: Of the source.
        clips: Json and frames of each.
        skips: What was left out, known when the last clip is.
        folder: Where the file is to be.
    """
    path = _path(folder, number)
    written = []
    with path.open("wb") as file:
        for text, frames in clips:
            meta, checksum = json.loads(text), zlib.crc32(frames, zlib.crc32(text))
            place = file.tell(), len(text), len(frames), checksum
            points = meta.get("points", {"frames": []})["frames"]
            missing = sum(frame is None for frame in points)
            whole = bool(points) and missing == len(points)
            written.append(EncodedClip(path, *place, meta["key"], meta["identity"], missing, whole))
            file.write(text)
            file.write(frames)
    record = json.dumps({"clips": [clip[1:] for clip in written], "skips": skips}, ensure_ascii=False)
    with atomic_write(path.with_suffix(".json")) as part:
        part.write_text(record, encoding="utf-8")
    return EncodedSource(written, skips)


def source_files(number: int, folder: Path) -> tuple[bytes, bytes]:
    """Return the contents of a source's file of clips and of its record, to send them to another machine."""
    path = _path(folder, number)
    return path.read_bytes(), path.with_suffix(".json").read_bytes()


def store_source_files(number: int, files: tuple[bytes, bytes], folder: Path) -> None:
    """Write what :func:`source_files` gave elsewhere."""
    path = _path(folder, number)
    path.write_bytes(files[0])
    with atomic_write(path.with_suffix(".json")) as part:
        part.write_bytes(files[1])


def load_source(number: int, folder: Path) -> EncodedSource | None:
    """Return what an earlier call made of a source, or None where it was not done."""
    path = _path(folder, number)
    try:
        record = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        clips = [EncodedClip(path, *clip) for clip in record["clips"]]
        return EncodedSource(clips, [Skip(*skip) for skip in record["skips"]])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def read_clip(clip: EncodedClip) -> tuple[bytes, bytes] | None:
    """Return the json and the frames of a clip, or None where its file is gone or damaged."""
    try:
        with clip.file.open("rb") as file:
            file.seek(clip.start)
            text, frames = file.read(clip.json_bytes), file.read(clip.frames_bytes)
    except FileNotFoundError:
        return None
    return (text, frames) if zlib.crc32(frames, zlib.crc32(text)) == clip.checksum else None


def _path(folder: Path, number: int) -> Path:
    return folder / f"{number:08d}.clips"
