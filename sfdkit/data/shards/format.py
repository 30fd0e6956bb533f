"""The shard format: what a tar member holds and what the index beside the shards promises.

A shard is an uncompressed tar (WebDataset, https://github.com/webdataset/webdataset) of clips. A clip ``KEY`` is two
members, in this order:

``KEY.json``
    UTF-8 json, see :class:`ClipMeta`.
``KEY.frames``
    All JPEG pictures of the clip in one member, little endian: ``uint32 count``, then ``count + 1`` offsets as
    ``uint32`` (relative to the first byte after the offsets; the last one is the length of all pictures together), then
    the JPEG files one after the other. A reader decodes only the frames that it chose.

``index.json`` beside the tars is :class:`ShardIndex` as json. Epoch length and work per rank are arithmetic on it, and
its tables say at which byte each clip starts and what its CRC-32 is, so that any clip can be read, and verified, by one
range request.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, NamedTuple, NotRequired, TypedDict

from sfdkit.media.crop import CropMeta

SCHEMA = "sfdkit.shards/2"
INDEX_NAME = "index.json"


class ClipPoints(TypedDict):
    """Points of the face in each frame of a clip."""

    set: str
    """Their set, see :mod:`sfdkit.points`."""
    frames: list[list[list[float]] | None]
    """One list per frame: x and y of each point in pixels of the stored picture, whole numbers at the middle of pixels;
    None where they were not found."""


class ClipMeta(TypedDict):
    """The json of one clip."""

    key: str
    identity: str
    video: str
    dataset: str
    licence: str
    fps: float
    times: list[float]
    """Seconds from the start of the video, one per frame; its length is the number of frames."""
    resolution: int
    crop: CropMeta
    groups: dict[str, str]
    """Group name to value, for results by group, for example ``{"skin": "dark", "glasses": "yes"}``."""
    numbers: NotRequired[list[int]]
    """Which frames of the original video they are, counted from 0; that of a list of pairs. Puppets keep all."""
    points: NotRequired[ClipPoints]
    """Points of the face, where they were looked for."""
    puppet: NotRequired[dict[str, Any]]
    """For puppets: ``identity`` (factor -> value) and ``motion`` (factor -> list of values, one per frame)."""


CLIP_FIELDS: dict[str, type | tuple[type, ...]] = {
    "key": str,
    "identity": str,
    "video": str,
    "dataset": str,
    "licence": str,
    "fps": (int, float),
    "times": list,
    "resolution": int,
    "crop": dict,
    "groups": dict,
}
"""Fields that the json of each clip must have, with their types."""


class ShardEntry(TypedDict):
    """One shard in the index."""

    name: str
    clips: int
    frames: int
    bytes: int
    sha256: str
    table: str
    """In memory; in ``index.json`` the tables of all shards follow each other in :attr:`ShardIndex.tables`.

    Base64 of one pair of ``uint32`` per clip, little endian: bytes that it takes in the tar, from its first header
    to the padding after its frames, and their CRC-32."""


class ClipTable(NamedTuple):
    """Where the clips of a shard lie."""

    offsets: list[int]
    """Byte at which each clip starts, and at the end the byte after the last one: one more than there are clips."""
    checksums: tuple[int, ...]
    """CRC-32 of each clip's bytes."""


class ShardIndex(TypedDict):
    """The index of one folder of shards."""

    schema: str
    dataset: str
    split: str
    resolution: int
    identities: int
    points: NotRequired[str]
    """The set of points that its clips carry."""
    shards: list[ShardEntry]
    tables: NotRequired[str]
    """In ``index.json``: the tables of all shards, one after the other, each padded to whole groups of base64."""


def pack_table(clips: Sequence[tuple[int, int]]) -> str:
    """Return the table of a shard from the bytes and the CRC-32 of each clip."""
    return base64.b64encode(b"".join(struct.pack("<2I", *clip) for clip in clips)).decode()


def table_letters(clips: int) -> int:
    """Return the length of the table of so many clips."""
    return 4 * -(-8 * clips // 3)


def clip_table(entry: ShardEntry) -> ClipTable:
    """Return the table of a shard.

    Raises:
        ValueError: It is no base64, or not of as many clips as the entry says.
    """
    data = base64.b64decode(entry["table"], validate=True)
    if len(data) != 8 * entry["clips"]:
        raise ValueError(f"a table of {entry['clips']} clips has {8 * entry['clips']} bytes, this one {len(data)}")
    numbers = struct.unpack(f"<{2 * entry['clips']}I", data)
    return ClipTable([0, *accumulate(numbers[::2])], numbers[1::2])


def pack_frames(pictures: Sequence[bytes]) -> bytes:
    """Pack encoded pictures into the body of a ``.frames`` member.

    Args:
        pictures: JPEG files, in order of time; at least one.

    Returns:
        The member's bytes.
    """
    offsets = [0]
    for picture in pictures:
        offsets.append(offsets[-1] + len(picture))
    head = struct.pack(f"<I{len(offsets)}I", len(pictures), *offsets)
    return head + b"".join(pictures)


def frame_count(blob: bytes) -> int:
    """Return the number of pictures in a ``.frames`` member.

    Raises:
        ValueError: The bytes are too short or their offsets do not fit their length.
    """
    if len(blob) < 4:
        raise ValueError(f"a packed clip has at least 4 bytes, this one {len(blob)}")
    (count,) = struct.unpack_from("<I", blob)
    head = 4 + 4 * (count + 1)
    if count == 0 or len(blob) < head:
        raise ValueError(f"a packed clip of {count} frames cannot have {len(blob)} bytes")
    (total,) = struct.unpack_from("<I", blob, head - 4)
    if head + total != len(blob):
        raise ValueError(f"a packed clip promises {head + total} bytes and has {len(blob)}")
    return int(count)


def frame_bytes(blob: bytes, index: int) -> bytes:
    """Return the encoded picture ``index`` of a ``.frames`` member.

    Raises:
        IndexError: There is no such frame.
    """
    count = frame_count(blob)
    if not 0 <= index < count:
        raise IndexError(f"frame {index} of a clip of {count} frames")
    head = 4 + 4 * (count + 1)
    start, stop = struct.unpack_from("<2I", blob, 4 + 4 * index)
    return blob[head + start : head + stop]
