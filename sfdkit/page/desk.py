"""Where the page's files lie and its work is done, one piece after the other."""

from __future__ import annotations

import hashlib
import html
import io
import os
import re
import shutil
import tempfile
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import TypeVar

from sfdkit.errors import SfdkitWarning
from sfdkit.page.job import Job

T = TypeVar("T")

AGE = 3600.0
"""Seconds after which a file that nobody uses is removed."""
_SWEEP = 60.0
_OPTION = re.compile(r"--(?=[a-z])")


class Desk:
    """A temporary folder, and the work whose results lie in it. Use it as a context; the folder is gone at its end.

    Args:
        age: See :data:`AGE`.
    """

    def __init__(self, age: float = AGE) -> None:
        self.age = age
        self.folder = Path(tempfile.mkdtemp(prefix="sfdkit-page-")).resolve()
        self.examples = self.folder / "examples"
        self._results = self.folder / "results"
        self._jobs: dict[str, set[Job]] = {}
        self._turn = threading.Lock()
        self._ended = threading.Event()

    def __enter__(self) -> Desk:
        self.examples.mkdir()
        threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for session in list(self._jobs):
            self.stop(session)
        self._turn.acquire(timeout=30)  # until the work that was stopped has closed its files
        shutil.rmtree(self.folder, ignore_errors=True)

    def run(self, session: str | None, work: Callable[[Path], T]) -> tuple[T, str]:
        """Do a piece of work when it is its turn.

        Args:
            session: Of the browser's tab.
            work: It gets a new folder for its results, which is removed when it fails or is stopped.

        Returns:
            What it returns, and what it said, as HTML.

        Raises:
            Stopped: It was stopped.
        """
        place = self._place(session)
        place.mkdir(parents=True, exist_ok=True)
        folder, said = Path(tempfile.mkdtemp(dir=place)), io.StringIO()
        job = Job(lambda: work(folder))
        self._jobs.setdefault(str(session), set()).add(job)
        try:
            with self._turn, warnings.catch_warnings(record=True) as seen, redirect_stdout(said):
                warnings.simplefilter("always", SfdkitWarning)
                made = job.result()
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        finally:
            self._jobs.get(str(session), set()).discard(job)
        said.writelines(f"{each.message}\n" for each in seen if issubclass(each.category, SfdkitWarning))
        return made, self.plain(said.getvalue().strip()).replace("\n", "<br>")

    def stop(self, session: str | None) -> bool:
        """Stop the work of a session, also what waits for its turn; returns whether there was some."""
        jobs = list(self._jobs.get(str(session), ()))
        for job in jobs:
            job.stop()
        return bool(jobs)

    def leave(self, session: str | None) -> None:
        """Stop the work of a session that is over, and remove its results."""
        self.stop(session)
        self._jobs.pop(str(session), None)
        shutil.rmtree(self._place(session), ignore_errors=True)

    def plain(self, message: str) -> str:
        """Return a message of a command as HTML for the page: names of files alone, options without dashes."""
        message = re.sub(rf"{re.escape(str(self.folder))}/(?:[^\s:/]+/)*", "", message)
        return html.escape(_OPTION.sub("", message), quote=False)

    def sweep(self) -> None:
        """Remove what was not used for longer than ``age``."""
        # Work that ends meanwhile removes its folder: os.walk goes on then, where rglob fails.
        for folder, _, names in os.walk(self.folder):
            for path in (Path(folder) / name for name in names):
                with suppress(OSError):
                    used = max(path.stat().st_mtime, path.stat().st_ctime)
                    if self.examples not in path.parents and time.time() - used > self.age:
                        path.unlink()

    def _place(self, session: str | None) -> Path:
        return self._results / hashlib.sha256(str(session).encode()).hexdigest()[:16]

    def _watch(self) -> None:
        while not self._ended.wait(min(_SWEEP, self.age)):
            self.sweep()
