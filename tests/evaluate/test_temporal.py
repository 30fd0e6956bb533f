from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from sfdkit.evaluate.temporal import LEAST_FRAMES, temporal_figures, temporal_values

TIME = torch.arange(40.0)


def column(result: Tensor, wanted: Tensor) -> Tensor:
    other = torch.full_like(result, math.nan)
    return torch.stack([result, wanted, other, other], 1)


def test_correlation_is_over_the_frames_of_one_pair() -> None:
    wave = 5 * torch.sin(TIME)
    found = temporal_values(
        {
            "yaw": column(2 * wave + 3, wave),
            "pitch": column(-wave, wave),
            "roll": column(torch.full_like(wave, 7.0), wave),
        }
    )
    assert found == pytest.approx({"temporal_yaw": 1, "temporal_pitch": -1, "temporal_roll": 0}, abs=1e-6)


def test_frames_that_were_not_read_do_not_count_and_too_few_are_none() -> None:
    wave = 5 * torch.sin(TIME)
    result = wave.clone()
    result[5], wave[7] = math.nan, math.nan
    assert temporal_values({"yaw": column(result, wave)})["temporal_yaw"] == pytest.approx(1)
    few = LEAST_FRAMES + 1
    assert temporal_values({"yaw": column(result[:few], wave[:few])}) == {}
    assert list(temporal_values({"yaw": column(result[: few + 1], wave[: few + 1])})) == ["temporal_yaw"]


def test_a_driver_that_hardly_moves_is_left_out() -> None:
    wave = torch.sin(TIME) / float(torch.sin(TIME).double().std())
    for name, least in (("yaw", 1.5), ("roll", 1.0), ("blink", 0.15), ("jaw_open", 0.05)):
        assert temporal_values({name: column(wave, 0.95 * least * wave)}) == {}
        assert temporal_values({name: column(wave, 1.05 * least * wave)})[f"temporal_{name}"] == pytest.approx(1)


def test_the_median_counts_and_pairs_left_out_are_counted() -> None:
    rows = [{"temporal_yaw": value, "l1": 9.0} for value in (0.9, -0.5, 0.2)] + [{"l1": 1.0}]
    figures = temporal_figures("cross", ("yaw", "blink"), rows)
    assert figures == {
        "cross/temporal_yaw": 0.2,
        "cross/temporal_yaw_clips": 3,
        "cross/temporal_yaw_left_out": 1,
        "cross/temporal_blink": None,
        "cross/temporal_blink_clips": 0,
        "cross/temporal_blink_left_out": 4,
    }
    assert temporal_figures("cross", ("yaw",), []) == {}
