"""The crop rule, with injected boxes and with the real detector."""

from __future__ import annotations

import threading
from pathlib import Path

import cv2
import numpy as np
import pytest

from sfdkit.errors import ConfigError
from sfdkit.media.box import Box, overlap, union
from sfdkit.media.crop import CropRule, FaceSettings, Place, Refusal, crop_resize, face_square, union_square
from sfdkit.media.detect import CascadeDetector, Face, FaceWatcher, YuNetDetector, _cascade, main_face, open_detector
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


def found(*boxes: Box | None) -> list[Face | None]:
    return [None if box is None else Face(box, 1.0) for box in boxes]


def place(rule: CropRule, *boxes: Box | None, size: tuple[int, int] = (1000, 1000)) -> Box:
    made = rule.place(found(*boxes), *size)
    assert isinstance(made, Place) and made.turn == 0
    return made.box


def test_square_around_one_face_is_raised_for_the_hair() -> None:
    square = place(CropRule(), face(500, 400))
    assert square.x1 - square.x0 == square.y1 - square.y0 == 180
    assert (square.x0 + square.x1) / 2 == 500
    assert (square.y0 + square.y1) / 2 == 390


def test_square_holds_the_union_over_the_clip() -> None:
    boxes = [face(400, 400), face(430, 410), None, face(460, 380)]
    square = place(CropRule(), *boxes)
    assert all(holds(square, box, 20) for box in boxes if box)


def test_false_finds_do_not_count() -> None:
    boxes = [face(400, 400), face(405, 400), face(900, 120, 60), face(410, 402), face(402, 398, 300)]
    assert place(CropRule(), *boxes) == place(CropRule(), boxes[0], boxes[1], boxes[3])


def test_a_face_in_too_few_pictures_is_no_face() -> None:
    assert isinstance(CropRule().place(found(face(400, 400), None, None), 1000, 1000), Place)
    for boxes in ([face(400, 400), None, None, None], [None], []):
        refusal = CropRule().place(found(*boxes), 1000, 1000)
        assert isinstance(refusal, Refusal) and refusal.reason == "no face"


def test_a_refusal_says_whether_faces_were_too_few_or_apart() -> None:
    few = CropRule().place(found(face(400, 400), None, None, None), 1000, 1000)
    assert isinstance(few, Refusal) and "found in 1 of 4 frames looked at, it must be in one place in 2" in few.detail
    apart = CropRule().place(found(*(face(250 * k, 300, 60 * 1.7**k) for k in range(4))), 2000, 1000)
    assert isinstance(apart, Refusal) and "in 4 of 4 frames looked at, each time elsewhere" in apart.detail


def test_square_is_moved_inwards_then_made_smaller_and_only_then_reaches_out() -> None:
    assert face_square([face(60, 500)], 1000, 1000, 0.4)[:3:2] == (0, 180)
    smaller = face_square([face(100, 80)], 400, 150, 0.4)
    assert smaller.x1 - smaller.x0 == 150 and smaller.y0 == 0
    tight = face_square([face(55, 55)], 110, 110, 0.4)
    assert tight.x1 - tight.x0 == 130 and tight.x0 == -10


def test_none_pads_and_centre_cuts() -> None:
    assert place(CropRule("none"), size=(100, 60)) == (0, -20, 100, 80)
    assert place(CropRule("centre"), size=(100, 60)) == (20, 0, 80, 60)
    meta = CropRule("none").meta(Place(Box(0, -20, 100, 80)), "opencv-haar", 8)
    assert meta == {"method": "none", "box": [0, -20, 100, 80], "margin": 0.0, "detector": ""}


def test_overlap_and_union_of_boxes() -> None:
    one = Box(0, 0, 10, 10)
    assert overlap(one, one) == 1 and overlap(one, Box(10, 0, 20, 10)) == 0
    assert overlap(one, Box(5, 0, 15, 10)) == pytest.approx(50 / 150)
    assert union([one, Box(5, -2, 15, 8)]) == Box(0, -2, 15, 10)


def test_union_is_the_square_of_the_first_order_motion_model() -> None:
    held = Box(100, 100, 180, 220)
    square = union_square(held, 0.1)
    # their rule: the longer side grows by the margin at both ends, the shorter one until it is as long
    assert square == Box(140 - 72, 160 - 72, 140 + 72, 160 + 72)
    assert place(CropRule("union"), held) == square
    assert place(CropRule("union", 0.0), held) == Box(80, 100, 200, 220)


def test_union_refuses_small_faces_and_those_at_the_border() -> None:
    small = CropRule("union", face=FaceSettings(least=150)).place(found(face(500, 500)), 1000, 1000)
    assert small == Refusal("too small", "the face measures 100 pixels, at least 150 are wanted")
    cut = CropRule("union").place(found(face(55, 500)), 1000, 1000)
    assert isinstance(cut, Refusal) and cut.reason == "at the border" and "0.05" in cut.detail
    assert isinstance(CropRule("union", face=FaceSettings(border=0.1)).place(found(face(55, 500)), 1000, 1000), Place)
    assert isinstance(CropRule("face", face=FaceSettings(border=0.0)).place(found(face(55, 55)), 110, 110), Refusal)


def test_union_ends_a_clip_where_the_face_has_left_its_first_box() -> None:
    faces = {number: Face(face(400 + 5 * number, 400), 1.0) for number in range(0, 40, 4)}
    rule = CropRule("union")
    stop = rule.stop(faces, 0, 100)
    assert overlap(faces[0].box, faces[stop + 3].box) <= 0.25 < overlap(faces[0].box, faces[stop - 1].box)
    assert rule.stop(faces, 0, 8) == 8 and CropRule("face").stop(faces, 0, 100) == 100
    assert rule.stop({0: None, 4: faces[4], 8: faces[8]}, 0, 100) == 100


@pytest.mark.parametrize("turn", [0.0, 30.0, -20.0])
def test_aligned_brings_the_eyes_to_the_same_place(turn: float) -> None:
    angle = np.deg2rad(turn)
    across = 40 * np.array([np.cos(angle), np.sin(angle)])
    middle = np.array([300.0, 200.0])
    left, right = (tuple(float(v) for v in middle + way * across / 2) for way in (-1, 1))
    canvas = np.zeros((400, 600, 3), np.uint8)
    for (x, y), colour in ((left, (255, 0, 0)), (right, (0, 255, 0))):
        cv2.circle(canvas, (round(x), round(y)), 6, colour, -1)
    eyes = Face(Box(250, 160, 350, 260), 1.0, (left, right))
    made = CropRule("aligned").place([eyes, Face(eyes.box, 1.0)], 600, 400)
    assert isinstance(made, Place) and made.turn == pytest.approx(turn, abs=1e-3)
    cut = crop_resize(canvas, made, 116)  # one pixel for one
    places = [np.argwhere(cut[..., channel] > 127).mean(0)[::-1] + 0.5 for channel in (0, 1)]
    assert places[0] == pytest.approx((58 - 20, 58 - 0.42 * 40), abs=1.2)
    assert places[1] == pytest.approx((58 + 20, 58 - 0.42 * 40), abs=1.2)
    meta = CropRule("aligned").meta(made, "opencv-haar", 8)
    assert meta.get("turn", 0) == made.turn and meta["detector"] == "opencv-haar" and meta["every"] == 8


def test_aligned_needs_eyes() -> None:
    refusal = CropRule("aligned").place(found(face(300, 200)), 600, 400)
    assert refusal == Refusal("no face", "both eyes were found in no frame looked at")


def test_the_main_face_is_the_largest_or_the_one_in_the_middle() -> None:
    large, central, sure = Face(face(150, 150, 200), 5.0), Face(face(500, 500, 90), 5.0), Face(face(800, 700, 120), 9.0)
    assert main_face([central, large, sure], "largest", 1000, 1000) is sure
    assert main_face([central, large], "largest", 1000, 1000) is large
    assert main_face([large, sure, central], "central", 1000, 1000) is central
    assert main_face([], "largest", 1000, 1000) is None


def test_cut_repeats_the_edge_outside() -> None:
    picture = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    assert np.array_equal(crop_resize(picture, Place(Box(1, 0, 5, 4)), 4), picture[:, 1:5])
    padded = crop_resize(picture, Place(Box(0, -1, 6, 5)), 6)
    assert np.array_equal(padded, np.concatenate([picture[:1], picture, picture[-1:]]))
    assert crop_resize(picture, Place(Box(-3, -3, 9, 9)), 32).shape == (32, 32, 3)


def test_shrinking_averages_and_does_not_alias() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    small = crop_resize(noise, Place(Box(0, 0, 64, 64)), 16)
    blocks = noise.reshape(16, 4, 16, 4, 3).mean((1, 3))
    assert np.abs(small - blocks).max() <= 1
    turned = crop_resize(noise, Place(Box(0, 0, 64, 64), 1e-9), 16)  # by the other way
    assert np.abs(turned - blocks).max() <= 1


def test_detector_finds_puppets_and_nothing_in_plain_pictures() -> None:
    detector = CascadeDetector(eyes=True)
    faces = [main_face(detector(puppet_frames(index, 1, 256)[0]), "largest", 256, 256) for index in range(8)]
    seen = [f for f in faces if f is not None]
    assert len(seen) >= 4
    assert all(0 <= f.box.x0 < f.box.x1 <= 256 and 0 <= f.box.y0 < f.box.y1 <= 256 for f in seen)
    centre = np.median([[(f.box.x0 + f.box.x1) / 2, (f.box.y0 + f.box.y1) / 2] for f in seen], 0)
    assert np.abs(centre - 128).max() < 50
    for f in seen:
        if f.eyes is not None:
            (ax, ay), (bx, by) = f.eyes
            assert f.box.x0 < ax < bx < f.box.x1 and f.box.y0 < min(ay, by) and max(ay, by) < f.box.y1
    y, x = np.mgrid[:240, :320]
    assert detector(np.stack([x % 256, y, x * 0], -1).astype(np.uint8)) == []


@pytest.mark.parametrize("scale", [1, 4])
def test_detector_answers_in_pixels_of_the_picture(scale: int) -> None:
    detector = CascadeDetector()
    picture = next(frame for index in range(8) if detector(frame := puppet_frames(index, 1, 256)[0]))
    reference = main_face(detector(picture), "largest", 256, 256)
    enlarged = main_face(detector(picture.repeat(scale, 0).repeat(scale, 1)), "largest", 256 * scale, 256 * scale)
    assert reference is not None and enlarged is not None
    assert np.abs(np.array(enlarged.box) / scale - np.array(reference.box)).max() < 25


@pytest.mark.parametrize(("width", "height", "size"), [(1200, 900, 110), (640, 480, 60), (2400, 1600, 110)])
def test_small_faces_are_found(width: int, height: int, size: int) -> None:
    detector = CascadeDetector()
    heads = [frame for index in range(8) if detector(frame := puppet_frames(index, 1, 256)[0])][:2]
    for head in heads:
        picture = np.full((height, width, 3), 110, np.uint8)
        small = cv2.resize(head, (2 * size, 2 * size), interpolation=cv2.INTER_AREA)
        picture[200 : 200 + 2 * size, 300 : 300 + 2 * size] = small
        watcher = FaceWatcher(detector, "largest")
        places = [watcher(picture), watcher(picture)]
        assert all(p is not None and 300 < p.box.x0 < p.box.x1 < 300 + 2 * size for p in places)


def test_a_face_is_followed_near_where_it_was_and_found_again_when_it_is_lost() -> None:
    asked: list[Box | None] = []
    seen = {0: [Face(face(100, 100), 1.0)], 1: [Face(face(110, 100), 1.0)], 2: [], 3: [Face(face(700, 300, 150), 1.0)]}

    class Detector:
        name = "given"

        def __call__(self, image: np.ndarray, near: Box | None = None) -> list[Face]:
            asked.append(near)
            number = int(image[0, 0, 0])
            return [f for f in seen[number] if near is None or overlap(f.box, near) > 0]

    watcher = FaceWatcher(Detector(), "largest")
    found = [watcher(np.full((400, 900, 3), number, np.uint8)) for number in range(4)]
    assert [f and f.box for f in found] == [face(100, 100), face(110, 100), None, face(700, 300, 150)]
    assert asked == [None, face(100, 100), face(110, 100), None, None]


def test_near_a_face_the_same_face_is_found() -> None:
    detector = CascadeDetector()
    compared = 0
    for index in range(8):
        picture = puppet_frames(index, 1, 256)[0]
        whole = main_face(detector(picture), "largest", 256, 256)
        if whole is not None and (near := main_face(detector(picture, whole.box), "largest", 256, 256)) is not None:
            compared += 1
            assert overlap(whole.box, near.box) > 0.6
    assert compared >= 3


def test_other_detectors_are_onnx_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone\.onnx does not exist; give opencv, or the ONNX file of YuNet"):
        open_detector(str(tmp_path / "gone.onnx"))
    (tmp_path / "bad.onnx").write_bytes(b"no network")
    with pytest.raises(ConfigError, match="OpenCV cannot read it as YuNet"):
        YuNetDetector(tmp_path / "bad.onnx")


def test_each_thread_looks_by_cascades_of_its_own() -> None:
    seen = [_cascade("frontalface_default")]
    thread = threading.Thread(target=lambda: seen.append(_cascade("frontalface_default")))
    thread.start()
    thread.join()
    assert seen[0] is not seen[1] and seen[0] is _cascade("frontalface_default")


@pytest.mark.parametrize("margin", [-0.5, -1.0, 1e9, float("nan"), float("inf")])
def test_a_margin_that_leaves_no_face_is_refused(margin: float) -> None:
    with pytest.raises(ConfigError, match=r"margin: \S+ is out of range; give -0\.4 to 10"):
        CropRule.of_user("face", margin, "opencv")
