"""The jobs of a study, one for each run and seed: their commands, their folders, and how far each has come.

A job's folder ``OUTPUT/RUN/seedS``, in the order of its life:

    lock               held by the process that works on the job, and by the commands that it started
    definition.json    what is trained, written before the training begins
    log.txt            all output of its commands
    logs/              TensorBoard's events, config.yaml, data_report.json
    progress.json      step, loss, time left
    checkpoints/last.ckpt
    failed.json        the command that failed last, with the end of its output
    trained.json       the training ended well
    metrics.json, sheet.png
    done.json          the definition again: all is there
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sfdkit import __version__
from sfdkit.config.compose import read_config
from sfdkit.config.renamed import rename_config
from sfdkit.errors import ConfigError
from sfdkit.files import atomic_write
from sfdkit.study.spec import Study

State = Literal["new", "interrupted", "trained", "done", "changed", "left"]

LOCK = "lock"


@dataclass(frozen=True)
class Job:
    """One training with its evaluation."""

    run: str
    seed: int
    folder: Path  # absolute
    definition: dict[str, Any]  # ``training``: files by content, options, seed, version; ``evaluation``: its options
    arguments: tuple[str, ...]  # of sfdkit fit, without those that name the folder
    checkpoint_every: int

    @property
    def name(self) -> str:
        """Run and seed, for messages."""
        return f"{self.run} seed {self.seed}"

    @property
    def checkpoint(self) -> Path:
        """The last checkpoint."""
        return self.folder / "checkpoints/last.ckpt"

    def fit_arguments(self) -> list[str]:
        """Return all arguments of ``sfdkit fit`` but the checkpoint to resume from."""
        folder = str(self.folder)
        logger = {"save_dir": folder, "name": "logs", "version": ""}
        progress = {"path": f"{folder}/progress.json"}
        return [
            *self.arguments,
            "--trainer.enable_progress_bar=false",
            f"--trainer.default_root_dir={folder}",
            f"--trainer.logger={_class('lightning.pytorch.loggers.TensorBoardLogger', logger)}",
            f"--checkpoint.dirpath={self.checkpoint.parent}",
            f"--checkpoint.every_n_train_steps={self.checkpoint_every}",
            "--checkpoint.save_top_k=0",  # last.ckpt alone
            f"--trainer.callbacks+={_class('sfdkit.train.callbacks.ProgressFile', progress)}",
        ]

    def evaluate_arguments(self) -> list[str]:
        """Return the arguments of ``sfdkit evaluate``."""
        options = [f"--{name}={_text(value)}" for name, value in self.definition["evaluation"]["evaluate"].items()]
        return [f"--checkpoint={self.checkpoint}", f"--output={self.folder}", *options]

    def state(self) -> State:
        """Return how far the folder's files say that the job is.

        ``new``: nothing that could be used. ``interrupted``: a training of this definition that has a checkpoint and
        has not ended. ``trained``: its evaluation is missing. ``changed``: it was finished under another definition.
        ``left``: it was begun under another one, and not finished.
        """
        if done := read_json(self.folder / "done.json"):
            return "done" if {**done, **self.definition} == done else "changed"
        begun = read_json(self.folder / "definition.json")
        if not self.checkpoint.exists():
            return "new"
        if begun.get("training") != self.definition["training"]:
            return "left"
        return "trained" if (self.folder / "trained.json").exists() else "interrupted"

    def changes(self) -> list[str]:
        """Return what has changed since the job was finished or begun, as ``name: before -> now``."""
        known = read_json(self.folder / "done.json") or read_json(self.folder / "definition.json")
        before, now = _values(known), _values(self.definition)
        changes = []
        for name in {**before, **now}:
            if (name in before, before.get(name)) != (name in now, now.get(name)):
                changes.append(_change(name, before.get(name, "not given"), now.get(name, "not given")))
        return changes

    def begin(self) -> State:
        """Make the folder ready for work, by the process that holds its lock, and return where the work begins.

        What another definition left is removed, but for a training of which only the evaluation has changed.
        """
        for name in ("done.json", "failed.json", "progress.json"):
            (self.folder / name).unlink(missing_ok=True)
        state = self.state()
        if state in ("new", "left"):
            state = "new"
            for path in self.folder.iterdir():
                if path.is_dir():
                    shutil.rmtree(path)
                elif path.name != LOCK:
                    path.unlink()
            write_json(self.folder / "definition.json", self.definition)
        return state


def plan(study: Study, output: Path) -> list[Job]:
    """Return the jobs of a study, run after run, seed after seed.

    Args:
        study: The study.
        output: Folder of the results.

    Raises:
        ConfigError: ``validations`` is given and the length of a training is not.
    """
    jobs = []
    for name, run in study.runs.items():
        files = study.files([*study.base, *run.configs])
        contents = {str(place): _record(file) for place, file in enumerate(files)}
        options = study.overrides | run.overrides
        options |= _validation_options(study, name, files, options)
        given = [f"--config={(study.path.parent / file).resolve()}" for file in (*study.base, *run.configs)]
        given += [f"--{option}={_text(value)}" for option, value in options.items()]
        for seed in study.seeds:
            training = {"files": contents, "options": options, "seed": seed, "sfdkit": __version__}
            job = Job(
                run=name,
                seed=seed,
                folder=output.resolve() / name / f"seed{seed}",
                definition={"training": training, "evaluation": {"evaluate": study.evaluate}},
                arguments=(*given, f"--seed_everything={seed}", f"--data.init_args.seed={seed}"),
                checkpoint_every=study.checkpoint_every,
            )
            jobs.append(job)
    return jobs


def _record(file: Path) -> dict[str, str]:
    return {"name": file.name, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}


def _validation_options(study: Study, run: str, files: Sequence[Path], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that spread the validations over the training, in batches counted over all epochs."""
    if not study.validations:
        return {}
    given = {"trainer.max_steps": None, "model.accumulate_grad_batches": 1}
    for file in files:
        content = rename_config(read_config(file), str(file))
        for option in given:
            section, _, key = option.partition(".")
            given[option] = (content.get(section) or {}).get(key, given[option])
    steps, accumulate = ({**given, **options}[option] for option in given)
    if not isinstance(steps, int) or steps < 1:
        raise ConfigError(
            f"{study.path}: validations: run {run!r} has no trainer.max_steps to spread them over; set "
            "trainer.max_steps under overrides"
        )
    interval = max(1, steps * accumulate // study.validations)
    return {"trainer.val_check_interval": interval, "trainer.check_val_every_n_epoch": None}


def _class(path: str, arguments: dict[str, Any]) -> str:
    return json.dumps({"class_path": path, "init_args": arguments})


def _text(value: Any) -> str:
    """Write a value as the command line reads it."""
    return value if isinstance(value, str) else json.dumps(value)


def _values(definition: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a definition says as name to value; the files by their place in the order."""
    training = definition.get("training", {})
    files = {f"file {place}": record for place, record in training.get("files", {}).items()}
    options = {**training.get("options", {}), **definition.get("evaluation", {}).get("evaluate", {})}
    return {**files, **options, "sfdkit": training.get("sfdkit")}


def _change(name: str, before: Any, now: Any) -> str:
    if name.startswith("file "):
        before, now = (value["name"] if isinstance(value, dict) else value for value in (before, now))
        if before == now:
            return f"the content of {now}"
    return f"{name}: {_text(before)} -> {_text(now)}"


def read_json(path: Path) -> dict[str, Any]:
    """Return the object that a JSON file holds; an empty one where the file is missing or holds something else."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON file whole or not at all."""
    with atomic_write(path) as part:
        part.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n", encoding="utf-8")
