"""Clips from shards: the members of a tar in pairs, and the checks that a pair is a whole clip.

Damage to the archive itself is found by :mod:`sfdkit.data.tar` and ends the shard; damage inside one clip is a
:class:`ClipError`, after which reading can go on.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple

from sfdkit.data.format import frame_count
from sfdkit.data.tar import Header, TarReader
from sfdkit.errors import ShardError
from sfdkit.types import Clip

SkipReason = Literal["shard", "json", "frames", "picture"]
"""Why a clip cannot be used: its shard is damaged before or at it, or its json, its packing, or a picture is."""


class ClipError(ShardError):
    """One clip is damaged; the clips after it can still be read."""

    def __init__(self, reason: Literal["json", "frames", "picture"], message: str) -> None:
        super().__init__(message)
        self.reason: SkipReason = reason


class Member(NamedTuple):
    """A regular file in a tar."""

    name: str
    """Its path within the archive, without a leading ``./``."""
    position: int
    """Byte in the shard at which its header starts."""
    data: bytes
    """Its contents."""


class RawClip(NamedTuple):
    """A clip as its two members, not parsed yet."""

    shard: str
    """Name of the shard, for messages."""
    key: str
    position: int
    """Byte in the shard at which the clip starts."""
    json: bytes
    frames: bytes


def _open(source: str | Path | BinaryIO, name: str | None) -> tuple[AbstractContextManager[BinaryIO], str]:
    if not isinstance(source, (str, Path)):
        return nullcontext(source), name or str(getattr(source, "name", "<stream>"))
    try:
        return open(source, "rb"), name or str(source)
    except OSError as error:
        raise ShardError(f"Cannot open the shard {str(source)!r}: {error.strerror}.") from error


def read_members(source: str | Path | BinaryIO, name: str | None = None) -> Iterator[Member]:
    """Read all members of a tar.

    Args:
        source: A local path, or a binary stream, which need not seek and is left open.
        name: What messages call the shard; its path by default.

    Yields:
        The regular files in the order of the archive.

    Raises:
        ShardError: The shard is damaged, cut, or holds something else than regular files.
    """
    opened, shard = _open(source, name)
    with opened as stream:
        tar = TarReader(stream, shard)
        while (header := tar.next_header()) is not None:
            data = tar.read(header.position, header.size, f"member {header.name!r}")
            yield Member(header.name, header.position, data)


def read_raw_clips(
    source: str | Path | BinaryIO, start: int = 0, stop: int | None = None, name: str | None = None
) -> Iterator[RawClip]:
    """Read the clips ``start`` to ``stop`` (not included) of a shard without parsing them.

    Clips before ``start`` are skipped by seeking where the source can. With ``stop`` the reading ends there; without,
    the end of the archive is checked too.

    Args:
        source: A local path, or a binary stream, which need not seek and is left open.
        start: Number of the first clip wanted.
        stop: Number of the first clip that is not wanted any more; None for all.
        name: What messages call the shard; its path by default.

    Yields:
        The clips in the order of the shard.

    Raises:
        ShardError: The shard is damaged or cut, or its members are not pairs of ``KEY.json`` and ``KEY.frames``.
    """
    opened, shard = _open(source, name)
    with opened as stream:
        tar = TarReader(stream, shard)
        number = 0
        while stop is None or number < stop:
            first = tar.next_header()
            if first is None:
                if stop is not None:
                    raise tar.error(tar.position, f"the shard holds {number} clips, clip number {number} is wanted")
                return
            body = _member_data(tar, first, number >= start)
            key = _key(tar, first, ".json")
            second = tar.next_header()
            if second is None:
                raise tar.error(first.position, f"clip {key!r} is partial: {key}.json has no {key}.frames after it")
            if second.name != f"{key}.frames":
                raise tar.error(second.position, f"member {second.name!r} stands where {key}.frames is wanted")
            frames = _member_data(tar, second, number >= start)
            if number >= start:
                yield RawClip(shard, key, first.position, body, frames)
            number += 1


def _member_data(tar: TarReader, header: Header, wanted: bool) -> bytes:
    what = f"member {header.name!r}"
    if wanted:
        return tar.read(header.position, header.size, what)
    tar.skip(header.position, header.size, what)
    return b""


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
    fields = dict(key=str, identity=str, times=list, resolution=int)
    if not isinstance(meta, dict) or any(not isinstance(meta.get(field), kind) for field, kind in fields.items()):
        raise ClipError("json", f"{where}: its json lacks one of {', '.join(fields)}. Pack the shard again.")
    if meta["key"] != raw.key:
        raise ClipError("json", f"{where}: its json says key {meta['key']!r}. Pack the shard again.")
    try:
        count = frame_count(raw.frames)
    except ValueError as error:
        raise ClipError("frames", f"{where}: {error}. Pack the shard again.") from error
    if count != len(meta["times"]):
        raise ClipError("frames", f"{where}: {count} frames are packed, its json lists {len(meta['times'])} times.")
    return Clip(key=raw.key, meta=meta, frames=raw.frames)


def read_clips(source: str | Path | BinaryIO, start: int = 0, stop: int | None = None) -> Iterator[Clip]:
    """Read the clips ``start`` to ``stop`` (not included) of a shard; no frame is decoded.

    Args:
        source: A local path, or a binary stream, which need not seek and is left open.
        start: Number of the first clip wanted; those before it are skipped by seeking where the source can.
        stop: Number of the first clip that is not wanted any more; None for all, which checks the archive's end too.

    Yields:
        The clips in the order of the shard.

    Raises:
        ShardError: The shard is damaged or cut, or a clip in it is.
    """
    for raw in read_raw_clips(source, start, stop):
        yield parse_clip(raw)
