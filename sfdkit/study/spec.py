"""The file ``study.yaml``: what a study runs and what its report shows.

base: [../../puppets64.yaml]             # files below every run, relative to study.yaml
overrides: {trainer.max_steps: 600}      # dotted options of ``sfdkit fit`` for every run: the budget of the study
seeds: [1, 2, 3]
validations: 10                          # validations spread over a training; left out: as the files say
checkpoint_every: 100                    # steps; a run that is cut off goes on from the last one
runs:
  full: {title: the whole method}
  no_leakage: {title: without the leakage term, configs: [overlay.yaml], overrides: {model.weights.leakage: 0}}
grid: {model.optimizer.init_args.lr: [1.0e-3, 2.0e-3]}   # more runs, one for each combination, named by value
evaluate: {shards: shards/puppets64/test, frames: 4}      # options of ``sfdkit evaluate``
reference: full                          # the others are compared with it; left out: the first run
metrics: [cross/psnr, {key: cross/l1, label: L1 to the truth, direction: lower}]
curves: [val/psnr]                       # scalars of the training that are drawn
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from sfdkit.config.compose import composed_files
from sfdkit.config.renamed import rename_config
from sfdkit.errors import ConfigError, did_you_mean

FILE = "study.yaml"
Direction = Literal["higher", "lower"]

_KEYS = (
    "title",
    "base",
    "overrides",
    "seeds",
    "validations",
    "checkpoint_every",
    "runs",
    "grid",
    "evaluate",
    "reference",
    "metrics",
    "curves",
)
_RUN_KEYS = ("title", "configs", "overrides")
_METRIC_KEYS = ("key", "label", "direction")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
_OPTION = re.compile(r"[A-Za-z_]\w*(\.\w+)*")
_OURS = {
    "config": "name files under base, or under configs of a run",
    "seed_everything": "give seeds",
    "data.init_args.seed": "give seeds",
    "ckpt_path": "a run that was cut off goes on by itself",
    "trainer.default_root_dir": "give --output",
    "trainer.logger": "its logs go below --output",
    "trainer.enable_progress_bar": "sfdkit study run shows the progress",
    "checkpoint": "give checkpoint_every",
    "trainer.val_check_interval": "give validations",
    "trainer.check_val_every_n_epoch": "give validations",
}
"""Options that a study sets itself, and what to do instead."""


@dataclass(frozen=True)
class Run:
    """One variant."""

    name: str
    title: str
    files: tuple[Path, ...]
    """Configuration files, the base first."""
    overrides: dict[str, Any]
    """Dotted options of ``sfdkit fit``; those of the study included."""


@dataclass(frozen=True)
class Column:
    """A metric of the report's table."""

    key: str
    label: str
    direction: Direction | None
    """Which way is better; None where that is no question."""


@dataclass(frozen=True)
class Study:
    """What a study's file says."""

    path: Path
    name: str
    title: str
    seeds: tuple[int, ...]
    validations: int | None
    checkpoint_every: int
    runs: tuple[Run, ...]
    evaluate: dict[str, Any]
    reference: str
    columns: tuple[Column, ...]
    curves: tuple[str, ...]


class _Loader(yaml.SafeLoader):
    """Refuses a key that is given twice; plain YAML takes the last without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Any] = set()
        for key, _ in node.value:
            name = self.construct_object(key, deep=True)
            if isinstance(name, Hashable) and name in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{name!r} is there twice, rename or remove one", key.start_mark
                )
            seen.add(name)
        return super().construct_mapping(node, deep)


def load_study(folder: str | Path) -> Study:
    """Read ``study.yaml`` of a folder.

    Args:
        folder: The study's folder, or the file itself.

    Raises:
        ConfigError: The file or one that it names is missing or no YAML, or a key is unknown, missing, or holds what
            cannot work; the message names file, key and remedy.
    """
    given = Path(folder)
    path = given if given.is_file() else given / FILE
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except OSError as error:
        raise ConfigError(f"study {path} cannot be read: {error.strerror}; give a folder with {FILE}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is no YAML: {' '.join(str(error).split())}") from error
    return _Reader(path).study(content)


class _Reader:
    """Checks the content of one file; every message begins with its name."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def study(self, content: Any) -> Study:
        given = self.mapping(content, "the file", _KEYS)
        for needed in ("base", "seeds", "evaluate", "metrics"):
            if needed not in given:
                raise self.error(needed, "is missing; see experiments/README.md for an example")
        overrides = self.overrides(given.get("overrides"), "overrides")
        base = self.files(given["base"], "base")
        runs = [self.run(name, value, base, overrides) for name, value in self.runs(given.get("runs")).items()]
        runs += self.grid(given.get("grid"), base, overrides)
        if not runs:
            raise self.error("runs", "is empty; name at least one run, or give a grid")
        names = [run.name for run in runs]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise self.error("grid", f"the name {twice[0]!r} is given to two runs; rename the one under runs")
        reference = given.get("reference", names[0])
        if reference not in names:
            raise self.error(
                "reference",
                f"there is no run {reference!r}.{did_you_mean(str(reference), names)} The runs are {', '.join(names)}",
            )
        validations = given.get("validations")
        folder = self.path.resolve().parent.name
        return Study(
            path=self.path,
            name=folder,
            title=self.text(given.get("title", folder), "title"),
            seeds=self.seeds(given["seeds"]),
            validations=None if validations is None else self.number(validations, "validations"),
            checkpoint_every=self.number(given.get("checkpoint_every", 100), "checkpoint_every"),
            runs=tuple(runs),
            evaluate=self.evaluate(given["evaluate"]),
            reference=str(reference),
            columns=self.columns(given["metrics"]),
            curves=tuple(self.texts(given.get("curves", ["val/psnr"]), "curves")),
        )

    def error(self, key: str, words: str) -> ConfigError:
        return ConfigError(f"{self.path}: {key}: {words}")

    def mapping(self, value: Any, key: str, known: Sequence[str] | None = None) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise self.error(key, f"must be a mapping, it is {_shown(value)}")
        for name in value:
            if not isinstance(name, str):
                raise self.error(key, f"the name {name!r} is no text; put it into quotes")
            if known is not None and name not in known:
                raise self.error(
                    key, f"there is no key {name!r}.{did_you_mean(name, known)} The keys are {', '.join(known)}"
                )
        return value

    def text(self, value: Any, key: str) -> str:
        if not isinstance(value, str) or not value:
            raise self.error(key, f"must be a text, it is {_shown(value)}")
        return value

    def texts(self, value: Any, key: str) -> list[str]:
        if not isinstance(value, list):
            raise self.error(key, f"must be a list, it is {_shown(value)}")
        return [self.text(item, key) for item in value]

    def number(self, value: Any, key: str) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise self.error(key, f"must be a whole number of at least 1, it is {_shown(value)}")
        return value

    def seeds(self, value: Any) -> tuple[int, ...]:
        good = isinstance(value, list) and all(type(seed) is int and seed >= 0 for seed in value)
        if not good or not value or len(set(value)) != len(value):
            raise self.error("seeds", f"must be a list of different whole numbers, such as [1, 2, 3]; it is {value!r}")
        return tuple(value)

    def files(self, value: Any, key: str) -> tuple[Path, ...]:
        found = []
        for name in self.texts(value, key):
            path = (self.path.parent / name).resolve()
            try:
                composed_files(path)
            except ConfigError as error:
                raise self.error(key, f"{error} (files are relative to {self.path.parent})") from error
            found.append(path)
        return tuple(found)

    def overrides(self, value: Any, key: str) -> dict[str, Any]:
        given = self.mapping({} if value is None else value, key)
        for name in given:
            self.option(name, key)
        return rename_config(self.plain(given, key), f"{self.path}: {key}")

    def plain(self, values: dict[str, Any], key: str) -> dict[str, Any]:
        """Return the values as json gives them back, so that they can be compared with what a file keeps."""
        try:
            return json.loads(json.dumps(values))
        except TypeError as error:
            raise self.error(key, f"{error}; put dates and the like into quotes") from error

    def option(self, name: str, key: str) -> None:
        if not _OPTION.fullmatch(name):
            raise self.error(key, f"{name!r} is no option of sfdkit fit; write it dotted, such as model.weights.l1")
        for ours, instead in _OURS.items():
            if name == ours or name.startswith(ours + "."):
                raise self.error(key, f"{name} is set by the study itself: {instead}")

    def runs(self, value: Any) -> dict[str, Any]:
        return self.mapping({} if value is None else value, "runs")

    def run(self, name: str, value: Any, base: tuple[Path, ...], common: Mapping[str, Any]) -> Run:
        key = f"runs.{name}"
        if not _NAME.fullmatch(name):
            raise self.error(key, "a run's name becomes a folder: letters, digits and . _ + - only")
        given = self.mapping({} if value is None else value, key, _RUN_KEYS)
        return Run(
            name=name,
            title=self.text(given.get("title", name), f"{key}.title"),
            files=base + self.files(given.get("configs", []), f"{key}.configs"),
            overrides={**common, **self.overrides(given.get("overrides"), f"{key}.overrides")},
        )

    def grid(self, value: Any, base: tuple[Path, ...], common: Mapping[str, Any]) -> list[Run]:
        axes = self.overrides(value, "grid")
        if not axes:
            return []
        for name, values in axes.items():
            if not isinstance(values, list) or not values:
                raise self.error(f"grid.{name}", f"must be a list of values, it is {_shown(values)}")
        runs = []
        for combination in itertools.product(*axes.values()):
            chosen = dict(zip(axes, combination, strict=True))
            words = [_value_name(name, value) for name, value in chosen.items()]
            title = ", ".join(f"{name} {_written(value)}" for name, value in chosen.items())
            runs.append(Run("_".join(words), title, base, {**common, **chosen}))
        return runs

    def evaluate(self, value: Any) -> dict[str, Any]:
        given = self.mapping(value, "evaluate")
        if "shards" not in given:
            raise self.error("evaluate", "shards is missing: the folder that every run is measured on")
        for ours in ("checkpoint", "output"):
            if ours in given:
                raise self.error("evaluate", f"{ours} is set by the study itself: leave it out")
        return self.plain(given, "evaluate")

    def direction(self, value: Any, key: str) -> Direction | None:
        if value == "higher":
            return "higher"
        if value == "lower":
            return "lower"
        if value is None:
            return None
        raise self.error("metrics", f"direction of {key} must be higher or lower, it is {value!r}")

    def columns(self, value: Any) -> tuple[Column, ...]:
        if not isinstance(value, list) or not value:
            raise self.error("metrics", f"must be a list of keys of metrics.json, it is {_shown(value)}")
        columns = []
        for item in value:
            given = {"key": item} if isinstance(item, str) else self.mapping(item, "metrics", _METRIC_KEYS)
            key = self.text(given.get("key"), "metrics: key")
            label = self.text(given.get("label", key), f"metrics: label of {key}")
            columns.append(Column(key, label, self.direction(given.get("direction"), key)))
        keys = [column.key for column in columns]
        twice = [key for key in keys if keys.count(key) > 1]
        if twice:
            raise self.error("metrics", f"{twice[0]} is there twice; remove one")
        return tuple(columns)


def _shown(value: Any) -> str:
    return "empty" if value is None else f"{type(value).__name__} {value!r}"


def _written(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("\n").removesuffix("\n...")


def _value_name(name: str, value: Any) -> str:
    """Return a grid value's part of the run's name: ``lr-0.001``, or the text alone."""
    leaf = name.rpartition(".")[2]
    words = value if isinstance(value, str) else f"{leaf}-{_written(value)}"
    return re.sub(r"[^A-Za-z0-9._+-]+", "-", words).strip("-.") or leaf
