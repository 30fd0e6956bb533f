"""Work that can be stopped wherever it is."""

from __future__ import annotations

import contextvars
import ctypes
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Stopped(BaseException):
    """Somebody pressed Cancel; like Ctrl-C it is no :class:`Exception`, so that nothing takes it for a fault."""


class Job(Generic[T]):
    """Runs a function in a thread of its own, in which it can be stopped as Ctrl-C stops a command.

    Args:
        work: The function. What it opens it must close when an exception passes through, as context managers do.
    """

    def __init__(self, work: Callable[[], T]) -> None:
        self._work = work
        self._made: list[T] = []
        self._error: BaseException = Stopped()
        self._stopped = False
        self._thread = threading.Thread(target=contextvars.copy_context().run, args=(self._run,), daemon=True)

    def result(self) -> T:
        """Run it, and return what it returns.

        Raises:
            Stopped: It was stopped, before it began or since.
        """
        if not self._stopped:
            self._thread.start()
            self._thread.join()
        if self._made:
            return self._made[0]
        raise self._error

    def stop(self) -> None:
        """Stop it; a call of compiled code that is under way comes to its end first."""
        if self._stopped:
            return
        self._stopped = True
        if self._thread.is_alive():
            number = ctypes.c_ulong(self._thread.ident or 0)
            ctypes.pythonapi.PyThreadState_SetAsyncExc(number, ctypes.py_object(Stopped))

    def _run(self) -> None:
        if self._stopped:
            return
        try:
            self._made.append(self._work())
        except BaseException as error:
            self._error = error
