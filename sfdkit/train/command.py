"""The commands fit, validate, test and predict: LightningCLI with sfdkit's task, callbacks and links."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
import yaml
from jsonargparse import ArgumentParser, Namespace
from lightning.fabric.utilities.cloud_io import get_filesystem
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.plugins.environments import SLURMEnvironment
from lightning.pytorch.plugins.io import CheckpointIO
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import SIGTERMException

from sfdkit.checkpoint import read_checkpoint
from sfdkit.config.compose import KEY as COMPOSE
from sfdkit.config.compose import OPTIONS, expand_arguments, read_config
from sfdkit.errors import CheckpointError, ConfigError
from sfdkit.losses import OF_NETWORKS
from sfdkit.model.animator import FaceAnimator
from sfdkit.model.summary import summary_table
from sfdkit.storage.urls import redact
from sfdkit.tensor_file import SUFFIX
from sfdkit.train.callbacks import (
    AtomicCheckpointIO,
    DataReport,
    Pictures,
    PredictionWriter,
    RandomState,
    RunCheckpoints,
    RunSummary,
    TrainingProgress,
    TrainingStatistics,
    WeightEMA,
)
from sfdkit.train.errors import one_line_errors
from sfdkit.train.parser import Trainer, TrainerParser
from sfdkit.train.task import AnimationTask
from sfdkit.weights.shipped import shipped_weights

WORDS = ("last", "best", "hpc")
"""Values of ``--ckpt_path`` that are no file, see ``Trainer.fit``."""

REPLACED_TRAINER_KEYS: dict[str, tuple[tuple[Any, ...], str]] = {
    "accumulate_grad_batches": ((1,), "set model.accumulate_grad_batches, the number of batches per step"),
    "gradient_clip_val": ((None, 0), "set model.gradient_clip_norm, the largest norm of the gradient"),
    "gradient_clip_algorithm": ((None,), "set model.gradient_clip_norm, the largest norm of the gradient"),
    "enable_checkpointing": ((None, True), "set checkpoint.save_last to false and checkpoint.save_top_k to 0"),
}
"""Keys of the trainer that options of the kit replace: the values that are allowed, and what to set instead."""


class SavedConfig(SaveConfigCallback):
    """Saves the configuration of a training when it begins: one that is refused changes no file of an earlier run."""

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Save that of any other command."""
        if stage != "fit":
            super().setup(trainer, pl_module, stage)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save that of a training; a checkpoint to resume from has been read by now."""
        super().setup(trainer, pl_module, "fit")


class AnimationCLI(LightningCLI):
    """LightningCLI for :class:`~sfdkit.train.task.AnimationTask` and any data module of frames.

    Args:
        with_networks: Build loss terms with networks of their own for other commands than ``fit`` as well.
    """

    def __init__(self, *args: Any, with_networks: bool = False, **kwargs: Any) -> None:
        self.with_networks = with_networks
        super().__init__(*args, **kwargs)

    @classmethod
    def launch(
        cls, args: Sequence[str], run: bool = True, prog: str = "sfdkit", with_networks: bool = False
    ) -> AnimationCLI:
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
            save_config_callback=SavedConfig,
            save_config_kwargs={"overwrite": True},
            trainer_defaults={"callbacks": [TrainingStatistics(), RandomState(), DataReport()]},
            auto_configure_optimizers=False,
            with_networks=with_networks,
        )

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Return the commands, each with the arguments that are not the command line's."""
        commands = LightningCLI.subcommands()
        return {**commands, "predict": commands["predict"] | {"return_predictions"}}

    def setup_parser(self, add_subcommands: bool, *kwargs: Any) -> None:
        """Set the parser up; one without a command also takes the keys that a saved config has of its command."""
        super().setup_parser(add_subcommands, *kwargs)
        if not add_subcommands:
            for key, kind in (("ckpt_path", str), ("weights_only", bool)):
                self.parser.add_argument(f"--{key}", type=kind | None, help="Without effect here.")

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the callbacks that a config can set, and the links between data and model."""
        parser.add_argument(
            f"--{COMPOSE}", type=list[str] | None, default=None, help="Files that a config is laid over."
        )
        parser.add_lightning_class_args(WeightEMA, "ema")
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
        """Check the trainer's keys and the checkpoint, and drop ``compose``: the saved config holds all files' content.

        Raises:
            ConfigError: A key of the trainer that the kit replaces.
            CheckpointError: ``ckpt_path`` is no checkpoint of sfdkit.
        """
        config = self.config[self.subcommand] if self.subcommand else self.config
        config[COMPOSE] = None
        for key, (allowed, instead) in REPLACED_TRAINER_KEYS.items():
            if (value := config.trainer.get(key)) not in allowed:
                raise ConfigError(f"trainer.{key} {value} cannot be used here; {instead}")
        if config.trainer.get("check_val_every_n_epoch") == 0:
            raise ConfigError(
                "trainer.check_val_every_n_epoch is 0; for no validation set trainer.limit_val_batches to 0"
            )
        path = config.get("ckpt_path")
        if path is not None and path not in WORDS:
            _check_checkpoint(str(path))
        if self.subcommand != "fit":
            _leave_out_downloads(config, self.with_networks)
        if self.subcommand not in (None, "fit"):
            self.save_config_kwargs["config_filename"] = f"config_{self.subcommand}.yaml"  # config.yaml is the fit's
            if not path and rank_zero_only.rank == 0:  # type: ignore[attr-defined]
                print(f"no --ckpt_path: {self.subcommand} uses randomly initialised weights", file=sys.stderr)

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        """Build the trainer, with the kit's progress bar unless ``trainer.enable_progress_bar`` is off.

        Checkpoints are written by :class:`~sfdkit.train.callbacks.AtomicCheckpointIO` unless ``trainer.plugins`` names
        another.
        """
        plugins = self._get(self.config_init, "trainer.plugins") or []
        plugins = plugins if isinstance(plugins, list) else [plugins]
        if not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
            kwargs["plugins"] = [*plugins, AtomicCheckpointIO()]
        if self._get(self.config_init, "trainer.enable_progress_bar") is not False:
            self.trainer_defaults["callbacks"].append(TrainingProgress())
        if self._get(self.config_init, "trainer.enable_model_summary") is None:
            self.trainer_defaults["callbacks"].append(RunSummary())
            kwargs["enable_model_summary"] = False
        return super().instantiate_trainer(**kwargs)

    def instantiate_classes(self) -> None:
        """Build everything, and give the task the animator's configuration, which its checkpoints store."""
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
        """Check what would otherwise fail after the training has begun.

        Raises:
            ConfigError: A wrong argument of an optimiser, or folders of an earlier training.
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
        new = self._get(self.config, "ckpt_path") is None and not resumes
        if new and not self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            _refuse_old_config(self.trainer.log_dir, self._get(self.config, "checkpoint.dirpath"))

    def predict(self, **kwargs: Any) -> None:
        """Run ``Trainer.predict`` without keeping the results, which the callback writes."""
        self.trainer.predict(**kwargs, return_predictions=False)

    def _parse_ckpt_path(self) -> None:
        """Keep the configuration as given: Lightning would override it with a checkpoint's hyperparameters."""


def _refuse_old_config(logs: str | None, checkpoints: str | None) -> None:
    """Refuse to write over the config.yaml of another training, whose checkpoints lie elsewhere.

    Raises:
        ConfigError: There is one.
    """
    path = Path(logs or "") / "config.yaml"
    if logs is None or checkpoints is None or not path.is_file():
        return
    other = (read_config(path).get("checkpoint") or {}).get("dirpath")
    if other and any(Path(other).glob("*.ckpt")) and Path(other).resolve() != Path(checkpoints).resolve():
        raise ConfigError(
            f"{path} belongs to the checkpoints in {other}, and this training would write over it; name its folder as "
            "well: --trainer.logger.init_args.name NAME"
        )


def run(args: Sequence[str]) -> None:
    """Run ``fit``, ``validate``, ``test`` or ``predict`` with the command line's arguments, the subcommand first.

    Raises:
        SfdkitError: A part of the experiment cannot be built or run.
    """
    _want_config(f"sfdkit {args[0]}", args[1:])
    _launch(expand_arguments(args))


def _want_config(command: str, args: Sequence[str]) -> None:
    """Raise an error without ``--config``, which is clearer than the parser's about missing keys."""
    helps = ("-h", "--help", "--help_all", "--print_config")
    names = [word.partition("=")[0] for word in args]
    if any(n in (*OPTIONS, *helps) or n.endswith(".help") or n.startswith("--model.animator") for n in names):
        return
    file = next((word for word in args if word.endswith((".yaml", ".yml"))), "experiments/quickstart.yaml")
    raise ConfigError(f"{command} needs a configuration, for example: {command} --config {file}")


def _launch(args: Sequence[str], run: bool = True, prog: str = "sfdkit", with_networks: bool = False) -> AnimationCLI:
    """Build the experiment and, with ``run``, run it.

    Raises:
        SfdkitError: A part of the experiment, or Lightning, cannot be built or run.
        SystemExit: SIGTERM ended a training; with status 143, where Lightning's would be 0.
    """
    try:
        with one_line_errors():
            return AnimationCLI.launch(args, run, prog, with_networks)
    except SIGTERMException:
        raise SystemExit(128 + signal.SIGTERM) from None


def build(args: Sequence[str], prog: str = "sfdkit fit", with_networks: bool = False) -> AnimationCLI:
    """Build the experiment of ``--config`` files and overrides without running it.

    Args:
        args: As on the command line, without a command.
        prog: Name of the command in messages.
        with_networks: Build loss terms with networks of their own as well, which are left out otherwise.

    Raises:
        SfdkitError: A part of the experiment cannot be built or run.
    """
    return _launch(expand_arguments(args), run=False, prog=prog, with_networks=with_networks)


def untrained_animator(args: Sequence[str], prog: str) -> FaceAnimator:
    """Return the animator that ``--config`` files and overrides describe, with random weights, on the CPU.

    Raises:
        SfdkitError: A part of the experiment cannot be built or run.
    """
    _want_config(prog, args)
    trainer = dict(accelerator="cpu", devices=1, num_nodes=1, strategy="auto", precision="32-true", logger="false")
    cli = build([*args, *(f"--trainer.{key}={value}" for key, value in trainer.items())], prog)
    assert isinstance(cli.model, AnimationTask)
    return cli.model.animator


def summary(args: Sequence[str]) -> None:
    """Print parameters and multiply-accumulates of the model that ``--config`` files and overrides describe.

    Raises:
        SfdkitError: A part of the experiment cannot be built or run.
    """
    print(summary_table(untrained_animator(args, "sfdkit model summary")))


def _leave_out_downloads(config: Namespace, with_networks: bool) -> None:
    """Remove what only training needs: pretrained weights and, unless asked for, loss terms with networks."""
    for key in tuple(config.keys()):
        if key.endswith(".init_args.pretrained"):
            config[key] = False
    for name in () if with_networks else set(OF_NETWORKS) & set(config.model.weights):
        config.model.weights[name] = 0.0


def _check_checkpoint(path: str) -> None:
    """Check a checkpoint before anything is built; a remote one only for its existence.

    Raises:
        CheckpointError: There is no such file, or it is no checkpoint of sfdkit.
    """
    if Path(path).suffix.lower() == SUFFIX or (path in shipped_weights() and not Path(path).is_file()):
        raise CheckpointError(
            f"ckpt_path: {path} holds an animator alone and no training that could go on; begin one with "
            f"--model.start_from {path}, measure it with sfdkit evaluate --checkpoint {path}"
        )
    if "://" not in path:
        read_checkpoint(Path(path), mmap=True)
        return
    try:
        there = get_filesystem(path).isfile(path)
    except Exception as error:  # each kind of storage has its own
        raise CheckpointError(f"checkpoint {redact(path)} cannot be read: {' '.join(str(error).split())}") from error
    if not there:
        raise CheckpointError(f"checkpoint {redact(path)} does not exist; give a file that sfdkit fit wrote")
