"""The commands ``sfdkit study run`` and ``sfdkit study report``."""

from __future__ import annotations

import math
import os
import signal
import time
import types
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from sfdkit.errors import ConfigError, SfdkitError
from sfdkit.files import make_folder
from sfdkit.study.engines import EngineName, LocalEngine, ray_engine, run_jobs, slurm_script, submit
from sfdkit.study.jobs import Job, plan, read_json
from sfdkit.study.report import write_report
from sfdkit.study.spec import Study, load_study
from sfdkit.study.view import View

_ROOT = "runs/studies"


def run(
    folder: str,
    output: str | None = None,
    engine: EngineName = "local",
    jobs: int | None = None,
    only: int | None = None,
    redo: bool = False,
    dry_run: bool = False,
    cpus_per_run: int | None = None,
    gpus_per_run: float = 0.0,
    slurm_options: list[str] | None = None,
) -> None:
    """Train and evaluate all runs of a study, each with each seed.

    Every run's configuration is checked before the first one starts. The same command goes on after an interruption:
    what is finished stays, what was cut off continues from its last checkpoint. A run that fails does not stop the
    others. Several calls, also on several machines with the same output folder, share the work.

    Args:
        folder: Folder with study.yaml.
        output: Folder of the results; runs/studies/NAME by default.
        engine: local runs processes on this machine, ray tasks on the cluster that RAY_ADDRESS names (else a local
            one), slurm writes an array job and submits it.
        jobs: Runs at the same time: local 1 by default, ray and slurm as many as there is room for.
        only: Number of the one run and seed to do, as --dry_run lists them.
        redo: Run again what was finished under another definition than study.yaml and its files have now.
        dry_run: Check and list the runs, and stop.
        cpus_per_run: Threads or processors of each run; local shares the machine's between --jobs.
        gpus_per_run: GPUs of each run. With ray a fraction shares one.
        slurm_options: More options of sbatch: --slurm_options '["--partition=gpu", "--time=04:00:00"]'.

    Raises:
        ConfigError: The study, one of its runs, or an option cannot work.
        SfdkitError: A run failed, or was finished under another definition.
    """
    _check_options(engine, jobs, only, cpus_per_run, gpus_per_run, slurm_options)
    study = load_study(folder)
    place = Path(output or f"{_ROOT}/{study.name}").resolve()
    all_jobs = plan(study, place)
    chosen = _chosen(study, all_jobs, only)
    states = {job.index: job.state() for job in all_jobs}
    changed = [job for job in chosen if states[job.index] == "changed"]
    todo = [job for job in chosen if states[job.index] != "done" and (redo or states[job.index] != "changed")]
    if dry_run or only is None:
        _check(study, all_jobs if dry_run else todo, all_jobs, states)
    for job in changed:
        now = "runs again" if redo else "kept as it is; --redo true runs it again"
        print(f"{job.name} was finished under another definition ({'; '.join(job.changes())}): {now}")
    if dry_run:
        return
    if todo:
        make_folder(place)
        with _ends_on_sigterm():
            failed = _run(study, todo, place, engine, jobs, cpus_per_run, gpus_per_run, slurm_options or [], redo)
        if engine == "slurm" and only is None:
            return
    else:
        failed = []
    _say_failures(failed)
    if failed:
        raise SfdkitError(
            f"{len(failed)} of {len(todo)} runs failed: {', '.join(job.name for job in failed)}; the same command "
            "tries them again"
        )
    if changed and not redo:
        raise SfdkitError(f"{len(changed)} of {len(chosen)} runs were finished under another definition; see above")
    print(f"all {len(chosen)} done; sfdkit study report {folder}{'' if output is None else f' --runs {output}'}")


def report(folder: str, runs: str | None = None, output: str | None = None) -> None:
    """Compare the runs of a study: tables, curves, and whether a difference is more than the spread between seeds.

    Writes report.md, report.html, report.csv (a row for each run and seed), summary.csv and the plots as svg. Of an
    unfinished study it shows what is there, and names what is missing.

    Args:
        folder: Folder with study.yaml.
        runs: Folder of the results; runs/studies/NAME by default.
        output: Folder for the report; the results' folder by default.

    Raises:
        ConfigError: The study's file cannot work.
        DataError: No run has been finished, or the report cannot be written.
    """
    study = load_study(folder)
    place = Path(runs or f"{_ROOT}/{study.name}").resolve()
    target = make_folder(Path(output) if output else place) if output or place.is_dir() else place
    print(write_report(study, plan(study, place), target))


def _check_options(
    engine: EngineName,
    jobs: int | None,
    only: int | None,
    cpus: int | None,
    gpus: float,
    slurm_options: list[str] | None,
) -> None:
    for name, value in (("jobs", jobs), ("cpus_per_run", cpus)):
        if value is not None and value < 1:
            raise ConfigError(f"--{name} {value}: give a number of at least 1")
    if gpus < 0 or not math.isfinite(gpus) or (engine != "ray" and gpus != int(gpus)):
        raise ConfigError(f"--gpus_per_run {gpus:g}: give a whole number, or a share with --engine ray")
    if slurm_options and engine != "slurm":
        raise ConfigError(f"--slurm_options belong to --engine slurm, and the engine is {engine}")
    if only is not None and engine != "local":
        raise ConfigError(f"--only runs here, with --engine local; the engine is {engine}")


def _chosen(study: Study, jobs: Sequence[Job], only: int | None) -> list[Job]:
    if only is None:
        return list(jobs)
    if not 0 <= only < len(jobs):
        raise ConfigError(f"--only {only}: the study in {study.path} has runs 0 to {len(jobs) - 1}; see --dry_run true")
    return [jobs[only]]


def _check(study: Study, jobs: Sequence[Job], all_jobs: Sequence[Job], states: Mapping[int, str]) -> None:
    """Check the runs that jobs belong to, and list all jobs."""
    costs = {}
    problems: dict[str, SfdkitError] = {}
    if jobs:
        from sfdkit.study.check import check_data, check_evaluation, check_run, first_jobs

        modules = {}
        firsts = first_jobs(jobs)
        for job in firsts:
            try:
                costs[job.run], modules[job.run] = check_run(study, job)
            except SfdkitError as error:
                problems[job.run] = error
        try:
            check_evaluation(study, firsts[0])
            for job in firsts:
                if job.run in modules:
                    check_data(study, job, modules[job.run])
        except SfdkitError as error:
            problems.setdefault("", error)
    titles = {one.name: one.title for one in study.runs}
    width = max(len(name) for name in titles)
    print(f"{study.title}: {len(study.runs)} runs x {len(study.seeds)} seeds")
    print(f"{'number':>6}  {'run':{width}}  {'seed':>4}  {'state':8}{'parameters':>12}{'GMAC':>8}  title")
    for job in all_jobs:
        cost = costs.get(job.run)
        figures = f"{cost.parameters:12,}{cost.gmac:8.3f}" if cost else " " * 20
        state = _state_words(job, states[job.index])
        print(f"{job.index:6}  {job.run:{width}}  {job.seed:4}  {state:8}{figures}  {titles[job.run]}")
    if problems:
        first, *others = problems
        more = f" (and another problem: {', '.join(other or 'data or evaluate' for other in others)})" if others else ""
        raise ConfigError(f"{problems[first]}{more}")


def _state_words(job: Job, state: str) -> str:
    if state == "cut":
        return f"at {(read_json(job.folder / 'progress.json') or {}).get('step', '?')}"
    return state


def _run(
    study: Study,
    todo: Sequence[Job],
    place: Path,
    engine: EngineName,
    jobs: int | None,
    cpus: int | None,
    gpus: float,
    slurm_options: Sequence[str],
    redo: bool,
) -> list[Job]:
    """Run jobs by an engine; returns those that failed."""
    owner = f"{os.uname().nodename}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    if engine == "slurm":
        script = place / f"slurm-{time.strftime('%Y%m%d-%H%M%S')}.sh"
        indices = [job.index for job in todo]
        script.write_text(slurm_script(study.path, place, indices, jobs, cpus, gpus, slurm_options, redo))
        number = submit(script)
        if number is None:
            print(f"wrote {script}; there is no sbatch on this machine: submit it where there is")
        else:
            print(f"submitted {script} as job {number}: {len(todo)} tasks; sfdkit study report shows what is finished")
        return []
    if engine == "ray":
        with ray_engine(jobs, owner, cpus, gpus) as cluster:
            outcomes = run_jobs(todo, cluster, View(todo, owner, jobs or len(todo)))
    else:
        local = LocalEngine(jobs or 1, owner, cpus, int(gpus))
        outcomes = run_jobs(todo, local, View(todo, owner, local.parallel))
    return [job for job in todo if outcomes[job.index] == "failed"]


@contextmanager
def _ends_on_sigterm() -> Iterator[None]:
    """End the commands that run before this process ends, at Ctrl-C and at SIGTERM.

    Raises:
        SfdkitError: One of the two came.
    """

    def interrupt(number: int, frame: types.FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    except KeyboardInterrupt:
        raise SfdkitError("stopped; the same command goes on from the last checkpoints") from None
    finally:
        signal.signal(signal.SIGTERM, before)


def _say_failures(failed: Sequence[Job]) -> None:
    for job in failed:
        status = read_json(job.folder / "status.json") or {}
        print(
            f"\n{job.name} failed: sfdkit {status.get('command')} ended with status {status.get('status')}; {job.log}:"
        )
        for line in status.get("tail", []):
            print(f"  {line}")
