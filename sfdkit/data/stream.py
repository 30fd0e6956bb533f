"""The stream: from shards to batches.

    plan of the rank -> its lanes, each: clips in the order of the shards -> shuffled -> chosen frames, decoded
    -> a batch of each lane in turn

Legend: *rank*, *lane*, *row* and *visit* as in :mod:`sfdkit.data.plan`. A *draw* is a row of a lane, counted from its
first.

The stages are module-level classes and hold plain values, so the stream can be sent to workers that are forked,
spawned or come from a fork server. Rank and world size are bound when the stream is built, in the main process: a
spawned worker of a process group cannot find them out. All randomness depends on (seed, epoch, rank, lane or row),
nothing on time or on the number of workers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import webdataset as wds
from torch import Tensor
from torch.utils.data import get_worker_info

from sfdkit.data.pairs import choose_frames, spread_frames
from sfdkit.data.plan import RankPlan, generator, ranges_of, shuffled
from sfdkit.data.readahead import ReadAhead
from sfdkit.data.settings import Delivered, Failure, Skip, StreamSettings, StreamState
from sfdkit.data.shards.access import ClipBytes, Damage, read_range
from sfdkit.data.shards.decode import decode_frames
from sfdkit.data.shards.reader import ClipError, parse_clip
from sfdkit.errors import SfdkitError
from sfdkit.points import PointSet, from_pixels
from sfdkit.types import Clip, FrameBatch

_SUBSTITUTES = 16  # clips that are tried in the place of a damaged one


class _Row(NamedTuple):
    """One row of a batch."""

    frames: Tensor
    """1 + K 3 H W uint8, the source first."""
    points: Tensor | None
    """1 + K L 2 in [-1, 1]; None where the folders carry no points."""
    key: str
    identity: str


class _Stop(Exception):
    """Ends the stream."""


class Lane:
    """The rows of one lane, in the order of its shuffle buffer.

    Only arithmetic decides which clip a row is of, so rows that were seen before a resume are neither read nor decoded,
    and a damaged clip moves no other row.

    Args:
        settings: What to read.
        plan: The rows of the rank.
        epoch: Number of the epoch.
        lane: Number of the lane.
        done: Rows at its start that are left out.
        read_ahead: Bytes of clips to keep ready; with 0, and for local shards, clips are read when they are wanted.
    """

    def __init__(
        self, settings: StreamSettings, plan: RankPlan, epoch: int, lane: int, done: int, read_ahead: int
    ) -> None:
        self._settings, self._plan, self._epoch, self._lane = settings, plan, epoch, lane
        self._start, stop = plan.lane_rows(lane)
        draws = stop - self._start
        buffer = settings.shuffle if settings.training else 0
        self._order = shuffled(draws, buffer, generator(settings.seed, epoch, settings.rank, lane))
        self._seen = Counter(self._visit(next(self._order)) for _ in range(done))  # rows of each visit
        self._visits = self._wanted()
        self._held: dict[int, tuple[Clip | Damage, int]] = {}  # with the rows that still need it
        self._items: Generator[ClipBytes | Damage] | ReadAhead[ClipBytes | Damage] = self._read()
        shards = settings.shards
        if read_ahead and not all(folder.storage.is_local for folder in shards.folders):
            self._items = ReadAhead(self._read, lambda item: len(getattr(item, "data", b"")), read_ahead)

    def _visit(self, draw: int) -> int:
        return (self._start + draw) // self._plan.rows_per_clip

    def _rows_of(self, visit: int) -> int:
        """Return the rows of this lane that still need a visit when it begins."""
        start, stop = self._plan.lane_rows(self._lane)
        each = self._plan.rows_per_clip
        return min(stop, (visit + 1) * each) - max(start, visit * each) - self._seen[visit]

    def _wanted(self) -> Iterator[int]:
        """Yield the visits that are to be read, in the order of the shards."""
        start, stop = self._plan.lane_rows(self._lane)
        each = self._plan.rows_per_clip
        return (visit for visit in range(start // each, -(-stop // each)) if self._rows_of(visit))

    def _read(self) -> Generator[ClipBytes | Damage]:
        for part in ranges_of(self._plan.clip(visit) for visit in self._wanted()):
            with closing(read_range(*self._settings.shards[part.shard], part.start, part.stop)) as items:
                yield from items

    def close(self) -> None:
        """Close what is open."""
        self._items.close()

    def take(self, count: int) -> tuple[list[_Row], list[Skip]]:
        """Return the next rows, and those that are lost; in training another clip stands in for each of these."""
        rows, skips = [], []
        for _ in range(count):
            draw = next(self._order)
            visit = self._visit(draw)
            try:
                row = self._row(self._clip(visit), draw)
            except ClipError as error:
                skips.append(Skip(self._plan.clip(visit)[0], error.reason, str(error)))
                if not self._settings.training:
                    continue
                row = self._substitute(draw, error)
            rows.append(row)
        return rows, skips

    def _clip(self, visit: int) -> Clip:
        while visit not in self._held:
            read = next(self._visits)
            self._held[read] = _parsed(next(self._items)), self._rows_of(read)
        item, rows = self._held.pop(visit)
        if rows > 1:
            self._held[visit] = item, rows - 1
        return _good(item)

    def _substitute(self, draw: int, cause: ClipError) -> _Row:
        """Return a row of another clip of this rank; which one depends on the draw alone, whatever was read before."""
        settings = self._settings
        rng = generator(settings.seed, self._epoch, settings.rank, self._lane, draw, 2)
        for _ in range(_SUBSTITUTES):
            shard, number = self._plan.clip(rng.randrange(self._plan.clips))
            (item,) = read_range(*settings.shards[shard], number, number + 1)
            try:
                return self._row(_good(_parsed(item)), draw)
            except ClipError as error:
                if error.reason == "storage":
                    break
        raise _Stop(f"{str(cause).rstrip('.')}. No other clip could take its place.")

    def _row(self, clip: Clip, draw: int) -> _Row:
        settings = self._settings
        frames = len(clip["meta"]["times"])
        if settings.training:
            rng = generator(settings.seed, self._epoch, settings.rank, self._lane, draw, 1)
            chosen = choose_frames(frames, settings.driving, rng)
        else:
            chosen = spread_frames(frames, settings.driving)
        points = None if settings.point_set is None else chosen_points(clip, chosen, settings.point_set)
        return _Row(decode_frames(clip, chosen), points, clip["key"], clip["meta"]["identity"])


def _parsed(item: ClipBytes | Damage) -> Clip | Damage:
    if isinstance(item, Damage):
        return item
    try:
        return parse_clip(item.raw())
    except ClipError as error:
        return Damage(error.reason, str(error))


def _good(item: Clip | Damage) -> Clip:
    if isinstance(item, Damage):
        raise ClipError(item.reason, item.message)
    return item


@dataclass(frozen=True)
class _Stage:
    """What each stage knows: the settings, and the state that the main process shares with it."""

    settings: StreamSettings
    state: StreamState


class Lanes(_Stage):
    """Stage 1: the batches of this worker's lanes, in turn, as (lane, number of rows).

    Workers give their items in turn too: worker ``w`` of ``W`` has the lanes ``w, w + W, ...``, and gives None where
    another one still has a batch in this round and it has none, so that what arrives is in the order of the batches.
    """

    def __call__(self) -> Iterator[tuple[Lane, int] | None]:
        """Yield a lane and the rows to take from it, or None."""
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        settings, epoch, done = self.settings, self.state.epoch, self.state.batches_done
        plan = settings.plan(epoch)
        mine = range(worker, plan.lanes, workers)
        limits = [folder.storage.settings.read_ahead_mb for folder in settings.shards.folders]
        read_ahead = int(max(limits) * 1e6 / max(1, len(mine)))
        lanes: dict[int, Lane] = {}
        try:
            for first in range(done - done % plan.lanes, plan.batches, plan.lanes):
                for lane in range(worker, plan.lanes + -plan.lanes % workers, workers):
                    batch = first + lane
                    if lane >= plan.lanes or not done <= batch < plan.batches:
                        yield None
                        continue
                    size = settings.batch_size
                    left = plan.lane_rows(lane)[1] - plan.lane_rows(lane)[0] - batch // plan.lanes * size
                    if lane not in lanes:
                        seen = batch // plan.lanes * size
                        lanes[lane] = Lane(settings, plan, epoch, lane, seen, read_ahead)
                    yield lanes[lane], min(size, left)
        finally:
            for opened in lanes.values():
                opened.close()


class Batches(_Stage):
    """Stage 2: the batches; an error that ends the stream becomes a :class:`Failure`."""

    def __call__(self, turns: Iterable[tuple[Lane, int] | None]) -> Iterator[Delivered | Failure | None]:
        """Yield what the main process gets."""
        repeats, points = self.settings.shards.repeats, self.settings.point_set
        try:
            for turn in turns:
                if turn is None:
                    yield None
                    continue
                lane, count = turn
                rows, skips = lane.take(count)
                before, repeats = repeats, self.settings.shards.repeats
                yield Delivered(collate(rows, points) if rows else None, count, skips, repeats - before)
        except (_Stop, SfdkitError) as error:
            yield Failure(str(error))


def chosen_points(clip: Clip, chosen: Sequence[int], of: PointSet) -> Tensor:
    """Return the points of some frames of a clip.

    Args:
        clip: The clip.
        chosen: T frame numbers.
        of: The set wanted.

    Returns:
        T L 2 in [-1, 1]; not a number where the clip has none.

    Raises:
        ClipError: What the clip's json says of them is damaged.
    """
    meta = clip["meta"]
    stored = meta.get("points")
    places = torch.full((len(chosen), len(of.names), 2), float("nan"))
    if stored is None:
        return places
    try:
        for row, number in enumerate(chosen):
            if (found := stored["frames"][number]) is not None:
                places[row] = torch.tensor(found)
    except (KeyError, IndexError, TypeError, ValueError, RuntimeError) as error:
        message = f"{clip['key']}: its points are not {len(of.names)} pairs per frame ({error})"
        raise ClipError("json", message) from error
    return from_pixels(places, meta["resolution"])


def collate(rows: list[_Row], points: PointSet | None) -> FrameBatch:
    """Stack rows to a batch."""
    frames = [row.frames.numpy() for row in rows]
    batch = FrameBatch(
        source=torch.from_numpy(np.stack([of_row[0] for of_row in frames])),
        driving=torch.from_numpy(np.stack([of_row[1:] for of_row in frames])),
        key=[row.key for row in rows],
        identity=[row.identity for row in rows],
    )
    if points is not None:
        batch["points"] = torch.stack([row.points for row in rows if row.points is not None])
        batch["point_set"] = points.name
    return batch


def build_stream(settings: StreamSettings, state: StreamState) -> wds.DataPipeline:
    """Build the stream of one rank.

    Args:
        settings: What to read.
        state: Shared by the main process and all workers.

    Returns:
        An iterable data set whose items are :class:`Delivered` batches of uint8 images, a :class:`Failure`, or None
        where a worker has nothing in its turn; give it to a ``DataLoader`` with ``batch_size=None``.
    """
    return wds.DataPipeline(Lanes(settings, state), Batches(settings, state))
