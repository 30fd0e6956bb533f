"""Finds what is wrong with a study before it costs time: builds each run's model and looks at the data."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Iterator, Sequence

from jsonargparse import ArgumentError

from sfdkit.config.messages import explain
from sfdkit.config.parser import OneLineParser
from sfdkit.data.shards.index import load_index
from sfdkit.errors import ConfigError, SfdkitError
from sfdkit.evaluate.command import evaluate, require_resolution
from sfdkit.model.summary import gmac_per_driven_frame, parameters
from sfdkit.study.jobs import Job, read_json
from sfdkit.study.spec import Study
from sfdkit.train.command import AnimationCLI, build
from sfdkit.train.task import AnimationTask

_HERE = ("--trainer.accelerator=cpu", "--trainer.devices=1", "--trainer.strategy=auto", "--trainer.precision=32-true")
"""A check may run where the accelerator of the training is not."""


def check_and_list(study: Study, all_jobs: Sequence[Job], jobs: Sequence[Job]) -> None:
    """Check the runs that some jobs belong to, and print a table of all jobs.

    Args:
        study: The study.
        all_jobs: Those to list.
        jobs: Those to check; parameters and billions of multiply-accumulates (GMAC) per driven frame are theirs.

    Raises:
        ConfigError: What the training or the evaluation would refuse.
    """
    costs: dict[str, str] = {}
    problems: dict[str, str] = {}
    if jobs:
        check_evaluation(study, jobs[0])
    for job in {job.run: job for job in jobs}.values():
        try:
            experiment = build_run(job)
            assert isinstance(experiment.model, AnimationTask)
            animator = experiment.model.animator
            costs[job.run] = f"{parameters(animator):12,}{gmac_per_driven_frame(animator):8.3f}"
            splits = ("train", "validation") if experiment.trainer.limit_val_batches else ("train",)
            for split in splits if hasattr(experiment.datamodule, "shards") else ():
                experiment.datamodule.shards(split)  # raises where they are missing, damaged, or of another kind
            shards = study.evaluate["shards"]
            require_resolution(animator, load_index(shards), f"run {job.run!r}", shards)
        except SfdkitError as error:
            problems[job.run] = f"{study.path}: run {job.run!r}: {error}"
    width = max(len(name) for name in study.runs)
    print(f"{study.title}: {len(study.runs)} runs x {len(study.seeds)} seeds")
    print(f"{'run':{width}}  {'seed':>4}  {'state':8}{'parameters':>12}{'GMAC':>8}  title")
    for job in all_jobs:
        state: str = job.state()
        if state == "interrupted":
            state = f"at {read_json(job.folder / 'progress.json').get('step', '?')}"
        print(
            f"{job.run:{width}}  {job.seed:4}  {state:8}{costs.get(job.run, ''):20}  {study.runs[job.run].title}",
            flush=True,
        )
    if problems:
        first, *others = problems
        raise ConfigError(problems[first] + (f" (and another problem: {', '.join(others)})" if others else ""))


def check_evaluation(study: Study, job: Job) -> None:
    """Check the options under ``evaluate``.

    Raises:
        ConfigError: ``sfdkit evaluate`` has no such option, or it does not take the value.
    """
    parser = OneLineParser(exit_on_error=False, prog="sfdkit evaluate")
    parser.add_function_arguments(evaluate)
    try:
        parser.parse_args(job.evaluate_arguments())
    except ArgumentError as error:
        raise ConfigError(f"{study.path}: evaluate: {explain(str(error), parser)}") from error


def build_run(job: Job) -> AnimationCLI:
    """Build a job's experiment as its training will.

    Raises:
        ConfigError: What the training would say.
    """
    output = io.StringIO()
    try:
        with _quiet(output):
            return build([*job.fit_arguments(), *_HERE])
    except SystemExit as error:
        said = " ".join(output.getvalue().split())
        raise ConfigError(said.partition("error: ")[2] or said or "its options cannot be parsed") from error


@contextlib.contextmanager
def _quiet(output: io.StringIO) -> Iterator[None]:
    """Keep what a build prints and logs from the screen, and leave the environment as it was."""
    environment = dict(os.environ)
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(output), contextlib.redirect_stdout(output):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)
        for name in set(os.environ) - set(environment):
            del os.environ[name]
