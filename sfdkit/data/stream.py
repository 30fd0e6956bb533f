"""The stream: from shards to batches, as an explicit list of stages.

    ranges of clips -> strict reader -> shuffle buffer -> chosen frames, decoded -> batches -> as many as planned

Legend: a *slot* is one worker of one rank, see :mod:`sfdkit.data.plan`; a *turn* is one pass of a slot over its clips.

The stages are module-level classes and hold plain values, so the stream can be sent to workers that are forked,
spawned or come from a fork server. Rank and world size are bound when the stream is built, in the main process: a
spawned worker of a process group cannot find them out. All randomness depends on (seed, epoch, slot, and turn or row),
nothing on time.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import NamedTuple

import torch
import webdataset as wds
from torch import Tensor
from torch.utils.data import get_worker_info

from sfdkit.data.decode import decode_frames
from sfdkit.data.pairs import choose_frames, spread_frames
from sfdkit.data.plan import ClipRange, generator, slot_ranges, training_ranges
from sfdkit.data.reader import ClipError, RawClip, SkipReason, parse_clip, read_raw_clips
from sfdkit.data.settings import Failure, StreamSettings, StreamState
from sfdkit.errors import ShardError
from sfdkit.types import Clip, FrameBatch


class _Draw(NamedTuple):
    """One clip of one turn, for one row."""

    turn: int
    shard: int
    position: int
    """Byte in the shard at which the clip starts, for messages."""
    clip: Clip


class _Row(NamedTuple):
    """One row of a batch."""

    frames: Tensor
    """1 + K 3 H W uint8, the source first."""
    key: str
    identity: str


class _Stop(Exception):
    """Ends the stream; not a ``ShardError``, so that no stage takes it for damage to count."""


@dataclass(frozen=True)
class _Stage:
    """What each stage knows: the settings, the shared state, and the worker it runs in."""

    settings: StreamSettings
    state: StreamState

    @property
    def worker(self) -> int:
        info = get_worker_info()
        return info.id if info else 0

    @property
    def workers(self) -> int:
        info = get_worker_info()
        return info.num_workers if info else 1

    @property
    def slot(self) -> int:
        return self.settings.rank * self.workers + self.worker

    def path(self, shard: int) -> Path:
        """Return the path of a shard."""
        return Path(self.settings.folder) / self.settings.index["shards"][shard]["name"]

    def skip(self, shard: int, reason: SkipReason, rows: int, error: ShardError) -> None:
        """Count rows that are lost to ``error``, or stop when they are more than the budget allows."""
        self.state.skip(self.worker, shard, reason, rows)
        skipped, budget, total = (
            int(self.state.skips().sum()),
            self.settings.skip_budget,
            self.settings.rows(self.workers),
        )
        if budget == 0:
            raise _Stop(str(error))
        if skipped > budget * total:
            raise _Stop(
                f"{skipped} of {total} rows of this epoch are lost to damage, more than skip_budget = {budget} allows. "
                f"The last: {error}"
            )


class Ranges(_Stage):
    """Stage 1: the ranges of clips that this slot reads, with the number of the turn; endless in training."""

    def __call__(self) -> Iterator[tuple[int, ClipRange]]:
        """Yield (turn, range)."""
        settings, slots = self.settings, self.settings.world * self.workers
        if not settings.training:
            order = range(len(settings.index["shards"]))
            yield from ((0, part) for part in slot_ranges(settings.index, order, slots, self.slot))
            return
        ranges = training_ranges(settings.index, settings.seed, self.state.epoch, slots, self.slot)
        turn = 0
        while True:
            yield from ((turn, part) for part in ranges)
            turn += 1


class Clips(_Stage):
    """Stage 2: the clips of each range, not decoded; what was read is compared with the index."""

    def __call__(self, ranges: Iterable[tuple[int, ClipRange]]) -> Iterator[_Draw]:
        """Yield each clip as often as it gives rows."""
        copies = self.settings.rows_per_clip if self.settings.training else 1
        for turn, part in ranges:
            read = 0
            try:
                for raw in self._read(part):
                    read += 1
                    yield from self._draws(turn, part.shard, raw, copies)
            except ShardError as error:
                self.skip(part.shard, "shard", (part.stop - part.start - read) * copies, error)

    def _draws(self, turn: int, shard: int, raw: RawClip, copies: int) -> list[_Draw]:
        try:
            return [_Draw(turn, shard, raw.position, parse_clip(raw))] * copies
        except ClipError as error:
            self.skip(shard, error.reason, copies, error)
            return []

    def _read(self, part: ClipRange) -> Iterator[RawClip]:
        path = self.path(part.shard)
        to_end = (
            part.stop == self.settings.index["shards"][part.shard]["clips"]
        )  # then the end of the archive is looked at as well
        clips = read_raw_clips(path, part.start, None if to_end else part.stop)
        found = part.start
        for found, raw in zip(range(part.start + 1, part.stop + 1), clips, strict=False):
            if to_end and found == part.stop and next(clips, None) is not None:
                raise ShardError(f"The shard {path} holds more clips than the {part.stop} of its index. Pack it again.")
            yield raw
        if found < part.stop:
            raise ShardError(f"The shard {path} holds {found} clips, its index says {part.stop}. Pack it again.")


class Shuffle(_Stage):
    """Stage 3, training only: a shuffle buffer that is emptied at the end of each turn, so that no clip is lost."""

    def __call__(self, draws: Iterable[_Draw]) -> Iterator[_Draw]:
        """Yield the same clips in another order."""
        for turn, group in groupby(draws, key=lambda draw: draw.turn):
            rng = generator(self.settings.seed, self.state.epoch, self.slot, turn)
            yield from self._shuffled(group, rng)

    def _shuffled(self, draws: Iterable[_Draw], rng: random.Random) -> Iterator[_Draw]:
        buffer: list[_Draw] = []
        for draw in draws:
            if len(buffer) < self.settings.shuffle:
                buffer.append(draw)
            elif buffer:
                place = rng.randrange(len(buffer))
                yield buffer[place]
                buffer[place] = draw
            else:
                yield draw
        rng.shuffle(buffer)
        yield from buffer


class Rows(_Stage):
    """Stage 4: choose frames and decode these. After a resume, rows of batches that were seen are not decoded."""

    def __call__(self, draws: Iterable[_Draw]) -> Iterator[_Row]:
        """Yield the rows of the batches."""
        settings = self.settings
        seen = self.state.batches_done * settings.batch_size
        for number, draw in enumerate(draws):
            if number < seen:
                continue
            try:
                yield self._row(draw.clip, number)
            except ClipError as error:
                where = f"It is in shard {self.path(draw.shard)}, byte {draw.position}."
                self.skip(draw.shard, error.reason, 1, ShardError(f"{error} {where}"))

    def _row(self, clip: Clip, number: int) -> _Row:
        settings = self.settings
        frames = len(clip["meta"]["times"])
        if settings.training:
            rng = generator(settings.seed, self.state.epoch, self.slot, number, 1)
            chosen = choose_frames(frames, settings.driving, rng)
        else:
            chosen = spread_frames(frames, settings.driving)
        return _Row(decode_frames(clip, chosen), clip["key"], clip["meta"]["identity"])


class Batches(_Stage):
    """Stage 5: rows to batches, as many as planned; an error that ends the stream becomes a :class:`Failure`."""

    def __call__(self, rows: Iterable[_Row]) -> Iterator[FrameBatch | Failure]:
        """Yield the batches."""
        iterator = iter(rows)
        planned = self.settings.batches(self.workers, self.worker) - self.state.batches_done
        try:
            for _ in range(planned):
                batch = list(islice(iterator, self.settings.batch_size))
                if not batch:
                    return
                yield collate(batch)
        except _Stop as stop:
            yield Failure(str(stop))


def collate(rows: list[_Row]) -> FrameBatch:
    """Stack rows to a batch."""
    return FrameBatch(
        source=torch.stack([row.frames[0] for row in rows]),
        driving=torch.stack([row.frames[1:] for row in rows]),
        key=[row.key for row in rows],
        identity=[row.identity for row in rows],
    )


def build_stream(settings: StreamSettings, state: StreamState) -> wds.DataPipeline:
    """Build the stream of one rank.

    Args:
        settings: What to read.
        state: Shared by the main process and all workers.

    Returns:
        An iterable data set whose items are finished :class:`~sfdkit.types.FrameBatch` of uint8 images, or a
        :class:`Failure`; give it to a ``DataLoader`` with ``batch_size=None``.
    """
    return wds.DataPipeline(
        # (turn, range of clips) of this slot, shards in the order of the epoch
        Ranges(settings, state),
        # clips as bytes
        Clips(settings, state),
        # the same, shuffled
        Shuffle(settings, state) if settings.training else None,
        # chosen frames, decoded to uint8
        Rows(settings, state),
        # batches
        Batches(settings, state),
    )
