from __future__ import annotations

import numpy as np
import pytest
import torch

from sfdkit.media.draw import GAP, enlarge, flow_to_rgb, image_grid, make_sheet, stack_sheets, to_uint8


def test_flow_directions_have_the_colours_of_the_wheel() -> None:
    flow = torch.zeros(1, 2, 1, 4)
    flow[0, :, 0, 0] = torch.tensor([2.0, 0.0])
    flow[0, :, 0, 1] = torch.tensor([-2.0, 0.0])
    flow[0, :, 0, 2] = torch.tensor([1.0, 0.0])
    colours = flow_to_rgb(flow)[0, :, 0].T
    assert colours[0, 0] > 0.95 and colours[0, 1:].max() < 0.1  # red to the right
    assert colours[1, 0] < 0.05 and colours[1, 1:].min() > 0.8  # cyan to the left
    assert torch.allclose(1 - colours[2], (1 - colours[0]) / 2, atol=0.01)  # half as long, half as saturated
    assert colours[3].tolist() == [1.0, 1.0, 1.0]


def test_each_flow_is_relative_to_its_own_longest() -> None:
    flow = torch.tensor([0.1, 0.4]).reshape(2, 1, 1, 1) * torch.tensor([0.0, 1.0]).reshape(1, 2, 1, 1)
    own = flow_to_rgb(flow)
    assert torch.allclose(own[0], own[1]) and own.min() < 0.2
    assert flow_to_rgb(torch.zeros(1, 2, 3, 3)).min() == 1


def test_pictures_become_bytes_and_grey_becomes_rgb() -> None:
    grey = torch.tensor([[[0.0, 0.5, 1.2]]])
    assert to_uint8(grey).tolist() == [[[0] * 3, [128] * 3, [255] * 3]]


def test_enlarging_keeps_the_shape_and_the_range() -> None:
    wide = torch.rand(2, 3, 4, 6).round()
    big = enlarge(wide, 16)
    assert big.shape == (2, 3, 16, 24)
    assert big.min() >= 0 and big.max() <= 1
    assert enlarge(wide, 4) is wide
    assert enlarge(wide, 2).shape == (2, 3, 2, 3)


def test_sheet_shows_each_picture_in_its_cell_and_the_captions_above() -> None:
    colours = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 1.0, 0.0]])
    cells = [c[:, None, None].expand(3, 8, 8) for c in colours]
    sheet = make_sheet([cells[:2], cells[2:]], ["left", "right"], cell=40)
    assert sheet.dtype == np.uint8
    assert sheet.shape[1] == 2 * 40 + 3 * GAP
    head = sheet.shape[0] - 2 * (40 + GAP)
    for number, colour in enumerate(colours):
        row, column = divmod(number, 2)
        y, x = head + row * (40 + GAP), GAP + column * (40 + GAP)
        assert (sheet[y : y + 40, x : x + 40] == (colour.numpy() * 255).astype(np.uint8)).all()
    left, right = sheet[:head, : GAP + 40], sheet[:head, 2 * GAP + 40 :]
    assert (left < 100).any() and (right < 100).any()
    titled = make_sheet([cells[:2], cells[2:]], ["left", "right"], cell=40, title="what")
    assert titled.shape[0] > sheet.shape[0]
    assert (titled[-len(sheet) + GAP :] == sheet[GAP:]).all()


def test_a_caption_stays_in_its_column() -> None:
    cells = [torch.ones(3, 20, 20)] * 2
    sheet = make_sheet([cells], ["a very long caption that has no room", ""])
    assert (sheet[:, : GAP + 20] < 100).any()
    assert (sheet[:, 2 * GAP + 20 :] == 255).all()


def test_sheet_refuses_ragged_rows() -> None:
    cells = [torch.ones(3, 8, 8)] * 2
    with pytest.raises(ValueError, match=r"2 captions .* \[2, 1\]"):
        make_sheet([cells, cells[:1]], ["a", "b"])
    with pytest.raises(ValueError, match="captions"):
        make_sheet([], ["a"])


def test_grid_for_a_logger_has_a_column_per_name() -> None:
    grid = image_grid({"dark": torch.zeros(3, 3, 16, 16), "mask": torch.ones(3, 1, 16, 16) / 2}, cell=32)
    assert grid.dtype == torch.float32 and grid.shape[0] == 3
    assert grid.shape[2] == 2 * 32 + 3 * GAP
    assert grid[:, -GAP - 1, GAP : GAP + 32].max() == 0
    assert torch.allclose(grid[:, -GAP - 1, 2 * GAP + 32 : -GAP], torch.tensor(128 / 255))
    with pytest.raises(ValueError):
        image_grid({"a": torch.zeros(2, 3, 8, 8), "b": torch.zeros(3, 3, 8, 8)})


def test_sheets_of_different_widths_stack() -> None:
    stacked = stack_sheets([np.zeros((5, 10, 3), np.uint8), np.zeros((6, 7, 3), np.uint8)])
    assert stacked.shape == (5 + 6 + 2 * GAP, 10, 3)
    assert (stacked[5 + GAP : 5 + GAP + 6, :7] == 0).all() and (stacked[5 + GAP :, 7:] == 255).all()
