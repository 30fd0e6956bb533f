"""Calling the command line as a user does, on tiny shards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from sfdkit.cli import main
from sfdkit.points import PointSet
from tests.shards import make_shards

ROOT = Path(__file__).parent.parent
EXPERIMENTS = ROOT / "experiments"
SLOTS = ("base.yaml", "encoder/tiny.yaml", "data/puppets.yaml", "trainer/auto.yaml")


def make_data(folder: Path, train: tuple[int, ...] = (5, 4), points: PointSet | None = None) -> Path:
    """Shards of 32 pixels with all three splits."""
    for split, clips in (("train", train), ("validation", (3,)), ("test", (3,))):
        make_shards(folder, split, list(clips), points=points)
    return folder


def small(data: Path, run: Path, steps: int = 2) -> list[str]:
    """Overrides that make any experiment a matter of seconds."""
    return [
        f"--data.init_args.root={data}",
        "--data.init_args.resolution=32",
        "--data.init_args.batch_size=2",
        "--data.init_args.num_workers=0",
        "--trainer.accelerator=cpu",
        f"--trainer.max_steps={steps}",
        f"--trainer.default_root_dir={run}",
        "--trainer.enable_progress_bar=false",
        f"--checkpoint.dirpath={run}/checkpoints",
        f"--pictures.every={steps}",
        "--model.warmup_steps=2",
    ]


def config(*files: str) -> list[str]:
    """``--config`` arguments for files of the experiments folder."""
    return [word for file in files for word in ("--config", str(EXPERIMENTS / file))]


def logging_to(run: Path) -> list[str]:
    """TensorBoard logs in the run's folder."""
    return [
        "--trainer.logger=lightning.pytorch.loggers.TensorBoardLogger",
        f"--trainer.logger.init_args.save_dir={run}",
        "--trainer.logger.init_args.name=logs",
        "--trainer.logger.init_args.version=",
    ]


def fit(data: Path, run: Path, *extra: str, steps: int = 2, files: tuple[str, ...] = SLOTS) -> Path:
    """Train for a few steps; returns the last checkpoint."""
    assert main(["fit", *config(*files), *small(data, run, steps), *logging_to(run), *extra]) == 0
    return run / "checkpoints" / "last.ckpt"


def compile_to_the_same(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Let ``torch.compile`` keep operations as they are, as a compiler takes a minute; return what it is given."""
    compiled: list[Any] = []
    compiler = torch.compile

    def keep(function: Any, mode: str | None = None, **options: Any) -> Any:
        compiled.append(function)
        return compiler(function, backend="eager", **options)

    monkeypatch.setattr(torch, "compile", keep)
    return compiled
