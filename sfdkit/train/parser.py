"""The parser of ``sfdkit fit`` and its relatives, and Lightning's trainer as it parses it."""

from __future__ import annotations

import argparse
from datetime import timedelta
from typing import Any

import lightning as L
from lightning.pytorch.cli import LightningArgumentParser

from sfdkit.config.help import HelpAll, key_lines
from sfdkit.config.parser import OneLineParser

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
"""Keys of the trainer in the short help."""


class Trainer(L.Trainer):
    """Lightning's trainer, with ``int`` before ``float`` where a number or a fraction of batches can be given.

    The parser takes the first type of a union that fits. The order in Lightning's signature depends on which unions
    Python has cached before, so that ``limit_val_batches: 1``, one batch, could become ``1.0``, all of them.

    Args:
        limit_train_batches: Batches of an epoch of training, an integer, or a fraction of them, 0.0 to 1.0.
        limit_val_batches: Batches of a validation, an integer, or a fraction of them, 0.0 to 1.0.
        limit_test_batches: Batches of a test, an integer, or a fraction of them, 0.0 to 1.0.
        limit_predict_batches: Batches that are rendered, an integer, or a fraction of them, 0.0 to 1.0.
        overfit_batches: Train on this many batches only, or this fraction of them; 0.0 for all.
        val_check_interval: Batches from one validation to the next, a fraction of an epoch, or a time (DD:HH:MM:SS).
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
    """Parser of fit, validate, test and predict: its help shows the kit's keys and the common ones of the trainer."""

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
                *([f"   or: {name} --checkpoint C"] if name == "sfdkit model summary" else []),
                "",
                "A later --config or --KEY has the last word; null unsets a value. The keys, with their defaults:",
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
