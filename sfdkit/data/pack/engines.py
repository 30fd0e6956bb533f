"""Who encodes the sources: this process, others on this machine, or the machines of a Ray cluster.

Results come in the order of the sources, and a bounded number of sources is ahead of the one that is waited for, so
that the files of encoded clips stay bounded while the writer is the slower one.

This file imports little, so that a new process is quick to start.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Literal, TypeVar

import cv2

from sfdkit.data.pack.cluster import ray_cluster
from sfdkit.data.pack.encode import EncodedSource, Job, encode_source, load_source, source_files, store_source_files
from sfdkit.errors import DataError

EngineName = Literal["processes", "ray"]

Engine = Callable[[Iterable[Job], Path], Iterator[EncodedSource]]
"""Encodes each source into a file of a folder and yields the results in order."""

_AHEAD = 4  # sources per worker between the one that is waited for and the last one that was begun
_RETRIES = 5  # of a task whose node was lost
_Result = TypeVar("_Result")


@contextmanager
def engine(name: EngineName, workers: int) -> Iterator[Engine]:
    """Give what encodes sources.

    Args:
        name: ``processes`` or ``ray``.
        workers: How many sources at the same time. For ``processes`` 0 encodes in this process; for ``ray`` 0 takes all
            processors of the cluster, also of nodes that join later.

    Raises:
        ConfigError: Ray is not installed.
        DataError: The cluster cannot be reached, or a worker died.
    """
    if name == "ray":
        with _ray(workers) as chosen:
            yield chosen
    elif workers:
        with _processes(workers) as chosen:
            yield chosen
    else:
        yield lambda jobs, folder: (encode_source(job, folder) for job in jobs)


def _in_order(
    jobs: Iterable[Job], begin: Callable[[Job], Future[_Result]], ahead: Callable[[], int]
) -> Iterator[tuple[int, _Result]]:
    """Yield the number and the result of each job in order, with at most ``ahead()`` begun at a time."""
    begun: deque[tuple[int, Future[_Result]]] = deque()
    for job in jobs:
        begun.append((job[0], begin(job)))
        while len(begun) >= max(1, ahead()):
            number, future = begun.popleft()
            yield number, future.result()
    for number, future in begun:
        yield number, future.result()


@contextmanager
def _processes(workers: int) -> Iterator[Engine]:
    context = get_context("spawn")
    until, owner = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(workers, context, _begin_worker, (until,))

    def encode(jobs: Iterable[Job], folder: Path) -> Iterator[EncodedSource]:
        results = _in_order(jobs, lambda job: pool.submit(encode_source, job, folder), lambda: _AHEAD * workers)
        return (result for _, result in results)

    try:
        yield encode
    except BrokenProcessPool as error:
        raise DataError(
            f"one of the {workers} processes that encode was ended from outside, most often for lack of memory: "
            "call the same command again with fewer --workers, it resumes"
        ) from error
    finally:
        owner.close()
        pool.shutdown(cancel_futures=True)
        until.close()


def _begin_worker(until: Connection) -> None:
    """Prepare a process: it keeps to one core and ends together with the one that started it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_owner, args=(until,), daemon=True).start()
    _use_one_core()


def _end_with_owner(until: Connection) -> None:
    with suppress(EOFError, OSError):
        until.recv_bytes()
    os._exit(1)


def _use_one_core() -> None:
    """Keep a worker's libraries to one thread: several per core wait for each other, and take six times as long."""
    cv2.setNumThreads(1)
    os.environ["OMP_NUM_THREADS"] = "1"  # for torch, if it is imported after this
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@contextmanager
def _ray(workers: int) -> Iterator[Engine]:
    with ray_cluster(workers or None) as (ray, address):
        task = ray.remote(num_cpus=1, max_retries=_RETRIES)(_encode_on_node)

        def ahead() -> int:
            if workers and address != "local":
                return workers
            return _AHEAD * int(ray.cluster_resources().get("CPU", 1))

        def encode(jobs: Iterable[Job], folder: Path) -> Iterator[EncodedSource]:
            for number, files in _in_order(jobs, lambda job: task.remote(job).future(), ahead):
                store_source_files(number, files, folder)
                if (stored := load_source(number, folder)) is not None:
                    yield stored

        yield encode


def _encode_on_node(job: Job) -> tuple[bytes, bytes]:
    """Encode a source, as a task of Ray; return the contents of its files."""
    _use_one_core()
    path = getattr(job[1], "path", None)
    if isinstance(path, Path) and not path.exists():
        raise DataError(
            f"the node {os.uname().nodename} of the Ray cluster has no {path}: mount the folder of --root at the same "
            "path on all nodes"
        )
    with tempfile.TemporaryDirectory() as folder:
        encode_source(job, Path(folder))
        return source_files(job[0], Path(folder))
