"""Clips by their number: the bytes of any stretch of a shard, verified clip by clip against its index.

A clip that is damaged costs itself alone, since the index says where the next one starts.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Generator, Iterator
from contextlib import closing
from typing import BinaryIO, NamedTuple

from sfdkit.data.shards.format import ShardEntry, clip_table
from sfdkit.data.shards.reader import RawClip, SkipReason, parse_clip, raw_clip
from sfdkit.errors import MissingError, ShardError, StorageError, TruncatedError
from sfdkit.storage import Storage
from sfdkit.storage.cache import cache_of
from sfdkit.types import Clip

_log = logging.getLogger("sfdkit.data")


class Damage(NamedTuple):
    """Stands in the place of a clip that cannot be used."""

    reason: SkipReason
    message: str


class ClipBytes(NamedTuple):
    """A clip as it lies in its shard, its checksum verified."""

    shard: str
    """Address of the shard, for messages."""
    position: int
    """Byte in the shard at which it starts."""
    data: bytes

    def raw(self) -> RawClip:
        """Return its two members.

        Raises:
            ClipError: The bytes are not those of one clip.
        """
        return raw_clip(self.data, self.shard, self.position)


def read_range(storage: Storage, entry: ShardEntry, start: int, stop: int) -> Generator[ClipBytes | Damage]:
    """Read the clips ``start`` to ``stop`` (not included) of a shard.

    Yields:
        One item per clip, in their order.

    Raises:
        ShardError: The entry's table is damaged.
        ConfigError: The shard is larger than the cache may be.
    """
    shard = storage.show(entry["name"])
    try:
        offsets, checksums = clip_table(entry)
    except ValueError as error:
        raise ShardError(f"The index of {shard} is damaged ({error}). Pack the folder again.") from error
    number = start
    try:
        with closing(_stretch(storage, entry, offsets[start], offsets[stop])) as pieces:
            buffer = bytearray()
            for number in range(start, stop):
                size = offsets[number + 1] - offsets[number]
                while len(buffer) < size:
                    buffer += next(pieces)
                data = bytes(memoryview(buffer)[:size])
                del buffer[:size]
                yield _verified(storage, entry, ClipBytes(shard, offsets[number], data), checksums[number])
        return
    except MissingError as error:
        damage = Damage("missing", str(error))
    except (TruncatedError, StopIteration):
        damage = Damage("truncated", f"Shard {shard} is cut in or before clip {number}. Copy it again, or pack again.")
    except StorageError as error:
        damage = Damage("storage", str(error))
    for _ in range(number, stop):
        yield damage


def _stretch(storage: Storage, entry: ShardEntry, start: int, stop: int) -> Generator[bytes]:
    """Yield the bytes of a stretch of a shard, from the cache where there is one."""
    file = _cached(storage, entry)
    if file is None:
        yield from storage.pieces(entry["name"], start, stop)
        return
    with file:
        file.seek(start)
        while start < stop and (data := file.read(min(1 << 20, stop - start))):
            start += len(data)
            yield data


def _cached(storage: Storage, entry: ShardEntry) -> BinaryIO | None:
    cache = cache_of(storage)
    if cache is None:
        return None
    try:
        return cache.open(storage, entry["name"], entry["bytes"], entry["sha256"])
    except MissingError:
        raise
    except (ShardError, StorageError) as error:  # reading it without a copy loses less than leaving it out
        _log.warning("%s Going on without a copy of it.", error)
        return None


def _verified(storage: Storage, entry: ShardEntry, clip: ClipBytes, checksum: int) -> ClipBytes | Damage:
    attempts = 1 if storage.is_local else storage.settings.attempts
    while zlib.crc32(clip.data) != checksum and attempts > 1:  # the transfer may have damaged it
        attempts -= 1
        storage.repeats += 1
        try:
            clip = clip._replace(data=storage.read(entry["name"], clip.position, clip.position + len(clip.data)))
        except StorageError:
            break  # it is this clip that is damaged: those after it may lie in the cache
    if zlib.crc32(clip.data) == checksum:
        return clip
    return Damage(
        "checksum",
        f"Shard {clip.shard}, byte {clip.position}: the checksum of this clip is not the one of its index. "
        "Copy the shard again, or pack it again.",
    )


def read_good_clips(storage: Storage, entry: ShardEntry, start: int, stop: int) -> Iterator[Clip]:
    """Read the clips ``start`` to ``stop`` (not included) of a shard and accept no damage; no frame is decoded.

    Raises:
        ShardError: A clip is damaged, or the shard cannot be read.
    """
    for item in read_range(storage, entry, start, stop):
        if isinstance(item, Damage):
            raise ShardError(item.message)
        yield parse_clip(item.raw())
