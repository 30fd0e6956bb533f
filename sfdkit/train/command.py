"""The trainer's command line: LightningCLI with sfdkit's task, callbacks and links."""

from __future__ import annotations

import argparse
import re
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning as L
import torch
import yaml
from jsonargparse import ArgumentParser, Namespace
from lightning.fabric.utilities.cloud_io import get_filesystem
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.plugins.environments import SLURMEnvironment
from lightning.pytorch.plugins.io import CheckpointIO
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import MisconfigurationException, SIGTERMException

from sfdkit.checkpoint import read_checkpoint
from sfdkit.config.compose import KEY as COMPOSE
from sfdkit.config.compose import OPTIONS, expand_arguments
from sfdkit.config.help import HelpAll, key_lines
from sfdkit.config.parser import OneLineParser
from sfdkit.errors import CheckpointError, ConfigError, SfdkitError
from sfdkit.losses import DOWNLOADED, OF_NETWORKS
from sfdkit.model.animator import FaceAnimator
from sfdkit.model.summary import summary_table
from sfdkit.storage.urls import redact
from sfdkit.train.callbacks import (
    AtomicCheckpoints,
    DataReport,
    Pictures,
    PredictionWriter,
    RandomState,
    RunCheckpoints,
    RunSummary,
    TrainingProgress,
    TrainingStatistics,
    WeightAverage,
)
from sfdkit.train.task import AnimationTask

WORDS = ("last", "best", "hpc")
"""What ``--ckpt_path`` may say instead of a file, see ``Trainer.fit``."""

USUAL = (
    "accelerator",
    "devices",
    "num_nodes",
    "strategy",
    "precision",
    "max_steps",
    "max_time",
    "max_epochs",
    "limit_train_batches",
    "limit_val_batches",
    "val_check_interval",
    "check_val_every_n_epoch",
    "num_sanity_val_steps",
    "log_every_n_steps",
    "logger",
    "default_root_dir",
    "fast_dev_run",
    "enable_progress_bar",
    "profiler",
    "callbacks",
)
"""The trainer's keys that the short help shows."""

UNFIT: dict[str, tuple[tuple[Any, ...], str]] = {
    "accumulate_grad_batches": ((1,), "set model.accumulate, the number of batches per step"),
    "gradient_clip_val": ((None, 0), "set model.gradient_clip, the largest norm of the gradient"),
    "gradient_clip_algorithm": ((None,), "set model.gradient_clip, the largest norm of the gradient"),
    "enable_checkpointing": ((None, True), "set checkpoint.save_last to false and checkpoint.save_top_k to 0"),
}
"""The trainer's keys that the kit replaces: the values that change nothing, and what to set instead."""


class Trainer(L.Trainer):
    """Lightning's trainer, with whole numbers first where a number of batches or a share of them may be given.

    A parser takes the first type that fits. In Lightning's signature that depends on the order in which Python has met
    these types before, and ``limit_val_batches: 1``, one batch, became ``1.0``, all of them.

    Args:
        limit_train_batches: Batches of an epoch of training, a whole number, or a share of them, 0.0 to 1.0.
        limit_val_batches: Batches of a validation, a whole number, or a share of them, 0.0 to 1.0.
        limit_test_batches: Batches of a test, a whole number, or a share of them, 0.0 to 1.0.
        limit_predict_batches: Batches that are rendered, a whole number, or a share of them, 0.0 to 1.0.
        overfit_batches: Learn from this many batches, or this share of them, alone; 0.0 for all.
        val_check_interval: Batches from one validation to the next, a share of an epoch, or a time (DD:HH:MM:SS).
        **kwargs: See Lightning's trainer.
    """

    def __init__(
        self,
        *,
        limit_train_batches: int | float | None = None,
        limit_val_batches: int | float | None = None,
        limit_test_batches: int | float | None = None,
        limit_predict_batches: int | float | None = None,
        overfit_batches: int | float = 0.0,
        val_check_interval: int | float | str | timedelta | dict[str, int] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            limit_train_batches=limit_train_batches,
            limit_val_batches=limit_val_batches,
            limit_test_batches=limit_test_batches,
            limit_predict_batches=limit_predict_batches,
            overfit_batches=overfit_batches,
            val_check_interval=val_check_interval,
            **kwargs,
        )


class TrainerParser(OneLineParser, LightningArgumentParser):
    """The parser of one of the trainer's commands: its help shows the kit's keys and the trainer's usual ones."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.add_argument("--help_all", action=HelpAll, help="Show every key, with its type.")

    def format_help(self, formatter: argparse.HelpFormatter | None = None) -> str:
        """Return the short help."""
        from sfdkit.data.module import FramesDataModule

        name = self.prog.replace(" [options]", "")
        others = ("trainer", "data", "model", "weights_only", "help", "print_config")
        data = OneLineParser(add_help=False)
        data.add_class_arguments(FramesDataModule, "data.init_args")
        return "\n".join(
            [
                f"usage: {name} --config FILE [--config FILE ...] [--KEY VALUE ...]",
                "",
                "A later --config or --KEY has the last word; null is nothing. The keys, with their defaults:",
                *key_lines(self, lambda key: key.startswith("model.")),
                *key_lines(data, lambda key: True),
                *key_lines(self, lambda key: key.split(".")[0] not in others),
                *key_lines(self, lambda key: key in {f"trainer.{name}" for name in USUAL}),
                "",
                f"{name} --help_all shows every key with its type, the trainer's others too. The arguments of a class:",
                f"  {name} --data.help datamodules.puppets.PuppetsDataModule",
                f"  {name} --model.animator.help     (also --trainer.logger.help CLASS, --model.optimizer.help CLASS)",
                "",
            ]
        )


class AnimationCLI(LightningCLI):
    """LightningCLI for :class:`~sfdkit.train.task.AnimationTask` and any data module of frames."""

    @classmethod
    def launch(cls, args: Sequence[str], run: bool = True, prog: str = "sfdkit") -> AnimationCLI:
        """Parse arguments, build everything and, with ``run``, run the subcommand that ``args`` begins with."""
        return cls(
            AnimationTask,
            L.LightningDataModule,
            trainer_class=Trainer,
            parser_class=TrainerParser,
            parser_kwargs={"prog": prog},
            subclass_mode_data=True,
            args=list(args),
            run=run,
            save_config_kwargs={"overwrite": True},
            trainer_defaults={"callbacks": [TrainingStatistics(), RandomState(), DataReport()]},
            auto_configure_optimizers=False,
        )

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Return the commands, each with the arguments that are not the command line's."""
        commands = LightningCLI.subcommands()
        return {**commands, "predict": commands["predict"] | {"return_predictions"}}

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
        """Check what need not wait, and forget which files were composed: the saved config holds all that they said.

        Raises:
            ConfigError: A key of the trainer's that the kit replaces.
            CheckpointError: ``ckpt_path`` is no checkpoint.
        """
        config = self.config[self.subcommand] if self.subcommand else self.config
        config[COMPOSE] = None
        for key, (neutral, instead) in UNFIT.items():
            if (value := config.trainer.get(key)) not in neutral:
                raise ConfigError(f"trainer.{key} {value} cannot be used here; {instead}")
        if config.trainer.get("check_val_every_n_epoch") == 0:
            raise ConfigError(
                "trainer.check_val_every_n_epoch is 0; for no validation set trainer.limit_val_batches to 0"
            )
        path = config.get("ckpt_path")
        if path is not None and path not in WORDS:
            _check_checkpoint(str(path))
        if self.subcommand != "fit":
            _leave_out_downloads(config)
        if self.subcommand not in (None, "fit"):
            self.save_config_kwargs["config_filename"] = f"config_{self.subcommand}.yaml"  # config.yaml is the fit's
            if not path and rank_zero_only.rank == 0:  # type: ignore[attr-defined]
                print(f"no --ckpt_path: {self.subcommand} takes a model that has learned nothing", file=sys.stderr)

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        """Build the trainer, with the kit's progress bar unless ``trainer.enable_progress_bar`` is off.

        Checkpoints are written by :class:`~sfdkit.train.callbacks.AtomicCheckpoints` unless ``trainer.plugins`` has a
        writer.
        """
        plugins = self._get(self.config_init, "trainer.plugins") or []
        plugins = plugins if isinstance(plugins, list) else [plugins]
        if not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
            kwargs["plugins"] = [*plugins, AtomicCheckpoints()]
        if self._get(self.config_init, "trainer.enable_progress_bar") is not False:
            self.trainer_defaults["callbacks"].append(TrainingProgress())
        if self._get(self.config_init, "trainer.enable_model_summary") is None:
            self.trainer_defaults["callbacks"].append(RunSummary())
            kwargs["enable_model_summary"] = False
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

    def before_fit(self) -> None:
        """Refuse what a training would come upon only later.

        Raises:
            ConfigError: An optimiser's value that it refuses, or a folder with the checkpoints of an earlier training.
        """
        assert isinstance(self.model, AnimationTask)
        for name in ("optimizer", "discriminator_optimizer"):
            try:
                getattr(self.model, name)([torch.nn.Parameter(torch.zeros(1))])
            except (TypeError, ValueError) as error:
                raise ConfigError(f"model.{name}: {error}; set model.{name}.init_args") from error
        connector = self.trainer._checkpoint_connector
        resumes = SLURMEnvironment.detect() and connector._hpc_resume_path is not None
        for callback in self.trainer.checkpoint_callbacks:
            if isinstance(callback, RunCheckpoints):
                callback.refuse_old_run(self.trainer, self._get(self.config, "ckpt_path"), resumes)

    def predict(self, **kwargs: Any) -> None:
        """Run ``Trainer.predict`` without keeping what it renders: the callback has written it by then."""
        self.trainer.predict(**kwargs, return_predictions=False)

    def _parse_ckpt_path(self) -> None:
        """Keep the configuration as given: Lightning would lay a checkpoint's hyperparameters over it silently."""


def run(args: Sequence[str]) -> None:
    """Run ``fit``, ``validate``, ``test`` or ``predict`` with the command line's arguments, the subcommand first.

    Raises:
        SfdkitError: What a part of the experiment refused.
    """
    _want_config(f"sfdkit {args[0]}", args[1:])
    _launch(expand_arguments(args))


def _want_config(command: str, args: Sequence[str]) -> None:
    """Say that a configuration is missing before the parser says which of its keys are."""
    helps = ("-h", "--help", "--help_all", "--print_config")
    names = [word.partition("=")[0] for word in args]
    if any(n in (*OPTIONS, *helps) or n.endswith(".help") or n.startswith("--model.animator") for n in names):
        return
    file = next((word for word in args if word.endswith((".yaml", ".yml"))), "experiments/quickstart.yaml")
    raise ConfigError(f"{command} needs a configuration, for example: {command} --config {file}")


_NO_DEVICE = re.compile(r"backend found|can not run on your system|torch_xla|accelerator.* not available")


@contextmanager
def _refusals() -> Iterator[None]:
    """Turn what the kit or Lightning refuse on purpose into an error of one line.

    Raises:
        SfdkitError: What a part of the experiment refused. The parser would report it with all values of that part,
            which may be the very secret that was refused.
        ConfigError: What Lightning refused, a package that it asks for, or a file that cannot be read or written.
    """
    try:
        yield
    except OSError as error:
        if error.filename is None and not _by_lightning(error):
            raise
        raise ConfigError(f"{error.filename}: {error.strerror}" if error.filename else str(error)) from error
    except (TypeError, ValueError, ImportError, MisconfigurationException) as error:
        refused = _refused(error)
        if refused is error:
            raise
        if refused is not None:
            raise refused from None
        missing = next((e for e in _chain(error) if isinstance(e, ImportError) and "pip install" in str(e)), None)
        if missing is not None or _by_lightning(error):
            text = " ".join(str(missing or error).split())
            hint = "; --trainer.accelerator auto takes what there is" if _NO_DEVICE.search(text) else ""
            raise ConfigError(f"{text.removesuffix('!')}{hint}") from error
        raise


def _launch(args: Sequence[str], run: bool = True, prog: str = "sfdkit") -> AnimationCLI:
    """Build the command line's experiment and, with ``run``, run it.

    Raises:
        SfdkitError: What a part of the experiment, or Lightning, refused.
        SystemExit: SIGTERM ended a training, with the shell's status for that: Lightning's own would be 0, a success.
    """
    try:
        with _refusals():
            return AnimationCLI.launch(args, run, prog)
    except SIGTERMException:
        raise SystemExit(128 + signal.SIGTERM) from None


def build(args: Sequence[str], prog: str = "sfdkit fit") -> AnimationCLI:
    """Build the experiment of ``--config`` files and overrides, and run nothing.

    Args:
        args: As on the command line, without a command.
        prog: What the command line is called in messages.

    Raises:
        SfdkitError: What a part of the experiment refused.
    """
    return _launch(expand_arguments(args), run=False, prog=prog)


def summary(args: Sequence[str]) -> None:
    """Print parameters and multiply-accumulates of the model that ``--config`` files and overrides describe.

    Raises:
        SfdkitError: What a part of the experiment refused.
    """
    prog = "sfdkit model summary"
    _want_config(prog, args)
    trainer = dict(accelerator="cpu", devices=1, num_nodes=1, strategy="auto", precision="32-true", logger="false")
    cli = build([*args, *(f"--trainer.{key}={value}" for key, value in trainer.items())], prog)
    assert isinstance(cli.model, AnimationTask)
    print(summary_table(cli.model.animator))


def _leave_out_downloads(config: Namespace) -> None:
    """Take from a configuration what training alone needs: weights to begin with, and networks that judge results."""
    for key in tuple(config.keys()):
        if key.endswith(".init_args.pretrained"):
            config[key] = False
    for name in {*DOWNLOADED, *OF_NETWORKS} & set(config.model.weights):
        config.model.weights[name] = 0.0


def _check_checkpoint(path: str) -> None:
    """Look at a checkpoint before anything is built; of a remote one only whether it is there.

    Raises:
        CheckpointError: It is not there, or is none.
    """
    if "://" not in path:
        read_checkpoint(Path(path), mmap=True)
        return
    try:
        there = get_filesystem(path).isfile(path)
    except Exception as error:  # each kind of storage has its own
        raise CheckpointError(f"checkpoint {redact(path)} cannot be read: {' '.join(str(error).split())}") from error
    if not there:
        raise CheckpointError(f"checkpoint {redact(path)} does not exist; give a file that sfdkit fit wrote")


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and those that led to it."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _refused(error: BaseException) -> SfdkitError | None:
    """Return the kit's own error among those that led to ``error``."""
    return next((e for e in _chain(error) if isinstance(e, SfdkitError)), None)


def _by_lightning(error: BaseException) -> bool:
    """Whether it is Lightning that raised an error, rather than something that it called."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and str(trace.tb_frame.f_globals.get("__name__")).startswith("lightning.")
