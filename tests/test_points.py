from __future__ import annotations

import pytest
import torch

from sfdkit.errors import ConfigError
from sfdkit.points import (
    FACE5,
    FACE31,
    PARTS,
    POINT_SETS,
    PointSet,
    from_pixels,
    part_boxes,
    point_set,
    take,
    to_pixels,
)


@pytest.mark.parametrize("of", POINT_SETS.values(), ids=POINT_SETS)
def test_mirroring_twice_changes_nothing_and_swaps_pairs(of: PointSet) -> None:
    assert sorted(of.mirrored) == list(range(len(of.names))) and len(set(of.names)) == len(of.names)
    assert [of.mirrored[number] for number in of.mirrored] == list(range(len(of.names)))
    for name, other in zip(of.names, of.mirrored, strict=True):
        side = name.partition("_")[0]
        assert of.names[other] == name.replace(side, {"left": "right", "right": "left"}.get(side, side), 1)


def test_parts_hold_their_points() -> None:
    for of in POINT_SETS.values():
        for side, numbers in zip(PARTS[:2], of.parts, strict=False):
            assert numbers and all(of.names[number].startswith(side.split()[0]) for number in numbers)
        assert {of.names[n] for n in of.parts[2]} >= {"left_mouth_corner", "right_mouth_corner"}
        assert not set(of.parts[0]) & set(of.parts[1]) | set(of.parts[2]) & set(of.parts[0] + of.parts[1])
    assert [len(numbers) for numbers in FACE31.parts] == [8, 8, 6] and [len(n) for n in FACE5.parts] == [1, 1, 2]
    assert all("brow" not in FACE31.names[number] for numbers in FACE31.eyes for number in numbers)


def test_a_name_that_is_none_is_named() -> None:
    assert point_set("face5") is FACE5
    with pytest.raises(ConfigError, match=r"model\.point_set: there is no set of points 'face3'\..*face31, face5"):
        point_set("face3", "model.point_set")


def test_pixels_and_shares_of_the_picture() -> None:
    edges = torch.tensor([[-0.5, 31.5], [0.0, 15.5]])
    assert torch.equal(from_pixels(edges, 32), torch.tensor([[-1.0, 1.0], [-1 + 1 / 32, 0.0]]))
    assert torch.allclose(to_pixels(from_pixels(edges, 32), 32), edges)
    assert torch.equal(take(edges, (1, 0, 1)), edges[[1, 0, 1]])


def five(left: tuple[float, float], right: tuple[float, float], *rest: tuple[float, float]) -> torch.Tensor:
    """Points of one face in a picture of 64 pixels, from pixels."""
    return from_pixels(torch.tensor([[left, right, *rest]]), 64)


def test_boxes_lie_round_their_parts_and_fade_at_their_edges() -> None:
    points = five((20.5, 24.5), (43.5, 24.5), (31.5, 34.5), (25.5, 46.5), (38.5, 46.5))
    boxes = part_boxes(points, FACE5, 64)[0]
    assert boxes.shape == (3, 64, 64) and boxes.min() >= 0 and boxes.max() == 1
    for box, (x, y), (half_x, half_y) in zip(
        boxes,
        [(20.5, 24.5), (43.5, 24.5), (32.0, 46.5)],
        [(0.45 * 23, 0.45 * 23)] * 2 + [(6.5 + 0.3 * 23, 0.3 * 23)],
        strict=True,
    ):
        assert box.sum() == pytest.approx(4 * half_x * half_y, rel=0.01)
        line = torch.arange(64.0)
        assert (box.sum(0) * line).sum() / box.sum() == pytest.approx(x, abs=0.05)
        assert (box.sum(1) * line).sum() / box.sum() == pytest.approx(y, abs=0.05)
        assert ((box > 0) & (box < 1)).sum() > 20
    assert (boxes.sum(0) <= 1).all(), "they do not overlap here"


def test_boxes_grow_with_the_face_and_never_vanish() -> None:
    points = five((20.5, 24.5), (43.5, 24.5), (31.5, 34.5), (25.5, 46.5), (38.5, 46.5))
    near, far = (part_boxes(points * scale, FACE5, 64).sum((2, 3)) for scale in (1.0, 0.5))
    assert torch.allclose(near, 4 * far, rtol=0.02)
    tiny = part_boxes(points * 0.01, FACE5, 64)
    assert (tiny.sum((2, 3)) > 6).all()


def test_a_box_is_empty_where_a_point_is_not_known_or_outside() -> None:
    points = five((20.5, 24.5), (43.5, 24.5), (31.5, 34.5), (25.5, 46.5), (38.5, 46.5)).repeat(3, 1, 1)
    points[0, 2] = torch.nan  # the nose is in no box
    points[1, 4, 0] = torch.nan
    points[2] += 3
    area = part_boxes(points, FACE5, 64).sum((2, 3))
    assert (area[0] > 0).all() and area[1, 2] == 0 and (area[1, :2] > 0).all() and (area[2] == 0).all()
