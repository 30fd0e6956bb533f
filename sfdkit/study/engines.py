"""Where the jobs of a study run: in processes of this machine, as tasks of a Ray cluster, or as an array job of Slurm.

All share one rule: a job is worked on by whoever holds the lock in its folder. Several calls, on any machines that see
the same output folder, therefore share the work.
"""

from __future__ import annotations

import os
import queue
import shlex
import shutil
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, Protocol

from sfdkit.data.pack.cluster import ray_cluster
from sfdkit.errors import ConfigError, DataError
from sfdkit.study.jobs import Job
from sfdkit.study.view import View
from sfdkit.study.worker import Outcome, work_on

EngineName = Literal["local", "ray", "slurm"]

_POLL = 0.2
_HELD_AGAIN = 2.0
"""Seconds until a job that another process holds is tried again."""
_RETRIES = 5
"""Of a task whose node was lost; it goes on from the last checkpoint."""
_STOP_SECONDS = 30.0


class Engine(Protocol):
    """Runs jobs at the same time."""

    parallel: int
    """The most jobs that are begun and not finished."""

    def begin(self, job: Job) -> None:
        """Start a job, or queue it."""

    def finished(self) -> list[tuple[int, Outcome]]:
        """Return the indices of jobs that ended since the last call, and how."""

    def stop(self) -> None:
        """End what is running, and wait for it."""


def run_jobs(jobs: Sequence[Job], engine: Engine, view: View) -> dict[int, Outcome]:
    """Run jobs until each is done or has failed; what another process holds is waited for.

    Returns:
        Index of each job to its outcome, ``done`` or ``failed``.
    """
    waiting, active = deque(jobs), dict[int, Job]()
    outcomes: dict[int, Outcome] = {}
    held: dict[int, float] = {}
    try:
        while waiting or active:
            for _ in range(len(waiting)):
                job = waiting.popleft()
                if len(active) >= engine.parallel or held.get(job.index, 0.0) > time.monotonic():
                    waiting.append(job)
                    continue
                active[job.index] = job
                engine.begin(job)
            for index, outcome in engine.finished():
                job = active.pop(index)
                held.pop(index, None)
                if outcome in ("done", "failed"):
                    outcomes[index] = outcome
                else:
                    held[index] = time.monotonic() + _HELD_AGAIN
                    waiting.append(job)
            view.update(set(active), outcomes, set(held))
            time.sleep(_POLL)
    finally:
        if active:
            engine.stop()
        view.close()
    return outcomes


class LocalEngine:
    """Processes of this machine.

    Args:
        jobs: How many at the same time.
        owner: Name of this call.
        cpus: Threads of each; None shares the processors out when there are several jobs.
        gpus: GPUs of each, which it has for itself; 0 shows every job all of them.

    Raises:
        ConfigError: There are not so many GPUs.
    """

    def __init__(self, jobs: int, owner: str, cpus: int | None = None, gpus: int = 0) -> None:
        self.parallel = jobs
        self.owner = owner
        self._free = deque(environments(jobs, cpus, gpus))
        self._ended: queue.SimpleQueue[tuple[int, Outcome | BaseException, dict[str, str]]] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []

    def begin(self, job: Job) -> None:
        """Start a thread that waits for the job's commands."""
        environment = self._free.popleft()
        thread = threading.Thread(target=self._work, args=(job, environment), daemon=True)
        thread.start()
        self._threads = [t for t in self._threads if t.is_alive()] + [thread]

    def _work(self, job: Job, environment: dict[str, str]) -> None:
        try:
            outcome: Outcome | BaseException = work_on(job, self.owner, environment, Path.cwd(), self._stopping.is_set)
        except BaseException as error:
            outcome = error
        self._ended.put((job.index, outcome, environment))

    def finished(self) -> list[tuple[int, Outcome]]:
        """Return what ended; an error of a thread is raised here."""
        found: list[tuple[int, Outcome]] = []
        with suppress(queue.Empty):
            while True:
                index, outcome, environment = self._ended.get_nowait()
                self._free.append(environment)
                if isinstance(outcome, BaseException):
                    raise outcome
                found.append((index, outcome))
        return found

    def stop(self) -> None:
        """End the commands."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(_STOP_SECONDS)


def environments(jobs: int, cpus: int | None, gpus: int) -> list[dict[str, str]]:
    """Return the variables of each of the jobs that run at the same time on one machine.

    Raises:
        ConfigError: There are not so many GPUs.
    """
    common: dict[str, str] = {}
    if cpus is not None:
        common["OMP_NUM_THREADS"] = str(cpus)
    elif jobs > 1:
        share = max(1, len(os.sched_getaffinity(0)) // jobs)
        common["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS", str(share))
    if not gpus:
        return [dict(common) for _ in range(jobs)]
    there = _visible_gpus()
    if len(there) < jobs * gpus:
        raise ConfigError(
            f"--gpus_per_run {gpus} with --jobs {jobs} needs {jobs * gpus} GPUs and this machine shows {len(there)}; "
            "lower --jobs"
        )
    return [
        {**common, "CUDA_VISIBLE_DEVICES": ",".join(there[slot * gpus : (slot + 1) * gpus])} for slot in range(jobs)
    ]


def _visible_gpus() -> list[str]:
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name.strip() for name in named.split(",") if name.strip()]
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]


@contextmanager
def ray_engine(jobs: int | None, owner: str, cpus: int | None, gpus: float) -> Iterator[Engine]:
    """Give tasks of the Ray cluster that ``RAY_ADDRESS`` names, or of a local one.

    Args:
        jobs: The most tasks at the same time; None leaves that to the cluster.
        owner: Name of this call.
        cpus: Processors that each task takes, 1 by default.
        gpus: GPUs that each task takes; a fraction shares one.

    Raises:
        ConfigError: Ray is not installed.
        DataError: The cluster cannot be reached, or fails.
    """
    with ray_cluster() as cluster:
        yield _RayEngine(cluster.ray, jobs, owner, cpus or 1, gpus)


class _RayEngine:
    def __init__(self, ray: Any, jobs: int | None, owner: str, cpus: int, gpus: float) -> None:
        self.ray = ray
        self.parallel = jobs or sys.maxsize
        self.owner = owner
        self._environment = {"OMP_NUM_THREADS": str(cpus)}
        self._task = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=_RETRIES)(_work_on_node)
        self._running: dict[Any, int] = {}
        total = ray.cluster_resources()
        for name, wanted in (("CPU", cpus), ("GPU", gpus)):
            if wanted > total.get(name, 0):
                raise ConfigError(
                    f"--{name.lower()}s_per_run {wanted:g}: the Ray cluster has {total.get(name, 0):g} {name}; ask for "
                    "less, or add nodes"
                )

    def begin(self, job: Job) -> None:
        self._running[self._task.remote(job, self.owner, self._environment, Path.cwd())] = job.index

    def finished(self) -> list[tuple[int, Outcome]]:
        if not self._running:
            return []
        ready, _ = self.ray.wait(list(self._running), num_returns=len(self._running), timeout=0)
        return [(self._running.pop(reference), self.ray.get(reference)) for reference in ready]

    def stop(self) -> None:
        for reference in self._running:
            self.ray.cancel(reference)
        self.ray.wait(list(self._running), num_returns=len(self._running), timeout=_STOP_SECONDS)


def _work_on_node(job: Job, owner: str, environment: dict[str, str], folder: Path) -> Outcome:
    """Work on a job, as a task of Ray."""
    for needed in (folder, job.folder.parent.parent):
        if not needed.is_dir():
            raise DataError(
                f"the node {os.uname().nodename} of the Ray cluster has no {needed}: mount it at the same path on all "
                "nodes"
            )
    return work_on(job, owner, environment, folder)


def slurm_script(
    study: Path,
    output: Path,
    indices: Sequence[int],
    jobs: int | None,
    cpus: int | None,
    gpus: float,
    options: Sequence[str],
    redo: bool,
) -> str:
    """Return an array job script with one task for each index.

    Args:
        study: The study's file.
        output: Folder of the results, on a file system that all nodes see.
        indices: Jobs that are not done.
        jobs: The most tasks at the same time; None for no limit.
        cpus: Processors of each task.
        gpus: GPUs of each task.
        options: More options of sbatch, such as ``--partition=gpu``.
        redo: Run again what was finished under another definition.
    """
    limit = f"%{jobs}" if jobs else ""
    lines = [
        f"--job-name=sfdkit-{study.resolve().parent.name}",
        f"--array={','.join(map(str, indices))}{limit}",
        "--ntasks=1",
        *([f"--cpus-per-task={cpus}"] if cpus else []),
        *([f"--gres=gpu:{int(gpus)}"] if gpus else []),
        f"--output={output / 'slurm-%A_%a.txt'}",
        "--open-mode=append",
        "--requeue",
        *options,
    ]
    words = [sys.executable, "-m", "sfdkit", "study", "run", str(study.resolve()), "--output", str(output)]
    words += ["--redo", "true"] if redo else []
    return "\n".join(
        [
            "#!/bin/bash",
            *(f"#SBATCH {line}" for line in lines),
            f"cd {shlex.quote(str(Path.cwd()))}",
            f'exec {shlex.join(words)} --only "$SLURM_ARRAY_TASK_ID"',
            "",
        ]
    )


def submit(script: Path) -> str | None:
    """Hand a script to sbatch.

    Returns:
        The number of the job, or None where there is no sbatch.

    Raises:
        DataError: sbatch refused it.
    """
    sbatch = shutil.which("sbatch")
    if sbatch is None:
        return None
    done = subprocess.run([sbatch, "--parsable", str(script)], capture_output=True, text=True)
    if done.returncode:
        raise DataError(f"sbatch refused {script}: {' '.join(done.stderr.split()) or f'status {done.returncode}'}")
    return done.stdout.strip().partition(";")[0]
