"""Trainings on two processes: ``python -m tests.train.two_ranks FOLDER`` writes what each of them ended with."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Timer
from torch.utils.data import DataLoader

from sfdkit.losses.leakage import Leakage
from sfdkit.model.animator import FaceAnimator
from sfdkit.model.descriptors import DescriptorLayer
from sfdkit.model.encoders import TimmEncoder
from sfdkit.model.generator import Generator
from sfdkit.train.callbacks import ProgressFile, RandomState
from sfdkit.train.task import AnimationTask
from sfdkit.types import FrameBatch
from tests.tiny import tiny_animator

ROWS = 4
"""Rows of a batch of all processes together."""
PICTURES = {"l1": 1.0, "l2": 1.0, "gradient": 0.5, "ssim": 0.2, "warp": 0.3}
"""Terms that are means over rows."""


def without_batch_statistics() -> FaceAnimator:
    """An animator whose encoder normalises each picture by itself."""
    torch.manual_seed(0)
    return FaceAnimator(
        TimmEncoder("test_convnext", 32, max_stride=16),
        DescriptorLayer(identity_size=12, motion_size=4),
        Generator(32, latent_size=16, width=8, max_channels=16, style_size=16),
        motion_points=2,
    )


def sgd(parameters: Any) -> torch.optim.Optimizer:
    """Plain steps along the gradient, which show its size."""
    return torch.optim.SGD(parameters, lr=0.1)


class Batches(L.LightningDataModule):
    """The same random frames on every run, shared out by rows.

    Args:
        count: Batches of an epoch.
    """

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def train_dataloader(self) -> Any:
        """Return a loader of this process's rows."""
        assert self.trainer is not None
        share = ROWS // self.trainer.world_size
        rows = slice(self.trainer.global_rank * share, (self.trainer.global_rank + 1) * share)
        return DataLoader([self.batch(number, rows) for number in range(self.count)], batch_size=None)  # type: ignore

    @staticmethod
    def batch(number: int, rows: slice) -> FrameBatch:
        """Return some rows of a batch."""
        draws = torch.Generator().manual_seed(number)
        frames = torch.rand(ROWS, 3, 3, 32, 32, generator=draws)[rows]
        names = list("abcd")[rows]
        return FrameBatch(source=frames[:, 0], driving=frames[:, 1:], key=names, identity=names)


class Steps(L.Callback):
    """Notes what a test wants to see of each batch."""

    def __init__(self) -> None:
        self.seen: dict[str, list[float]] = {"lr": [], "noise": [], "chance": [], "unreduced": []}

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, AnimationTask)
        self.seen["lr"].append(trainer.optimizers[0].param_groups[0]["lr"])
        self.seen["chance"].append(float(torch.rand(())))
        self.seen["noise"].append(float(torch.randn((), generator=pl_module._noise_generator())))

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        checkpoint: dict[str, Any] = {}
        RandomState().on_save_checkpoint(trainer, pl_module, checkpoint)
        self.states = [state["torch"] for state in checkpoint["random_state"]]


def train(task: AnimationTask, batches: int, devices: int, **options: Any) -> dict[str, Any]:
    """Train for an epoch; returns the weights, buffers, and what was seen of each batch."""
    steps = Steps()
    trainer = L.Trainer(
        accelerator="cpu",
        devices=devices,
        strategy="ddp_find_unused_parameters_true" if devices > 1 else "auto",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        callbacks=[RandomState(), steps, *options.pop("callbacks", [])],
        **options,
    )
    with unreduced_batches(steps.seen["unreduced"]):
        trainer.fit(task, Batches(batches))
    return {
        "state": task.animator.state_dict(),
        "seen": steps.seen,
        "states": steps.states,
        "steps": trainer.global_step,
    }


class unreduced_batches:  # a context manager
    """Counts backward passes after which gradients are reduced."""

    def __init__(self, counts: list[float]) -> None:
        self.counts = counts
        self.original = torch.nn.parallel.DistributedDataParallel.no_sync

    def __enter__(self) -> None:
        counts, original = self.counts, self.original

        def no_sync(module: Any) -> Any:
            counts.append(0.0)
            return original(module)

        torch.nn.parallel.DistributedDataParallel.no_sync = no_sync  # type: ignore[method-assign, assignment]

    def __exit__(self, *_: object) -> None:
        torch.nn.parallel.DistributedDataParallel.no_sync = self.original  # type: ignore[method-assign]


class SkewedTimer(Timer):
    """A clock that goes twice as fast on the second process."""

    def time_elapsed(self, stage: Any = "train") -> float:
        spent = super().time_elapsed(stage)
        return spent * (1 + int(os.environ.get("LOCAL_RANK", "0")))


def cases(devices: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Run every training in turn."""
    plain = dict(optimizer=sgd, warmup_steps=1, gradient_clip_norm=0.0, gradient_clip_factor=0.0)
    yield "rows", train(AnimationTask(without_batch_statistics(), PICTURES, **plain), 2, devices)  # type: ignore
    summed = AnimationTask(without_batch_statistics(), PICTURES, accumulate_grad_batches=2, **plain)  # type: ignore[arg-type]
    yield "accumulated", train(summed, 3, devices)
    timed = AnimationTask(tiny_animator(), {**PICTURES, "kl": 1e-4, "leakage": 0.1}, warmup_steps=1)
    asking = ProgressFile(f"{sys.argv[1]}/progress.json", every=0.0)  # the first process alone asks how far it is
    yield "timed", train(timed, 12, devices, callbacks=[SkewedTimer(duration={"seconds": 60}), asking])


if __name__ == "__main__":
    torch.set_num_threads(1)
    for name, result in cases(2):
        torch.save(result, Path(sys.argv[1]) / f"{name}-{torch.distributed.get_rank()}.pt")
    rank, leakage = torch.distributed.get_rank(), Leakage()
    leakage(torch.randn(4, 3, 2, generator=torch.Generator().manual_seed(rank)) * (1 + rank))
    torch.save(leakage.running_mean, Path(sys.argv[1]) / f"variance-{rank}.pt")
    torch.distributed.barrier()  # the test reads as soon as the first process has ended
