"""Reading ahead in the background, so that a slow storage is waited for once and not at each clip."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from typing import Generic, TypeVar

_Item = TypeVar("_Item")


class ReadAhead(Generic[_Item]):
    """Items of an iterator, made in a thread of its own while there is room.

    Args:
        items: Makes the iterator, which lives in the thread alone.
        size: Bytes that an item takes.
        limit: Bytes that wait at most, besides one item of any size.
    """

    def __init__(self, items: Callable[[], Generator[_Item]], size: Callable[[_Item], int], limit: int) -> None:
        self._items, self._size, self._limit = items, size, limit
        self._ready: deque[_Item] = deque()
        self._bytes = 0
        self._changed = threading.Condition()
        self._ended = self._closed = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="sfdkit read-ahead", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            with closing(self._items()) as items:
                for item in items:
                    with self._changed:
                        self._ready.append(item)
                        self._bytes += self._size(item)
                        self._changed.notify_all()
                        self._changed.wait_for(lambda: self._closed or self._bytes < self._limit)
                        if self._closed:
                            return
        except BaseException as error:
            self._error = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def __iter__(self) -> Iterator[_Item]:
        """Return itself."""
        return self

    def __next__(self) -> _Item:
        """Return the next item, waiting for it.

        Raises:
            BaseException: What the iterator raised, after the items before it.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._ready or self._ended)
            if not self._ready:
                if self._error is not None:
                    raise self._error
                raise StopIteration
            item = self._ready.popleft()
            self._bytes -= self._size(item)
            self._changed.notify_all()
            return item

    def close(self) -> None:
        """End the thread after the item that it is making."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
