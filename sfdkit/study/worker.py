"""Works on one job: trains and evaluates it in processes of their own, with all output in the job's log."""

from __future__ import annotations

import fcntl
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from sfdkit.errors import DataError, SfdkitError
from sfdkit.study.jobs import LOCK, Job, read_json, write_json

STOPPED = "stopped; the same command resumes from the last checkpoints"
_TAIL = 12
_GRACE = 20.0
"""Seconds that a command has between being asked to end and being killed."""


def work_on(job: Job, stopped: Sequence[int]) -> None:
    """Bring a job to its end, from wherever its folder says that it is, and print when it starts and ends.

    The commands inherit the lock, and keep it if this process is killed: no second training begins in a folder where
    the first still runs. filelock's lock would be released when this process dies.

    Args:
        job: The job.
        stopped: Signals that ask this process to end; once there is one, what runs is ended.

    Raises:
        SfdkitError: The training or the evaluation failed, and ``failed.json`` says how, or was stopped.
        DataError: Another process works on the job, or its folder cannot be written.
    """
    began = time.monotonic()
    try:
        job.folder.mkdir(parents=True, exist_ok=True)
        with (job.folder / LOCK).open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise DataError(
                    f"{job.name}: another process works on it and holds {lock.name}; wait for its end, or stop it"
                ) from error
            if job.state() != "done":
                _train_and_evaluate(job, lock.fileno(), stopped)
    except OSError as error:
        raise DataError(
            f"cannot write into {job.folder}: {error.strerror}; free space, or name another --output"
        ) from error
    _tell(f"{job.name}: done after {timedelta(seconds=round(time.monotonic() - began))}")


def _tell(line: str) -> None:
    """Print a line in one write, so that those of jobs at the same time do not mix."""
    print(f"{line}\n", end="", flush=True)


def _train_and_evaluate(job: Job, lock: int, stopped: Sequence[int]) -> None:
    step = read_json(job.folder / "progress.json").get("step", "?")
    state = job.begin()
    words = {"new": "training", "interrupted": f"training, resumed at step {step}"}.get(state, "evaluating")
    _tell(f"{job.name}: {words}")
    if state != "trained":
        resume = [f"--ckpt_path={job.checkpoint}"] if state == "interrupted" else []
        _command(job, lock, stopped, "fit", [*job.fit_arguments(), *resume])
        write_json(job.folder / "trained.json", {})
    _command(job, lock, stopped, "evaluate", job.evaluate_arguments())
    write_json(job.folder / "done.json", job.definition)


def _command(job: Job, lock: int, stopped: Sequence[int], command: str, arguments: list[str]) -> None:
    """Run a command of the kit; note how it failed, and raise."""
    words = [sys.executable, "-m", "sfdkit", command, *arguments]
    log = job.folder / "log.txt"
    with log.open("ab") as output:
        output.write(f"\n== {time.strftime('%Y-%m-%d %H:%M:%S')} {shlex.join(words)}\n".encode())
        output.flush()
        start = output.tell()
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            # in a task of Slurm, Lightning must not take the size of the training from Slurm's variables
            env={**os.environ, "SLURM_JOB_NAME": "interactive"},
            pass_fds=(lock,),
        )
        while process.poll() is None and not stopped:
            time.sleep(0.1)
    if stopped:
        _end(process)
        raise SfdkitError(STOPPED)
    if status := process.returncode:
        tail = _tail(log, start)
        write_json(job.folder / "failed.json", {"command": command, "status": status, "tail": tail})
        raise SfdkitError(
            f"{job.name}: FAILED, sfdkit {command} ended with status {status}: {tail[-1].strip()}; see {log}"
        )


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a command unless it has ended, kindly at first."""
    process.terminate()
    try:
        process.wait(_GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _tail(log: Path, start: int) -> list[str]:
    """Return the last lines that a command wrote, which began at a byte of the log."""
    lines = log.read_bytes()[start:].decode(errors="replace").splitlines()
    return [line.rstrip() for line in lines if line.strip()][-_TAIL:] or ["no output"]
