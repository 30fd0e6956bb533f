"""The loader: length, epochs, and going on in the middle of an epoch."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import IterableDataset

from sfdkit.data.loader import EpochLoader
from sfdkit.data.settings import StreamSettings
from sfdkit.data.shard_set import ShardSet
from sfdkit.data.shards.access import read_range
from sfdkit.data.stream import build_stream
from sfdkit.errors import ConfigError
from sfdkit.types import FrameBatch
from tests.shards import make_shards


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shards(tmp_path_factory.mktemp("shards"), "train", [6, 5], resolution=16)


def make_loader(folder: Path, workers: int = 0, **changes: Any) -> EpochLoader:
    values = {"training": True, "batch_size": 2, "driving": 2, "rows_per_clip": 2, "shuffle": 4, **changes}
    return EpochLoader(StreamSettings(ShardSet.of(folder), **values), workers)


def equal(one: list[FrameBatch], other: list[FrameBatch]) -> bool:
    return len(one) == len(other) and all(
        first["key"] == second["key"]
        and torch.equal(first["source"], second["source"])
        and torch.equal(first["driving"], second["driving"])
        for first, second in zip(one, other, strict=True)
    )


@pytest.mark.parametrize("after", [0, 1, 3])
@pytest.mark.parametrize("before", [0, 2])
@pytest.mark.parametrize("done", [1, 4, 7])
def test_going_on_in_mid_epoch_gives_the_batches_that_were_left(
    folder: Path, before: int, after: int, done: int
) -> None:
    """Whatever the number of workers before and after."""
    whole = make_loader(folder)
    whole.set_epoch(2)
    batches = list(whole)

    interrupted = make_loader(folder, before)
    interrupted.set_epoch(2)
    for _, _ in zip(range(done), interrupted, strict=False):
        pass
    state = interrupted.state_dict()
    assert (state["epoch"], state["batches"], state["length"]) == (2, done, len(batches))

    resumed = make_loader(folder, after)
    resumed.load_state_dict(state)
    resumed.set_epoch(2)
    assert equal(list(resumed), batches[done:])
    assert resumed.state_dict() == {**state, "batches": len(batches)}
    account = resumed.account()
    assert (account["batches_before_resume"], account["read"]) == (done, 2 * (len(batches) - done))
    assert equal(list(resumed), batches)


def test_batches_that_were_seen_are_neither_read_nor_decoded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[int] = []
    read: list[int] = []

    def spy(clip: Any, indices: list[int]) -> torch.Tensor:
        decoded.append(len(indices))
        return torch.zeros(len(indices), 3, 16, 16, dtype=torch.uint8)

    def spy_range(storage: Any, entry: Any, start: int, stop: int) -> Any:
        read.append(stop - start)
        return read_range(storage, entry, start, stop)

    monkeypatch.setattr("sfdkit.data.stream.decode_frames", spy)
    monkeypatch.setattr("sfdkit.data.stream.read_range", spy_range)
    loader = make_loader(folder, shuffle=0)
    loader.load_state_dict({**loader.state_dict(), "batches": 8})
    assert len(list(loader)) == len(loader) - 8 == 3
    assert decoded == [3] * 6
    assert sum(read) <= 6


def test_a_state_of_other_settings_is_refused_in_mid_epoch(folder: Path) -> None:
    loader = make_loader(folder, world=2)
    state = loader.state_dict() | {"batches": 2}
    with pytest.raises(ConfigError, match=r"after 2 of 6 batches.*world 2 then, 1 now.*end of an epoch"):
        make_loader(folder).load_state_dict(state)
    with pytest.raises(ConfigError, match=r"batch_size 2 then, 3 now"):
        make_loader(folder, world=2, batch_size=3).load_state_dict(state)
    with pytest.raises(ConfigError, match="world None then, 1 now"):
        make_loader(folder).load_state_dict({"epoch": 0, "batches": 2})  # of an earlier version
    make_loader(folder).load_state_dict(state | {"batches": 6})
    make_loader(folder, world=2, rank=1).load_state_dict(state)


def test_a_state_of_another_or_a_finished_epoch_starts_the_epoch_whole(folder: Path) -> None:
    loader = make_loader(folder)
    loader.set_epoch(1)
    batches = list(loader)
    for state in ({"epoch": 0, "batches": 3}, {"epoch": 1, "batches": len(batches)}):
        loader.load_state_dict(loader.state_dict() | state)
        loader.set_epoch(1)
        assert equal(list(loader), batches)


@pytest.mark.parametrize("workers", [0, 2])
def test_leaving_an_epoch_early_does_not_touch_the_next(folder: Path, workers: int) -> None:
    loader = make_loader(folder, workers)
    loader.set_epoch(1)
    expected = list(loader)
    loader.set_epoch(0)
    next(iter(loader))
    loader.set_epoch(1)
    assert equal(list(loader), expected)


def test_workers_stay_between_epochs_and_end_on_close(folder: Path) -> None:
    loader = make_loader(folder, 2)
    list(loader)
    assert loader._loader is not None
    first = [worker.pid for worker in loader._loader._iterator._workers]
    loader.set_epoch(1)
    list(loader)
    workers = loader._loader._iterator._workers
    assert [worker.pid for worker in workers] == first
    loader.close()
    assert not any(worker.is_alive() for worker in workers)
    assert len(list(loader)) == len(loader)


class Abandoned:
    """An object of a reference cycle, which says in a file which process collected it."""

    def __init__(self, told: Path) -> None:
        self.itself = self
        self.told = told

    def __del__(self) -> None:
        self.told.write_text(str(os.getpid()))


class CollectedFirst(IterableDataset):
    def __init__(self, stream: IterableDataset) -> None:
        self.stream = stream

    def __iter__(self) -> Iterator[Any]:
        gc.collect()
        yield from self.stream


def test_forked_workers_collect_nothing_of_the_process_that_starts_them(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sfdkit.data.loader.build_stream", lambda *of: CollectedFirst(build_stream(*of)))
    told = tmp_path / "collected"
    loader = EpochLoader(make_loader(folder).settings, 2, start_method="fork")
    gc.disable()
    try:
        Abandoned(told)
        assert len(list(loader)) == len(loader)
        assert not told.exists(), "a worker collected it"
        gc.collect()
    finally:
        gc.enable()
    assert told.read_text() == str(os.getpid()), "the process itself still collects it"
