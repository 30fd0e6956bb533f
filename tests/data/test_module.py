"""The data module inside Lightning: what the task gets, what a user with the wrong folder reads, and resuming."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from kornia.augmentation import ColorJiggle, RandomAffine
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from datamodules.clips import ClipsDataModule
from datamodules.puppets import PuppetsDataModule
from sfdkit.data.augment import DriverViewAugmentation, KorniaAugmentation
from sfdkit.data.module import FramesDataModule
from sfdkit.errors import ConfigError, ShardError
from sfdkit.types import FrameBatch
from tests.shards import clip_key, make_shards

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers",
    "ignore:.*isinstance.treespec, LeafSpec",
    "ignore:.*callbacks used to create the checkpoint",
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    make_shards(folder, "train", [5, 4])
    make_shards(folder, "validation", [3])
    make_shards(folder, "test", [2])
    return folder


class Recorder(pl.LightningModule):
    """A task that learns nothing and notes what it gets."""

    def __init__(self, stop_after: int | None = None) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.batches: list[tuple[str, FrameBatch]] = []
        self.stop_after = stop_after

    def training_step(self, batch: FrameBatch, batch_idx: int) -> Tensor:
        self.batches.append(("train", batch))
        if len(self.batches) == self.stop_after:
            raise InterruptedError
        return self.weight * batch["source"].mean()

    def validation_step(self, batch: FrameBatch, batch_idx: int) -> None:
        self.batches.append(("validation", batch))

    def test_step(self, batch: FrameBatch, batch_idx: int) -> None:
        self.batches.append(("test", batch))

    def predict_step(self, batch: FrameBatch, batch_idx: int) -> list[str]:
        return batch["key"]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def make_trainer(folder: Path, **options: Any) -> pl.Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    checkpoint = {"enable_checkpointing": "callbacks" in options, "num_sanity_val_steps": 0}
    return pl.Trainer(default_root_dir=folder, **{**quiet, **checkpoint, "max_epochs": 2, **options})


def make_module(root: Path, **options: Any) -> PuppetsDataModule:
    values = {"resolution": 32, "batch_size": 2, "num_workers": 0, "augmentation": DriverViewAugmentation(), **options}
    return PuppetsDataModule(str(root), **values)


def keys(task: Recorder, stage: str) -> list[str]:
    return [key for name, batch in task.batches if name == stage for key in batch["key"]]


def test_fit_gets_floats_and_a_view_in_training_alone(root: Path, tmp_path: Path) -> None:
    task = Recorder()
    make_trainer(tmp_path).fit(task, datamodule=make_module(root, driving_per_source=2))
    train = [batch for name, batch in task.batches if name == "train"]
    assert len(train) == 2 * 5
    for batch in train:
        assert batch["source"].shape == (2, 3, 32, 32) and batch["driving"].shape == (2, 2, 3, 32, 32)
        assert batch["driving_view"].shape == batch["driving"].shape
        assert not torch.equal(batch["driving_view"], batch["driving"])
        for image in (batch["source"], batch["driving"], batch["driving_view"]):
            assert image.dtype == torch.float32 and image.min() >= 0 and 0.3 < image.max() <= 1
    first, second = keys(task, "train")[:10], keys(task, "train")[10:]
    assert set(first) == set(second) == {clip_key("train", clip) for clip in range(9)} and first != second
    validation = [batch for name, batch in task.batches if name == "validation"]
    assert len(validation) == 4 and all("driving_view" not in batch for batch in validation)
    assert keys(task, "validation") == [clip_key("validation", clip) for clip in range(3)] * 2


def test_validation_test_and_prediction(root: Path, tmp_path: Path) -> None:
    task, trainer, data = Recorder(), make_trainer(tmp_path), make_module(root)
    trainer.validate(task, datamodule=data, verbose=False)
    trainer.test(task, datamodule=data, verbose=False)
    assert keys(task, "validation") == [clip_key("validation", clip) for clip in range(3)]
    assert keys(task, "test") == [clip_key("test", clip) for clip in range(2)]
    predicted = trainer.predict(task, datamodule=data)
    assert predicted == [[clip_key("test", clip) for clip in range(2)]]


def test_without_augmentation_there_is_no_view(root: Path, tmp_path: Path) -> None:
    task = Recorder()
    make_trainer(tmp_path, max_epochs=1).fit(task, datamodule=make_module(root, augmentation=None))
    assert all("driving_view" not in batch for _, batch in task.batches)


def test_larger_shards_are_scaled_down(root: Path, tmp_path: Path) -> None:
    large, small = Recorder(), Recorder()
    for task, resolution in ((large, 32), (small, 16)):
        data = make_module(root, resolution=resolution, augmentation=None)
        make_trainer(tmp_path, max_epochs=1).fit(task, datamodule=data)
    for (_, one), (_, other) in zip(large.batches, small.batches, strict=True):
        assert other["source"].shape[-2:] == other["driving"].shape[-2:] == (16, 16)
        assert torch.allclose(one["driving"].mean((-2, -1)), other["driving"].mean((-2, -1)), atol=2e-3)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("stop_after", [3, 7])
def test_a_resumed_fit_sees_what_an_uninterrupted_one_sees(
    root: Path, tmp_path: Path, stop_after: int, workers: int
) -> None:
    def data() -> PuppetsDataModule:
        return make_module(root, num_workers=workers, seed=3)

    options: dict[str, Any] = {"limit_val_batches": 0}
    whole = Recorder()
    make_trainer(tmp_path, **options).fit(whole, datamodule=data())
    keep = ModelCheckpoint(tmp_path, every_n_train_steps=1, save_last=True)
    broken = Recorder(stop_after)
    with pytest.raises(InterruptedError):
        make_trainer(tmp_path, callbacks=[keep], **options).fit(broken, datamodule=data())
    torch.manual_seed(77)
    resumed = Recorder()
    last = str(tmp_path / "last.ckpt")
    make_trainer(tmp_path, **options).fit(resumed, datamodule=data(), ckpt_path=last, weights_only=True)
    seen = broken.batches[: stop_after - 1] + resumed.batches
    assert len(seen) == len(whole.batches)
    for (_, one), (_, other) in zip(seen, whole.batches, strict=True):
        assert one["key"] == other["key"]
        assert torch.equal(one["driving"], other["driving"])
        assert torch.equal(one["driving_view"], other["driving_view"])


class _Loop:
    def __init__(self, step: int) -> None:
        self.total_batch_idx = step


class _Trainer:
    """What the transfer hook asks of a trainer."""

    training = True

    def __init__(self, rank: int = 0, epoch: int = 0, step: int = 0) -> None:
        self.global_rank, self.current_epoch, self.fit_loop = rank, epoch, _Loop(step)


@pytest.mark.parametrize("kind", ["fast", "kornia"])
def test_augmentation_differs_by_seed_rank_and_step(kind: str, root: Path) -> None:
    kornia = KorniaAugmentation([ColorJiggle(0.2, p=1.0)], [RandomAffine(9.0, p=1.0)])
    module = make_module(root, augmentation=kornia if kind == "kornia" else DriverViewAugmentation())
    batch = next(iter(module.train_dataloader()))
    views = []
    for seed, trainer in [
        (0, _Trainer()),
        (0, _Trainer()),
        (1, _Trainer()),
        (0, _Trainer(rank=1)),
        (0, _Trainer(epoch=1)),
        (0, _Trainer(step=1)),
    ]:
        module.seed, module.trainer = seed, trainer  # type: ignore[assignment]
        views.append(module.on_after_batch_transfer(batch, 0)["driving_view"])
    assert torch.equal(views[0], views[1])
    assert all(not torch.equal(one, other) for place, one in enumerate(views[1:]) for other in views[2 + place :])


def test_rank_and_world_come_from_the_trainer(root: Path) -> None:
    module = make_module(root)
    module.trainer = type("Trainer", (), {"global_rank": 1, "world_size": 3})()
    settings = module.train_dataloader().settings
    assert (settings.rank, settings.world, settings.training) == (1, 3, True)
    assert not module.val_dataloader().settings.training


def test_each_rank_needs_a_clip_to_validate_on(root: Path) -> None:
    module = make_module(root)
    module.trainer = type("Trainer", (), {"global_rank": 0, "world_size": 4})()
    with pytest.raises(ConfigError, match=r"'validation' .* has 3 clips for 4 processes.*trainer.devices"):
        module.val_dataloader()
    assert len(module.train_dataloader()) == 2


def test_train_identities(root: Path) -> None:
    assert make_module(root).train_identities == 9


def test_a_missing_split_names_what_is_there_and_the_remedy(tmp_path: Path) -> None:
    make_shards(tmp_path, "train", [1], frames=2, resolution=16)
    data = make_module(tmp_path, resolution=16)
    with pytest.raises(
        ShardError, match=r"no folder 'validation' \(it has: train\).*sfdkit shards pack.*limit_val_batches 0"
    ):
        data.setup("fit")
    data.trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, limit_val_batches=0)
    data.setup("fit")
    data.trainer = None
    with pytest.raises(ShardError, match=r"no folder 'train' \(it has: none\)"):
        make_module(tmp_path / "nothing").setup("fit")
    (tmp_path / "validation").mkdir()
    with pytest.raises(ShardError, match=r"validation' has no index.json.*sfdkit shards pack"):
        data.setup("validate")


def test_a_missing_shard_is_found_before_training(tmp_path: Path) -> None:
    folder = make_shards(tmp_path, "test", [1, 1], frames=2, resolution=16)
    (folder / "test-00001.tar").unlink()
    with pytest.raises(ShardError, match=r"test-00001\.tar is in the index and not on disk"):
        make_module(tmp_path, resolution=16).setup("test")


def test_shards_must_fit_resolution_data_set_and_split(tmp_path: Path) -> None:
    folder = make_shards(tmp_path, "test", [1], frames=2, resolution=16, dataset="clips")
    with pytest.raises(ShardError, match=r"of data set 'clips', PuppetsDataModule reads 'puppets'"):
        make_module(tmp_path, resolution=16).setup("test")
    ClipsDataModule(str(tmp_path), 16).setup("test")
    with pytest.raises(ConfigError, match=r"data.resolution is 32, the shards in .* have 16"):
        ClipsDataModule(str(tmp_path), 32).setup("test")
    index = json.loads((folder / "index.json").read_text())
    (folder / "index.json").write_text(json.dumps(index | {"split": "train"}))
    with pytest.raises(ShardError, match="says split 'train'"):
        FramesDataModule(str(tmp_path), 16).setup("test")


@pytest.mark.parametrize(
    ("name", "value"), [("batch_size", 0), ("driving_per_source", 0), ("num_workers", -1), ("skip_budget", 1.5)]
)
def test_values_out_of_range_are_named(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=rf"data.{name} is {value}"):
        FramesDataModule("shards", 32, **{name: value})  # type: ignore[arg-type]
