"""Packing to, listing, copying and checking shards in local folders and object stores."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("s3fs")

from sfdkit.cli import main
from sfdkit.data.pack import copy as copy_module
from sfdkit.data.pack import writer as pack_module
from sfdkit.data.shards.index import describe_shard, load_index
from sfdkit.errors import ConfigError, DataError, ShardError, StorageError
from sfdkit.storage import Storage
from tests.plain import contents, pack_plain, plain_sources
from tests.servers.loopback import S3Server, rclone_program, serve_http, serve_s3

copy_command = ("shards", "copy", "--workers", "2")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "out"
    pack_plain(out)
    return out


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[S3Server, Path]]:
    try:
        rclone_program()
    except RuntimeError as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("s3")
    (folder / "bucket").mkdir()
    with serve_s3(folder) as running:
        yield running, folder / "bucket"


@pytest.fixture
def bucket(server: tuple[S3Server, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The folder behind s3://bucket, which the environment can reach."""
    for name, value in server[0].environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return server[1]


def run(*arguments: object) -> None:
    assert main([str(argument) for argument in arguments]) == 0


@pytest.mark.slow
def test_round_trip_through_an_object_store(
    bucket: Path, tmp_path: Path, whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pack_plain("s3://bucket/faces", workers=2)
    assert contents(bucket / "faces") == contents(whole)
    assert not list((tmp_path / "cache" / "sfdkit" / "packing").iterdir())
    assert pack_plain("s3://bucket/faces").found
    run("shards", "ls", "--folder", "s3://bucket/faces", "--shards", "true")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == [
        "data",
        "set",
        "split",
        "resolution",
        "shards",
        "clips",
        "frames",
        "identities",
        "points",
        "MB",
    ]
    assert lines[1].split()[:7] == ["plain", "train", "32", "10", "40", "120", "20"]
    assert lines[2].split()[:3] == ["train-00000.tar", "4", "12"] and len(lines) == 15
    run("shards", "check", "--folder", "s3://bucket/faces", "--decode", "true")
    printed = capsys.readouterr().out
    assert printed.count(" ok") == 12 and "s3://bucket/faces/train" in printed
    run(*copy_command, "--source", "s3://bucket/faces", "--target", tmp_path / "back")
    assert contents(tmp_path / "back") == contents(whole)
    assert "12 shards copied" in capsys.readouterr().out
    run(*copy_command, "--source", tmp_path / "back" / "train", "--target", "s3://bucket/other/train")
    assert contents(bucket / "other" / "train") == contents(whole / "train")
    run(*copy_command, "--source", "s3://bucket/faces", "--target", "s3://bucket/third")
    assert contents(bucket / "third") == contents(whole)


@pytest.mark.slow
def test_an_interrupted_pack_to_an_object_store_goes_on(
    bucket: Path, tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pack_module, "_WINDOW", 2)
    pack_plain(tmp_path / "expected")
    out = "s3://bucket/broken"
    put = Storage.put

    def limited(storage: Storage, name: str, path: Path) -> None:
        if name == "train-00005.tar":
            raise StorageError("the network is gone")
        put(storage, name, path)

    with monkeypatch.context() as patch:
        patch.setattr(Storage, "put", limited)
        with pytest.raises(StorageError, match="the network is gone"):
            pack_plain(out)
    there = bucket / "broken"
    assert not list(there.rglob("index.json")) and not (there / "pack.json").exists()
    with pytest.raises(DataError, match=r"is being packed from .* since .*or that call was interrupted"):
        pack_plain(out, scratch=tmp_path / "elsewhere")
    with pytest.raises(DataError, match=r"already holds train"):
        pack_plain(out, seed=1)
    (there / "train" / "train-00001.tar").write_bytes((there / "train" / "train-00000.tar").read_bytes())
    before = {path.name: path.stat().st_mtime_ns for path in (there / "train").iterdir()}
    (tmp_path / "notes").mkdir()
    pack_plain(out, sources=plain_sources(notes=tmp_path / "notes"))
    assert contents(there) == contents(tmp_path / "expected")
    after = {path.name: path.stat().st_mtime_ns for path in (there / "train").iterdir()}
    assert after["train-00000.tar"] == before["train-00000.tar"]
    assert after["train-00001.tar"] != before["train-00001.tar"]
    assert len(list((tmp_path / "notes").iterdir())) < 24


def test_overwriting_in_an_object_store_and_foreign_files(bucket: Path, tmp_path: Path) -> None:
    (bucket / "full" / "train").mkdir(parents=True)
    (bucket / "full" / "train" / "thesis.txt").write_text("precious")
    with pytest.raises(DataError, match=r"holds train/thesis\.txt, which was not packed"):
        pack_plain("s3://bucket/full", overwrite=True)
    (bucket / "full" / "train" / "thesis.txt").rename(bucket / "full" / "train" / "train-00099.tar")
    with pytest.raises(DataError, match="already holds train"):
        pack_plain("s3://bucket/full")
    pack_plain("s3://bucket/full", overwrite=True, seed=2)
    pack_plain(tmp_path / "fresh", seed=2)
    assert contents(bucket / "full") == contents(tmp_path / "fresh")
    with pytest.raises(DataError, match="packed with other settings"):
        pack_plain("s3://bucket/full")


def test_wrong_keys_give_an_error_without_secrets(
    bucket: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], caplog: Any
) -> None:
    caplog.set_level(logging.DEBUG, "sfdkit")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret-that-is-wrong")
    for arguments in (("ls", "--folder"), ("check", "--folder"), ("copy", "--target", tmp_path / "x", "--source")):
        assert main(["shards", *map(str, arguments), "s3://bucket/faces"]) == 1
    with pytest.raises(StorageError, match=r"s3://bucket/new.*refused.*credentials") as caught:
        pack_plain("s3://bucket/new")
    printed = capsys.readouterr()
    text = printed.out + printed.err + caplog.text + str(caught.value)
    assert "access is refused" in printed.err
    assert "a-secret-that-is-wrong" not in text and "Signature=" not in text
    assert not (bucket / "new").exists() and not (tmp_path / "cache").exists()


def test_shards_on_a_web_server_can_be_listed_checked_and_copied(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serve_http(whole, ranges=False) as address:
        run("shards", "ls", "--folder", f"{address}/train")
        run("shards", "check", "--folder", f"{address}/train")
        run(*copy_command, "--source", f"{address}/train", "--target", tmp_path / "train", "--verify", "false")
    assert contents(tmp_path / "train") == contents(whole / "train")
    with pytest.raises(ConfigError, match="--target: http"):
        copy_module.copy_shards(Storage(whole), Storage("http://127.0.0.1:1"))


def copy_to(source: Path, target: Path, **values: bool) -> copy_module.CopyReport:
    return copy_module.copy_shards(Storage(source), Storage(target), 2, **values)


def test_a_copy_keeps_what_is_right_and_replaces_what_is_not(whole: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    copy_to(whole, target)
    (target / "pack.json").unlink()
    (target / "train" / "index.json").unlink()
    (target / "train" / "train-00000.tar").unlink()
    (target / "train" / "train-00001.tar").write_bytes(b"half")
    body = bytearray((target / "train" / "train-00002.tar").read_bytes())
    body[800] ^= 1
    (target / "train" / "train-00002.tar").write_bytes(body)
    (target / ".copying").mkdir()
    (target / ".copying" / "0-train-00000.tar").write_bytes(b"left by a call that was killed")
    report = copy_to(whole, target)
    assert (report.copied, report.kept) == (3, 9)
    assert contents(target) == contents(whole)


def test_damage_at_the_source_is_read_twice_and_named(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pieces = Storage.pieces
    flips = [1, 2]

    def damaged(storage: Storage, name: str, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        for piece in pieces(storage, name, start, stop):
            if name == "train-00003.tar" and storage.root.startswith(str(whole)) and flips[0]:
                flips[0] -= 1
                piece = b"?" + piece[1:]
            yield piece

    monkeypatch.setattr(Storage, "pieces", damaged)
    copy_to(whole, tmp_path / "once")
    assert contents(tmp_path / "once") == contents(whole)
    flips[0] = 2
    with pytest.raises(ShardError, match=r"train/train-00003\.tar has .* its index says"):
        copy_to(whole, tmp_path / "twice")
    left = contents(tmp_path / "twice")
    assert not [name for name in left if name.endswith(".json")] and "train/train-00003.tar" not in left
    assert left.items() <= contents(whole).items()


def test_a_target_that_stores_something_else_is_found(
    whole: Path, bucket: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = Storage.put

    def damaging(storage: Storage, name: str, path: Path) -> None:
        if name == "train-00004.tar":
            path.write_bytes(b"?" + path.read_bytes()[1:])
        put(storage, name, path)

    monkeypatch.setattr(Storage, "put", damaging)
    target = Storage("s3://bucket/damaged")
    with pytest.raises(ShardError, match=r"damaged/train/train-00004\.tar is not what was written"):
        copy_module.copy_shards(Storage(whole), target)
    assert not (bucket / "damaged" / "train" / "train-00004.tar").exists()


def test_other_shards_are_not_overwritten_unasked(whole: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    pack_plain(other, sources=plain_sources(24, 5), seed=1)
    before = contents(other)
    with pytest.raises(DataError, match=r"holds other shards, its index\.json is not that of .*--overwrite"):
        copy_to(whole, other)
    assert contents(other) == before
    copy_to(whole, other, overwrite=True)
    assert contents(other) == contents(whole)
    (other / "train" / "index.json").unlink()
    (other / "train" / "old.tar").touch()
    with pytest.raises(DataError, match=r"holds old\.tar, which"):
        copy_to(whole, other)


def test_old_schemas_and_missing_folders_are_errors(whole: Path, tmp_path: Path) -> None:
    for command in (("ls", "--folder"), ("check", "--folder"), ("copy", "--target", tmp_path / "x", "--source")):
        assert main(["shards", *map(str, command), str(tmp_path / "none")]) == 1
    assert not (tmp_path / "x").exists()
    index = load_index(whole / "train")
    assert index["shards"][0] == describe_shard(whole / "train" / index["shards"][0]["name"])
    assert json.loads((whole / "pack.json").read_text())["splits"]["train"]["shards"] == 10
