"""The jobs of a study, one for each run and seed: their commands, their folders, and how far each has come.

A job's folder ``OUTPUT/RUN/seedS``, in the order of its life:

    lock               held by whoever works on it, and by the commands that it started
    status.json        who works on it, and on what
    definition.json    what is trained, written before the training begins
    log.txt            all output of its commands
    logs/              TensorBoard's events, config.yaml, data_report.json
    progress.json      step, loss, time left
    checkpoints/last.ckpt
    trained.json       the training ended well
    metrics.json, sheet.png
    done.json          the definition again: all is there
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sfdkit import __version__
from sfdkit.config.compose import composed_files, read_config
from sfdkit.config.renamed import rename_config
from sfdkit.errors import ConfigError
from sfdkit.study.spec import Run, Study

State = Literal["new", "cut", "trained", "done", "changed"]

LOCK = "lock"
_ABSENT = object()


@dataclass(frozen=True)
class Job:
    """One training with its evaluation."""

    index: int
    """Number in the study, from 0; the index of a cluster's array task."""
    run: str
    seed: int
    folder: Path
    """Absolute."""
    training: dict[str, Any]
    """What decides the weights: files by content, options, seed, version."""
    evaluation: dict[str, Any]
    """What decides the figures besides."""
    arguments: tuple[str, ...]
    """Of ``sfdkit fit``, without those that name the folder."""
    checkpoint_every: int

    @property
    def name(self) -> str:
        """Run and seed, for messages."""
        return f"{self.run} seed {self.seed}"

    @property
    def checkpoint(self) -> Path:
        """The last checkpoint."""
        return self.folder / "checkpoints/last.ckpt"

    @property
    def log(self) -> Path:
        """The output of the commands."""
        return self.folder / "log.txt"

    def fit_arguments(self) -> list[str]:
        """Return all arguments of ``sfdkit fit`` but the checkpoint to go on from."""
        logger = "--trainer.logger"
        return [
            *self.arguments,
            "--trainer.enable_progress_bar=false",
            f"--trainer.default_root_dir={self.folder}",
            f"{logger}=lightning.pytorch.loggers.TensorBoardLogger",
            f"{logger}.init_args.save_dir={self.folder}",
            f"{logger}.init_args.name=logs",
            f"{logger}.init_args.version=",
            f"--checkpoint.dirpath={self.checkpoint.parent}",
            f"--checkpoint.every_n_train_steps={self.checkpoint_every}",
            "--checkpoint.save_top_k=0",  # last.ckpt alone
            "--trainer.callbacks+=sfdkit.train.callbacks.ProgressFile",
            f"--trainer.callbacks.path={self.folder / 'progress.json'}",
        ]

    def evaluate_arguments(self) -> list[str]:
        """Return the arguments of ``sfdkit evaluate``."""
        options = [f"--{name}={_text(value)}" for name, value in self.evaluation["evaluate"].items()]
        return [f"--checkpoint={self.checkpoint}", f"--output={self.folder}", *options]

    @property
    def definition(self) -> dict[str, Any]:
        """What ``definition.json`` and ``done.json`` hold."""
        return {
            "training": self.training,
            "evaluation": self.evaluation,
            "fingerprint": fingerprint(self.training, self.evaluation),
        }

    def state(self) -> State:
        """Return how far the folder's files say that the job is.

        ``new``: nothing that could be used. ``cut``: a training of this definition that has a checkpoint and no end.
        ``trained``: its evaluation is missing. ``changed``: it was finished under another definition.
        """
        done = read_json(self.folder / "done.json")
        if done is not None:
            return "done" if done.get("fingerprint") == self.definition["fingerprint"] else "changed"
        if not self._begun():
            return "new"
        if not self.checkpoint.exists():
            return "new"
        return "trained" if self._trained() else "cut"

    def _begun(self) -> bool:
        """Whether the folder holds a training of this very definition."""
        return (read_json(self.folder / "definition.json") or {}).get("training") == self.training

    def _trained(self) -> bool:
        return (self.folder / "trained.json").exists()

    def changes(self) -> list[str]:
        """Return what has changed since the job was finished, as ``name: before -> now``."""
        done = read_json(self.folder / "done.json") or {}
        changes = []
        for part, now in (("training", self.training), ("evaluation", self.evaluation)):
            changes += _differences(done.get(part, {}), now)
        return changes

    def begin(self) -> State:
        """Make the folder ready for work, by whoever holds its lock, and return where the work begins.

        What another definition left is removed, but for a training whose evaluation alone has changed.
        """
        state = self.state()
        if state == "changed" and self._begun() and self.checkpoint.exists() and self._trained():
            for name in ("done.json", "metrics.json", "sheet.png"):
                (self.folder / name).unlink(missing_ok=True)
            state = "trained"
        if state in ("new", "changed"):
            for path in self.folder.iterdir():
                if path.is_dir():
                    shutil.rmtree(path)
                elif path.name != LOCK:
                    path.unlink()
            write_json(self.folder / "definition.json", self.definition)
            return "new"
        return state


def plan(study: Study, output: Path) -> list[Job]:
    """Return the jobs of a study, run after run, seed after seed.

    Args:
        study: The study.
        output: Folder of the results.

    Raises:
        ConfigError: ``validations`` is given and the length of a training is not.
    """
    output = output.resolve()
    jobs: list[Job] = []
    for run in study.runs:
        contents = {str(number): _file_record(file) for number, file in enumerate(_files(run))}
        options = dict(run.overrides)
        options |= _validation_options(study, run)
        for seed in study.seeds:
            arguments = [f"--config={file}" for file in run.files]
            arguments += [f"--{name}={_text(value)}" for name, value in options.items()]
            arguments += [f"--seed_everything={seed}", f"--data.init_args.seed={seed}"]
            jobs.append(
                Job(
                    index=len(jobs),
                    run=run.name,
                    seed=seed,
                    folder=output / run.name / f"seed{seed}",
                    training={"files": contents, "options": options, "seed": seed, "sfdkit": __version__},
                    evaluation={"evaluate": study.evaluate},
                    arguments=tuple(arguments),
                    checkpoint_every=study.checkpoint_every,
                )
            )
    return jobs


def _files(run: Run) -> list[Path]:
    """Return all files of a run in the order in which they are laid over each other."""
    return [part for file in run.files for part in composed_files(file)]


def _file_record(file: Path) -> dict[str, str]:
    return {"name": file.name, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}


def _validation_options(study: Study, run: Run) -> dict[str, Any]:
    """Return the options that spread the validations over the training, in batches counted over all epochs."""
    if study.validations is None:
        return {}
    steps = _look_up(run, "trainer", "max_steps")
    if not isinstance(steps, int) or steps < 1:
        raise ConfigError(
            f"{study.path}: validations: run {run.name!r} has no trainer.max_steps to spread them over; set "
            "trainer.max_steps under overrides"
        )
    accumulate = _look_up(run, "model", "accumulate_grad_batches") or 1
    interval = max(1, steps * accumulate // study.validations)
    return {"trainer.val_check_interval": interval, "trainer.check_val_every_n_epoch": None}


def _look_up(run: Run, section: str, key: str) -> Any:
    """Return what the last of a run's files, or its overrides, give for ``section.key``."""
    found = None
    for file in _files(run):
        part = rename_config(read_config(file), str(file)).get(section)
        if isinstance(part, dict) and key in part:
            found = part[key]
    return run.overrides.get(f"{section}.{key}", found)


def _text(value: Any) -> str:
    """Write a value as the command line reads it."""
    return value if isinstance(value, str) else json.dumps(value)


def fingerprint(*parts: Any) -> str:
    """Return a hash of JSON values."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _differences(before: Any, now: Any, name: str = "") -> list[str]:
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        if "sha256" in before and "sha256" in now:
            return [] if before == now else [f"the content of {now.get('name')}"]
        found = []
        for key in dict.fromkeys([*before, *now]):
            inside = key if name in ("", "options", "evaluate") else f"{name} {key}"
            found += _differences(before.get(key, _ABSENT), now.get(key, _ABSENT), inside)
        return found
    if before == now and type(before) is type(now):
        return []
    return [f"{name}: {_brief(before)} -> {_brief(now)}"]


def _brief(value: Any) -> str:
    if value is _ABSENT:
        return "not given"
    if isinstance(value, Mapping):
        return str(value.get("name", "a mapping"))
    return json.dumps(value)


def read_json(path: Path) -> dict[str, Any] | None:
    """Return what a file holds, or None where it is missing or no object of json."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a file whole or not at all."""
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    os.replace(part, path)
