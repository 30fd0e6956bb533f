"""Runs jobs in processes of this machine, several at the same time."""

from __future__ import annotations

import os
import subprocess
import time
from collections import deque
from collections.abc import Sequence

from sfdkit.errors import SfdkitError
from sfdkit.study.jobs import Job
from sfdkit.study.worker import STOPPED


def run_jobs(jobs: Sequence[Job], parallel: int, command: Sequence[str], stopped: Sequence[int]) -> list[Job]:
    """Run each job in a process of its own; one that fails does not stop the others.

    Args:
        jobs: The jobs, in the order in which they start.
        parallel: How many run at the same time.
        command: What runs a job, ``--only`` and ``--seed`` left out.
        stopped: Signals that ask this process to end; once there is one, what runs is ended.

    Returns:
        The jobs that failed.

    Raises:
        SfdkitError: They were stopped.
    """
    waiting, free = deque(jobs), deque(environments(parallel))
    running: dict[subprocess.Popen[bytes], tuple[Job, dict[str, str]]] = {}
    failed: list[Job] = []
    try:
        while waiting or running:
            while waiting and free:
                job, variables = waiting.popleft(), free.popleft()
                words = [*command, f"--only={job.run}", f"--seed={job.seed}"]
                running[subprocess.Popen(words, env={**os.environ, **variables})] = job, variables
            time.sleep(0.1)
            if stopped:
                raise SfdkitError(STOPPED)
            for process in [process for process in running if process.poll() is not None]:
                job, variables = running.pop(process)
                free.append(variables)
                failed += [job] if process.returncode else []
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait()
    return failed


def environments(parallel: int) -> list[dict[str, str]]:
    """Return the variables of each of the jobs that run at the same time: a share of the processors, and one GPU.

    One job alone has all of both. ``OMP_NUM_THREADS`` stays as it is where it is set.
    """
    if parallel == 1:
        return [{}]
    import torch  # takes seconds, and a run alone does without

    threads = max(1, len(os.sched_getaffinity(0)) // parallel)
    common = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads))}
    named = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(torch.cuda.device_count()))))
    gpus = [name.strip() for name in named.split(",") if name.strip()]
    if len(gpus) < 2:
        return [common] * parallel
    return [{**common, "CUDA_VISIBLE_DEVICES": gpus[number % len(gpus)]} for number in range(parallel)]
