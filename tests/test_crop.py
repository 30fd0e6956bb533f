"""The crop rule, with injected boxes and with the real detector."""

from __future__ import annotations

import numpy as np
import pytest

from sfdkit.data.crop import Box, clip_box, crop_meta, crop_resize, face_square, find_face
from tests.written import puppet_frames


def face(x: float, y: float, size: float = 100) -> Box:
    """A face box around a centre."""
    return Box(x - size / 2, y - size / 2, x + size / 2, y + size / 2)


def holds(outer: Box, inner: Box, margin: float) -> bool:
    return (
        outer.x0 <= inner.x0 - margin
        and outer.x1 >= inner.x1 + margin
        and outer.y0 <= inner.y0 - margin
        and outer.y1 >= inner.y1 + margin
    )


def test_square_around_one_face_is_raised_for_the_hair() -> None:
    square = face_square([face(500, 400)], 1000, 1000, margin=0.4)
    assert square is not None and square.x1 - square.x0 == square.y1 - square.y0 == 180
    assert (square.x0 + square.x1) / 2 == 500
    assert (square.y0 + square.y1) / 2 == 390


def test_square_holds_the_union_over_the_clip() -> None:
    boxes = [face(400, 400), face(430, 410), None, face(460, 380)]
    square = face_square(boxes, 1000, 1000, margin=0.4)
    assert square is not None
    assert all(holds(square, box, 20) for box in boxes if box)


def test_false_finds_do_not_count() -> None:
    boxes = [face(400, 400), face(405, 400), face(900, 120, 60), face(410, 402), face(402, 398, 300)]
    assert face_square(boxes, 1000, 1000) == face_square([boxes[0], boxes[1], boxes[3]], 1000, 1000)


def test_a_face_in_too_few_pictures_is_no_face() -> None:
    assert face_square([face(400, 400), None, None], 1000, 1000) is not None
    assert face_square([face(400, 400), None, None, None], 1000, 1000) is None
    assert face_square([None], 1000, 1000) is None
    assert face_square([], 1000, 1000) is None


def test_square_is_moved_inwards_then_made_smaller_and_only_then_reaches_out() -> None:
    moved = face_square([face(60, 500)], 1000, 1000, margin=0.4)
    assert moved is not None and moved.x0 == 0 and moved.x1 == 180
    smaller = face_square([face(100, 80)], 400, 150, margin=0.4)
    assert smaller is not None and smaller.x1 - smaller.x0 == 150 and smaller.y0 == 0
    tight = face_square([face(55, 55)], 110, 110, margin=0.4)
    assert tight is not None and tight.x1 - tight.x0 == 130 and tight.x0 == -10


def test_none_pads_and_centre_cuts() -> None:
    picture = np.zeros((60, 100, 3), np.uint8)
    assert clip_box([picture], "none") == (0, -20, 100, 80)
    assert clip_box([picture], "centre") == (20, 0, 80, 60)
    assert crop_meta("none", Box(0, -20, 100, 80), 0.4) == {
        "method": "none",
        "box": [0, -20, 100, 80],
        "margin": 0.0,
        "detector": "",
    }


def test_face_uses_the_detector_on_each_picture() -> None:
    pictures = [np.full((300, 300, 3), value, np.uint8) for value in (10, 20, 30)]
    asked = []

    def detector(image: np.ndarray) -> Box:
        asked.append(int(image[0, 0, 0]))
        return face(150 + len(asked), 150, 80)

    box = clip_box(pictures, "face", 0.5, detector)
    assert asked == [10, 20, 30]
    assert box is not None and box.x1 - box.x0 == 82 + 80
    assert clip_box(pictures, "face", detector=lambda image: None) is None
    assert crop_meta("face", box, 0.5)["margin"] == 0.5 and crop_meta("face", box, 0.5)["detector"] == "opencv-haar"


def test_cut_repeats_the_edge_outside() -> None:
    picture = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    assert np.array_equal(crop_resize(picture, Box(1, 0, 5, 4), 4), picture[:, 1:5])
    padded = crop_resize(picture, Box(0, -1, 6, 5), 6)
    assert np.array_equal(padded, np.concatenate([picture[:1], picture, picture[-1:]]))
    assert crop_resize(picture, Box(-3, -3, 9, 9), 32).shape == (32, 32, 3)


def test_shrinking_averages_and_does_not_alias() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    small = crop_resize(noise, Box(0, 0, 64, 64), 16)
    blocks = noise.reshape(16, 4, 16, 4, 3).mean((1, 3))
    assert np.abs(small - blocks).max() <= 1


def test_detector_finds_puppets_and_nothing_in_plain_pictures() -> None:
    found = [find_face(puppet_frames(index, 1, 256)[0]) for index in range(8)]
    boxes = [box for box in found if box is not None]
    assert len(boxes) >= 4
    assert all(0 <= b.x0 < b.x1 <= 256 and 0 <= b.y0 < b.y1 <= 256 for b in boxes)
    centre = np.median([[(b.x0 + b.x1) / 2, (b.y0 + b.y1) / 2] for b in boxes], 0)
    assert np.abs(centre - 128).max() < 50
    y, x = np.mgrid[:240, :320]
    assert find_face(np.stack([x % 256, y, x * 0], -1).astype(np.uint8)) is None


@pytest.mark.parametrize("scale", [1, 4])
def test_detector_answers_in_pixels_of_the_picture(scale: int) -> None:
    picture = next(frame for index in range(8) if find_face(frame := puppet_frames(index, 1, 256)[0]) is not None)
    reference = find_face(picture)
    found = find_face(picture.repeat(scale, 0).repeat(scale, 1))
    assert reference is not None and found is not None
    assert np.abs(np.array(found) / scale - np.array(reference)).max() < 25
