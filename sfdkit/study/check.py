"""Finds what is wrong with a study before it costs time: builds each run's model and looks at the data."""

from __future__ import annotations

import contextlib
import inspect
import io
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from jsonargparse import ArgumentError, ArgumentParser

from sfdkit.data.shards.index import load_index
from sfdkit.errors import ConfigError, SfdkitError, did_you_mean
from sfdkit.evaluate.command import evaluate
from sfdkit.model.summary import gmac_per_driven_frame, parameters
from sfdkit.study.jobs import Job
from sfdkit.study.spec import Study
from sfdkit.train.command import build
from sfdkit.train.task import AnimationTask

_HERE = ("--trainer.accelerator=cpu", "--trainer.devices=1", "--trainer.strategy=auto", "--trainer.precision=32-true")
"""A check may run where the accelerator of the training is not."""


@dataclass(frozen=True)
class Cost:
    """What a run's model is."""

    parameters: int
    gmac: float
    """Billions of multiply-accumulates per driven frame."""


def check_evaluation(study: Study, job: Job) -> None:
    """Check the options under ``evaluate``.

    Args:
        study: The study.
        job: Any job of it.

    Raises:
        ConfigError: ``sfdkit evaluate`` has no such option, or it does not take the value.
    """
    known = [name for name in inspect.signature(evaluate).parameters if name not in ("checkpoint", "output")]
    for name in study.evaluate:
        if name.partition(".")[0] not in known:
            raise ConfigError(
                f"{study.path}: evaluate: there is no option {name!r}.{did_you_mean(name, known)} "
                f"The options are {', '.join(known)}"
            )
    parser = ArgumentParser(exit_on_error=False)
    parser.add_function_arguments(evaluate)
    try:
        parser.parse_args(job.evaluate_arguments())
    except (ArgumentError, TypeError, ValueError) as error:
        raise ConfigError(f"{study.path}: evaluate: {_one_line(str(error))}") from error


def check_run(study: Study, job: Job) -> tuple[Cost, Any]:
    """Build a run's experiment as its training will.

    Args:
        study: The study, for messages.
        job: Any job of the run.

    Returns:
        What the model costs, and the data module.

    Raises:
        ConfigError: What the training would say, with the run's name.
    """
    output = io.StringIO()
    try:
        with _quiet(output):
            experiment = build([*job.fit_arguments(), *_HERE])
    except SfdkitError as error:
        raise ConfigError(f"{study.path}: run {job.run!r}: {error}") from error
    except SystemExit as error:
        raise ConfigError(f"{study.path}: run {job.run!r}: {_parser_message(output.getvalue())}") from error
    assert isinstance(experiment.model, AnimationTask)
    animator = experiment.model.animator
    return Cost(parameters(animator), gmac_per_driven_frame(animator)), experiment.datamodule


def check_data(study: Study, job: Job, module: Any) -> None:
    """Look for the shards that a run trains with, validates with, and is measured on.

    Raises:
        ConfigError: They are missing, damaged, or of another kind.
    """
    try:
        if hasattr(module, "shards"):
            for split in ("train", "validation"):
                module.shards(split)
        load_index(study.evaluate["shards"])
    except SfdkitError as error:
        raise ConfigError(f"{study.path}: run {job.run!r}: {error}") from error


def first_jobs(jobs: Sequence[Job]) -> list[Job]:
    """Return the first job of each run."""
    return list({job.run: job for job in reversed(jobs)}.values())[::-1]


@contextlib.contextmanager
def _quiet(output: io.StringIO) -> Iterator[None]:
    """Keep what a build prints to the screen, and the random state and environment as they were."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    environment = dict(os.environ)
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(output), contextlib.redirect_stdout(output):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        for name in set(os.environ) - set(environment):
            del os.environ[name]


def _parser_message(text: str) -> str:
    """Return what the parser complains of, without its usage."""
    _, found, message = text.partition("error: ")
    return _one_line(message if found else text) or "its options cannot be parsed"


def _one_line(text: str) -> str:
    return " ".join(text.split())[:600]
