"""The index beside the shards: reading, checking and writing ``index.json``.

Legend: a *folder of shards* holds ``*.tar`` files of one split and one ``index.json``, see
:mod:`sfdkit.data.shards.format`.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sfdkit.data.shards.format import INDEX_NAME, SCHEMA, ShardEntry, ShardIndex, frame_count, pack_table, table_letters
from sfdkit.data.shards.reader import read_raw_clips
from sfdkit.errors import MissingError, ShardError
from sfdkit.storage import Storage
from sfdkit.storage.cache import cache_of

_PACK = "Pack the folder with `sfdkit prepare` or `sfdkit shards pack`."
_PACK_AGAIN = "Pack the folder again with `sfdkit prepare` or `sfdkit shards pack`."
_CHUNK = 1 << 20


def as_storage(folder: str | Path | Storage) -> Storage:
    """Return the storage of a folder that may be given by its address."""
    return folder if isinstance(folder, Storage) else Storage(folder)


def load_index(folder: str | Path | Storage, fill: bool = True) -> ShardIndex:
    """Read and check the index of a folder of shards.

    Args:
        folder: The folder that holds ``index.json``: a path, an address, or a storage.
        fill: Give each shard its table; without, they stay together in ``tables``, which saves time and memory.

    Returns:
        The index.

    Raises:
        ShardError: There is no index, it is no json, it has another schema version, a field is missing or of the wrong
            type, or it lists no shards or no clips.
        StorageError: The storage cannot be read.
    """
    storage = as_storage(folder)
    path = storage.show(INDEX_NAME)
    try:
        cache = cache_of(storage)
        data = cache.text(storage, INDEX_NAME) if cache else storage.read(INDEX_NAME)
        text = data.decode("utf-8")
        del data  # the index of a large data set takes megabytes
    except MissingError as error:
        what = "does not exist" if storage.is_local and not storage.path().is_dir() else "has no index.json"
        raise ShardError(f"The folder of shards {storage.show()!r} {what}. {_PACK}") from error
    except UnicodeDecodeError as error:
        raise ShardError(f"Cannot read the index {path}: {error}. {_PACK_AGAIN}") from error
    try:
        index = json.loads(text)
    except json.JSONDecodeError as error:
        raise ShardError(f"The index {path} is no valid json: {error}. {_PACK_AGAIN}") from error
    checked = _checked(index, path)
    if fill:
        for entry, table in zip(checked["shards"], split_tables(checked, path), strict=True):
            entry["table"] = table
        del checked["tables"]
    return checked


def split_tables(index: ShardIndex, path: str) -> Iterator[str]:
    """Yield the table of each shard of an index that was read without filling them in.

    Raises:
        ShardError: There are more or less of them than shards.
    """
    start = 0
    for entry in index["shards"]:
        stop = start + table_letters(entry["clips"])
        yield index["tables"][start:stop]
        start = stop
    if start != len(index["tables"]):
        raise ShardError(
            f"The index {path} has tables of {len(index['tables'])} letters, its shards want {start}. {_PACK_AGAIN}"
        )


def _checked(index: Any, path: str) -> ShardIndex:
    schema = index.get("schema") if isinstance(index, dict) else None
    if schema != SCHEMA:
        raise ShardError(f"The index {path} has schema {schema!r}, this version reads {SCHEMA!r}. {_PACK_AGAIN}")
    _require_fields(index, dict(dataset=str, split=str, resolution=int, identities=int, shards=list, tables=str), path)
    if not index["shards"]:
        raise ShardError(f"The index {path} lists no shards. {_PACK_AGAIN}")
    for position, entry in enumerate(index["shards"]):
        where = f"{path}, shards[{position}]"
        if not isinstance(entry, dict):
            raise ShardError(f"The index {where} is a {type(entry).__name__}, an object is wanted. {_PACK_AGAIN}")
        _require_fields(entry, dict(name=str, clips=int, frames=int, bytes=int, sha256=str), where)
    if not any(entry["clips"] for entry in index["shards"]):
        raise ShardError(f"The shards in the index {path} hold no clips. {_PACK_AGAIN}")
    checked: ShardIndex = index  # type: ignore[assignment]  # just checked by hand
    return checked


def _require_fields(values: dict[str, Any], fields: dict[str, type], where: str) -> None:
    for name, kind in fields.items():
        if not isinstance(values.get(name), kind):
            raise ShardError(
                f"The index {where} has {name} = {values.get(name)!r}, a value of type {kind.__name__} is wanted. "
                f"{_PACK_AGAIN}"
            )


def save_index(folder: str | Path | Storage, index: ShardIndex) -> None:
    """Write the index of a folder of shards; a reader sees either the old file or the whole new one.

    Args:
        folder: The folder of shards.
        index: What to write.

    Raises:
        StorageError: It cannot be written.
    """
    shards = [{name: value for name, value in entry.items() if name != "table"} for entry in index["shards"]]
    written = {**index, "shards": shards, "tables": "".join(entry["table"] for entry in index["shards"])}
    text = json.dumps(written, indent=1, ensure_ascii=False) + "\n"
    as_storage(folder).write(INDEX_NAME, text.encode("utf-8"))


def describe_shard(path: Path) -> ShardEntry:
    """Read a shard on this machine from end to end and return what an index says of it.

    Raises:
        ShardError: It is damaged.
    """
    clips, frames = [], 0
    with path.open("rb") as file:
        for raw in read_raw_clips(file, str(path)):
            clips.append((raw.position, raw.stop))
            frames += frame_count(raw.frames)
        file.seek(0)
        digest = hashlib.sha256()
        rows = []
        for start, stop in clips:
            data = file.read(stop - start)
            digest.update(data)
            rows.append((len(data), zlib.crc32(data)))
        while data := file.read(_CHUNK):
            digest.update(data)
    return ShardEntry(
        name=path.name,
        clips=len(clips),
        frames=frames,
        bytes=path.stat().st_size,
        sha256=digest.hexdigest(),
        table=pack_table(rows),
    )


def index_clips(index: ShardIndex) -> int:
    """Return the number of clips in all shards together."""
    return sum(entry["clips"] for entry in index["shards"])


def require_shards(folder: str | Path | Storage, index: ShardIndex) -> None:
    """Check that each shard of the index exists and has the size that the index promises.

    Only local folders are looked at: elsewhere it would take a request per shard, and what is missing or too short is
    found and counted when it is read.

    Args:
        folder: The folder of shards.
        index: Its index.

    Raises:
        ShardError: A shard is missing or has another size.
    """
    storage = as_storage(folder)
    if not storage.is_local:
        return
    for entry in index["shards"]:
        path = storage.path(entry["name"])
        if not path.exists():
            raise ShardError(
                f"The shard {path} is in the index and not on disk. Copy it beside its index, or pack again."
            )
        if (size := path.stat().st_size) != entry["bytes"]:
            raise ShardError(
                f"The shard {path} has {size} bytes, its index says {entry['bytes']}. "
                "Copy it again (a transfer may have been cut), or pack again."
            )
