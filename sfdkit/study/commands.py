"""The commands ``sfdkit study run``, ``report`` and ``sheet``."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from jsonargparse.typing import NonNegativeInt, PositiveInt

from sfdkit.errors import ConfigError, SfdkitError, did_you_mean
from sfdkit.files import make_folder
from sfdkit.study.jobs import Job, plan, read_json
from sfdkit.study.pool import run_jobs
from sfdkit.study.spec import Study, load_study
from sfdkit.study.worker import work_on

_ROOT = "runs/studies"


def run(
    folder: str,
    output: str | None = None,
    jobs: PositiveInt | None = None,
    only: str | None = None,
    seed: int | None = None,
    redo: bool = False,
    dry_run: bool = False,
) -> None:
    """Train and evaluate all runs of a study, each with each seed.

    Every run's configuration is checked before the first one starts. The same command resumes after an interruption:
    what is finished stays, what was interrupted resumes from its last checkpoint. A run that fails does not stop the
    others.

    Args:
        folder: Folder with study.yaml, or the name of a shipped study such as disentanglement.
        output: Folder of the results; runs/studies/NAME by default.
        jobs: Runs at the same time, each in a process of its own, 1 by default; with several GPUs each has its own.
        only: Name of the one run to do, here and not in a process of its own; with --seed the call for one task of a
            cluster.
        seed: The one seed to do, of all runs or of that of --only.
        redo: Run again what was finished or begun under another definition than study.yaml and its files have now; what
            is there is removed.
        dry_run: Check and list the runs, and stop.

    Raises:
        ConfigError: The study, one of its runs, or an option cannot work.
        SfdkitError: A run failed, or was finished or begun under another definition.
    """
    if only is not None and jobs is not None:
        raise ConfigError(f"--jobs {jobs} does nothing beside --only {only}, which is one run: leave one of them out")
    study = load_study(folder)
    place = Path(output or f"{_ROOT}/{study.name}").resolve()
    all_jobs = plan(study, place)
    chosen = _chosen(study, all_jobs, only, seed)
    changed = [job for job in chosen if job.state() in ("changed", "left")]
    todo = [job for job in chosen if job.state() != "done" and (redo or job not in changed)]
    alone = only is not None
    if dry_run or not alone:
        from sfdkit.study.check import check_and_list

        check_and_list(study, all_jobs, chosen if dry_run else todo)
    for job in changed:
        now = "runs again" if redo else "kept as it is; --redo true runs it again"
        did = "finished" if job.state() == "changed" else "begun"
        print(f"{job.name} was {did} under another definition ({'; '.join(job.changes())}): {now}")
    if dry_run:
        return
    with _signals() as stopped:
        if alone:
            for job in todo:
                work_on(job, stopped)
        elif todo:
            make_folder(place)
            words = [sys.executable, "-m", "sfdkit", "study", "run", folder, f"--output={place}"]
            _run_all(todo, jobs or 1, [*words, f"--redo={str(redo).lower()}"], stopped)
    if changed and not redo:
        raise SfdkitError(
            f"{len(changed)} of {len(chosen)} runs were finished or begun under another definition; see above"
        )
    if not alone:
        print(f"all {len(chosen)} done; sfdkit study report {folder}{'' if output is None else f' --runs {output}'}")


def report(folder: str, runs: str | None = None, output: str | None = None, earlier: str | None = None) -> None:
    """Compare the runs of a study: tables, curves, and whether a difference is significant.

    Writes report.md, report.html, report.csv (a row for each run and seed), curves.csv, summary.csv and the plots as
    SVG. Of an unfinished study it shows what is there, and names what is missing.

    Args:
        folder: Folder with study.yaml, or the name of a shipped study such as disentanglement.
        runs: Folder of the results; runs/studies/NAME by default.
        output: Folder for the report; the results' folder by default.
        earlier: The report.csv of a report of the same study, from another machine or day: its rows, and those of the
            curves.csv beside it, stand in for runs that are not finished here.

    Raises:
        ConfigError: The study's file cannot work.
        DataError: No run has been finished, the report cannot be written, or earlier is no report of the study.
    """
    from sfdkit.study.report import write_report

    study = load_study(folder)
    place = Path(runs or f"{_ROOT}/{study.name}").resolve()
    target = make_folder(Path(output) if output else place) if output or place.is_dir() else place
    print(write_report(study, plan(study, place), target, Path(earlier) if earlier else None))


def sheet(
    folder: str,
    runs: str | None = None,
    output: str | None = None,
    seed: int | None = None,
    pairs: PositiveInt = 5,
    pairs_seed: NonNegativeInt = 0,
    device: str = "auto",
) -> None:
    """Draw what the runs of a study make of the same pairs of faces: one row for each run that has been trained.

    Args:
        folder: Folder with study.yaml, or the name of a shipped study such as methods.
        runs: Folder of the results; runs/studies/NAME by default.
        output: The picture, .png; sheet.png in the results' folder by default.
        seed: Of the trainings; the study's first by default.
        pairs: Pairs of different people, one column each; above the runs stand source, driving face and the truth.
        pairs_seed: Draws the pairs.
        device: auto, cpu, cuda, cuda:1, mps.

    Raises:
        CheckpointError: A checkpoint cannot be read.
        ConfigError: The study's file cannot work, it has no such seed, or the output is no .png.
        DataError: No run of the seed has been trained, or the shards have one person alone.
        ShardError: The shards are missing or damaged.
    """
    from sfdkit.device import choose_device
    from sfdkit.files import write_picture
    from sfdkit.study.sheet import draw_study

    study = load_study(folder)
    place = Path(runs or f"{_ROOT}/{study.name}").resolve()
    target = Path(output) if output else place / "sheet.png"
    if target.suffix.lower() != ".png":
        raise ConfigError(f"output: {target} will not do; give a .png file")
    number = study.seeds[0] if seed is None else seed
    drawn = draw_study(study, plan(study, place), number, pairs, pairs_seed, choose_device(device))
    make_folder(target.parent)
    write_picture(target, drawn)
    print(f"wrote {target}: seed {number}, {pairs} pairs at most")


def _chosen(study: Study, jobs: Sequence[Job], run: str | None, seed: int | None) -> list[Job]:
    """Return the jobs that ``--only`` and ``--seed`` name, all without them."""
    if run is not None and run not in study.runs:
        known = ", ".join(study.runs)
        raise ConfigError(f"--only {run}: {study.path} has no such run.{did_you_mean(run, study.runs)} It has {known}")
    if seed is not None and seed not in study.seeds:
        raise ConfigError(f"--seed {seed}: the seeds of {study.path} are {', '.join(map(str, study.seeds))}")
    return [job for job in jobs if run in (None, job.run) and seed in (None, job.seed)]


def _run_all(jobs: Sequence[Job], parallel: int, command: Sequence[str], stopped: Sequence[int]) -> None:
    """Run jobs in processes of their own; print the end of the log of those that failed, and raise."""
    failed = run_jobs(jobs, parallel, command, stopped)
    for job in failed:
        if failure := read_json(job.folder / "failed.json"):
            words = f"sfdkit {failure['command']} ended with status {failure['status']}"
            print(f"\n{job.name} failed: {words}; {job.folder / 'log.txt'}:", *failure["tail"], sep="\n  ")
    if failed:
        names = ", ".join(job.name for job in failed)
        raise SfdkitError(f"{len(failed)} of {len(jobs)} runs failed: {names}; the same command tries them again")


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Collect SIGTERM and Ctrl-C instead of being interrupted, maybe while a command is being started."""
    stopped: list[int] = []
    kinds = (signal.SIGTERM, signal.SIGINT)
    before = {kind: signal.signal(kind, lambda number, _: stopped.append(number)) for kind in kinds}
    try:
        yield stopped
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)
