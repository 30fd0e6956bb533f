"""The index beside the shards: reading, checking and writing ``index.json``.

Legend: a *folder of shards* holds ``*.tar`` files of one split and one ``index.json``, see :mod:`sfdkit.data.format`.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from sfdkit.data.format import INDEX_NAME, SCHEMA, ShardEntry, ShardIndex
from sfdkit.errors import ShardError

_PACK = "Pack the folder with `sfdkit shards pack ...`."
_PACK_AGAIN = "Pack the folder again with `sfdkit shards pack ...`."
_CHUNK = 1 << 20


def load_index(folder: str | Path) -> ShardIndex:
    """Read and check the index of a folder of shards.

    Args:
        folder: The folder that holds ``index.json``.

    Returns:
        The index.

    Raises:
        ShardError: There is no index, it is no json, it has another schema version, a field is missing or of the wrong
            type, or it lists no shards or no clips.
    """
    path = Path(folder) / INDEX_NAME
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        what = "has no index.json" if Path(folder).is_dir() else "does not exist"
        raise ShardError(f"The folder of shards {str(folder)!r} {what}. {_PACK}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ShardError(f"Cannot read the index {path}: {error}.") from error
    try:
        index = json.loads(text)
    except json.JSONDecodeError as error:
        raise ShardError(f"The index {path} is no valid json: {error}. {_PACK_AGAIN}") from error
    return _checked(index, path)


def _checked(index: Any, path: Path) -> ShardIndex:
    schema = index.get("schema") if isinstance(index, dict) else None
    if schema != SCHEMA:
        raise ShardError(f"The index {path} has schema {schema!r}, this version reads {SCHEMA!r}. {_PACK_AGAIN}")
    _require_fields(index, dict(dataset=str, split=str, resolution=int, identities=int, shards=list), str(path))
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


def save_index(folder: str | Path, index: ShardIndex) -> Path:
    """Write the index of a folder of shards; a reader sees either the old file or the whole new one.

    Args:
        folder: The folder of shards; it must exist.
        index: What to write.

    Returns:
        The path of ``index.json``.
    """
    path = Path(folder) / INDEX_NAME
    descriptor, name = tempfile.mkstemp(prefix=".index-", suffix=".json", dir=path.parent)
    try:
        os.fchmod(descriptor, 0o644)  # mkstemp makes files that only their owner may read
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(index, file, indent=2, ensure_ascii=False)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return path


def shard_sha256(path: str | Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def index_clips(index: ShardIndex) -> int:
    """Return the number of clips in all shards together."""
    return sum(entry["clips"] for entry in index["shards"])


def require_shards(folder: str | Path, index: ShardIndex) -> None:
    """Check that each shard of the index exists and has the size that the index promises.

    Args:
        folder: The folder of shards.
        index: Its index.

    Raises:
        ShardError: A shard is missing or has another size.
    """
    for entry in index["shards"]:
        _require_shard(Path(folder) / entry["name"], entry)


def _require_shard(path: Path, entry: ShardEntry) -> None:
    try:
        size = path.stat().st_size
    except FileNotFoundError as error:
        raise ShardError(
            f"The shard {path} is in the index and not on disk. Copy it beside its index, or pack again."
        ) from error
    if size != entry["bytes"]:
        raise ShardError(
            f"The shard {path} has {size} bytes, its index says {entry['bytes']}. "
            "Copy it again (a transfer may have been cut), or pack again."
        )
