"""The stream through its loader: who reads what, in which order, and what damage does."""

from __future__ import annotations

import io
import multiprocessing
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset

from sfdkit.data.loader import EpochLoader
from sfdkit.data.settings import Delivered, StreamSettings, StreamState
from sfdkit.data.shard_set import Folder, ShardSet
from sfdkit.data.shards.format import clip_table, frame_bytes, pack_frames, pack_table
from sfdkit.data.shards.index import load_index, save_index
from sfdkit.data.stream import build_stream
from sfdkit.errors import ConfigError, ShardError
from sfdkit.storage import Storage
from sfdkit.types import FrameBatch
from tests.shards import clip_key, frame_colour, make_shards, read_members, reindex, write_tar

SPLITS = {1: [13], 2: [7, 6], 3: [7, 1, 5], 5: [1, 5, 0, 4, 3], 16: [1] * 10 + [0] * 3 + [1] * 3}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    root = tmp_path_factory.mktemp("shards")
    return {shards: make_shards(root / str(shards), "train", clips) for shards, clips in SPLITS.items()}


def settings(folder: Path, **changes: Any) -> StreamSettings:
    values = {"training": True, "batch_size": 4, "driving": 2, "shuffle": 8, "lanes": 4, **changes}
    return StreamSettings(ShardSet.of(folder), **values)


def keys(batches: list[FrameBatch]) -> list[str]:
    return [key for batch in batches for key in batch["key"]]


ALL = [clip_key("train", clip) for clip in range(13)]


class OneAfterTheOther(IterableDataset):
    """Several streams in the same workers, so that these are started once; after each a rank is done."""

    def __init__(self, streams: list[tuple[StreamSettings, StreamState]]) -> None:
        self._streams = [build_stream(*stream) for stream in streams]

    def __iter__(self) -> Iterator[tuple[int, Any]]:
        for number, stream in enumerate(self._streams):
            for item in stream:
                yield number, item


RANKS, WORKERS, SHARDS, TRAINING = (1, 2), (0, 1, 2, 3), (1, 2, 5, 16), (True, False)
STARTS = [(0, "fork")] + [(workers, start) for start in ("fork", "forkserver", "spawn") for workers in WORKERS[1:]]


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "start"), STARTS)
def test_ranks_times_workers_times_shards(folders: dict[int, Path], workers: int, start: str) -> None:
    """The union is whole, ranks are disjoint, each key comes the right number of times, batches are equal."""
    cases = [(world, shards, training) for world in RANKS for shards in SHARDS for training in TRAINING]
    streams = []
    for world, shards, training in cases:
        base = settings(folders[shards], rows_per_clip=2, world=world, training=training)
        for rank in range(world):
            state = StreamState()
            state.begin(3, 0)
            streams.append((replace(base, rank=rank), state))
    if start == "forkserver":
        multiprocessing.get_context(start).set_forkserver_preload(["sfdkit.data.stream"])
    loader = DataLoader(
        OneAfterTheOther(streams),
        batch_size=None,
        num_workers=workers,
        multiprocessing_context=start if workers else None,
    )
    arrived: list[list[FrameBatch]] = [[] for _ in streams]
    for number, item in loader:
        if item is not None:
            assert isinstance(item, Delivered) and not item.skips and item.batch is not None
            arrived[number].append(item.batch)
    place = 0
    for world, shards, training in cases:
        ranks = arrived[place : place + world]
        for rank, batches in enumerate(ranks):
            whole = EpochLoader(streams[place + rank][0])
            whole.set_epoch(3)
            assert keys(list(whole)) == keys(batches), (world, shards, training, rank)
        place += world
        seen = Counter(key for batches in ranks for key in keys(batches))
        assert sorted(seen) == ALL
        if world == 2:
            assert not set(keys(ranks[0])) & set(keys(ranks[1]))
        if not training:
            assert set(seen.values()) == {1}
            continue
        sizes = [[len(batch["key"]) for batch in batches] for batches in ranks]
        assert sizes == [[4] * len(sizes[0])] * world
        assert min(seen.values()) >= 2
        most = -(-13 // world) * 2
        assert len(sizes[0]) == -(-most // 4)
        assert sum(seen.values()) - 26 < 4 * world + 2


@pytest.mark.parametrize("workers", [0, 2])
def test_a_validation_can_be_repeated(folders: dict[int, Path], workers: int) -> None:
    loader = EpochLoader(settings(folders[3], training=False), workers)
    first, again = list(loader), list(loader)
    assert keys(first) == keys(again) and len(first) == len(loader)


def test_more_workers_than_lanes_are_refused(folders: dict[int, Path]) -> None:
    with pytest.raises(ConfigError, match=r"num_workers is 5 and data.lanes is 4.*set data.lanes to 5"):
        EpochLoader(settings(folders[3]), 5)


def test_folders_are_mixed_by_weight(tmp_path: Path) -> None:
    one, two = make_shards(tmp_path / "a", "train", [4, 2]), make_shards(tmp_path / "b", "train", [3], resolution=32)
    parts = [
        Folder(Storage(one), load_index(one, fill=False), 0.5),
        Folder(Storage(two), load_index(two, fill=False), 2.0),
    ]
    seen: Counter[str] = Counter()
    for epoch in (0, 1):
        loader = EpochLoader(StreamSettings(ShardSet(parts), True, batch_size=9, shuffle=0))
        loader.set_epoch(epoch)
        (batch,) = loader
        seen.update(batch["key"])
    # clips 0 to 2 are in both folders, under the same names here
    assert seen == Counter({clip_key("train", clip): 1 + (4 if clip < 3 else 0) for clip in range(6)})
    validation = StreamSettings(ShardSet(parts), False, batch_size=9)
    assert len(keys(list(EpochLoader(validation)))) == 9


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


def change_clip(folder: Path, clip: int, json: bytes | None = None, pictures: Any = None) -> None:
    """Change members of a clip of the first shard, and leave the index as it is."""
    path = next(folder.glob("*.tar"))
    members = [(member.name, member.data) for member in read_members(path)]
    place = 2 * clip
    if json is not None:
        members[place] = (members[place][0], json)
    if pictures is not None:
        name, blob = members[place + 1]
        members[place + 1] = (name, pack_frames([pictures(frame_bytes(blob, frame)) for frame in range(6)]))
    write_tar(path, members)


def cut_pictures(folder: Path, clip: int) -> None:
    change_clip(folder, clip, pictures=lambda picture: picture[:-30])
    reindex(folder)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("training", [True, False])
def test_damage_stops_the_run_and_is_named(tmp_path: Path, workers: int, training: bool) -> None:
    folder = make_shards(tmp_path, "train", [5])
    cut_pictures(folder, 3)
    loader = EpochLoader(settings(folder, training=training), workers)
    with pytest.raises(ShardError, match=r"1 x picture in train-00000.tar: Cannot decode frame \d of clip '"):
        list(loader)


def damage_checksum(folder: Path) -> None:
    path = folder / "train-00000.tar"
    data = bytearray(path.read_bytes())
    data[list(read_members(path))[5].position + 700] ^= 1
    path.write_bytes(bytes(data))


def cut_between_members(folder: Path) -> None:
    path = folder / "train-00000.tar"
    path.write_bytes(path.read_bytes()[: list(read_members(path))[5].position])


def announce_a_bomb(folder: Path) -> None:
    def enlarge(picture: bytes) -> bytes:
        place = picture.index(b"\xff\xc0") + 5
        return picture[:place] + b"\xff\xdc\xff\xdc" + picture[place + 4 :]

    change_clip(folder, 2, pictures=enlarge)
    reindex(folder)


def break_json(folder: Path) -> None:
    change_clip(folder, 2, json=b"{}")
    reindex(folder)


def retable(folder: Path, offsets: list[int]) -> None:
    """Give the first shard the table that its bytes have at these offsets."""
    data = (folder / "train-00000.tar").read_bytes()
    index = load_index(folder)
    pairs = [data[start:stop] for start, stop in pairwise(offsets)]
    index["shards"][0] |= {"table": pack_table([(len(pair), zlib.crc32(pair)) for pair in pairs]), "bytes": len(data)}
    save_index(folder, index)


def swap_members(folder: Path) -> None:
    path = folder / "train-00000.tar"
    members = [(member.name, member.data) for member in read_members(path)]
    members[4] = ("x" + members[4][0][1:], members[4][1])
    write_tar(path, members)
    retable(folder, clip_table(load_index(folder)["shards"][0]).offsets)


def break_packing(folder: Path) -> None:
    path = folder / "train-00000.tar"
    offsets = clip_table(load_index(folder)["shards"][0]).offsets
    members = [(member.name, member.data) for member in read_members(path)]
    members[5] = (members[5][0], members[5][1][:-5])
    write_tar(path, members)
    starts = [member.position for member in read_members(path)][::2]
    retable(folder, [*starts, starts[-1] + offsets[-1] - offsets[-2]])


DAMAGES: dict[str, tuple[Any, list[int]]] = {
    "picture": (lambda folder: cut_pictures(folder, 2), [2]),
    "checksum": (damage_checksum, [2]),
    "truncated": (cut_between_members, [2, 3, 4, 5]),
    "missing": (lambda folder: (folder / "train-00000.tar").unlink(), [0, 1, 2, 3, 4, 5]),
    "oversized": (announce_a_bomb, [2]),
    "json": (break_json, [2]),
    "archive": (swap_members, [2]),
    "frames": (break_packing, [2]),
}


@pytest.mark.parametrize("reason", DAMAGES)
def test_each_damage_costs_its_clips_and_is_named(tmp_path: Path, reason: str) -> None:
    folder = make_shards(tmp_path, "train", [6, 6])
    damage, lost = DAMAGES[reason]
    damage(folder)
    gone = [clip_key("train", clip) for clip in lost]
    loader = EpochLoader(settings(folder, training=False, skip_budget=0.5), 2)
    for _ in range(2):
        assert sorted(keys(list(loader))) == [clip_key("train", n) for n in range(12) if n not in lost]
        account = loader.account()
        assert (account["expected"], account["read"]) == (12, 12 - len(lost))
        ((shard, why, rows, message),) = account["skipped"]
        assert (shard, why, rows) == ("train-00000.tar", reason, len(lost))
        assert "train-00000.tar" in message or "train-00002" in message

    training = EpochLoader(settings(folder, rows_per_clip=2, batch_size=3, skip_budget=0.6), 2)
    batches = list(training)
    assert [len(batch["key"]) for batch in batches] == [3] * len(training) == [3] * 8
    assert not set(keys(batches)) & set(gone) and len(set(keys(batches))) == 12 - len(lost)
    account = training.account()
    assert (account["expected"], account["read"]) == (24, 24 - 2 * len(lost))
    assert sum(count.rows for count in account["skipped"]) == 2 * len(lost)
    again = EpochLoader(settings(folder, rows_per_clip=2, batch_size=3, skip_budget=0.6))
    assert keys(list(again)) == keys(batches)

    with pytest.raises(ShardError, match=rf"rows of this epoch are lost(.|\n)* x {reason} in train-"):
        list(EpochLoader(settings(folder, skip_budget=0.01)))


def test_a_budget_of_everything_still_ends(tmp_path: Path) -> None:
    folder = make_shards(tmp_path, "train", [1])
    cut_pictures(folder, 0)
    with pytest.raises(ShardError, match="No other clip could take its place"):
        list(EpochLoader(settings(folder, skip_budget=1.0)))
    nothing = EpochLoader(settings(folder, training=False, skip_budget=1.0))
    assert list(nothing) == [] and nothing.account()["skipped"][0].rows == 1


def test_the_order_of_other_rows_does_not_move_with_damage(tmp_path: Path) -> None:
    whole = make_shards(tmp_path / "a", "train", [10])
    damaged = make_shards(tmp_path / "b", "train", [10])
    cut_pictures(damaged, 4)
    one, other = (EpochLoader(settings(folder, skip_budget=0.5)) for folder in (whole, damaged))
    moved = [(a, b) for a, b in zip(keys(list(one)), keys(list(other)), strict=True) if a != b]
    assert moved and {a for a, _ in moved} == {clip_key("train", 4)}


def test_a_table_that_is_no_table_is_an_error(tmp_path: Path) -> None:
    folder = make_shards(tmp_path, "train", [5])
    index = load_index(folder)
    index["shards"][0]["clips"] = 4
    save_index(folder, index)
    with pytest.raises(ShardError, match="has tables of 56 letters, its shards want 44"):
        settings(folder)
    index["shards"][0] |= {"clips": 5, "table": "." * 56}
    save_index(folder, index)
    with pytest.raises(ShardError, match=r"index of .*train-00000.tar is damaged "):
        settings(folder)


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
