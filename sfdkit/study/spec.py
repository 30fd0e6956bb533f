"""Reads ``study.yaml``: the runs of a study, its seeds, and what its report shows."""

from __future__ import annotations

import inspect
import itertools
import re
from collections.abc import Container, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from jsonargparse import ArgumentError
from jsonargparse.typing import NonNegativeInt, PositiveInt

from sfdkit.config.compose import UniqueKeyLoader, composed_files
from sfdkit.config.messages import explain
from sfdkit.config.parser import OneLineParser
from sfdkit.config.renamed import rename_config
from sfdkit.config.shipped import shipped_experiments
from sfdkit.errors import ConfigError, did_you_mean

FILE = "study.yaml"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
_OPTION = re.compile(r"[A-Za-z_]\w*(\.\w+)*")
_OURS = {
    "config": "name files under base, or under configs of a run",
    "seed_everything": "give seeds",
    "data.init_args.seed": "give seeds",
    "ckpt_path": "a run that was cut off resumes by itself",
    "trainer.default_root_dir": "give --output",
    "trainer.logger": "its logs go below --output",
    "trainer.enable_progress_bar": "the output of a run goes to its log.txt",
    "checkpoint": "give checkpoint_every",
    "trainer.val_check_interval": "give validations",
    "trainer.check_val_every_n_epoch": "give validations",
}
"""Options of ``sfdkit fit`` that a study sets itself, and what to do instead."""


@dataclass
class Run:
    """One variant of the experiment."""

    title: str = ""  # the name by default
    configs: list[str] = field(default_factory=list)  # configuration files over the study's, relative to study.yaml
    overrides: dict = field(default_factory=dict)  # dotted options of sfdkit fit, over those of the study


@dataclass
class Column:
    """A metric of the report's table."""

    key: str  # of metrics.json
    label: str = ""  # head of the column; the key by default
    direction: Literal["higher", "lower"] | None = None  # which way is better; None if the metric is only shown


@dataclass
class Study:
    """The keys of ``study.yaml``; experiments/README.md shows each of them."""

    base: list[str]  # configuration files below every run, relative to study.yaml
    seeds: list[NonNegativeInt]  # type: ignore[valid-type]
    evaluate: dict  # options of sfdkit evaluate
    metrics: list[Column]
    title: str = ""  # the folder's name by default
    overrides: dict = field(default_factory=dict)  # dotted options of sfdkit fit for every run
    validations: NonNegativeInt = 0  # type: ignore[valid-type]  # of each training; 0: as the files say
    checkpoint_every: PositiveInt = 100  # type: ignore[valid-type]  # steps
    runs: dict[str, Run] = field(default_factory=dict)  # those of the grid included
    grid: dict = field(default_factory=dict)  # dotted option to its values: a run for each combination
    reference: str = ""  # the run that the others are compared with; the first by default
    curves: list[str] = field(default_factory=lambda: ["val/psnr"])  # scalars of the training to draw
    scatter: list[list[str]] = field(default_factory=list)  # pairs of metrics, to draw the second against the first
    path: Path = field(init=False)  # of the file

    @property
    def name(self) -> str:
        """Name of the study's folder."""
        return self.path.resolve().parent.name

    def files(self, names: Iterable[str], key: str = "base") -> list[Path]:
        """Return configuration files with those that they are composed of, in the order in which they are laid.

        Args:
            names: As ``study.yaml`` names them.
            key: Where it does, for messages.

        Raises:
            ConfigError: One is missing or no YAML.
        """
        try:
            return [part for name in names for part in composed_files((self.path.parent / name).resolve())]
        except ConfigError as error:
            raise ConfigError(f"{key}: {error} (files are relative to {self.path.parent})") from error


_Keys = TypeVar("_Keys", Study, Run, Column)


class _Loader(UniqueKeyLoader):
    """Refuses a key that is no text besides; dates are text."""

    def problem(self, name: Any, seen: Container[Any]) -> str | None:
        """Return what is wrong with a key after those ``seen`` before it in the same mapping."""
        return super().problem(name, seen) if isinstance(name, str) else "is a name and no text; put it into quotes"


_Loader.add_constructor("tag:yaml.org,2002:timestamp", yaml.SafeLoader.construct_yaml_str)


def load_study(folder: str | Path) -> Study:
    """Read ``study.yaml`` of a folder.

    Args:
        folder: The study's folder, or the file itself; a shipped study is found by its name from any folder.

    Raises:
        ConfigError: The file or one that it names is missing or no YAML, or a key is unknown, missing, or holds what
            cannot work; the message names file, key and remedy.
    """
    given = Path(folder)
    path = given if given.is_file() else given / FILE
    if not given.exists() and (shipped := shipped_experiments() / "studies" / given.name / FILE).is_file():
        path = shipped
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except OSError as error:
        raise ConfigError(f"study {path} cannot be read: {error.strerror}; give a folder with {FILE}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is no YAML: {' '.join(str(error).split())}") from error
    try:
        study = _study(content)
        study.path = path
        _complete(study)
        _check(study)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    return study


def _study(content: Any) -> Study:
    given = _known(Study, content)
    runs, metrics = given.pop("runs", {}), given.pop("metrics")
    if not isinstance(runs, dict):
        raise ConfigError(f"runs: must be a mapping, it is {runs!r}")
    if not isinstance(metrics, list) or not metrics:
        raise ConfigError(f"metrics: must be a list of keys of metrics.json, it is {metrics!r}")
    runs = {name: _read(Run, {} if run is None else run, f"runs.{name}") for name, run in runs.items()}
    metrics = [_read(Column, {"key": item} if isinstance(item, str) else item, "metrics") for item in metrics]
    return _typed(Study, given, runs=runs, metrics=metrics)


def _read(kind: type[_Keys], value: Any, key: str) -> _Keys:
    try:
        return _typed(kind, _known(kind, value))
    except ConfigError as error:
        raise ConfigError(f"{key}: {error}") from error


def _known(kind: type[_Keys], value: Any) -> dict[str, Any]:
    """Return the keys of a mapping that have a value; refuse one that the dataclass has not, or the lack of one."""
    if not isinstance(value, dict):
        raise ConfigError(f"must be a mapping, it is {value!r}")
    known = inspect.signature(kind).parameters
    for name in value:
        if name not in known:
            hint = did_you_mean(name, known)
            raise ConfigError(f"there is no key {name!r}.{hint} The keys are {', '.join(known)}")
    given = {name: content for name, content in value.items() if content is not None}
    if missing := [name for name, one in known.items() if one.default is one.empty and name not in given]:
        raise ConfigError(f"{missing[0]}: is missing; see experiments/README.md for an example")
    return given


def _typed(kind: type[_Keys], given: dict[str, Any], **parsed: Any) -> _Keys:
    """Return the dataclass that keys describe, some of which are parsed already; refuse values of another type."""
    parser = OneLineParser(exit_on_error=False)
    parser.add_class_arguments(kind, skip=set(parsed))
    try:
        return kind(**parser.parse_object(given).as_dict(), **parsed)
    except ArgumentError as error:
        raise ConfigError(explain(str(error), parser)) from error


def _complete(study: Study) -> None:
    """Fill in titles, labels, the reference and the runs of the grid, and give options their present names."""
    study.overrides = rename_config(study.overrides, f"{study.path}: overrides")
    study.grid = rename_config(study.grid, f"{study.path}: grid")
    study.title = study.title or study.name
    for name, run in study.runs.items():
        run.title = run.title or name
        run.overrides = rename_config(run.overrides, f"{study.path}: runs.{name}.overrides")
    for column in study.metrics:
        column.label = column.label or column.key
    _check_overrides(study.grid, "grid")
    for option, values in study.grid.items():
        if not isinstance(values, list) or not values:
            raise ConfigError(f"grid.{option}: must be a list of values, it is {values!r}")
    for values in itertools.product(*study.grid.values()) if study.grid else ():
        chosen = dict(zip(study.grid, values, strict=True))
        name = "_".join(_value_name(option, value) for option, value in chosen.items())
        if name in study.runs:
            raise ConfigError(f"grid: the name {name!r} is given to two runs; rename the one under runs")
        title = ", ".join(f"{option} {_written(value)}" for option, value in chosen.items())
        study.runs[name] = Run(title, overrides=chosen)
    if not study.runs:
        raise ConfigError("runs: is empty; name at least one run, or give a grid")
    study.reference = study.reference or next(iter(study.runs))


def _check(study: Study) -> None:
    """Refuse what the types allow and cannot work."""
    seeds, keys = study.seeds, [column.key for column in study.metrics]
    if not seeds or len(set(seeds)) != len(seeds):
        raise ConfigError(f"seeds: must be a list of different whole numbers, such as [1, 2, 3]; it is {seeds}")
    _check_overrides(study.overrides, "overrides")
    study.files(study.base)
    for name, run in study.runs.items():
        if not _NAME.fullmatch(name):
            raise ConfigError(f"runs.{name}: a run's name becomes a folder: letters, digits and . _ + - only")
        _check_overrides(run.overrides, f"runs.{name}.overrides")
        study.files(run.configs, f"runs.{name}.configs")
    if "shards" not in study.evaluate:
        raise ConfigError("evaluate: shards is missing: the folder that every run is measured on")
    if ours := {"checkpoint", "output"} & set(study.evaluate):
        raise ConfigError(f"evaluate: {ours.pop()} is set by the study itself: leave it out")
    if study.reference not in study.runs:
        hint, names = did_you_mean(study.reference, study.runs), ", ".join(study.runs)
        raise ConfigError(f"reference: there is no run {study.reference!r}.{hint} The runs are {names}")
    for pair in study.scatter:
        if len(pair) != 2 or (unknown := [key for key in pair if key not in keys]):
            what = f"{unknown[0]} is none of the metrics" if len(pair) == 2 else "two metrics are wanted"
            raise ConfigError(f"scatter: {pair}: {what}; name two keys that stand under metrics, across and up")
    if twice := {key for key in keys if keys.count(key) > 1}:
        raise ConfigError(f"metrics: {twice.pop()} is there twice; remove one")


def _check_overrides(options: Iterable[str], key: str) -> None:
    for name in options:
        if not _OPTION.fullmatch(name):
            raise ConfigError(f"{key}: {name!r} is no option of sfdkit fit; write it dotted, such as model.weights.l1")
        for ours, instead in _OURS.items():
            if name == ours or name.startswith(ours + "."):
                raise ConfigError(f"{key}: {name} is set by the study itself: {instead}")


def _written(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("\n").removesuffix("\n...")


def _value_name(option: str, value: Any) -> str:
    """Return a grid value's part of the run's name: ``lr-0.001``, or a text alone."""
    leaf = option.rpartition(".")[2]
    words = value if isinstance(value, str) else f"{leaf}-{_written(value)}"
    return re.sub(r"[^A-Za-z0-9._+-]+", "-", words).strip("-.") or leaf
