"""The stream over a real S3 server: what passes changes nothing, what lasts is counted, the cache works offline."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from sfdkit.data.loader import EpochLoader
from sfdkit.data.settings import StreamSettings
from sfdkit.data.shard_set import ShardSet
from sfdkit.data.shards.index import load_index
from sfdkit.errors import ConfigError, ShardError, StorageError
from sfdkit.storage import Storage, StorageSettings
from sfdkit.storage.cache import Cache
from sfdkit.types import FrameBatch
from tests.servers.loopback import S3Server, serve_http, serve_s3
from tests.servers.proxy import KINDS, Fault, FaultProxy, always, never, random_faults
from tests.shards import clip_key, make_shards

CLIPS = [40, 25, 31, 8]
TOTAL = sum(CLIPS)
QUICK = StorageSettings(first_wait=0.005, longest_wait=0.02, block_mb=0.01, read_ahead_mb=0.5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shards(tmp_path_factory.mktemp("served") / "bucket", "train", CLIPS).parent.parent


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[S3Server]:
    with serve_s3(folder) as started:
        yield started


@pytest.fixture
def proxy(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    with FaultProxy("127.0.0.1", server.port) as started:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("AWS_ENDPOINT_URL", started.url)
        yield started


def loader(root: str | Path, workers: int = 0, storage: StorageSettings = QUICK, **changes: Any) -> EpochLoader:
    values = {"training": True, "batch_size": 8, "rows_per_clip": 2, "shuffle": 16, "lanes": 4, **changes}
    return EpochLoader(StreamSettings(ShardSet.of(Storage(root, storage)), **values), workers)


def equal(one: list[FrameBatch], other: list[FrameBatch]) -> bool:
    return len(one) == len(other) and all(
        a["key"] == b["key"] and torch.equal(a["driving"], b["driving"]) for a, b in zip(one, other, strict=True)
    )


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("training", [True, False])
def test_an_epoch_over_s3_equals_one_from_disk(folder: Path, proxy: FaultProxy, workers: int, training: bool) -> None:
    local = list(loader(folder / "bucket/train", training=training))
    remote = loader("s3://bucket/train", workers, training=training)
    assert equal(list(remote), local)
    assert (remote.account()["read"], remote.account()["repeated_reads"]) == (remote.account()["expected"], 0)


@pytest.mark.slow
def test_two_hundred_random_faults_change_nothing(folder: Path, proxy: FaultProxy) -> None:
    """The same samples in the same order; the account says how often reading was repeated."""
    kinds = [
        *(kind for kind in KINDS if kind not in ("delay", "stall", "drip", "status")),
        Fault("delay", seconds=0.05),
        Fault("stall", seconds=2),
        Fault("drip", rate=40_000),
        Fault("status", status=503),
        Fault("status", status=404),
    ]
    proxy.choose = random_faults(7, 200, kinds, among=420, matching=r"\.tar$")
    patient = replace(QUICK, attempts=12, block_mb=0.002, timeout=1.5)
    remote = loader("s3://bucket/train", 2, patient)
    batches = list(remote)
    injected = [seen.fault for seen in proxy.log if seen.fault]
    proxy.choose = never
    assert len(injected) == 200 and len(set(injected)) == len(KINDS)
    assert equal(batches, list(loader(folder / "bucket/train")))
    account = remote.account()
    assert account["read"] == account["expected"] and not account["skipped"]
    assert account["repeated_reads"] >= 100


@pytest.mark.slow
def test_lasting_faults_cost_what_they_hit(folder: Path, proxy: FaultProxy) -> None:
    gone = {clip_key("train", clip) for clip in range(40, 65)}
    few = replace(QUICK, attempts=2)
    for fault, reason in ((Fault("status", status=404), "missing"), (Fault("corrupt", after=5000), "checksum")):
        proxy.choose = always(fault, matching="train-00001.tar")
        remote = loader("s3://bucket/train", 2, few, training=False, skip_budget=0.5)
        seen = {key for batch in remote for key in batch["key"]}
        lost = {clip_key("train", clip) for clip in range(TOTAL)} - seen
        account = remote.account()
        assert lost <= gone and len(lost) == sum(count.rows for count in account["skipped"]) >= 1
        assert {(count.shard, count.reason) for count in account["skipped"]} == {("train-00001.tar", reason)}
        with pytest.raises(ShardError, match=rf"\d x {reason} in train-00001\.tar: "):
            list(loader("s3://bucket/train", 2, few, training=False))
    proxy.choose = always(Fault("status", status=500), matching=r"\.tar$")
    with pytest.raises(ShardError, match=r"status 500, InternalError, 2 times in a row.*No other clip"):
        list(loader("s3://bucket/train", 0, few, skip_budget=0.5))
    proxy.choose = always(Fault("status", status=500))
    with pytest.raises(StorageError, match="status 500"):
        loader("s3://bucket/train", 0, few)


@pytest.mark.parametrize("ranges", [True, False])
def test_an_epoch_over_http_equals_one_from_disk(folder: Path, ranges: bool) -> None:
    with serve_http(folder, ranges) as url:
        assert equal(list(loader(f"{url}/bucket/train", 2)), list(loader(folder / "bucket/train")))


def test_an_epoch_through_a_pipe_equals_one_from_disk(folder: Path) -> None:
    allowed = replace(QUICK, allow_pipe=True)
    piped = Storage(f"pipe:cat {folder}/bucket/{{}}", allowed).child("train")
    settings = StreamSettings(ShardSet.of(piped), True, 8, rows_per_clip=2, shuffle=16, lanes=4)
    assert equal(list(EpochLoader(settings)), list(loader(folder / "bucket/train")))


def test_the_cache_is_filled_once_and_serves_offline(folder: Path, proxy: FaultProxy, tmp_path: Path) -> None:
    cached = replace(QUICK, cache=str(tmp_path / "cache"), attempts=2)
    local = list(loader(folder / "bucket/train"))
    assert equal(list(loader("s3://bucket/train", 2, cached)), local)
    fetched = [seen.path for seen in proxy.log if seen.path.endswith(".tar")]
    assert set(fetched) == {f"/bucket/train/train-0000{n}.tar" for n in range(4)}
    proxy.choose = always(Fault("refuse"))
    proxy.clear()
    assert equal(list(loader("s3://bucket/train", 2, cached)), local)
    assert not [seen for seen in proxy.log if seen.path.endswith(".tar")]


def test_the_cache_keeps_its_limit_and_drops_what_was_used_least_recently(folder: Path, tmp_path: Path) -> None:
    storage = Storage(folder / "bucket/train")
    entries = load_index(storage)["shards"]
    size = {entry["name"]: entry["bytes"] for entry in entries}
    cache = Cache(tmp_path / "cache", size["train-00000.tar"] + size["train-00001.tar"] + size["train-00003.tar"])

    def use(number: int) -> None:
        entry = entries[number]
        with cache.open(storage, entry["name"], entry["bytes"], entry["sha256"]) as file:
            assert file.read() == (folder / "bucket/train" / entry["name"]).read_bytes()
        for path in cache.folder.glob("??/*"):  # so that a coarse clock of the file system does not matter
            about = path.stat()
            os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns - 10**9))

    def kept() -> list[int]:
        return [n for n, entry in enumerate(entries) if (cache.folder / entry["sha256"][:2] / entry["sha256"]).exists()]

    use(0)
    use(1)
    use(3)
    assert kept() == [0, 1, 3]
    use(0)
    use(2)
    assert kept() == [0, 2] or kept() == [0, 2, 3]
    assert 1 not in kept()
    (cache.folder / "ab").mkdir(exist_ok=True)
    (cache.folder / "ab" / "abcd.partial").write_bytes(bytes(cache.limit))  # of a process that was killed
    use(3)
    (path,) = cache.folder.glob(f"??/{entries[3]['sha256']}")
    path.write_bytes(b"cut by a crash")
    use(3)
    assert not list(cache.folder.glob("??/*.partial"))
    with pytest.raises(ConfigError, match=r"storage\.cache_gb is"):
        Cache(tmp_path / "small", 10).open(storage, entries[0]["name"], entries[0]["bytes"], entries[0]["sha256"])
    with pytest.raises(ShardError, match="its index says"):
        cache.open(storage, entries[1]["name"], entries[1]["bytes"], "0" * 64)
    assert not list(cache.folder.glob("??/*.partial"))


def _read_all(root: str, settings: StorageSettings) -> int:
    return sum(len(batch["key"]) for batch in loader(root, 0, settings))


@pytest.mark.slow
def test_many_processes_share_one_cache(proxy: FaultProxy, tmp_path: Path) -> None:
    cached = replace(QUICK, cache=str(tmp_path / "cache"))
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        counts = pool.starmap(_read_all, [("s3://bucket/train", cached)] * 3)
    assert counts == [2 * TOTAL] * 3
    starts = [seen.path for seen in proxy.log if seen.path.endswith(".tar") and seen.range.startswith("bytes=0-")]
    assert len(starts) == 4
