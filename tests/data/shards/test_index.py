from __future__ import annotations

import hashlib
import json
import zlib
from pathlib import Path
from typing import Any

import pytest

from sfdkit.data.shards.format import clip_table
from sfdkit.data.shards.index import describe_shard, index_clips, load_index, require_shards, save_index
from sfdkit.errors import ShardError
from tests.shards import make_shards, read_members


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_shards(tmp_path, "train", [2, 3], frames=2, resolution=16)


def test_round_trip(folder: Path) -> None:
    index = load_index(folder)
    assert index_clips(index) == 5 and index["split"] == "train" and index["resolution"] == 16
    index["identities"] = 7
    save_index(folder, index)
    assert load_index(folder) == index
    assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == []


def test_save_keeps_the_old_index_when_writing_fails(folder: Path) -> None:
    before = load_index(folder)
    with pytest.raises(TypeError):
        save_index(folder, {**before, "schema": object()})  # type: ignore[typeddict-item]
    assert load_index(folder) == before
    assert sorted(path.name for path in folder.iterdir()) == ["index.json", "train-00000.tar", "train-00001.tar"]


def test_a_shard_is_described_by_its_bytes(folder: Path) -> None:
    path = folder / "train-00001.tar"
    data = path.read_bytes()
    entry = load_index(folder)["shards"][1]
    assert entry == describe_shard(path)
    assert entry["sha256"] == hashlib.sha256(data).hexdigest() and entry["bytes"] == len(data)
    assert (entry["clips"], entry["frames"]) == (3, 6)
    table = clip_table(entry)
    starts = [member.position for member in read_members(path)][::2]
    assert table.offsets[:3] == starts and data[table.offsets[3] :].strip(b"\0") == b""
    for number, checksum in enumerate(table.checksums):
        assert zlib.crc32(data[table.offsets[number] : table.offsets[number + 1]]) == checksum
    with pytest.raises(ValueError, match="a table of 2 clips has 16 bytes"):
        clip_table({**entry, "clips": 2})


def test_a_missing_folder_or_index_names_the_remedy(folder: Path) -> None:
    with pytest.raises(ShardError, match=r"nowhere' does not exist.*sfdkit shards pack"):
        load_index(folder / "nowhere")
    (folder / "index.json").unlink()
    with pytest.raises(ShardError, match=r"has no index.json.*sfdkit shards pack"):
        load_index(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": "sfdkit.shards/0"}, "schema 'sfdkit.shards/0', this version reads 'sfdkit.shards/2'"),
        ({"resolution": "64"}, "resolution = '64', a value of type int"),
        ({"shards": []}, "lists no shards"),
        ({"tables": 5}, "tables = 5, a value of type str"),
        ({"tables": "AAAA"}, "has tables of 4 letters, its shards want 56"),
        ({"shards": [7]}, r"shards\[0\] is a int"),
        ({"shards": [{"name": "a.tar"}]}, r"shards\[0\] has clips = None"),
        ({"shards": [{"name": "a", "clips": 0, "frames": 0, "bytes": 0, "sha256": ""}]}, "hold no clips"),
    ],
)
def test_a_wrong_index_says_what_is_wrong(folder: Path, change: dict[str, Any], message: str) -> None:
    path = folder / "index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ShardError, match=message):
        load_index(folder)


def test_no_json(folder: Path) -> None:
    (folder / "index.json").write_text("{")
    with pytest.raises(ShardError, match="no valid json"):
        load_index(folder)


def test_shards_must_be_there_in_full(folder: Path) -> None:
    index = load_index(folder)
    require_shards(folder, index)
    path = folder / "train-00001.tar"
    path.write_bytes(path.read_bytes()[:-512])
    with pytest.raises(ShardError, match=r"train-00001.tar has \d+ bytes, its index says"):
        require_shards(folder, index)
    path.unlink()
    with pytest.raises(ShardError, match=r"train-00001.tar is in the index and not on disk"):
        require_shards(folder, index)
