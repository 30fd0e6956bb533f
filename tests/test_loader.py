"""The loader: length, epochs, and going on in the middle of an epoch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from sfdkit.data.index import load_index
from sfdkit.data.loader import EpochLoader
from sfdkit.data.settings import StreamSettings
from sfdkit.types import FrameBatch
from tests.shards import make_shards


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shards(tmp_path_factory.mktemp("shards"), "train", [6, 5], resolution=16)


def make_loader(folder: Path, workers: int = 0, **changes: Any) -> EpochLoader:
    values = {"training": True, "batch_size": 2, "driving": 2, "rows_per_clip": 2, "shuffle": 4, **changes}
    return EpochLoader(StreamSettings(folder=str(folder), index=load_index(folder), **values), workers)


def equal(one: list[FrameBatch], other: list[FrameBatch]) -> bool:
    return len(one) == len(other) and all(
        first["key"] == second["key"]
        and torch.equal(first["source"], second["source"])
        and torch.equal(first["driving"], second["driving"])
        for first, second in zip(one, other, strict=True)
    )


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("done", [1, 4, 7])
def test_going_on_in_mid_epoch_gives_the_batches_that_were_left(folder: Path, workers: int, done: int) -> None:
    whole = make_loader(folder, workers)
    whole.set_epoch(2)
    batches = list(whole)

    interrupted = make_loader(folder, workers)
    interrupted.set_epoch(2)
    for _, _ in zip(range(done), interrupted, strict=False):
        pass
    state = interrupted.state_dict()
    assert state == {"epoch": 2, "batches": done}

    resumed = make_loader(folder, workers)
    resumed.load_state_dict(state)
    resumed.set_epoch(2)
    assert equal(list(resumed), batches[done:])
    assert resumed.state_dict() == {"epoch": 2, "batches": len(batches)}
    assert equal(list(resumed), batches)


def test_skipped_batches_are_not_decoded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[int] = []

    def spy(clip: Any, indices: list[int]) -> torch.Tensor:
        decoded.append(len(indices))
        return torch.zeros(len(indices), 3, 16, 16, dtype=torch.uint8)

    monkeypatch.setattr("sfdkit.data.stream.decode_frames", spy)
    loader = make_loader(folder)
    loader.load_state_dict({"epoch": 0, "batches": 8})
    assert len(list(loader)) == len(loader) - 8 == 3
    assert decoded == [3] * 6


def test_a_state_of_another_or_a_finished_epoch_starts_the_epoch_whole(folder: Path) -> None:
    loader = make_loader(folder)
    loader.set_epoch(1)
    batches = list(loader)
    for state in ({"epoch": 0, "batches": 3}, {"epoch": 1, "batches": len(batches)}):
        loader.load_state_dict(state)
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
