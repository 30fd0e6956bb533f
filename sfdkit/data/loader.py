"""The loader: a ``DataLoader`` over the stream that knows its length, its epoch, and where it stands.

Lightning calls ``loader.sampler.set_epoch`` before each epoch, ``len`` for its schedule, and ``state_dict`` and
``load_state_dict`` around checkpoints. From a loader without a length it fetches one batch ahead, which a resume would
then lose; from one with a length it does not.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

import torch
from torch.utils.data import DataLoader

from sfdkit.data.reader import SkipReason
from sfdkit.data.settings import REASONS, Failure, StreamSettings, StreamState
from sfdkit.data.stream import build_stream
from sfdkit.errors import ShardError
from sfdkit.types import FrameBatch


class SkipCount(NamedTuple):
    """Rows of batches that were lost to damaged clips of one shard for one reason."""

    shard: str
    reason: SkipReason
    rows: int


class EpochLoader:
    """Batches of one rank, epoch by epoch.

    The order depends on (seed, epoch, rank, world, number of workers) alone. In training each epoch of each rank has
    the same number of full batches; in validation each clip comes once over all ranks and workers, the last batch of a
    worker may be short, and ranks may differ in length.

    Args:
        settings: What to read.
        num_workers: Worker processes; with 0 the main process reads.
        pin_memory: Put batches into page-locked memory, for copying to a GPU.
        start_method: How workers are started; None takes the platform's default.
    """

    batch_sampler = None
    """Lightning asks each loader that has a ``sampler`` for this one too."""

    def __init__(
        self,
        settings: StreamSettings,
        num_workers: int = 0,
        pin_memory: bool = False,
        start_method: Literal["fork", "spawn", "forkserver"] | None = None,
    ) -> None:
        self.settings = settings
        self._processes = num_workers
        self._pin_memory = pin_memory
        self._start_method = start_method if num_workers else None
        self._workers = max(1, num_workers)
        self._state = StreamState(self._workers, len(settings.index["shards"]))
        self._epoch = 0
        self._batches = 0
        self._resume: tuple[int, int] | None = None
        self._loader: DataLoader | None = None

    @property
    def sampler(self) -> EpochLoader:
        """The object whose ``set_epoch`` Lightning calls.

        A property, because an attribute would be a reference cycle, and workers whose queues are freed by the cycle
        collector do not hear that they should end: closing took ten seconds.
        """
        return self

    def __len__(self) -> int:
        """Return the number of batches in an epoch; fewer come only in validation when clips are skipped."""
        return sum(self.settings.batches(self._workers, worker) for worker in range(self._workers))

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next iteration."""
        self._epoch = epoch

    def state_dict(self) -> dict[str, int]:
        """Return the epoch and the number of its batches given so far; the same on all ranks."""
        return {"epoch": self._epoch, "batches": self._batches}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Let the next iteration go on in the middle of an epoch, should it be of the same epoch.

        The batches that follow equal those of a run that was not interrupted if seed, ranks, workers and batch size
        are the same and no clip is skipped. What was seen already is read and shuffled again, not decoded.
        """
        self._epoch = state["epoch"]
        self._resume = state["epoch"], state["batches"]

    def skips(self) -> list[SkipCount]:
        """Return what this rank has skipped in the current epoch, by shard and reason."""
        counts = self._state.skips()
        names = [entry["name"] for entry in self.settings.index["shards"]]
        return [
            SkipCount(names[shard], REASONS[reason], int(counts[shard, reason]))
            for shard, reason in counts.nonzero().tolist()
        ]

    def close(self) -> None:
        """End the workers; the next iteration starts new ones."""
        self._loader = None

    def _open(self) -> DataLoader:
        return DataLoader(
            build_stream(self.settings, self._state),
            batch_size=None,
            num_workers=self._processes,
            pin_memory=self._pin_memory,
            persistent_workers=self._processes > 0,
            multiprocessing_context=self._start_method,
            generator=torch.Generator(),  # else each epoch would draw from the global generator
        )

    def __iter__(self) -> Iterator[FrameBatch]:
        """Yield the batches of the current epoch.

        Raises:
            ShardError: A shard or clip is damaged and the budget for skips does not cover it.
        """
        epoch, done = self._resume or (self._epoch, 0)
        if epoch != self._epoch or done >= len(self):
            done = 0
        self._resume = None
        self._batches = done
        # Workers give batches in turn: all of them leave out whole rounds, the rest is dropped here.
        self._state.begin(self._epoch, done // self._workers)
        if self._loader is None:
            self._loader = self._open()
        for number, batch in enumerate(self._loader, start=done - done % self._workers):
            if isinstance(batch, Failure):
                raise ShardError(batch.message)
            if number >= done:
                self._batches += 1
                yield batch
