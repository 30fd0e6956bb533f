"""How often an operation on a storage is tried: waits that double, and errors after which no further attempt helps."""

from __future__ import annotations

import errno
import logging
import random
import time
from dataclasses import dataclass

import urllib3

from sfdkit.errors import MissingError, StorageError, TruncatedError
from sfdkit.storage.driver import Busy, Changed, Short
from sfdkit.storage.settings import StorageSettings
from sfdkit.storage.urls import redact

_log = logging.getLogger("sfdkit.storage")
_jitter = random.Random()  # of its own, so that waiting moves no generator of the training
_PERMANENT = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_PASSING = (errno.EIO, errno.ESTALE, errno.EAGAIN, errno.ETIMEDOUT)  # of network file systems


@dataclass
class Attempts:
    """Failures in a row of one operation."""

    settings: StorageSettings
    what: str
    local: bool = False
    failures: int = 0
    missing: int = 0
    since: float = 0.0

    def progress(self) -> None:
        """Forget the failures: something arrived."""
        self.failures = self.missing = 0

    def failed(self, error: Exception) -> None:
        """Wait before the next attempt.

        Raises:
            StorageError: No further attempt makes sense.
        """
        if self.failures == 0:
            self.since = time.monotonic()
        self.failures += 1
        reason = redact(_words(error))
        reason = reason if len(reason) <= 300 else reason[:300] + " ..."
        if isinstance(error, FileNotFoundError | Short):  # gateways may say so in passing
            self.missing += 1
            last = self.local or self.missing >= min(3, self.settings.attempts)
            if last and isinstance(error, Short):
                raise TruncatedError(f"{self.what}: the file is shorter than its index says. Copy it again") from None
            if last:
                raise MissingError(f"{self.what}: there is no such file. Check the address, or copy it there") from None
        elif isinstance(error, PermissionError):
            raise StorageError(
                f"{self.what}: access is refused ({reason}). Check the credentials in the environment and the rights"
            ) from None
        elif isinstance(error, Changed):
            raise StorageError(f"{self.what}: the file was replaced while it was read. Start again") from None
        elif isinstance(error, OSError) and (error.errno in _PERMANENT or (self.local and error.errno not in _PASSING)):
            raise StorageError(f"{self.what}: {error.strerror}. Check the path, the rights and free space") from None
        if self.failures >= self.settings.attempts:
            seconds = time.monotonic() - self.since
            raise StorageError(
                f"{self.what}: {reason}, {self.failures} times in a row in {seconds:.1f} s. Check the network and the "
                "server, or raise storage.attempts"
            ) from None
        wait = min(self.settings.longest_wait, self.settings.first_wait * 2 ** (self.failures - 1))
        wait *= _jitter.uniform(0.5, 1.0)
        if isinstance(error, Busy) and error.wait:
            wait = min(self.settings.longest_wait, max(wait, error.wait))
        _log.info("%s: %s; attempt %d in %.1f s", self.what, reason, self.failures + 1, wait)
        time.sleep(wait)


def _words(error: Exception) -> str:
    if isinstance(error, Short):
        return "the answer is shorter than what was asked for"
    if isinstance(error, urllib3.exceptions.ReadTimeoutError):
        return "no byte came within storage.timeout"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split())
