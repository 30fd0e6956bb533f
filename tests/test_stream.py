"""The stream through its loader: who reads what, in which order, and what damage does."""

from __future__ import annotations

import io
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from sfdkit.data.format import frame_bytes, pack_frames
from sfdkit.data.index import load_index, save_index
from sfdkit.data.loader import EpochLoader, SkipCount
from sfdkit.data.reader import read_members
from sfdkit.data.settings import StreamSettings
from sfdkit.errors import ShardError
from sfdkit.types import FrameBatch
from tests.shards import clip_key, frame_colour, make_shards, write_tar

SPLITS = {1: [13], 3: [7, 1, 5]}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    root = tmp_path_factory.mktemp("shards")
    return {shards: make_shards(root / str(shards), "train", clips) for shards, clips in SPLITS.items()}


def settings(folder: Path, **changes: Any) -> StreamSettings:
    values = {"training": True, "batch_size": 4, "driving": 2, "shuffle": 8, **changes}
    return StreamSettings(folder=str(folder), index=load_index(folder), **values)


def keys(batches: list[FrameBatch]) -> list[str]:
    return [key for batch in batches for key in batch["key"]]


ALL = [clip_key("train", clip) for clip in range(13)]
CASES = [(world, workers, shards) for world in (1, 2) for workers in (0, 2) for shards in (1, 3)]


@pytest.mark.parametrize(("world", "workers", "shards"), CASES)
def test_training_gives_equal_full_batches_and_loses_no_clip(
    folders: dict[int, Path], world: int, workers: int, shards: int
) -> None:
    base = settings(folders[shards], rows_per_clip=2, world=world)
    loaders = [EpochLoader(replace(base, rank=rank), workers) for rank in range(world)]
    for epoch in (0, 3):
        ranks = []
        for loader in loaders:
            loader.set_epoch(epoch)
            ranks.append(list(loader))
            assert len(ranks[-1]) == len(loader) == len(loaders[0])
        assert all(batch["source"].shape == (4, 3, 32, 32) for batches in ranks for batch in batches)
        seen = Counter(key for batches in ranks for key in keys(batches))
        assert sorted(seen) == ALL
        slots = world * max(1, workers)
        least = -(-13 // slots) * 2
        assert sum(seen.values()) == slots * -(-least // 4) * 4
        assert min(seen.values()) >= 2
        if world == 2:
            assert not set(keys(ranks[0])) & set(keys(ranks[1]))


@pytest.mark.parametrize(("world", "workers", "shards"), CASES)
def test_validation_sees_each_clip_once(folders: dict[int, Path], world: int, workers: int, shards: int) -> None:
    base = settings(folders[shards], training=False, world=world, rows_per_clip=3)
    seen: Counter[str] = Counter()
    for rank in range(world):
        loader = EpochLoader(replace(base, rank=rank), workers)
        for _ in range(2):
            batches = list(loader)
            assert len(batches) == len(loader)
        seen.update(keys(batches))
    assert seen == Counter(ALL)


def test_a_rank_without_validation_clips_has_length_zero(tmp_path: Path) -> None:
    folder = make_shards(tmp_path, "train", [1])
    loaders = [EpochLoader(settings(folder, training=False, world=2, rank=rank)) for rank in range(2)]
    assert sorted(len(loader) for loader in loaders) == [0, 1]
    assert sorted(len(list(loader)) for loader in loaders) == [0, 1]


def test_one_clip_still_fills_a_batch_on_each_rank(tmp_path: Path) -> None:
    folder = make_shards(tmp_path, "train", [1])
    for rank in range(2):
        (batch,) = EpochLoader(settings(folder, batch_size=5, world=2, rank=rank))
        assert batch["key"] == [clip_key("train", 0)] * 5


def test_batches_hold_the_frames_they_say(folders: dict[int, Path]) -> None:
    def distance(image: torch.Tensor, clip: int, frame: int) -> float:
        colour = torch.tensor(frame_colour(clip, frame), dtype=torch.float32)
        return float((image.float().mean((1, 2)) - colour).abs().max())

    for batch in EpochLoader(settings(folders[3])):
        assert batch["source"].dtype == batch["driving"].dtype == torch.uint8
        assert batch["driving"].shape == (4, 2, 3, 32, 32)
        for row, key in enumerate(batch["key"]):
            clip = int(key.removeprefix("train-"))
            assert batch["identity"][row] == f"train-person-{clip}"
            images = [batch["source"][row], *batch["driving"][row]]
            found = [min(range(6), key=lambda frame: distance(image, clip, frame)) for image in images]
            assert len(set(found)) == 3
            assert all(distance(image, clip, frame) < 4 for image, frame in zip(images, found, strict=True))
    for batch in EpochLoader(settings(folders[3], training=False)):
        for row, key in enumerate(batch["key"]):
            clip = int(key.removeprefix("train-"))
            assert distance(batch["source"][row], clip, 0) < 4
            assert distance(batch["driving"][row, 1], clip, 5) < 4


@pytest.mark.parametrize("workers", [0, 2])
def test_order_depends_on_seed_and_epoch_alone(folders: dict[int, Path], workers: int) -> None:
    def run(seed: int, epoch: int) -> tuple[list[str], int]:
        loader = EpochLoader(settings(folders[3], seed=seed), workers)
        loader.set_epoch(epoch)
        batches = list(loader)
        return keys(batches), sum(int(batch["driving"].sum()) for batch in batches)

    first = run(0, 0)
    assert run(0, 0) == first
    others = [run(0, 1), run(1, 0)]
    assert all(other[0] != first[0] and other[1] != first[1] for other in others)


def test_iterating_leaves_the_global_generator_alone(folders: dict[int, Path]) -> None:
    before = torch.get_rng_state()
    list(EpochLoader(settings(folders[3]), 0))
    assert torch.equal(torch.get_rng_state(), before)


def test_the_buffer_mixes_shards_and_without_it_the_order_is_that_of_the_shards(folders: dict[int, Path]) -> None:
    (plain,) = EpochLoader(settings(folders[1], shuffle=0, batch_size=13))
    (mixed,) = EpochLoader(settings(folders[1], shuffle=8, batch_size=13))
    assert plain["key"] == ALL
    assert mixed["key"] != ALL and sorted(mixed["key"]) == ALL


@pytest.mark.parametrize("start_method", ["spawn", "forkserver"])
def test_workers_may_be_started_afresh(folders: dict[int, Path], start_method: Any) -> None:
    forked, fresh = (EpochLoader(settings(folders[3]), 1, start_method=method) for method in ("fork", start_method))
    for epoch in (0, 1):
        forked.set_epoch(epoch)
        fresh.set_epoch(epoch)
        for one, other in zip(forked, fresh, strict=True):
            assert one["key"] == other["key"] and torch.equal(one["driving"], other["driving"])


def break_picture(folder: Path, clip: int) -> None:
    """Cut all pictures of a clip of the first shard."""
    path = next(folder.glob("*.tar"))
    members = [(member.name, member.data) for member in read_members(path)]
    place = 2 * clip + 1
    name, blob = members[place]
    members[place] = (name, pack_frames([frame_bytes(blob, frame)[:-30] for frame in range(6)]))
    write_tar(path, members)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("training", [True, False])
def test_damage_stops_the_run_and_is_named(tmp_path: Path, workers: int, training: bool) -> None:
    folder = make_shards(tmp_path, "train", [5])
    break_picture(folder, 3)
    loader = EpochLoader(settings(folder, training=training), workers)
    with pytest.raises(ShardError, match=r"^Cannot decode frame \d of clip 'train-00003'.*train-00000.tar, byte \d+"):
        list(loader)


def test_a_budget_tolerates_and_counts_broken_pictures(tmp_path: Path) -> None:
    folder = make_shards(tmp_path, "train", [10])
    break_picture(folder, 3)
    loader = EpochLoader(settings(folder, training=False, skip_budget=0.1), 2)
    for _ in range(2):
        assert sorted(keys(list(loader))) == [key for key in ALL[:10] if key != clip_key("train", 3)]
        assert loader.skips() == [SkipCount("train-00000.tar", "picture", 1)]
    with pytest.raises(ShardError, match=r"1 of 10 rows .* skip_budget = 0.05 allows.*train-00003"):
        list(EpochLoader(settings(folder, training=False, skip_budget=0.05)))
    train = EpochLoader(settings(folder, skip_budget=0.3))
    assert len(list(train)) == len(train) == 3
    assert train.skips()[0].rows == 1


def test_a_clip_with_bad_json_is_one_clip_and_not_the_rest_of_its_shard(tmp_path: Path) -> None:
    folder = make_shards(tmp_path, "train", [6])
    path = folder / "train-00000.tar"
    members = [(member.name, member.data) for member in read_members(path)]
    members[4] = (members[4][0], b"{")
    write_tar(path, members)
    with pytest.raises(ShardError, match=r"^Clip 'train-00002' in shard .*train-00000.tar, byte \d+: its json"):
        list(EpochLoader(settings(folder)))
    loader = EpochLoader(settings(folder, training=False, skip_budget=0.2))
    assert keys(list(loader)) == [key for key in ALL[:6] if key != clip_key("train", 2)]
    assert loader.skips() == [SkipCount("train-00000.tar", "json", 1)]
    twice = EpochLoader(settings(folder, rows_per_clip=2, batch_size=10, skip_budget=0.2))
    assert sorted(Counter(keys(list(twice))).values()) == [4] * 5
    assert twice.skips() == [SkipCount("train-00000.tar", "json", 4)]


def test_a_cut_shard_counts_what_is_lost(tmp_path: Path) -> None:
    folder = make_shards(tmp_path, "train", [6, 4])
    path = folder / "train-00001.tar"
    positions = [member.position for member in read_members(path)]
    path.write_bytes(path.read_bytes()[: positions[4] + 600])
    with pytest.raises(ShardError, match=r"train-00001.tar, byte \d+: .* cut"):
        list(EpochLoader(settings(folder)))
    loader = EpochLoader(settings(folder, training=False, skip_budget=0.2))
    assert keys(list(loader)) == ALL[:8]
    assert loader.skips() == [SkipCount("train-00001.tar", "shard", 2)]
    with pytest.raises(ShardError, match="skip_budget"):
        list(EpochLoader(settings(folder, training=False, skip_budget=0.1)))


def test_a_missing_end_mark_is_found(tmp_path: Path) -> None:
    folder = make_shards(tmp_path, "train", [4])
    path = folder / "train-00000.tar"
    content = path.read_bytes().rstrip(b"\0")
    path.write_bytes(content + bytes(-len(content) % 512))
    loader = EpochLoader(settings(folder, training=False))
    with pytest.raises(ShardError, match="cut between two members"):
        next(iter(loader))


def test_a_budget_of_everything_still_ends(tmp_path: Path) -> None:
    folder = make_shards(tmp_path, "train", [1])
    break_picture(folder, 0)
    with pytest.raises(ShardError, match=r"skip_budget = 1\.0"):
        list(EpochLoader(settings(folder, skip_budget=1.0)))


@pytest.mark.parametrize(
    ("promised", "message"),
    [(4, "holds more clips than the 4 of its index"), (6, "holds 5 clips, its index says 6")],
)
def test_a_shard_that_disagrees_with_its_index_is_an_error(tmp_path: Path, promised: int, message: str) -> None:
    folder = make_shards(tmp_path, "train", [5])
    index = load_index(folder)
    index["shards"][0]["clips"] = promised
    save_index(folder, index)
    loader = EpochLoader(settings(folder, training=False))
    with pytest.raises(ShardError, match=message):
        for _ in zip(range(len(loader)), loader, strict=False):  # as Lightning does, which asks for no further batch
            pass


def test_shards_are_closed_again(folders: dict[int, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[io.IOBase] = []
    real = open

    def spy(*arguments: Any, **options: Any) -> Any:
        opened.append(real(*arguments, **options))
        return opened[-1]

    monkeypatch.setattr("builtins.open", spy)
    list(EpochLoader(settings(folders[3])))
    monkeypatch.undo()
    tars = [file for file in opened if str(getattr(file, "name", "")).endswith(".tar")]
    assert len(tars) >= 3 and all(file.closed for file in tars)
