"""Clips from shards: the members of a tar in pairs, and the checks that a pair is a whole clip.

Here a shard is read from its first byte to its end mark, and damage to the archive, found by
:mod:`sfdkit.data.shards.tar`, ends it. Training reads clips by the index instead, see :mod:`sfdkit.data.shards.access`,
and loses the damaged clip alone.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple

from sfdkit.data.shards.format import CLIP_FIELDS, frame_count
from sfdkit.data.shards.tar import Header, TarReader
from sfdkit.errors import ShardError
from sfdkit.types import Clip

SkipReason = Literal["missing", "storage", "truncated", "checksum", "archive", "json", "frames", "oversized", "picture"]
"""Why a clip cannot be used: its shard is not there, cannot be reached, or ends before it; its bytes are not those that
the index knows, or no tar members; its json breaks the schema; its packing is damaged; a picture in it has another size
than the json says, or cannot be decoded."""


class ClipError(ShardError):
    """One clip is damaged; other clips can still be read."""

    def __init__(self, reason: SkipReason, message: str) -> None:
        super().__init__(message)
        self.reason: SkipReason = reason


class RawClip(NamedTuple):
    """A clip as its two members, not parsed yet."""

    shard: str
    """Name of the shard, for messages."""
    key: str
    position: int
    """Byte in the shard at which the clip starts."""
    stop: int
    """Byte in the shard after the clip, its padding included."""
    json: bytes
    frames: bytes


def _open(source: str | Path | BinaryIO, name: str | None) -> tuple[AbstractContextManager[BinaryIO], str]:
    if not isinstance(source, (str, Path)):
        return nullcontext(source), name or str(getattr(source, "name", "<stream>"))
    try:
        return open(source, "rb"), name or str(source)
    except OSError as error:
        raise ShardError(f"Cannot open the shard {str(source)!r}: {error.strerror}.") from error


def read_raw_clips(source: str | Path | BinaryIO, name: str | None = None) -> Iterator[RawClip]:
    """Read all clips of a shard without parsing them, and check the archive to its end.

    Args:
        source: A local path, or a binary stream, which need not seek and is left open.
        name: What messages call the shard; its path by default.

    Yields:
        The clips in the order of the shard.

    Raises:
        ShardError: The shard is damaged or cut, or its members are not pairs of ``KEY.json`` and ``KEY.frames``.
    """
    opened, shard = _open(source, name)
    with opened as stream:
        tar = TarReader(stream, shard)
        while (clip := _next_clip(tar)) is not None:
            yield clip


def raw_clip(data: bytes, shard: str, position: int) -> RawClip:
    """Return the clip that stands alone in ``data``.

    Args:
        data: The bytes of one clip in a tar.
        shard: What messages call the shard.
        position: Byte of the shard at which ``data`` starts.

    Raises:
        ClipError: The bytes are not those of one clip.
    """
    tar = TarReader(io.BytesIO(data), shard, position)
    try:
        clip = _next_clip(tar)
    except ShardError as error:
        raise ClipError("archive", str(error)) from error
    if clip is None or clip.stop != position + len(data):
        raise ClipError("archive", str(tar.error(position, f"these {len(data)} bytes are not one clip")))
    return clip


def _next_clip(tar: TarReader) -> RawClip | None:
    first = tar.next_header()
    if first is None:
        return None
    body = tar.read(first.position, first.size, f"member {first.name!r}")
    key = _key(tar, first, ".json")
    second = tar.next_header()
    if second is None:
        raise tar.error(first.position, f"clip {key!r} is partial: {key}.json has no {key}.frames after it")
    if second.name != f"{key}.frames":
        raise tar.error(second.position, f"member {second.name!r} stands where {key}.frames is wanted")
    frames = tar.read(second.position, second.size, f"member {second.name!r}")
    return RawClip(tar.shard, key, first.position, tar.position, body, frames)


def _key(tar: TarReader, header: Header, suffix: str) -> str:
    key = header.name.removesuffix(suffix)
    if key == header.name or not key or any(letter in key for letter in "./#"):
        raise tar.error(header.position, f"member {header.name!r} stands where a new clip's KEY{suffix} is wanted")
    return key


def parse_clip(raw: RawClip) -> Clip:
    """Parse the json of a clip and check that json and packed frames agree.

    Args:
        raw: The clip's two members.

    Returns:
        The clip; its frames are not decoded.

    Raises:
        ClipError: The json cannot be read, belongs to another key, or lists another number of frames than are packed.
    """
    where = f"Clip {raw.key!r} in shard {raw.shard}, byte {raw.position}"
    try:
        meta = json.loads(raw.json)
    except ValueError as error:
        raise ClipError("json", f"{where}: its json cannot be read ({error}). Pack the shard again.") from error
    if not isinstance(meta, dict):
        raise ClipError("json", f"{where}: its json is a {type(meta).__name__}, an object is wanted. Pack it again.")
    for field, kind in CLIP_FIELDS.items():
        if not isinstance(meta.get(field), kind):
            raise ClipError("json", f"{where}: its json has {field} = {meta.get(field)!r}. Pack the shard again.")
    if meta["key"] != raw.key:
        raise ClipError("json", f"{where}: its json says key {meta['key']!r}. Pack the shard again.")
    try:
        count = frame_count(raw.frames)
    except ValueError as error:
        raise ClipError("frames", f"{where}: {error}. Pack the shard again.") from error
    if count != len(meta["times"]):
        raise ClipError("frames", f"{where}: {count} frames are packed, its json lists {len(meta['times'])} times.")
    return Clip(key=raw.key, meta=meta, frames=raw.frames)


def read_clips(source: str | Path | BinaryIO, name: str | None = None) -> Iterator[Clip]:
    """Read all clips of a shard; no frame is decoded.

    Args:
        source: A local path, or a binary stream, which need not seek and is left open.
        name: What messages call the shard; its path by default.

    Yields:
        The clips in the order of the shard.

    Raises:
        ShardError: The shard is damaged or cut, or a clip in it is.
    """
    for raw in read_raw_clips(source, name):
        yield parse_clip(raw)
