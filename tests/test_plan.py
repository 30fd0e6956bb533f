from __future__ import annotations

import random
from collections import Counter

import pytest

from sfdkit.data.format import SCHEMA, ShardIndex
from sfdkit.data.pairs import choose_frames, spread_frames
from sfdkit.data.plan import ClipRange, generator, shard_order, slot_ranges, training_batches, training_ranges


def make_index(*clips: int) -> ShardIndex:
    return ShardIndex(
        schema=SCHEMA,
        dataset="puppets",
        split="train",
        resolution=32,
        identities=sum(clips),
        shards=[
            {"name": f"{number}.tar", "clips": count, "frames": count, "bytes": 0, "sha256": ""}
            for number, count in enumerate(clips)
        ],
    )


def clips_of(ranges: list[ClipRange]) -> list[tuple[int, int]]:
    return [(part.shard, clip) for part in ranges for clip in range(part.start, part.stop)]


def test_shard_order_is_a_permutation_by_seed_and_epoch() -> None:
    orders = {(seed, epoch): tuple(shard_order(8, seed, epoch)) for seed in (0, 1) for epoch in (0, 1, 2)}
    assert all(sorted(order) == list(range(8)) for order in orders.values())
    assert len(set(orders.values())) == 6
    assert shard_order(8, 1, 2) == list(orders[1, 2])


def test_generators_do_not_mix_up_their_parts() -> None:
    draws = {parts: generator(*parts).random() for parts in [(1, 23), (12, 3), (1, 2, 3), (123,)]}
    assert len(set(draws.values())) == 4
    assert generator(1, 2, 3).random() == draws[1, 2, 3]


@pytest.mark.parametrize("slots", [1, 2, 3, 4, 7, 20])
@pytest.mark.parametrize("clips", [(5,), (4, 1, 7), (2, 0, 2)])
def test_slots_take_each_clip_once_and_share_evenly(clips: tuple[int, ...], slots: int) -> None:
    index = make_index(*clips)
    everything = {(shard, clip) for shard, count in enumerate(clips) for clip in range(count)}
    order = shard_order(len(clips), 3, 4)
    parts = [clips_of(slot_ranges(index, order, slots, slot)) for slot in range(slots)]
    assert Counter(clip for part in parts for clip in part) == Counter(everything)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_with_more_slots_than_clips_no_slot_is_idle_in_training() -> None:
    index = make_index(2, 1)
    parts = [clips_of(training_ranges(index, 0, 0, 8, slot)) for slot in range(8)]
    assert all(len(part) == 1 for part in parts)
    assert {part[0] for part in parts} == {(0, 0), (0, 1), (1, 0)}


@pytest.mark.parametrize(
    ("clips", "slots", "rows_per_clip", "batch_size", "batches"),
    [(10, 1, 1, 10, 1), (11, 1, 1, 10, 2), (10, 4, 1, 10, 1), (1, 4, 1, 32, 1), (10, 2, 4, 5, 4), (9, 2, 2, 5, 2)],
)
def test_training_batches(clips: int, slots: int, rows_per_clip: int, batch_size: int, batches: int) -> None:
    assert training_batches(clips, slots, rows_per_clip, batch_size) == batches


def test_frames_are_drawn_without_replacement_while_there_are_enough() -> None:
    rng = random.Random(0)
    draws = [choose_frames(5, 4, rng) for _ in range(200)]
    assert all(sorted(draw) == list(range(5)) for draw in draws)
    assert Counter(draw[0] for draw in draws).keys() == set(range(5))
    assert {tuple(choose_frames(6, 1, rng)) for _ in range(600)} == {
        (a, b) for a in range(6) for b in range(6) if a != b
    }


def test_short_clips_repeat_driving_frames_and_not_the_source() -> None:
    rng = random.Random(0)
    for _ in range(50):
        source, *driving = choose_frames(3, 5, rng)
        assert len(driving) == 5 and source not in driving
        assert sorted(Counter(driving).values()) == [2, 3]
    assert choose_frames(1, 3, rng) == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("frames", "driving", "chosen"),
    [(6, 1, [0, 5]), (6, 5, [0, 1, 2, 3, 4, 5]), (9, 2, [0, 4, 8]), (3, 4, [0, 1, 1, 2, 2]), (1, 2, [0, 0, 0])],
)
def test_validation_frames_spread_over_the_clip(frames: int, driving: int, chosen: list[int]) -> None:
    assert spread_frames(frames, driving) == chosen
