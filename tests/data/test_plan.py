from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

import pytest

from sfdkit.data.pairs import choose_frames, spread_frames
from sfdkit.data.plan import ClipRange, RankPlan, generator, ranges_of, shuffled, training_ranges, whole_ranges
from sfdkit.errors import ConfigError


def clips_of(ranges: list[ClipRange]) -> list[tuple[int, int]]:
    return [(part.shard, clip) for part in ranges for clip in range(part.start, part.stop)]


def even(*clips: int) -> list[tuple[Sequence[int], float]]:
    return [(clips, 1.0)]


def test_ranges_are_a_permutation_by_seed_and_epoch() -> None:
    orders = {(seed, epoch): tuple(training_ranges(even(*[3] * 8), seed, epoch)) for seed in (0, 1) for epoch in (0, 1)}
    assert all(sorted(order) == [ClipRange(shard, 0, 3) for shard in range(8)] for order in orders.values())
    assert len(set(orders.values())) == 4
    assert training_ranges(even(*[3] * 8), 1, 1) == list(orders[1, 1])


@pytest.mark.parametrize("weight", [0.25, 0.5, 1.0, 2.0, 2.5])
@pytest.mark.parametrize("shards", [(8,), (3, 0, 5), (1,) * 8])
def test_a_weight_is_how_often_each_clip_comes(weight: float, shards: tuple[int, ...]) -> None:
    counts: list[tuple[Sequence[int], float]] = [(shards, weight), ((4,), 1.0)]
    seen: Counter[tuple[int, int]] = Counter()
    for epoch in range(4):
        clips = clips_of(training_ranges(counts, 0, epoch))
        assert len(clips) == 8 * weight + 4
        seen.update(clips)
    assert all(times == (4 * weight if shard < len(shards) else 4) for (shard, _), times in seen.items())
    assert len(seen) == 12
    everything = [(shard, clip) for shard, count in enumerate((*shards, 4)) for clip in range(count)]
    assert clips_of(whole_ranges(counts)) == everything
    with pytest.raises(ConfigError, match=r"with the weight 0\.01 a folder of 8 clips gives none"):
        training_ranges([(shards, 0.01)], 0, 0)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("lanes", [1, 3, 8])
@pytest.mark.parametrize("world", [1, 2, 3, 20])
@pytest.mark.parametrize("clips", [(5,), (4, 1, 7), (2, 0, 2)])
def test_ranks_and_lanes_share_the_rows(clips: tuple[int, ...], world: int, lanes: int, training: bool) -> None:
    ranges = training_ranges(even(*clips), 3, 4) if training else whole_ranges(even(*clips))
    plans = [RankPlan(ranges, training, rank, world, 2, 3, lanes) for rank in range(world)]
    seen: list[Counter[tuple[int, int]]] = []
    for plan in plans:
        rows = [row for lane in range(plan.lanes) for row in range(*plan.lane_rows(lane))]
        assert rows == list(range(plan.rows))
        assert sum(plan.lane_batches(lane) for lane in range(plan.lanes)) == plan.batches
        seen.append(Counter(plan.clip(row // plan.rows_per_clip) for row in rows))
    total = sum(seen, Counter())
    assert sorted(total) == sorted((shard, clip) for shard, count in enumerate(clips) for clip in range(count))
    if training:
        assert len({plan.batches for plan in plans}) == 1
        assert all(plan.rows == 2 * plan.batches for plan in plans)
        assert all(count >= 3 for count in total.values())
        assert plans[0].rows - 3 * max(plan.clips for plan in plans) < 2
    else:
        assert set(total.values()) == {1}
        assert max(plan.rows for plan in plans) - min(plan.rows for plan in plans) <= 1


def test_a_buffer_gives_each_number_once_and_none_early() -> None:
    assert list(shuffled(5, 0, random.Random(0))) == list(range(5))
    order = list(shuffled(100, 10, random.Random(0)))
    assert sorted(order) == list(range(100)) and order != list(range(100))
    assert all(number <= place + 10 for place, number in enumerate(order))


def test_neighbours_become_ranges() -> None:
    assert list(ranges_of([(0, 1), (0, 2), (0, 4), (1, 5), (1, 6), (0, 0)])) == [
        ClipRange(0, 1, 3),
        ClipRange(0, 4, 5),
        ClipRange(1, 5, 7),
        ClipRange(0, 0, 1),
    ]
    assert list(ranges_of([])) == []


def test_generators_do_not_mix_up_their_parts() -> None:
    draws = {parts: generator(*parts).random() for parts in [(1, 23), (12, 3), (1, 2, 3), (123,)]}
    assert len(set(draws.values())) == 4
    assert generator(1, 2, 3).random() == draws[1, 2, 3]


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
