"""The trainer's command line: LightningCLI with sfdkit's task, callbacks and links."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from typing import Any

import lightning as L
import yaml
from jsonargparse import ArgumentParser, Namespace
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.plugins.io import CheckpointIO
from lightning.pytorch.utilities.exceptions import SIGTERMException

from sfdkit.callbacks import (
    AtomicCheckpoints,
    DataReport,
    Pictures,
    PredictionWriter,
    RandomState,
    RunCheckpoints,
    TrainingProgress,
    TrainingStatistics,
    WeightAverage,
)
from sfdkit.compose import KEY as COMPOSE
from sfdkit.compose import expand_arguments
from sfdkit.errors import SfdkitError
from sfdkit.model.animator import FaceAnimator
from sfdkit.model.summary import summary_table
from sfdkit.task import AnimationTask


class AnimationCLI(LightningCLI):
    """LightningCLI for :class:`~sfdkit.task.AnimationTask` and any data module of frames."""

    @classmethod
    def launch(cls, args: Sequence[str], run: bool = True) -> AnimationCLI:
        """Parse arguments, build everything and, with ``run``, run the subcommand that ``args`` begins with."""
        return cls(
            AnimationTask,
            L.LightningDataModule,
            subclass_mode_data=True,
            args=list(args),
            run=run,
            save_config_kwargs={"overwrite": True},
            trainer_defaults={"callbacks": [TrainingStatistics(), RandomState(), DataReport()]},
            auto_configure_optimizers=False,
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the callbacks that a config can set, and the links between data and model."""
        parser.add_argument(
            f"--{COMPOSE}", type=list[str] | None, default=None, help="Files that a config is laid over."
        )
        parser.add_lightning_class_args(WeightAverage, "average")
        parser.add_lightning_class_args(Pictures, "pictures")
        parser.add_lightning_class_args(PredictionWriter, "predictions")
        parser.add_lightning_class_args(RunCheckpoints, "checkpoint")
        parser.set_defaults(
            {
                "checkpoint.filename": "step{step:06d}",
                "checkpoint.auto_insert_metric_name": False,
                "checkpoint.save_last": True,
                "checkpoint.enable_version_counter": False,
            }
        )
        parts = "model.animator.init_args"
        for part in (f"{parts}.encoder", f"{parts}.generator", "model.discriminator"):
            parser.link_arguments("data.init_args.resolution", f"{part}.init_args.resolution")

    def before_instantiate_classes(self) -> None:
        """Forget which files were composed: the saved config holds all that they said."""
        config = self.config[self.subcommand] if self.subcommand else self.config
        config[COMPOSE] = None

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        """Build the trainer, with the kit's progress bar unless ``trainer.enable_progress_bar`` is off.

        Checkpoints are written by :class:`~sfdkit.callbacks.AtomicCheckpoints` unless ``trainer.plugins`` has a writer.
        """
        plugins = self._get(self.config_init, "trainer.plugins") or []
        plugins = plugins if isinstance(plugins, list) else [plugins]
        if not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
            kwargs["plugins"] = [*plugins, AtomicCheckpoints()]
        if self._get(self.config_init, "trainer.enable_progress_bar") is not False:
            self.trainer_defaults["callbacks"].append(TrainingProgress())
        return super().instantiate_trainer(**kwargs)

    def instantiate_classes(self) -> None:
        """Build everything, and tell the task what it was built from, for its checkpoints."""
        super().instantiate_classes()
        config = self.config[self.subcommand] if self.subcommand else self.config
        parser = (
            ArgumentParser()
        )  # one without links: the CLI's own drops nested link targets, the resolution, at a dump
        parser.add_subclass_arguments(FaceAnimator, "animator")
        written: dict[str, Any] = yaml.safe_load(
            parser.dump(Namespace(animator=config.model.animator), skip_unset=False)
        )
        assert isinstance(self.model, AnimationTask)
        self.model.experiment = {**written, "seed": config.seed_everything}

    def _parse_ckpt_path(self) -> None:
        """Keep the configuration as given: Lightning would lay a checkpoint's hyperparameters over it silently."""


def run(args: Sequence[str]) -> None:
    """Run ``fit``, ``validate``, ``test`` or ``predict`` with the command line's arguments, the subcommand first."""
    _launch(expand_arguments(args))


def _launch(args: Sequence[str], run: bool = True) -> AnimationCLI:
    """Build the command line's experiment and, with ``run``, run it.

    Raises:
        SfdkitError: What a part of the experiment refused. The parser would report it with all values of that part,
            which may be the very secret that was refused.
        SystemExit: SIGTERM ended a training, with the shell's status for that: Lightning's own would be 0, a success.
    """
    try:
        return AnimationCLI.launch(args, run)
    except SIGTERMException:
        raise SystemExit(128 + signal.SIGTERM) from None
    except (TypeError, ValueError) as error:
        refused = _refused(error)
        if refused is None or refused is error:
            raise
        raise refused from None


def build(args: Sequence[str]) -> AnimationCLI:
    """Build the experiment of ``--config`` files and overrides, and run nothing.

    Raises:
        SfdkitError: What a part of the experiment refused.
    """
    return _launch(expand_arguments(args), run=False)


def summary(args: Sequence[str]) -> None:
    """Print parameters and multiply-accumulates of the model that ``--config`` files and overrides describe."""
    cli = build([*args, "--trainer.logger=false"])
    assert isinstance(cli.model, AnimationTask)
    print(summary_table(cli.model.animator))


def _refused(error: BaseException | None) -> SfdkitError | None:
    """Return the kit's own error among those that led to ``error``."""
    while error is not None and not isinstance(error, SfdkitError):
        error = error.__cause__ or error.__context__
    return error
