"""Train an animator from Python: pack puppets, train, save a checkpoint that every --checkpoint takes.

python train.py --steps 200 --output runs/example
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import lightning as L

from datamodules.puppets import PuppetsDataModule
from sfdkit.checkpoint import build_animator
from sfdkit.data.module import FramesDataModule
from sfdkit.data.pack.commands import PackPuppets
from sfdkit.train.callbacks import AtomicCheckpointIO, TrainingStatistics, WeightEMA
from sfdkit.train.task import AnimationTask

PIXELS = 64


def part(path: str, **arguments: Any) -> dict[str, Any]:
    """Return a part of a model as configurations write it."""
    return {"class_path": path, "init_args": arguments}


def animator(encoder: dict[str, Any]) -> dict[str, Any]:
    """Return a small animator with this encoder; a checkpoint holds it, so that it can be built again."""
    basis = part("sfdkit.model.descriptors.DescriptorLayer", identity_size=48, motion_size=16)
    generator = part("sfdkit.model.generator.Generator", resolution=PIXELS, latent_size=64, width=8, max_channels=64)
    return part("sfdkit.model.animator.FaceAnimator", encoder=encoder, descriptors=basis, generator=generator)


def train(
    config: dict[str, Any], data: FramesDataModule, steps: int, folder: Path, trust: tuple[str, ...] = ()
) -> Path:
    """Train the animator of a configuration, and return the checkpoint."""
    L.seed_everything(1, verbose=False)
    losses = {"l1": 1.0, "l2": 2.0, "gradient": 0.25, "warp": 0.3}
    task = AnimationTask(build_animator(config, Path(__file__), trust), losses)
    task.experiment = {"animator": config, "seed": 1}
    trainer = L.Trainer(
        max_steps=steps,
        max_epochs=-1,
        devices=1,
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        callbacks=[WeightEMA(), TrainingStatistics()],
        plugins=[AtomicCheckpointIO()],
    )
    trainer.fit(task, data)
    trainer.save_checkpoint(folder / "checkpoints/last.ckpt")
    return folder / "checkpoints/last.ckpt"


def options(description: str | None) -> argparse.Namespace:
    """Read --steps and --output."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--output", type=Path, default=Path("runs/example"))
    return parser.parse_args()


def puppets(folder: Path) -> FramesDataModule:
    """Pack puppets, unless they are there, and return what reads them."""
    PackPuppets(
        output=str(folder),
        resolution=PIXELS,
        identities=64,
        validation_identities=0,
        test_identities=0,
        frames_per_clip=4,
    ).run()
    return PuppetsDataModule(str(folder), PIXELS, batch_size=8, driving_per_source=2, num_workers=0)


if __name__ == "__main__":
    given = options(__doc__)
    encoder = part("sfdkit.model.encoders.TimmEncoder", name="test_resnet", resolution=PIXELS, max_stride=16)
    checkpoint = train(animator(encoder), puppets(given.output / "shards"), given.steps, given.output)
    print(f"sfdkit animate --checkpoint {checkpoint} --crop none --source S.png --driving D.mp4 --output O.mp4")
