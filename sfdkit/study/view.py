"""What a person sees while a study runs: a table that redraws itself, or a line for each change."""

from __future__ import annotations

import shutil
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TextIO

from sfdkit.study.jobs import Job, read_json

_EVERY = 0.5


class View:
    """Shows the jobs of a study.

    Args:
        jobs: Those that this call works on.
        owner: Name of this call, in ``status.json`` of what it works on.
        parallel: Jobs at the same time, for the time left.
        stream: Where to; standard output by default.
        live: Redraw a table; None does so on a terminal.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        owner: str,
        parallel: int,
        stream: TextIO | None = None,
        live: bool | None = None,
    ) -> None:
        self.jobs = jobs
        self.owner = owner
        self.parallel = parallel
        self.stream = stream or sys.stdout
        self.live = self.stream.isatty() if live is None else live
        self._states: dict[int, str] = {}
        self._since: dict[int, float] = {}
        self._durations: list[float] = []
        self._left: dict[int, float] = {}
        self._drawn = 0
        self._last = 0.0
        self._shown = ""

    def update(self, active: set[int], outcomes: Mapping[int, str], held: set[int]) -> None:
        """Show what is going on.

        Args:
            active: Indices of jobs that are begun.
            outcomes: Index to how a job ended.
            held: Indices of jobs that other processes hold.
        """
        now = time.monotonic()
        ended = len(outcomes) == len(self.jobs)
        if now - self._last < _EVERY and not ended:
            return
        self._last = now
        details = {job.index: self._state(job, active, outcomes, held) for job in self.jobs}
        for job in self.jobs:
            state, _ = details[job.index]
            before = self._states.get(job.index, "waiting")
            if state == before:
                continue
            if before in ("waiting", "held"):
                self._since[job.index] = now
            self._states[job.index] = state
            seconds = now - self._since.get(job.index, now)
            if state == "done":
                self._durations.append(seconds)
            if state in ("done", "failed"):
                self._left.pop(job.index, None)
            if not self.live:
                self._line(f"{job.name}: {_WORDS[state]}{f' after {duration(seconds)}' if state in _ENDS else ''}")
                if state in _ENDS:
                    self._line(self._summary(now))
        if self.live:
            self._draw(details, now)

    def close(self) -> None:
        """Leave the last table on the screen."""
        self._drawn = 0

    def _state(self, job: Job, active: set[int], outcomes: Mapping[int, str], held: set[int]) -> tuple[str, str]:
        """Return a job's state and what is to be said of it."""
        if job.index in outcomes:
            return outcomes[job.index], ""
        if job.index not in active:
            return ("held" if job.index in held else "waiting"), ""
        status = read_json(job.folder / "status.json") or {}
        if status.get("owner") != self.owner or status.get("state") not in ("training", "evaluating"):
            return self._states.get(job.index, "waiting"), ""
        if status["state"] == "evaluating":
            return "evaluating", ""
        progress = read_json(job.folder / "progress.json")
        if progress is None:
            return "training", "starting"
        if progress.get("left") is not None:
            self._left[job.index] = float(progress["left"])
        of = f"/{progress['steps']}" if progress.get("steps") else ""
        loss = f", loss {progress['loss']:.4f}" if progress.get("loss") is not None else ""
        left = f", {duration(progress['left'])} left" if progress.get("left") else ""
        return "training", f"step {progress['step']}{of}{loss}{left}"

    def _summary(self, now: float) -> str:
        counts = Counter(self._states.get(job.index, "waiting") for job in self.jobs)
        words = [f"{counts['done']} of {len(self.jobs)} done"]
        running = counts["training"] + counts["evaluating"]
        words += [f"{running} running"] if running else []
        words += [f"{counts[state]} {word}" for state, word in _COUNTED.items() if counts[state]]
        left = self._seconds_left(now, counts["waiting"])
        return ", ".join(words) + (f"; about {duration(left)} left" if left else "")

    def _seconds_left(self, now: float, waiting: int) -> float | None:
        """Return an estimate from the jobs that are done, else from those that run; None where there is nothing."""
        running = dict(self._left)
        lengths = self._durations or [now - self._since[i] + left for i, left in running.items() if i in self._since]
        if not lengths:
            return None
        mean = sum(lengths) / len(lengths)
        return (sum(running.values()) + mean * waiting) / max(1, min(self.parallel, len(running) + waiting))

    def _line(self, text: str) -> None:
        if text != self._shown:
            print(text, file=self.stream, flush=True)
            self._shown = text

    def _draw(self, details: Mapping[int, tuple[str, str]], now: float) -> None:
        columns, height = shutil.get_terminal_size()
        width = max(len(job.name) for job in self.jobs)
        rows = [
            f"{job.name:{width}}  {_WORDS[details[job.index][0]]:12}{details[job.index][1]}"[: columns - 1]
            for job in self.jobs
        ]
        if len(rows) > height - 2:
            rows = [
                row
                for job, row in zip(self.jobs, rows, strict=True)
                if details[job.index][0] not in ("waiting", "done")
            ][: height - 2]
        rows.append(self._summary(now)[: columns - 1])
        up = f"\x1b[{self._drawn}F\x1b[J" if self._drawn else ""
        print(up + "\n".join(rows), file=self.stream, flush=True)
        self._drawn = len(rows)


_ENDS = ("done", "failed")
_WORDS = {
    "waiting": "waiting",
    "held": "elsewhere",
    "training": "training",
    "evaluating": "evaluating",
    "done": "done",
    "failed": "FAILED",
}
_COUNTED = {"failed": "failed", "held": "with another process", "waiting": "waiting"}


def duration(seconds: float) -> str:
    """Write seconds for people: ``42 s``, ``5 min``, ``2 h 10 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
