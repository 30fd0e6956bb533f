"""Works on one job: trains, evaluates, and leaves word of it in the job's folder."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from sfdkit.errors import DataError
from sfdkit.study.jobs import LOCK, Job, write_json

Outcome = Literal["done", "failed", "held", "stopped"]

_TAIL = 12
_LOOK = 0.1
_GRACE = 20.0
"""Seconds that a command has between being asked to end and being killed."""


def work_on(
    job: Job,
    owner: str,
    environment: dict[str, str],
    folder: Path,
    stopped: Callable[[], bool] = lambda: False,
) -> Outcome:
    """Bring a job to its end, from wherever its folder says that it is.

    Args:
        job: The job.
        owner: Who does it: what ``status.json`` names.
        environment: Variables for the commands, over those of this process.
        folder: Where the commands run; relative paths of a configuration start there.
        stopped: Asked all the time; once it says yes, what is running is ended.

    Returns:
        ``done``; ``failed``, then ``status.json`` says of what; ``held`` if another process works on it; ``stopped``.

    Raises:
        DataError: The job's folder cannot be written.
    """
    try:
        job.folder.mkdir(parents=True, exist_ok=True)
        with _hold(job.folder / LOCK) as lock:
            if lock is None:
                return "held"
            return _Worker(job, owner, environment, folder, stopped, lock).run()
    except OSError as error:
        raise DataError(
            f"cannot write into {job.folder}: {error.strerror}; free space, or name another --output"
        ) from (error)


@contextmanager
def _hold(path: Path) -> Iterator[int | None]:
    """Hold a lock file and give its descriptor, or None where another process holds it.

    The commands inherit the descriptor: they keep the lock if this process is killed, so that no second training
    begins in a folder where the first is still running. That is why this is no FileLock.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES):
                raise
            yield None
            return
        yield descriptor
    finally:
        os.close(descriptor)


class _Worker:
    """The work on one job whose lock is held."""

    def __init__(
        self,
        job: Job,
        owner: str,
        environment: dict[str, str],
        folder: Path,
        stopped: Callable[[], bool],
        lock: int,
    ) -> None:
        self.job = job
        self.owner = owner
        self.environment = {**os.environ, **environment}
        if "SLURM_JOB_ID" in self.environment:
            # one task per job: Lightning must not take the size of the training from Slurm's variables
            self.environment["SLURM_JOB_NAME"] = "interactive"
        self.folder = folder
        self.stopped = stopped
        self.lock = lock

    def run(self) -> Outcome:
        """Train unless that is done, evaluate, and sign."""
        job = self.job
        if job.state() == "done":
            return "done"
        state = job.begin()
        (job.folder / "progress.json").unlink(missing_ok=True)
        if state != "trained":
            resume = [f"--ckpt_path={job.checkpoint}"] if state == "cut" else []
            outcome = self.command("training", "fit", [*job.fit_arguments(), *resume])
            if outcome != "done":
                return outcome
            write_json(job.folder / "trained.json", {"at": _now()})
        outcome = self.command("evaluating", "evaluate", job.evaluate_arguments())
        if outcome != "done":
            return outcome
        self.say("done")
        write_json(job.folder / "done.json", {**job.definition, "at": _now()})
        return "done"

    def say(self, state: str, **more: object) -> None:
        """Leave word of what is being done."""
        about = {"state": state, "owner": self.owner, "host": os.uname().nodename, "process": os.getpid()}
        write_json(self.job.folder / "status.json", {**about, **more, "at": _now()})

    def command(self, state: str, command: str, arguments: list[str]) -> Outcome:
        """Run a command of the kit, and note how it failed."""
        self.say(state)
        words = [sys.executable, "-m", "sfdkit", command, *arguments]
        log = self.job.log
        with log.open("ab") as output:
            output.write(f"\n== {_now()} {' '.join(words)}\n".encode())
            output.flush()
            began = output.tell()
            process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=self.environment,
                cwd=self.folder,
                pass_fds=(self.lock,),
            )
            try:
                while process.poll() is None and not self.stopped():
                    time.sleep(_LOOK)
            finally:
                ended = process.returncode
                if ended is None:
                    _end(process)
        if ended is None:
            self.say("stopped")
            return "stopped"
        if ended == 0:
            return "done"
        self.say("failed", command=command, status=ended, tail=_tail(log, began))
        return "failed"


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a command, kindly at first."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(_GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _tail(log: Path, began: int) -> list[str]:
    """Return the last lines that a command wrote, which began at a byte of the log."""
    with log.open("rb") as file:
        file.seek(max(began, log.stat().st_size - 20_000))
        lines = [line.rstrip() for line in file.read().decode(errors="replace").splitlines()]
    return [line for line in lines if line][-_TAIL:]


def _now() -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S")
