from __future__ import annotations

import numpy as np
import pytest

from sfdkit.media.draw import GAP, enlarge, make_sheet, stack_sheets


def test_enlarging_keeps_the_shape_and_the_range() -> None:
    wide = np.linspace(0, 255, 4 * 6 * 3).reshape(4, 6, 3).astype(np.uint8)
    big = enlarge(wide, 16)
    assert big.shape == (16, 24, 3) and big.dtype == np.uint8
    assert np.abs(enlarge(big, 4).astype(int) - wide).mean() < 10
    assert enlarge(wide, 4) is wide
    assert enlarge(wide, 2).shape == (2, 3, 3)


def test_sheet_shows_each_picture_in_its_cell_and_the_captions_above() -> None:
    colours = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0]], np.uint8)
    cells = [np.tile(colour, (8, 8, 1)) for colour in colours]
    sheet = make_sheet([cells[:2], cells[2:]], ["left", "right"], cell=40)
    assert sheet.dtype == np.uint8
    assert sheet.shape[1] == 2 * 40 + 3 * GAP
    head = sheet.shape[0] - 2 * (40 + GAP)
    for number, colour in enumerate(colours):
        row, column = divmod(number, 2)
        y, x = head + row * (40 + GAP), GAP + column * (40 + GAP)
        assert (sheet[y : y + 40, x : x + 40] == colour).all()
    left, right = sheet[:head, : GAP + 40], sheet[:head, 2 * GAP + 40 :]
    assert (left < 100).any() and (right < 100).any()
    titled = make_sheet([cells[:2], cells[2:]], ["left", "right"], cell=40, title="what")
    assert titled.shape[0] > sheet.shape[0]
    assert (titled[-len(sheet) + GAP :] == sheet[GAP:]).all()


def test_a_caption_stays_in_its_column() -> None:
    cells = [np.full((20, 20, 3), 255, np.uint8)] * 2
    sheet = make_sheet([cells], ["a very long caption that has no room", ""])
    assert (sheet[:, : GAP + 20] < 100).any()
    assert (sheet[:, 2 * GAP + 20 :] == 255).all()


def test_sheet_refuses_ragged_rows() -> None:
    cells = [np.full((8, 8, 3), 255, np.uint8)] * 2
    with pytest.raises(ValueError, match=r"2 captions .* \[2, 1\]"):
        make_sheet([cells, cells[:1]], ["a", "b"])
    with pytest.raises(ValueError, match="captions"):
        make_sheet([], ["a"])


def test_sheets_of_different_widths_stack() -> None:
    stacked = stack_sheets([np.zeros((5, 10, 3), np.uint8), np.zeros((6, 7, 3), np.uint8)])
    assert stacked.shape == (5 + 6 + 2 * GAP, 10, 3)
    assert (stacked[5 + GAP : 5 + GAP + 6, :7] == 0).all() and (stacked[5 + GAP :, 7:] == 255).all()
