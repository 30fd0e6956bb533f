"""Squares that go back into the picture that they were cut from."""

from __future__ import annotations

import numpy as np
import pytest

from sfdkit.media.box import Box
from sfdkit.media.crop import Place, crop_resize
from sfdkit.media.paste import match_seam, paste, soft_mask

PLACES = {
    "inside": Place(Box(40.0, 30.0, 120.0, 110.0)),
    "small": Place(Box(40.0, 30.0, 60.0, 50.0)),
    "over the border": Place(Box(-20.0, -30.0, 60.0, 50.0)),
    "turned": Place(Box(40.0, 30.0, 120.0, 110.0), 20.0),
    "outside": Place(Box(400.0, 30.0, 440.0, 70.0)),
}


def smooth_picture(height: int = 150, width: int = 200) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    waves = [np.sin(rows / 17 + k) + np.cos(columns / 23 - k) for k in range(3)]
    return (127 + 50 * np.stack(waves, -1)).astype(np.uint8)


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_what_was_cut_out_fits_back_where_it_was(place: Place) -> None:
    picture = smooth_picture()
    crop = crop_resize(picture, place, 64)
    pasted = picture.copy()
    paste(pasted, crop, crop, place)
    assert np.abs(pasted.astype(int) - picture).max() <= 2


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_only_pixels_in_the_square_change(place: Place) -> None:
    picture = smooth_picture()
    pasted = picture.copy()
    before = crop_resize(picture, place, 64)
    paste(pasted, np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8), before, place)
    changed = (pasted != picture).any(-1)
    box = place.box
    y, x = np.mgrid[: picture.shape[0], : picture.shape[1]] + 0.5
    x, y = x - (box.x0 + box.x1) / 2, y - (box.y0 + box.y1) / 2
    turn = np.radians(place.turn)
    along, down = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    inside = np.maximum(np.abs(along), np.abs(down)) < (box.x1 - box.x0) / 2
    assert not (changed & ~inside).any()
    share = changed[inside].mean() if inside.any() else 0.0
    assert share > 0.8 or place is PLACES["outside"]


def test_a_square_smaller_than_the_model_is_averaged_also_where_it_is_turned() -> None:
    checks = (np.indices((256, 256)).sum(0) % 2 * 255).astype(np.uint8)[..., None].repeat(3, 2)
    for turn in (0.0, 5.0):
        picture = np.full((200, 200, 3), 128, np.uint8)
        grey = np.full_like(checks, 128)
        paste(picture, checks, grey, Place(Box(40.0, 40.0, 117.0, 117.0), turn))
        assert picture[70:90, 70:90].std() < 12


def test_overlapping_squares_keep_what_is_nearer_to_their_middle() -> None:
    squares = {0: Place(Box(20.0, 30.0, 110.0, 120.0)), 200: Place(Box(70.0, 30.0, 160.0, 120.0))}
    grey = np.full((64, 64, 3), 100, np.uint8)
    rows = {}
    for order in ((0, 200), (200, 0)):
        for known in (True, False):
            picture = np.full((150, 250, 3), 100, np.uint8)
            for level in order:
                others = [squares[other] for other in order if other != level and known]
                paste(picture, np.full_like(grey, level), grey, squares[level], others)
            rows[order, known] = picture[75, :, 0].astype(int)
    unlike = {known: np.abs(rows[(0, 200), known] - rows[(200, 0), known]).max() for known in (True, False)}
    assert unlike[True] < 30 < unlike[False]  # whichever comes first
    for row in (rows[(0, 200), True], rows[(200, 0), True]):
        assert row[65] < 30 and row[115] > 170


def test_colours_meet_at_the_seam_and_the_middle_keeps_its_own() -> None:
    before = np.full((64, 64, 3), 100, np.uint8)
    result = before.copy()
    result[..., 0] = 130
    result[24:40, 24:40] = 200
    matched = match_seam(result, before).astype(int)
    seam = (soft_mask(64) > 0.2) & (soft_mask(64) < 0.8)
    assert np.abs(matched[seam] - 100).max() <= 3
    assert np.abs(matched[30:34, 30:34] - 200).max() <= 3
    assert (match_seam(before, before) == before).all()
    picture = np.full((100, 100, 3), 100, np.uint8)
    paste(picture, result, before, Place(Box(10.0, 10.0, 90.0, 90.0)))
    assert np.abs(picture[45:55, 10:18].astype(int) - 100).max() <= 2
