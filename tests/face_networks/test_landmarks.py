from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from sfdkit.errors import ConfigError
from sfdkit.face_networks.landmarks import FaceLandmarks, FivePointReader, LandmarkReader
from sfdkit.points import FACE31
from tests.networks import save_centres, save_onnx, save_yunet

BOX = (10.0, 20.0, 80.0, 100.0)
POINTS = (0.0, 0.0, 40.0, -20.0, 24.0, 16.0, 8.0, 40.0, 48.0, 40.0)
CENTRES = """
size: 64
layout: nhwc
region: level
margin: 1.5
margin_again: 2.5
unit: edges
values: 3
presence: 1
presence_unit: logit
face31: {left_eye_outer: 0, right_eye_outer: 1, chin: [1, 2]}
"""


def patch(image: np.ndarray, x: float, y: float, colour: int, side: int = 8) -> None:
    """Paint a square around (x, y) in one colour."""
    left, top = round(x - (side - 1) / 2), round(y - (side - 1) / 2)
    image[top : top + side, left : left + side] = 0
    image[top : top + side, left : left + side, colour] = 255


def face(x: float = 99.5, y: float = 115.5, apart: float = 40.0, angle: float = -0.5) -> tuple[np.ndarray, np.ndarray]:
    """A picture with a red, a green and a blue square, and their middles."""
    image = np.zeros((256, 320, 3), np.uint8)
    across = np.array([math.cos(angle), math.sin(angle)]) * apart
    middles = np.array([[0, 0], across, across / 2 + (-across[1], across[0])]) + np.array([x, y])
    middles = np.round(middles - 0.5) + 0.5
    for colour, middle in enumerate(middles):
        patch(image, *middle, colour)
    return image, middles


def reader(folder: Path, text: str = CENTRES) -> LandmarkReader:
    network, detector = save_centres(folder / "points.onnx", 64), save_yunet(folder / "yunet.onnx", BOX, POINTS)
    (folder / "points.onnx.yaml").write_text(text)
    return LandmarkReader(network, detector, threads=1)


def test_detector_gives_box_and_five_points(tmp_path: Path) -> None:
    image, middles = face()
    found = FivePointReader(save_yunet(tmp_path / "yunet.onnx", BOX, POINTS)).read(image)
    assert found is not None and found.confidence == pytest.approx(1, abs=1e-5)
    # OpenCV's detector counts from the edge of the first pixel
    np.testing.assert_allclose(found.points, middles[0] + 0.5 + np.reshape(POINTS, (5, 2)), atol=1e-3)
    assert FivePointReader(tmp_path / "yunet.onnx").read(np.zeros((64, 64, 3), np.uint8)) is None


def test_five_points_can_be_named_in_another_order(tmp_path: Path) -> None:
    path = save_yunet(tmp_path / "yunet.onnx", BOX, POINTS)
    image, _ = face()
    usual = FivePointReader(path).read(image)
    beside = tmp_path / "yunet.onnx.yaml"
    beside.write_text("face5: {left_eye: 1, right_eye: 0, nose_tip: 2, left_mouth_corner: 4, right_mouth_corner: 3}")
    found = FivePointReader(path).read(image)
    assert found is not None and usual is not None
    np.testing.assert_array_equal(found.points, usual.points[[1, 0, 2, 4, 3]])
    beside.write_text("face5: {left_eye: 1, right_eye: 0}")
    with pytest.raises(ConfigError, match=r"yunet\.onnx\.yaml: face5: give left_eye, right_eye, nose_tip"):
        FivePointReader(path)


@pytest.mark.parametrize("angle", [0.0, -0.5, 0.6, 2.5])
def test_points_come_back_to_the_picture_whatever_the_angle(tmp_path: Path, angle: float) -> None:
    image, middles = face(angle=angle)
    found = reader(tmp_path).read(image)
    assert found is not None and found.confidence > 0.99 and found.points.dtype == np.float32
    np.testing.assert_allclose(found.points[:, :2], middles, atol=0.2)


def test_second_look_is_level_and_as_large_as_its_margin_says(tmp_path: Path) -> None:
    image, middles = face()
    read = reader(tmp_path)
    found = read.read(image)
    assert found is not None
    across = middles[1] - middles[0]
    angle = math.atan2(across[1], across[0])
    axes = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    level = middles @ axes.T
    side = 2.5 * np.ptp(level, axis=0).max()
    middle = (level.min(0) + level.max(0)) / 2
    # z is the network's x: pixels of the input from its left edge, scaled back to the picture
    np.testing.assert_allclose(found.points[:, 2], level[:, 0] - middle[0] + side / 2, atol=0.4)
    assert found.points[0, 2] < found.points[2, 2] < found.points[1, 2]


def test_the_last_frame_says_where_to_look_and_a_lost_face_is_detected_again(tmp_path: Path) -> None:
    read = reader(tmp_path)
    image, middles = face()
    found = read.read(image)
    image[112:120, 96:104, 0] = 100  # too dark for the detector
    assert read.read(image) is None
    tracked = read.read(image, found)
    assert tracked is not None
    np.testing.assert_allclose(tracked.points[:, :2], middles, atol=0.2)
    image, middles = face(y=211.5, angle=-1.2)
    again = read.read(image, FaceLandmarks(np.array([[300, 10, 0], [310, 10, 0], [305, 15, 0]], np.float32), 1.0))
    assert again is not None
    np.testing.assert_allclose(again.points[:, :2], middles, atol=0.2)


def test_no_face_by_the_network_is_no_face(tmp_path: Path) -> None:
    image, middles = face()
    x, y = (round(v) for v in middles[2])
    image[y - 4 : y + 4, x - 4 : x + 4] = 0
    assert reader(tmp_path).read(image) is None


def test_points_have_the_names_of_the_kit(tmp_path: Path) -> None:
    image, middles = face()
    read = reader(tmp_path)
    found = read.read(image)
    assert found is not None
    named = dict(zip(FACE31.names, read.face31(found.points), strict=True))
    assert np.isnan(named["left_iris"]).all() and sum(np.isfinite(v).all() for v in named.values()) == 3
    np.testing.assert_allclose(named["right_eye_outer"], middles[1], atol=0.2)
    np.testing.assert_allclose(named["chin"], middles[1:].mean(0), atol=0.2)


def test_small_pictures_are_enlarged_for_the_detector(tmp_path: Path) -> None:
    image, _ = face(angle=0.0)
    small = image[:256, :256].reshape(128, 2, 128, 2, 3).mean((1, 3)).astype(np.uint8)
    (tmp_path / "large").mkdir()
    found, large = (reader(tmp_path / where).read(x) for where, x in ((".", small), ("large", image)))
    assert found is not None and large is not None
    np.testing.assert_allclose(found.points[:, :2] * 2 + 0.5, large.points[:, :2], atol=0.4)
    five, of_large = (FivePointReader(tmp_path / "yunet.onnx").read(x) for x in (small, image))
    assert five is not None and of_large is not None
    np.testing.assert_allclose(five.points * 2, of_large.points, atol=1e-3)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("like: mediapipe_face_landmark", r"like: there is no .*Did you mean 'mediapipe_face_landmarks'\?"),
        ("like: yunet", r"like: there is no 'yunet'\. There are mediapipe_face_landmarks"),
        ("{layout: nhwc, face31: {left_ear: 0}}", "face31: 'left_ear' is none of its names: left_eye_outer"),
        ("{layout: nhwc, face31: {chin: -1}}", "face31"),
        ("{layout: nhwc, region: level, margin_again: 1}", "face31: name left_eye_outer and right_eye_outer"),
        ("size: 64", r"points\.onnx takes x \[1, 64, 64, 3\]; give a network of one input, pictures F 3 S S, or say"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        reader(tmp_path, text)


def test_another_network_is_refused(tmp_path: Path) -> None:
    image, _ = face()
    with pytest.raises(ConfigError, match=r"landmarks: .*gave \(1, 1, 1, 9\), where .* at least 479 points"):
        text = "{like: mediapipe_face_landmarks, face31: {chin: 478, left_eye_outer: 0, right_eye_outer: 1}}"
        reader(tmp_path, text).read(image)
    with pytest.raises(ConfigError, match=r"name them under face31 in points\.onnx\.yaml"):
        reader(tmp_path, "{layout: nhwc, unit: edges, values: 3}").face31(np.zeros((3, 2)))
    other = save_onnx(tmp_path / "other.onnx", np.ones((3, 5)), 32)
    with pytest.raises(ConfigError, match=r"detector .*other\.onnx is no YuNet"):
        FivePointReader(other).read(image)
