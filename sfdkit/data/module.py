"""The data module: folders of shards to Lightning's loaders, and batches on the device to floats."""

from __future__ import annotations

from typing import ClassVar, Literal, get_args

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from torch import Tensor

from sfdkit.data.augment import Augmentation
from sfdkit.data.loader import EpochLoader
from sfdkit.data.plan import generator
from sfdkit.data.settings import StreamSettings
from sfdkit.data.shard_set import Folder, ShardSet
from sfdkit.data.shards.index import load_index, require_shards
from sfdkit.errors import ConfigError, ShardError
from sfdkit.storage import Storage, StorageSettings, storages
from sfdkit.storage.urls import redact
from sfdkit.types import FrameBatch

Split = Literal["train", "validation", "test"]
_STAGES: dict[str, tuple[Split, ...]] = {
    "fit": ("train", "validation"),
    "validate": ("validation",),
    "test": ("test",),
    "predict": ("test",),
}


class FramesDataModule(pl.LightningDataModule):
    """Source and driving frames from folders of shards.

    Batches leave the loader as uint8 and become float32 in [0, 1] on the device. In training the augmentation adds
    ``driving_view`` there. A data set derives from this class and says by ``dataset`` which shards are its own.

    Args:
        root: Folder with one folder of shards per split: ``train``, ``validation``, ``test``. A local path or an
            address (``s3://bucket/vox``, see :mod:`sfdkit.storage`), a pattern with braces or ``*`` for several that
            are mixed, or a mapping of such to weights: how often an epoch of training uses each clip, where 1 is once.
        resolution: Side of the pictures in pixels. Shards of a higher resolution are scaled down on the device.
        batch_size: Rows (sources) per batch and process.
        driving_per_source: Driving frames per source.
        rows_per_clip: Rows that one opened clip gives per epoch of training.
        num_workers: Worker processes per process; with 0 the main process reads. The order does not depend on it.
        seed: Order of the data and augmentation follow from it, the epoch, and the rank.
        shuffle: Rows in each lane's shuffle buffer; it holds packed clips.
        lanes: Independent readers of each process, at least as many as ``num_workers``, which shares them out.
        skip_budget: Share of the rows of an epoch that may be lost to damaged clips; with 0 the first damage is an
            error. What is lost is listed in ``data_report.json``.
        points: Bring the points of the face that the shards carry, for the loss terms that read them.
        storage: Attempts, waits, read-ahead and cache of transfers.
        augmentation: Changes the batches of a training, and makes the motion encoder's view of the driving frames:
            ``DriverViewAugmentation``, or ``KorniaAugmentation`` for any modules of kornia; None changes nothing.

    Raises:
        ConfigError: A value is out of its range.
    """

    dataset: ClassVar[str | None] = None
    """Name that the index must carry; None takes shards of any data set."""

    def __init__(
        self,
        root: str | dict[str, float],
        resolution: int,
        batch_size: int = 32,
        driving_per_source: int = 1,
        rows_per_clip: int = 1,
        num_workers: int = 2,
        seed: int = 0,
        shuffle: int = 64,
        lanes: int = 8,
        skip_budget: float = 0.001,
        points: bool = True,
        storage: StorageSettings = StorageSettings(),  # noqa: B008  # frozen
        augmentation: Augmentation | None = None,
    ) -> None:
        super().__init__()
        positive = dict(
            resolution=resolution,
            batch_size=batch_size,
            driving_per_source=driving_per_source,
            rows_per_clip=rows_per_clip,
            lanes=lanes,
        )
        for name, value in positive.items():
            if value < 1:
                raise ConfigError(f"data.{name} is {value}, a number of at least 1 is wanted.")
        for name, value in dict(num_workers=num_workers, shuffle=shuffle).items():
            if value < 0:
                raise ConfigError(f"data.{name} is {value}, a number of at least 0 is wanted.")
        if not 0 <= skip_budget <= 1:
            raise ConfigError(f"data.skip_budget is {skip_budget}, a share from 0 to 1 is wanted.")
        weights = root if isinstance(root, dict) else {root: 1.0}
        if not weights or not all(weight > 0 for weight in weights.values()):
            raise ConfigError(f"data.root is {redact(repr(root))}: give at least one folder, and weights above 0")
        self.roots = [(part, weight) for name, weight in weights.items() for part in storages(name, storage)]
        """Storage and weight of each root."""
        self.resolution = resolution
        self.batch_size = batch_size
        self.driving_per_source = driving_per_source
        self.rows_per_clip = rows_per_clip
        self.num_workers = num_workers
        self.seed = seed
        self.shuffle = shuffle
        self.lanes = lanes
        self.skip_budget = skip_budget
        self.points = points
        self.augmentation = augmentation
        self.loaders: dict[Split, EpochLoader] = {}
        self._shards: dict[Split, ShardSet] = {}

    def shards(self, split: Split) -> ShardSet:
        """Return the shards of a split in all roots, after checking that they are there and fit this module.

        Raises:
            ShardError: A folder, its index, or a shard is missing or damaged, or belongs to another data set or split.
            ConfigError: The shards have a lower resolution than this module.
        """
        if split not in self._shards:
            self._shards[split] = ShardSet([self._checked(root, split, weight) for root, weight in self.roots])
        return self._shards[split]

    def _checked(self, root: Storage, split: Split, weight: float) -> Folder:
        storage = root.child(split)
        if root.is_local and not storage.path().is_dir():
            present = [name for name in get_args(Split) if root.path(name).is_dir()]
            raise ShardError(
                f"data.root {root.show()!r} has no folder {split!r} (it has: {', '.join(present) or 'none'}). "
                f"Pack that split with `sfdkit prepare` or `sfdkit shards pack`, or set data.root."
                + (" To train without: --trainer.limit_val_batches 0" if split == "validation" else "")
            )
        index, folder = load_index(storage, fill=False), storage.show()
        if self.dataset is not None and index["dataset"] != self.dataset:
            raise ShardError(
                f"The shards in {folder} are of data set {index['dataset']!r}, {type(self).__name__} reads "
                f"{self.dataset!r}. Set data.root, or take the data module of that data set."
            )
        if index["split"] != split:
            raise ShardError(
                f"The index in {folder} says split {index['split']!r}. Put these shards into a folder of that name."
            )
        if index["resolution"] < self.resolution:
            raise ConfigError(
                f"data.resolution is {self.resolution}, the shards in {folder} have {index['resolution']}. "
                f"Set data.resolution to {index['resolution']} or less, or pack the shards again."
            )
        require_shards(storage, index)
        return Folder(storage, index, weight)

    @property
    def train_identities(self) -> int:
        """Number of identities in the training split, of all roots together."""
        return sum(folder.index["identities"] for folder in self.shards("train").folders)

    def setup(self, stage: str) -> None:
        """Check the splits that a stage reads; a training without validation batches reads no validation split.

        Raises:
            ShardError: See :meth:`shards`.
            ConfigError: See :meth:`shards`.
        """
        for split in _STAGES[stage]:
            if split != "validation" or self.trainer is None or self.trainer.limit_val_batches:
                self.shards(split)

    def train_dataloader(self) -> EpochLoader:
        """Return the loader of ``train``: shuffled, equal numbers of full batches on all ranks."""
        return self._open("train")

    def val_dataloader(self) -> EpochLoader:
        """Return the loader of ``validation``: each clip once over all ranks, fixed frames."""
        return self._open("validation")

    def test_dataloader(self) -> EpochLoader:
        """Return the loader of ``test``: each clip once over all ranks, fixed frames."""
        return self._open("test")

    def predict_dataloader(self) -> EpochLoader:
        """Return the loader of ``test``, as for testing."""
        return self._open("test")

    def _open(self, split: Split) -> EpochLoader:
        shards = self.shards(split)
        rank, world = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        if split != "train" and shards.clips < world:
            # Lightning leaves out the whole evaluation on a rank without batches, and the others wait for it for ever.
            raise ConfigError(
                f"The split {split!r} in {shards.folders[0].storage.show()} has {shards.clips} clips for {world} "
                "processes; each needs one. Set trainer.devices or trainer.num_nodes lower, or pack more clips."
            )
        settings = StreamSettings(
            shards=shards,
            training=split == "train",
            batch_size=self.batch_size,
            driving=self.driving_per_source,
            rows_per_clip=self.rows_per_clip,
            seed=self.seed,
            rank=rank,
            world=world,
            shuffle=self.shuffle,
            lanes=self.lanes,
            point_set=shards.point_set() if self.points else None,
            skip_budget=self.skip_budget,
        )
        self.loaders[split] = EpochLoader(settings, self.num_workers, pin_memory=torch.cuda.is_available())
        return self.loaders[split]

    def teardown(self, stage: str) -> None:
        """End the workers of all loaders."""
        for loader in self.loaders.values():
            loader.close()

    @torch.no_grad()
    def on_after_batch_transfer(self, batch: FrameBatch, dataloader_idx: int) -> FrameBatch:
        """Turn a batch on the device into floats of the wanted resolution and, in training, augment it.

        Args:
            batch: Images uint8, as the loader gives them.
            dataloader_idx: Lightning's number of the loader.

        Returns:
            Images float32 in [0, 1]; with ``driving_view`` in training if there is an augmentation.
        """
        floats = FrameBatch(
            source=self._to_float(batch["source"]),
            driving=self._to_float(batch["driving"].flatten(0, 1)).unflatten(0, batch["driving"].shape[:2]),
            key=batch["key"],
            identity=batch["identity"],
        )
        if "points" in batch:
            floats["points"], floats["point_set"] = batch["points"], batch["point_set"]
        if self.augmentation is None or self.trainer is None or not self.trainer.training:
            return floats
        # The number of the batch over all epochs: it counts on after a resume, and once per batch whatever the
        # number of optimisers, which global_step does not.
        step = self.trainer.fit_loop.total_batch_idx + 1
        draw = generator(self.seed, self.trainer.global_rank, self.trainer.current_epoch, step)
        return self.augmentation(floats, draw.getrandbits(63))

    def _to_float(self, images: Tensor) -> Tensor:
        """Turn N 3 H W uint8 into N 3 R R float32 in [0, 1]."""
        floats = images.float() / 255
        if floats.shape[-1] == self.resolution:
            return floats
        size = (self.resolution, self.resolution)
        return F.interpolate(floats, size=size, mode="bilinear", antialias=True, align_corners=False).clamp_(0, 1)
