"""Encoding clips, source by source, into spool files.

SPOOL/00000012.clips    the json and the frames of each clip of source 12, one after the other
SPOOL/00000012.json     where each clip lies in it, and what was left out; written when the source is done, and kept
                        when the clips have gone into shards and the spool file has been removed

This file imports little, so that a new process is quick to start.
"""

from __future__ import annotations

import io
import json
import os
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import cv2
import numpy as np

from sfdkit.data.pack.sources import ClipSource, Skip
from sfdkit.data.shards.format import pack_frames

QUALITY = 92
"""JPEG quality of the frames."""

_FULL_COLOUR_UP_TO = 128  # pixels of a side up to which colour keeps its full resolution (4:4:4)


class SpooledClip(NamedTuple):
    """Where an encoded clip lies in a spool file."""

    spool: Path
    start: int
    json_bytes: int
    frames_bytes: int
    checksum: int
    """CRC-32 of both."""
    key: str
    identity: str

    @property
    def source(self) -> int:
        """Number of its source."""
        return int(self.spool.stem)


class Spooled(NamedTuple):
    """All clips of one source."""

    clips: list[SpooledClip]
    skips: list[Skip]
    """What was left out."""


class EncodedSource(NamedTuple):
    """All clips of one source, in memory."""

    spooled: Spooled
    """The spool of its clips is only named, not written."""
    data: bytes
    """What the spool will hold."""


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


def spool_path(folder: Path, number: int) -> Path:
    """Return the spool file of a source."""
    return folder / f"{number:08d}.clips"


def spool_clips(job: tuple[int, ClipSource], folder: Path) -> Spooled:
    """Write all clips of a source into one file, encoded; memory holds one clip.

    Args:
        job: Number of the source, which names the file, and the source.
        folder: Where to write the file.

    Returns:
        Where each clip lies, and what was left out.
    """
    number, source = job
    path = spool_path(folder, number)
    with path.open("wb") as file:
        spooled = _encode(source, path, file)
    _save_record(spooled, path)
    return spooled


def encode_source(job: tuple[int, ClipSource], folder: Path) -> EncodedSource:
    """Encode all clips of a source in memory, for :func:`spool_encoded` to write.

    Args:
        job: Number of the source and the source.
        folder: Where the spool file is to be.
    """
    number, source = job
    buffer = io.BytesIO()
    return EncodedSource(_encode(source, spool_path(folder, number), buffer), buffer.getvalue())


def spool_encoded(number: int, encoded: EncodedSource, folder: Path) -> Spooled:
    """Write the clips of a source that were encoded elsewhere."""
    path = spool_path(folder, number)
    path.write_bytes(encoded.data)
    _save_record(encoded.spooled, path)
    return encoded.spooled


def spool_ready(number: int, clips: Iterable[tuple[bytes, bytes]], skips: Sequence[Skip], folder: Path) -> Spooled:
    """Write clips of a source that are encoded already; memory holds one.

    Args:
        number: Of the source.
        clips: Json and frames of each.
        skips: What was left out.
        folder: Where the spool file is to be.
    """
    path = spool_path(folder, number)
    spooled = Spooled([], list(skips))
    with path.open("wb") as file:
        for text, blob in clips:
            spooled.clips.append(_write(file, path, text, blob))
    _save_record(spooled, path)
    return spooled


def _encode(source: ClipSource, path: Path, file: BinaryIO) -> Spooled:
    spooled = Spooled([], [])
    for frames, meta in source.clips(spooled.skips.append):
        text = json.dumps(meta, ensure_ascii=False, separators=(",", ":")).encode()
        blob = pack_frames([encode_jpeg(frame) for frame in frames])
        spooled.clips.append(_write(file, path, text, blob))
    return spooled


def _write(file: BinaryIO, path: Path, text: bytes, blob: bytes) -> SpooledClip:
    meta = json.loads(text)
    checksum = zlib.crc32(blob, zlib.crc32(text))
    clip = SpooledClip(path, file.tell(), len(text), len(blob), checksum, meta["key"], meta["identity"])
    file.write(text)
    file.write(blob)
    return clip


def _save_record(spooled: Spooled, path: Path) -> None:
    record = path.with_suffix(".json")
    partial = path.with_suffix(".partial")
    text = json.dumps({"clips": [clip[1:] for clip in spooled.clips], "skips": spooled.skips}, ensure_ascii=False)
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, record)


def find_spooled(number: int, folder: Path) -> Spooled | None:
    """Return what an earlier call made of a source, or None where it was not done."""
    path = spool_path(folder, number)
    try:
        record = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        clips = [SpooledClip(path, *clip) for clip in record["clips"]]
        return Spooled(clips, [Skip(*skip) for skip in record["skips"]])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def read_spooled(clip: SpooledClip) -> tuple[bytes, bytes] | None:
    """Return the json and the frames of a clip, or None where its spool file is gone or damaged."""
    try:
        with clip.spool.open("rb") as file:
            file.seek(clip.start)
            text, blob = file.read(clip.json_bytes), file.read(clip.frames_bytes)
    except FileNotFoundError:
        return None
    return (text, blob) if zlib.crc32(blob, zlib.crc32(text)) == clip.checksum else None
