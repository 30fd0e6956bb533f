from __future__ import annotations

import numpy as np
import pytest
import torch

from sfdkit.face_networks.types import Measured
from sfdkit.metrics.faces import correlation, csim, expression_errors, landmark_error, pose_errors, reading_errors

CPU = torch.device("cpu")


def test_distances_by_hand() -> None:
    one = torch.tensor([[[0.0, 0.0], [2.0, 4.0]]])
    assert landmark_error(one, one + torch.tensor([1.0, -3.0])).tolist() == [2.0]
    errors = pose_errors(torch.tensor([[10.0, -5.0, 179.0]]), torch.tensor([[13.0, -5.0, -178.0]]))
    assert {k: v.tolist() for k, v in errors.items()} == {
        "pose_error": [2.0],
        "yaw_error": [3.0],
        "pitch_error": [0.0],
        "roll_error": [3.0],
    }
    values = expression_errors(torch.tensor([[0.5, -1.0]]), torch.tensor([[0.25, 1.0]]), ("a", "b"))
    assert {k: v.tolist() for k, v in values.items()} == {
        "expression_error": [1.125],
        "a_error": [0.25],
        "b_error": [2],
    }
    assert csim(torch.tensor([[3.0, 4.0]]), torch.tensor([[4.0, 3.0]])).tolist() == pytest.approx([0.96])
    assert reading_errors(Measured(), Measured(landmarks=one), ()) == {}


def test_correlation_is_pearsons() -> None:
    a, b = torch.randn(30), torch.randn(30)
    assert correlation(a, a * 3 + b) == pytest.approx(float(np.corrcoef(a, a * 3 + b)[0, 1]), abs=1e-6)
    assert correlation(a, -a) == pytest.approx(-1)
    assert correlation(torch.ones(9), torch.arange(9.0)) == 0.0
    assert correlation(torch.arange(9.0), torch.ones(9)) is None
    hole = torch.tensor([1.0, 2.0, float("nan"), 3.0])
    assert correlation(hole, torch.tensor([2.0, 4.0, -9.0, 6.0])) == pytest.approx(1)
    assert correlation(hole[2:3], hole[2:3]) is None
