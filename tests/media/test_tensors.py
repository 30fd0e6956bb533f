from __future__ import annotations

import pytest
import torch

from sfdkit.media.draw import GAP
from sfdkit.media.tensors import flow_to_rgb, image_grid, to_uint8


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


def test_grid_for_a_logger_has_a_column_per_name() -> None:
    grid = image_grid({"dark": torch.zeros(3, 3, 16, 16), "mask": torch.ones(3, 1, 16, 16) / 2}, cell=32)
    assert grid.dtype == torch.float32 and grid.shape[0] == 3
    assert grid.shape[2] == 2 * 32 + 3 * GAP
    assert grid[:, -GAP - 1, GAP : GAP + 32].max() == 0
    assert torch.allclose(grid[:, -GAP - 1, 2 * GAP + 32 : -GAP], torch.tensor(128 / 255))
    with pytest.raises(ValueError):
        image_grid({"a": torch.zeros(2, 3, 8, 8), "b": torch.zeros(3, 3, 8, 8)})
