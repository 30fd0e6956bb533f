"""Checking shards against their index."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from sfdkit.data.pack.commands import PackPuppets, check, ls
from sfdkit.data.shards.format import INDEX_NAME, clip_table, pack_table
from sfdkit.data.shards.index import describe_shard, load_index, save_index
from sfdkit.errors import ShardError
from sfdkit.points import FACE5
from tests.shards import Member, clip_members, make_shards, read_members, write_tar


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packed") / "puppets"
    PackPuppets(
        str(folder),
        identities=6,
        validation_identities=2,
        test_identities=0,
        resolution=32,
        frames_per_clip=3,
        clips_per_shard=2,
    ).run()
    return folder


@pytest.fixture
def folder(packed: Path, tmp_path: Path) -> Path:
    """A copy of the packed puppets that may be damaged."""
    return Path(shutil.copytree(packed, tmp_path / "puppets"))


def rewrite(folder: Path, change: Callable[[list[tuple[str, bytes]]], None]) -> None:
    """Change the members of the second shard and make the index fit its bytes."""
    path = folder / "train" / "train-00001.tar"
    members = [(member.name, member.data) for member in read_members(path)]
    change(members)
    write_tar(path, members)
    index = load_index(folder / "train")
    index["shards"][1] = describe_shard(path)
    save_index(folder / "train", index)


@pytest.mark.parametrize("decode", [False, True])
def test_whole_shards_pass(packed: Path, capsys: pytest.CaptureFixture[str], decode: bool) -> None:
    check(str(packed), decode)
    printed = capsys.readouterr().out
    assert printed.count(" ok") == 4 and "DAMAGED" not in printed
    assert "6 identities, 32 px, train" in printed and "2 identities, 32 px, validation" in printed
    lines = [line for line in printed.splitlines() if line.startswith("train-")]
    assert len({line.index("ok") for line in lines}) == 1 and lines[0].split()[1:3] == ["2", "6"]


def test_one_split_can_be_checked(packed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check(str(packed / "validation"))
    assert "train" not in capsys.readouterr().out.replace(str(packed), "")


def test_a_flipped_bit_is_found(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = folder / "train" / "train-00001.tar"
    body = bytearray(path.read_bytes())
    body[3000] ^= 1
    path.write_bytes(body)
    expected = load_index(folder / "train")["shards"][1]["sha256"]
    with pytest.raises(
        ShardError, match=rf"train-00001\.tar: sha256 is {hashlib.sha256(body).hexdigest()}, .* {expected}: copy"
    ):
        check(str(folder))
    printed = capsys.readouterr().out
    assert printed.count("DAMAGED") == 1 and printed.count(" ok") == 3


def test_cut_and_missing_shards_are_found(folder: Path) -> None:
    path = folder / "train" / "train-00000.tar"
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-1024])
    with pytest.raises(ShardError, match=rf"bytes is {size - 1024}, its index says {size}"):
        check(str(folder))
    path.unlink()
    (folder / "train" / "train-00002.tar").unlink()
    with pytest.raises(ShardError, match=r"train-00000\.tar is in the index and not in the folder.*1 more"):
        check(str(folder))


def test_counts_must_agree(folder: Path) -> None:
    rewrite(folder, lambda members: members.__delitem__(slice(2)))
    index = load_index(folder / "train")
    table = clip_table(index["shards"][1])
    rows = [(table.offsets[1], table.checksums[0]), (1024, 7)]
    index["shards"][1] |= {"clips": 2, "table": pack_table(rows)}
    save_index(folder / "train", index)
    with pytest.raises(ShardError, match=r"train-00001\.tar: clips is 1, its index says 2"):
        check(str(folder))


@pytest.mark.parametrize(("size", "checksum"), [(512, 0), (0, 1)])
def test_the_table_must_agree(folder: Path, size: int, checksum: int) -> None:
    index = load_index(folder / "train")
    table = clip_table(index["shards"][1])
    rows = list(zip((stop - start for start, stop in pairwise(table.offsets)), table.checksums, strict=True))
    rows[1] = (rows[1][0] + size, rows[1][1] ^ checksum)
    index["shards"][1]["table"] = pack_table(rows)
    save_index(folder / "train", index)
    with pytest.raises(ShardError, match=r"train-00001\.tar: first byte, end and CRC-32 of clip 1 is .* index says"):
        check(str(folder))
    index["shards"][1]["table"] = "." * len(index["shards"][1]["table"])
    save_index(folder / "train", index)
    with pytest.raises(ShardError, match=r"its table in the index is damaged "):
        check(str(folder))


def test_identities_must_agree(folder: Path) -> None:
    index = load_index(folder / "train")
    save_index(folder / "train", {**index, "identities": 5})
    with pytest.raises(ShardError, match="promises 5 identities, the clips have 6"):
        check(str(folder))


def test_keys_must_be_unique_in_the_folder(folder: Path) -> None:
    first = [(m.name, m.data) for m in read_members(folder / "train" / "train-00000.tar")]
    rewrite(folder, lambda members: members.__setitem__(slice(None), first))
    with pytest.raises(ShardError, match="is used twice"):
        check(str(folder))


def _edit(**values: object) -> Callable[[list[tuple[str, bytes]]], None]:
    def change(members: list[tuple[str, bytes]]) -> None:
        name, data = members[0]
        members[0] = (name, json.dumps({**json.loads(data), **values}).encode())

    return change


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"crop": None}, "its json has crop = None"),
        ({"resolution": 64}, "resolution of clip .* is 64, its index says 32"),
        ({"times": [0.0, 0.2, 0.1]}, "go backwards"),
        ({"times": [0.0]}, "3 frames are packed, its json lists 1"),
    ],
)
def test_json_must_be_whole(folder: Path, values: dict[str, object], words: str) -> None:
    rewrite(folder, _edit(**values))
    with pytest.raises(ShardError, match=words):
        check(str(folder))


GOOD = [[1.0, 2.0]] * 31


@pytest.mark.parametrize(
    ("points", "words"),
    [
        (None, "set of points of clip .* is None, its index says face31"),
        ({"set": "face5", "frames": [None] * 3}, "set of points of clip .* is face5, its index says face31"),
        ({"set": "face31", "frames": [GOOD] * 2}, "are no list of 3 frames"),
        ({"set": "face31", "frames": [GOOD, None, GOOD[1:]]}, "of frame 2 of clip .* are not 31 pairs of numbers"),
        ({"set": "face31", "frames": [[[1.0, 2.0, 3.0]] * 31, None, GOOD]}, "of frame 0 of clip .* are not 31 pairs"),
        ({"set": "face31", "frames": [GOOD, GOOD, [[1.0, float("inf")], *GOOD[1:]]]}, "of frame 2 .* not 31 pairs"),
        ({"set": "face31", "frames": [GOOD, [["1", "2"]] * 31, GOOD]}, "of frame 1 .* not 31 pairs"),
    ],
)
def test_points_must_be_those_of_the_index(folder: Path, points: object, words: str) -> None:
    rewrite(folder, _edit(points=points))
    with pytest.raises(ShardError, match=words):
        check(str(folder))


def test_points_that_were_not_found_are_counted(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rewrite(folder, _edit(points={"set": "face31", "frames": [GOOD, None, None]}))
    check(str(folder))
    totals = [line for line in capsys.readouterr().out.splitlines() if line.startswith("total")]
    assert "train, points face31 not found in 2 frames" in totals[0]
    assert "validation, points face31 not found in 0 frames" in totals[1]


def test_a_set_that_is_not_known_is_told(tmp_path: Path) -> None:
    unknown = dataclasses.replace(FACE5, name="face12")
    make_shards(tmp_path, "train", [2], points=unknown)
    with pytest.raises(ShardError, match=r"of the set 'face12', which this version does not know"):
        check(str(tmp_path))


def test_shards_of_before_have_no_points(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for split in ("train", "validation"):
        index = load_index(folder / split)
        del index["points"]
        for number, entry in enumerate(index["shards"]):
            path = folder / split / entry["name"]
            write_tar(path, [_without_points(member) for member in read_members(path)])
            index["shards"][number] = describe_shard(path)
        save_index(folder / split, index)
    check(str(folder))
    assert "points" not in capsys.readouterr().out
    ls(str(folder))
    assert [line.split()[-2] for line in capsys.readouterr().out.splitlines()] == ["points", "-", "-"]


def _without_points(member: Member) -> tuple[str, bytes]:
    if not member.name.endswith(".json"):
        return member.name, member.data
    meta = json.loads(member.data)
    del meta["points"]
    return member.name, json.dumps(meta).encode()


def test_only_decoding_finds_a_picture_of_another_size(folder: Path) -> None:
    def change(members: list[tuple[str, bytes]]) -> None:
        members[1] = (members[1][0], clip_members("train", 0, 3, 48)[1][1])

    rewrite(folder, change)
    check(str(folder))
    with pytest.raises(ShardError, match="48 x 48, its json says 32 x 32"):
        check(str(folder), decode=True)


def test_a_cut_picture_is_found(folder: Path) -> None:
    def change(members: list[tuple[str, bytes]]) -> None:
        name, blob = members[1]
        members[1] = (name, blob[:-2] + b"\0\0")

    rewrite(folder, change)
    with pytest.raises(ShardError, match=r"frame 2 of clip .* is no whole JPEG"):
        check(str(folder))


def test_folders_without_an_index_and_stray_tars(folder: Path, tmp_path: Path) -> None:
    (folder / "train" / "old.tar").touch()
    with pytest.raises(ShardError, match=r"holds old\.tar, which its index does not list"):
        check(str(folder))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ShardError, match=f"has an {INDEX_NAME}"):
        check(str(tmp_path / "empty"))
    with pytest.raises(ShardError, match="does not exist"):
        check(str(tmp_path / "none"))
