"""The output of a shell command, for storages that nothing else reaches."""

from __future__ import annotations

import os
import select
import shlex
import signal
import subprocess
from contextlib import suppress

from sfdkit.errors import ConfigError
from sfdkit.storage.driver import PIECE, Driver, Short, Transfer, skip
from sfdkit.storage.settings import StorageSettings
from sfdkit.storage.urls import redact


class PipeDriver(Driver):
    """Runs a command for each file; ``{}`` in it stands for the file's name."""

    whole = True

    def __init__(self, root: str, settings: StorageSettings) -> None:
        self.root, self._command, self._timeout = root, root.removeprefix("pipe:"), settings.timeout
        if not settings.allow_pipe:
            raise ConfigError(
                f"the root {redact(root)!r} runs a shell command: if you trust it, set storage.allow_pipe: true"
            )
        if "{}" not in self._command:
            raise ConfigError(f"the root {redact(root)!r} has no {{}}: write it where the file's name belongs")

    def open(self, name: str, start: int, stop: int | None, etag: str | None) -> Transfer:
        """Run the command and leave out its first bytes."""
        command = _Command(self._command.replace("{}", shlex.quote(name)), self._timeout)
        try:
            skip(command.read, start)
        except BaseException:
            command.close()
            raise
        return Transfer(command.read, None if stop is None else stop - start, Short(), close=command.close)

    def size(self, name: str) -> int:
        """Count what the command gives."""
        transfer = self.open(name, 0, None, None)
        size = 0
        while data := transfer.read(PIECE):
            size += len(data)
        transfer.close()
        return size


class _Command:
    """A shell command in a session of its own, so that all that the shell starts ends with it."""

    def __init__(self, command: str, timeout: float) -> None:
        self._timeout = timeout
        self._process = subprocess.Popen(
            command, shell=True, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, bufsize=0, start_new_session=True
        )

    def read(self, size: int) -> bytes:
        """Return what the command has written; nothing at its end."""
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], self._timeout)[0]:
            raise TimeoutError(f"its command gave no byte for {self._timeout:g} s")
        data = os.read(self._process.stdout.fileno(), size)
        if not data and (status := self._process.wait()):
            raise ConnectionError(f"its command ended with status {status}")
        return data

    def close(self) -> None:
        """End the command."""
        assert self._process.stdout is not None
        self._process.stdout.close()
        if self._process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
