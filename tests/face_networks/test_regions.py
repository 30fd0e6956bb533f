from __future__ import annotations

import math

import numpy as np
import pytest

from sfdkit.face_networks.regions import (
    ARCFACE_POINTS,
    Region,
    arcface_input,
    back,
    cut,
    region_of_face,
    region_of_points,
)
from sfdkit.media.box import Box
from sfdkit.media.detect import Face


def forth(to_input: np.ndarray, *points: tuple[float, float]) -> np.ndarray:
    return np.array(points) @ to_input[:, :2].T + to_input[:, 2]


def test_square_goes_to_the_input_edge_to_edge() -> None:
    to_input = Region(9.5, 19.5, 10).to_input(20)  # pixels 5 to 14 and 15 to 24
    np.testing.assert_allclose(forth(to_input, (4.5, 14.5), (14.5, 24.5)), [[-0.5, -0.5], [19.5, 19.5]])
    turned = Region(9.5, 19.5, 10, math.pi / 2).to_input(20)
    np.testing.assert_allclose(forth(turned, (9.5, 14.5), (9.5, 24.5)), [[-0.5, 9.5], [19.5, 9.5]], atol=1e-12)


def test_region_of_a_face_and_of_points() -> None:
    face = Face(Box(10, 20, 50, 80), 1.0, ((20.0, 30.0), (40.0, 50.0)))
    assert region_of_face(face, 1.5) == (30, 50, 90, 0)
    assert region_of_face(face, 1.5, level=True) == (30, 50, 90, pytest.approx(math.pi / 4))
    assert region_of_face(face._replace(eyes=None), 1.0, level=True).angle == 0
    points = np.array([[0, 0, 9], [4, 4, 9], [1, 3, 9]], float)
    assert region_of_points(points, 2.0) == (2, 2, 8, 0)
    x, y, side, angle = region_of_points(points, 2.0, (points[0], points[1]))
    assert angle == pytest.approx(math.pi / 4) and side == pytest.approx(2 * math.sqrt(32))
    np.testing.assert_allclose([x, y], [2 - 0.5, 2 + 0.5])  # half the height of the third point, across the line


def test_faces_are_aligned_to_the_template_of_arcface() -> None:
    angle, scale, shift = 0.7, 2.3, np.array([40.0, -7.0])
    turn = scale * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    points = ARCFACE_POINTS @ turn.T + shift
    to_input = arcface_input(points, 112)
    np.testing.assert_allclose(forth(to_input, *points), ARCFACE_POINTS, atol=1e-9)
    twice = arcface_input(points, 224)
    np.testing.assert_allclose((forth(twice, *points) + 0.5) / 2 - 0.5, ARCFACE_POINTS, atol=1e-9)
    noisy = points + np.random.default_rng(0).normal(size=(5, 2))
    best = np.square(forth(arcface_input(noisy, 112), *noisy) - ARCFACE_POINTS).sum()
    for change in (0.01 * np.eye(2, 3), np.eye(2, 3, 2), np.array([[0, -0.01, 0], [0.01, 0, 0]])):
        assert np.square(forth(arcface_input(noisy, 112) + change, *noisy) - ARCFACE_POINTS).sum() > best


@pytest.mark.parametrize("side", [8.0, 16.0, 128.0])
def test_cut_keeps_a_ramp_in_place_at_every_scale(side: float) -> None:
    ramp = np.broadcast_to(np.arange(160, dtype=np.uint8)[None, :, None], (160, 160, 3)).copy()
    to_input = Region(79.5, 79.5, side).to_input(16)
    x = (np.arange(16) + 0.5) * side / 16 + 79.5 - side / 2
    np.testing.assert_allclose(cut(ramp, to_input, 16)[8, :, 0], x, atol=0.6)
    points = np.array([[0.0, 15.0, 4.0]])
    np.testing.assert_allclose(back(points, to_input)[0], [x[0], x[15], 4 * side / 16], rtol=1e-5)


def test_cut_averages_what_is_finer_than_the_input() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
    small = cut(noise, Region(127.5, 127.5, 256).to_input(16), 16)
    assert small.std() < 0.25 * noise.std()


def test_beyond_the_picture_its_edge_goes_on() -> None:
    image = np.full((32, 32, 3), 100, np.uint8)
    assert (cut(image, Region(0, 0, 32).to_input(16), 16) == 100).all()
