"""The Ray cluster (https://www.ray.io): reaching it, and what its failures mean."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from sfdkit.errors import ConfigError, DataError

_ANSWER_SECONDS = 10.0


class Cluster(NamedTuple):
    """A cluster that answers."""

    ray: Any
    """The module ``ray``, initialised."""
    address: str
    """What ``RAY_ADDRESS`` said, or ``local``."""


@contextmanager
def ray_cluster(cpus: int | None = None) -> Iterator[Cluster]:
    """Give the Ray cluster that ``RAY_ADDRESS`` names, or a local one, until the end of the block.

    Args:
        cpus: Processors of a local cluster; None for all.

    Raises:
        ConfigError: Ray is not installed.
        DataError: The cluster cannot be reached or fails, or a task raised one.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise ConfigError("--engine ray needs Ray, which is not installed: pip install 'sfdkit[cluster]'") from error
    address = os.environ.get("RAY_ADDRESS") or "local"
    ours = not ray.is_initialized()
    if ours:
        _require_answer(address)
    try:
        if ours:
            local: dict[str, Any] = {"include_dashboard": False, "num_cpus": cpus} if address == "local" else {}
            ray.init(address, logging_level=logging.ERROR, log_to_driver=False, **local)
        yield Cluster(ray, address)
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        if isinstance(cause, DataError):
            raise DataError(str(cause)) from error
        raise
    except (ray.exceptions.RayError, ConnectionError) as error:
        text = " ".join(str(error).split())
        raise DataError(
            f"the Ray cluster {address!r} failed ({text[:300]}): check RAY_ADDRESS and that each node has sfdkit, then "
            "call the same command again, it resumes"
        ) from error
    finally:
        if ours:
            ray.shutdown()


def _require_answer(address: str) -> None:
    """Check that something listens at HOST:PORT; Ray itself waits for minutes.

    Raises:
        DataError: Nothing does.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER_SECONDS).close()
    except OSError as error:
        raise DataError(
            f"no Ray cluster answers at RAY_ADDRESS {address!r} ({error.strerror or error}): start one there with `ray "
            "start --head`, or unset RAY_ADDRESS"
        ) from error
