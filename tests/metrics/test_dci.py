from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from sfdkit.metrics.dci import completeness, dci, describe_vectors, disentanglement, lasso_path
from sfdkit.metrics.probes import grouped_folds, standardise

NAMES = ("yaw", "smile", "blink", "brows")


def factors(count: int = 80, frames: int = 6) -> tuple[dict[str, Tensor], Tensor]:
    """Four independent factors, and folds by person."""
    folds = grouped_folds([f"p{who}" for who in range(count) for _ in range(frames)])
    return {name: torch.randn(count * frames) for name in NAMES}, folds


def test_scores_of_known_matrices() -> None:
    eye, flat = torch.eye(4, dtype=torch.float64), torch.ones(4, 4, dtype=torch.float64)
    assert disentanglement(eye) == pytest.approx(1) and completeness(eye) == pytest.approx(1)
    assert disentanglement(flat) == pytest.approx(0) and completeness(flat) == pytest.approx(0)
    # two numbers of the code for each of two factors: each serves one, each factor needs two of four
    double = torch.tensor([[1.0, 0], [1, 0], [0, 1], [0, 1]], dtype=torch.float64)
    assert disentanglement(double) == pytest.approx(1)
    assert completeness(double) == pytest.approx(1 - math.log(2) / math.log(4))
    # an idle number does not count, an important one counts more: 3/4 of importance sits in a row without entropy
    uneven = torch.tensor([[3.0, 0], [0.5, 0.5], [0, 0]], dtype=torch.float64)
    assert disentanglement(uneven) == pytest.approx(0.75)
    # a factor that nothing serves is not held by one number
    assert completeness(torch.tensor([[1.0, 0], [0, 0]], dtype=torch.float64)) == pytest.approx(0.5)
    assert disentanglement(torch.zeros(3, 2)) == 0 and completeness(torch.zeros(3, 2)) == 0


def test_lasso_meets_the_conditions_of_its_optimum() -> None:
    x = standardise(torch.randn(200, 6) @ torch.randn(6, 6))
    y = standardise(x[:, :2].float() + 0.5 * torch.randn(200, 2))
    strengths = (0.5, 0.1, 0.01)
    path = lasso_path(x, y, strengths)
    for strength, weights in zip(strengths, path, strict=True):
        slope = x.T @ (y - x @ weights) / len(x)
        assert float(slope.abs().max()) <= strength + 2e-3
        active = weights.abs() > 1e-6
        assert torch.allclose(slope[active], strength * weights[active].sign(), atol=2e-3)
    assert (path[0] == 0).sum() > (path[2] == 0).sum()


def test_one_number_per_factor_scores_high() -> None:
    known, folds = factors()
    code = torch.stack([3 * known[n] + 0.1 * torch.randn(480) for n in NAMES] + [torch.randn(480)], 1)
    scores = dci(code, known, folds)
    assert scores.disentanglement > 0.9 and scores.completeness > 0.9 and scores.informativeness > 0.95


def test_a_rotation_keeps_information_and_loses_the_rest() -> None:
    known, folds = factors()
    hadamard = torch.tensor([[1.0, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]) / 2
    code = torch.stack([known[n] for n in NAMES], 1) @ hadamard
    scores = dci(code, known, folds)
    assert scores.informativeness > 0.95
    assert scores.disentanglement < 0.15 and scores.completeness < 0.15
    vectors = describe_vectors(code, known, folds)
    assert not any(v.exclusive for v in vectors)
    assert all(v.explains < 0.4 and v.together > 0.99 for v in vectors)


def test_vectors_of_their_own_are_counted() -> None:
    known, folds = factors()
    noise = torch.randn(480, 6)
    code = torch.stack(
        [
            5 * known["yaw"] + noise[:, 0],  # explains 25/26 of yaw
            known["yaw"] + noise[:, 1] * 0.5,  # explains 4/5 of it: not the best
            known["smile"] + known["blink"] + 0.5 * noise[:, 4],  # explains 4/9 of each: nobody's own
            known["blink"] + 0.25 * known["smile"],  # mostly blink
            known["brows"] + 3 * noise[:, 2],  # explains a tenth
            noise[:, 3],
        ],
        1,
    )
    vectors = describe_vectors(code, known, folds)
    assert [v.exclusive for v in vectors] == [True, False, False, True, False, False]
    assert [v.factor for v in vectors[:2]] == ["yaw", "yaw"] and vectors[3].factor == "blink"
    assert vectors[4].factor == "brows" and vectors[2].factor in ("smile", "blink")
    assert vectors[0].explains == pytest.approx(25 / 26, abs=0.02)
    assert vectors[1].explains == pytest.approx(0.8, abs=0.05)
    assert vectors[2].share == pytest.approx(4 / 9, abs=0.06)
    assert vectors[2].together == pytest.approx(8 / 9, abs=0.03)
    assert vectors[4].explains == pytest.approx(0.1, abs=0.06)
    assert vectors[5].explains < 0.03


def test_a_gentle_curve_counts_as_followed() -> None:
    known, folds = factors()
    code = (known["yaw"] + 0.5 * known["yaw"].square())[:, None]
    (vector,) = describe_vectors(code, known, folds)
    straight = float(torch.corrcoef(torch.stack([code[:, 0], known["yaw"]]))[0, 1]) ** 2
    assert vector.share > 0.999 > straight and vector.factor == "yaw"


def test_a_dead_coefficient_and_a_constant_factor() -> None:
    known, folds = factors()
    code = torch.stack([known["yaw"], torch.zeros(480)], 1)
    vectors = describe_vectors(code, {**known, "still": torch.ones(480)}, folds)
    assert vectors[1].factor is None and vectors[1].share == vectors[1].together == 0
    assert describe_vectors(code, {"still": torch.ones(480)}, folds)[0].factor is None
    with pytest.raises(ValueError, match="no factor varies"):
        dci(code, {"still": torch.ones(480)}, folds)
