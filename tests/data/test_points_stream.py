"""Points of the face from shards to batches."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sfdkit.data.augment import DriverViewAugmentation
from sfdkit.data.loader import EpochLoader
from sfdkit.data.settings import StreamSettings
from sfdkit.data.shard_set import Folder, ShardSet
from sfdkit.data.shards.index import load_index, save_index
from sfdkit.errors import ConfigError, ShardError
from sfdkit.points import FACE5, FACE31, PointSet, from_pixels
from sfdkit.storage import Storage
from sfdkit.types import FrameBatch
from tests.data.test_module import Recorder, make_module, make_trainer
from tests.data.test_stream import change_clip, settings
from tests.shards import clip_members, frame_points, make_shards, reindex

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:.*treespec, LeafSpec")


def truth(key: str, frame: int, of: PointSet, resolution: int) -> Tensor:
    """What a batch should say of a frame, in [-1, 1]."""
    if frame == 1:
        return torch.full((len(of.names), 2), torch.nan)
    return from_pixels(torch.tensor(frame_points(int(key[-5:]), frame, of, resolution)), resolution)


def same(one: Tensor, other: Tensor) -> bool:
    return torch.allclose(one, other, atol=1e-5, equal_nan=True)


@pytest.mark.parametrize("of", [FACE5, FACE31], ids=lambda of: of.name)
@pytest.mark.parametrize("workers", [0, 2])
def test_rows_bring_the_points_of_their_frames(tmp_path: Path, of: PointSet, workers: int) -> None:
    folder = make_shards(tmp_path, "train", [4, 3], points=of)
    batches = list(EpochLoader(settings(folder, point_set=of, rows_per_clip=3), workers))
    assert len(batches) == 6
    unknown = 0
    for batch in batches:
        assert batch["points"].shape == (4, 3, len(of.names), 2) and batch["point_set"] == of.name
        for row, key in enumerate(batch["key"]):
            candidates = [truth(key, frame, of, 32) for frame in range(6)]
            found = [[same(points, wanted) for wanted in candidates].index(True) for points in batch["points"][row]]
            assert len(set(found)) == 3
            unknown += 1 in found
            brightness = [batch["source"][row], *batch["driving"][row]]
            order = sorted(range(3), key=lambda place: float(brightness[place].float().mean()))
            assert [found[place] for place in order] == sorted(found), "points are those of the row's own frames"
    assert unknown > 0
    for batch in EpochLoader(settings(folder, training=False, point_set=of), workers):
        for row, key in enumerate(batch["key"]):
            assert same(batch["points"][row, 0], truth(key, 0, of, 32))
            assert same(batch["points"][row, 2], truth(key, 5, of, 32))


def test_a_batch_without_points_says_nothing_of_them(tmp_path: Path) -> None:
    folder = make_shards(tmp_path, "train", [5], points=FACE5)
    (batch, *_) = EpochLoader(settings(folder))
    assert "points" not in batch and "point_set" not in batch


def mixed(*folders: Path) -> ShardSet:
    return ShardSet([Folder(Storage(each), load_index(each, fill=False), 1.0) for each in folders])


def test_folders_with_different_sets_are_refused_in_one_line(tmp_path: Path) -> None:
    one = make_shards(tmp_path / "a", "train", [2], points=FACE5)
    other = make_shards(tmp_path / "b", "train", [2], points=FACE31)
    with pytest.raises(ConfigError, match=r"sets of points \(face5 in .*a/train, face31 in .*b/train\).*points false"):
        mixed(one, other).point_set()
    assert mixed(one).point_set() is FACE5
    save_index(other, {**load_index(other), "points": "face12"})
    with pytest.raises(ConfigError, match=r"the index in .*b/train: there is no set of points 'face12'"):
        mixed(other).point_set()


def test_rows_of_a_folder_without_points_are_not_known(tmp_path: Path) -> None:
    one = make_shards(tmp_path / "a", "train", [3], points=FACE5)
    other = make_shards(tmp_path / "b", "train", [3], dataset="faces")
    shards = mixed(one, other)
    of = shards.point_set()
    assert of is FACE5
    (batch,) = EpochLoader(StreamSettings(shards, True, batch_size=6, point_set=of))
    assert sorted(batch["points"].isnan().all(3).all(2).all(1).tolist()) == [False] * 3 + [True] * 3


def fitted(root: Path, run: Path, **options: Any) -> list[tuple[str, FrameBatch]]:
    task = Recorder()
    make_trainer(run, max_epochs=1).fit(task, make_module(root, **options))
    return task.batches


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for split, clips in (("train", [4, 4]), ("validation", [2])):
        make_shards(tmp_path / "shards", split, clips, points=FACE5)
    return tmp_path / "shards"


def test_a_lower_resolution_changes_no_points(root: Path, tmp_path: Path) -> None:
    small, large = (
        fitted(root, tmp_path, resolution=size, augmentation=None, num_workers=0, batch_size=4) for size in (16, 32)
    )
    assert small[0][1]["source"].shape[-1] == 16 and large[0][1]["source"].shape[-1] == 32
    assert len(small) == len(large) == 3
    for (_, one), (_, other) in zip(small, large, strict=True):
        assert one["points"].shape == (len(one["key"]), 2, 5, 2) and same(one["points"], other["points"])


def test_the_augmentation_moves_points_in_training_alone(root: Path, tmp_path: Path) -> None:
    mirrored = DriverViewAugmentation(flip=1.0)
    batches = fitted(root, tmp_path, augmentation=mirrored, batch_size=4)
    plain = fitted(root, tmp_path, augmentation=None, batch_size=4)
    for (stage, one), (_, other) in zip(batches, plain, strict=True):
        points = other["points"]
        if stage == "train":
            points = points[:, :, list(FACE5.mirrored)] * torch.tensor([-1.0, 1.0])
        assert one["point_set"] == "face5" and same(one["points"], points)


def test_points_can_be_left_out_and_then_sets_may_differ(root: Path, tmp_path: Path) -> None:
    for split in ("train", "validation"):
        make_shards(tmp_path / "shards31", split, [2], points=FACE31)
    both = tmp_path / "shards{,31}"
    assert not any("points" in batch for _, batch in fitted(both, tmp_path, points=False))
    with pytest.raises(ConfigError, match=r"mixes folders with different sets of points .*--data\.points false"):
        fitted(both, tmp_path)


@pytest.mark.parametrize(
    ("points", "said"),
    [
        ({"set": "face5", "frames": [[[1.0, 2.0]] * 4] * 6}, "its points are not 5 pairs per frame"),
        ({"set": "face5", "frames": [[[1.0, 2.0]] * 5]}, "its points are not 5 pairs per frame"),
        ({"set": "face5", "frames": [[["a", 2.0]] * 5] * 6}, "its points are not 5 pairs per frame"),
        ({"set": "face31", "frames": [None] * 6}, "its points are of the set 'face31', its index says 'face5'"),
        ([], "its points are not 5 pairs per frame"),
    ],
)
def test_points_that_are_none_are_damage(tmp_path: Path, points: object, said: str) -> None:
    folder = make_shards(tmp_path, "train", [1], points=FACE5)
    meta = json.loads(clip_members("train", 0, 6, 32)[0][1])
    change_clip(folder, 0, json=json.dumps({**meta, "points": points}).encode())
    reindex(folder)
    with pytest.raises(ShardError, match=said):
        list(EpochLoader(settings(folder, training=False, point_set=FACE5)))
