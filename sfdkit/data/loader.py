"""The loader: a ``DataLoader`` over the stream that knows its length, its epoch, where it stands, and what was lost.

Lightning calls ``loader.sampler.set_epoch`` before each epoch, ``len`` for its schedule, and ``state_dict`` and
``load_state_dict`` around checkpoints. From a loader without a length it fetches one batch ahead, which a resume would
then lose; from one with a length it does not.
"""

from __future__ import annotations

import gc
import time
from collections import Counter
from collections.abc import Generator, Iterator
from typing import Any, Literal

import torch
from torch.utils.data import DataLoader

from sfdkit.data.settings import Delivered, Failure, StreamSettings, StreamState
from sfdkit.data.stream import build_stream
from sfdkit.errors import ConfigError, DataError, ShardError
from sfdkit.types import DataAccount, FrameBatch, SkipCount

_SHOWN = 20  # lines of the list of losses in an error


class EpochLoader:
    """Batches of one rank, epoch by epoch.

    The order depends on (seed, epoch, rank, world) and the settings alone, not on the number of workers. In training
    each epoch of each rank has the same number of full batches; in validation each clip comes once over all ranks, the
    last batch may be short, and ranks may differ in length.

    Args:
        settings: What to read.
        num_workers: Worker processes; with 0 the main process reads.
        pin_memory: Put batches into page-locked memory, for copying to a GPU.
        start_method: How workers are started; None takes the platform's default.

    Raises:
        ConfigError: There are more workers than lanes.
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
        if num_workers > settings.lanes:
            raise ConfigError(
                f"data.num_workers is {num_workers} and data.lanes is {settings.lanes}, so "
                f"{num_workers - settings.lanes} workers would have nothing to do: set data.lanes to {num_workers} or "
                "a multiple of it"
            )
        self.settings = settings
        self._workers = num_workers
        self._pin_memory = pin_memory
        self._start_method = start_method if num_workers else None
        self._state = StreamState()
        self._plan = settings.plan(0)  # lengths are the same in all epochs
        self._epoch = 0
        self._batches = 0
        self._resume: tuple[int, int] | None = None
        self._loader: DataLoader | None = None
        self._items: Generator[Delivered | Failure | None] | None = None
        self._forget()

    def _forget(self) -> None:
        self._expected = self._repeats = self._left_out = 0
        self._skips: Counter[tuple[int, str]] = Counter()
        self._first: dict[tuple[int, str], str] = {}
        self.waited = 0.0
        """Seconds that this epoch has waited for batches."""

    @property
    def sampler(self) -> EpochLoader:
        """The object whose ``set_epoch`` Lightning calls.

        A property, because an attribute would be a reference cycle, and workers whose queues are freed by the cycle
        collector do not hear that they should end: closing took ten seconds.
        """
        return self

    def __len__(self) -> int:
        """Return the number of batches in an epoch; fewer come only in validation when whole batches are lost."""
        return self._plan.batches

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next iteration."""
        self._epoch = epoch

    def state_dict(self) -> dict[str, Any]:
        """Return the epoch, the number of its batches given so far, and what their order depends on.

        It is the same on all ranks.
        """
        return {
            "epoch": self._epoch,
            "batches": self._batches,
            "length": len(self),
            "plan": self.settings.fingerprint(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Let the next iteration resume in the middle of an epoch, should it be of the same epoch.

        The batches that follow equal those of a run that was not interrupted, with any number of workers. What was seen
        already is neither read nor decoded again.

        Raises:
            ConfigError: The epoch was begun with another number of ranks, another batch size, or other data: what is
                left of it cannot be told. A state of the end of an epoch fits any.
        """
        length = state.get("length", state["batches"] + 1)  # earlier versions stored neither length nor plan
        if 0 < state["batches"] < length:
            before, now = state.get("plan", {}), self.settings.fingerprint()
            changed = [
                f"{name} {before.get(name)!r} then, {now[name]!r} now" for name in now if before.get(name) != now[name]
            ]
            if changed:
                raise ConfigError(
                    f"the checkpoint was written in the middle of epoch {state['epoch']}, after {state['batches']} of "
                    f"{length} batches, with other data settings ({'; '.join(changed)}), so the rest of that "
                    "epoch cannot be told. Resume with the same ones, or a checkpoint of the end of an epoch, which "
                    "resumes with any (--checkpoint.every_n_epochs 1 --checkpoint.every_n_train_steps null writes them)"
                )
        self._epoch = state["epoch"]
        self._resume = state["epoch"], state["batches"]

    def account(self) -> DataAccount:
        """Return what this epoch has read so far: expected = read + skipped, in rows of this rank."""
        skipped = [
            SkipCount(self.settings.shards.name(shard), reason, rows, self._first[shard, reason])
            for (shard, reason), rows in sorted(self._skips.items())
        ]
        lost = sum(count.rows for count in skipped)
        return DataAccount(
            epoch=self._epoch,
            batches=self._batches,
            planned_batches=len(self),
            batches_before_resume=self._left_out,
            expected=self._expected,
            read=self._expected - lost,
            skipped=skipped,
            repeated_reads=self._repeats,
            waited=self.waited,
        )

    def close(self) -> None:
        """End the workers; the next iteration starts new ones."""
        if self._items is not None:  # whoever keeps a running iterator must not keep the workers
            self._items.close()
        self._items = self._loader = None

    def _open(self) -> DataLoader:
        return DataLoader(
            build_stream(self.settings, self._state),
            batch_size=None,
            num_workers=self._workers,
            pin_memory=self._pin_memory,
            persistent_workers=self._workers > 0,
            multiprocessing_context=self._start_method,
            generator=torch.Generator(),  # else each epoch would draw from the global generator
        )

    def __iter__(self) -> Iterator[FrameBatch]:
        """Yield the batches of the current epoch.

        Raises:
            ShardError: More rows are lost than ``skip_budget`` allows; the message lists them.
        """
        epoch, done = self._resume or (self._epoch, 0)
        if epoch != self._epoch or done >= len(self):
            done = 0
        self._resume = None
        self._forget()
        self._batches = self._left_out = done
        self._state.begin(self._epoch, done)
        if self._loader is None:
            self._loader = self._open()
        since = time.perf_counter()
        self._items = _items(self._loader)
        for item in self._items:
            if isinstance(item, Failure):
                raise ShardError(item.message)
            if item is None:
                continue
            self.waited += time.perf_counter() - since
            self._batches += 1
            self._count(item)
            if item.batch is not None:
                yield item.batch
            since = time.perf_counter()

    def _count(self, item: Delivered) -> None:
        self._expected += item.rows
        self._repeats += item.repeats
        for skip in item.skips:
            self._skips[skip.shard, skip.reason] += 1
            self._first.setdefault((skip.shard, skip.reason), skip.message)
        lost, total, budget = self._skips.total(), self._plan.rows, self.settings.skip_budget
        if item.skips and lost > budget * total:
            lines = [f"  {c.rows} x {c.reason} in {c.shard}: {c.message}" for c in self.account()["skipped"]]
            more = [f"  and {len(lines) - _SHOWN} more of these"] if len(lines) > _SHOWN else []
            raise ShardError(
                "\n".join(
                    [
                        f"{lost} of {total} rows of this epoch are lost, data.skip_budget = {budget:g} allows less:",
                        *lines[:_SHOWN],
                        *more,
                    ]
                )
            )


def _items(loader: DataLoader) -> Generator[Delivered | Failure | None]:
    """Yield what the workers send.

    Raises:
        DataError: A worker was killed.
    """
    try:
        yield from _start(loader)
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise DataError(
            f"a worker process of the loader is gone ({str(error).splitlines()[0]}), most often for want of memory: "
            "lower data.num_workers or data.storage.read_ahead_mb, and resume with --ckpt_path"
        ) from error


def _start(loader: DataLoader) -> Iterator[Delivered | Failure | None]:
    """Start the workers, which leave alone what this process has yet to collect.

    A forked worker that collects a video reader of its parent waits for ever for that reader's decoding threads, which
    a fork does not copy. Frozen objects are never collected, and their memory stays shared
    (https://docs.python.org/3/library/gc.html#gc.freeze).
    """
    gc.freeze()
    try:
        return iter(loader)
    finally:
        gc.unfreeze()
