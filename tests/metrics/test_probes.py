from __future__ import annotations

import pytest
import torch

from sfdkit.metrics.probes import STRENGTHS, Probe, grouped_folds, is_constant, probe, ridge, standardise


def people(count: int, frames: int) -> list[str]:
    return [f"p{who}" for who in range(count) for _ in range(frames)]


def test_a_person_is_in_one_fold_and_folds_are_even() -> None:
    groups = [f"p{who}" for who in range(23) for _ in range(1 + who % 4)]
    folds = grouped_folds(groups)
    assert {len({int(f) for f, g in zip(folds, groups, strict=True) if g == name}) for name in groups} == {1}
    sizes = folds.bincount()
    assert len(sizes) == 5 and int(sizes.max() - sizes.min()) <= 1
    assert torch.equal(folds, grouped_folds(groups))
    assert not torch.equal(folds, grouped_folds(groups, seed=1))
    assert int(grouped_folds(["a", "b", "b"]).max()) == 1


def by_hand(x: torch.Tensor, y: torch.Tensor, folds: torch.Tensor) -> float:
    """Nested cross-validation of one target, written out."""
    x = (x - x.mean(0)) / x.std(0, correction=0)

    def predict(train: torch.Tensor, test: torch.Tensor, strength: float) -> torch.Tensor:
        a, b = x[train] - x[train].mean(0), y[train] - y[train].mean()
        w = torch.linalg.solve(a.T @ a + strength * len(a) * torch.eye(x.shape[1], dtype=x.dtype), a.T @ b)
        return (x[test] - x[train].mean(0)) @ w + y[train].mean()

    missed = 0.0
    for fold in range(int(folds.max()) + 1):
        others = [f for f in range(int(folds.max()) + 1) if f != fold]
        errors = []
        for strength in STRENGTHS:
            error = 0.0
            for inner in others:
                kept = (folds != fold) & (folds != inner)
                error += float((predict(kept, folds == inner, strength) - y[folds == inner]).square().sum())
            errors.append(error)
        best = STRENGTHS[errors.index(min(errors))]
        missed += float((predict(folds != fold, folds == fold, best) - y[folds == fold]).square().sum())
    return 1 - missed / float((y - y.mean()).square().sum())


@pytest.mark.parametrize("features", [4, 90])
def test_ridge_equals_nested_cross_validation_by_hand(features: int) -> None:
    folds = grouped_folds(people(12, 5))
    x = torch.randn(60, features, dtype=torch.float64) * 3 + 1
    y = torch.stack([x[:, 0] + 0.5 * torch.randn(60), x[:, 1] - x[:, 2] + 4 * torch.randn(60), torch.randn(60)], 1)
    measured = ridge(x, y, folds).r2
    for column in range(3):
        assert float(measured[column]) == pytest.approx(by_hand(x, y[:, column], folds), abs=1e-8)
    assert float(measured[0]) > float(measured[2])


def test_weights_are_slopes_in_the_units_of_both() -> None:
    folds = grouped_folds(people(40, 5))
    x = torch.randn(200, 3) * torch.tensor([1.0, 10.0, 0.1]) + 5
    truth = torch.tensor([[2.0, 0.0], [-0.3, 1.0], [0.0, 7.0]])
    found = ridge(x, x @ truth - 3, folds)
    assert torch.allclose(found.weights.float(), truth, atol=0.02)
    assert float(found.r2.min()) > 0.999


def test_a_code_that_only_knows_who_it_is_tells_nothing_about_others() -> None:
    names = people(30, 6)
    code = torch.eye(30).repeat_interleave(6, 0)
    factor = torch.rand(30).repeat_interleave(6)
    found = probe(code, {"age": factor}, grouped_folds(names))
    by_frame = probe(code, {"age": factor}, torch.arange(180) % 5)
    assert found.r2["age"] < 0.05
    assert by_frame.r2["age"] > 0.95


def test_what_a_code_holds_is_found_in_new_people() -> None:
    names = people(40, 4)
    yaw, glasses = torch.randn(160), (torch.rand(40) < 0.4).float().repeat_interleave(4)
    code = torch.stack([yaw + glasses, yaw - 2 * glasses, torch.randn(160)], 1) @ torch.linalg.qr(torch.randn(3, 3)).Q
    factors = {"yaw": yaw, "glasses": glasses, "noise": torch.randn(160), "still": torch.full((160,), 0.3)}
    found = probe(code, factors, grouped_folds(names))
    assert found.skipped == ("still",) and set(found.r2) == {"yaw", "glasses", "noise"}
    assert found.r2["yaw"] > 0.99 and found.r2["glasses"] > 0.99 and found.r2["noise"] < 0.1
    assert found.mean == pytest.approx(sum(found.r2.values()) / 3)


def test_a_wrong_answer_scores_below_zero() -> None:
    """The sign of the slope differs from the people fitted on to those that are asked."""
    folds = torch.arange(3).repeat_interleave(20)
    x = torch.linspace(-1, 1, 20).repeat(3)
    y = x * torch.tensor([1.0, 1.0, -1.0]).repeat_interleave(20)
    assert probe(x[:, None], {"f": y}, folds).r2["f"] < -0.1


def test_constant_columns() -> None:
    assert is_constant(torch.full((9,), 0.1)) and is_constant(torch.zeros(9)) and not is_constant(torch.arange(9.0))
    assert torch.equal(standardise(torch.full((4, 1), 7.0)), torch.zeros(4, 1, dtype=torch.float64))
    found = probe(torch.cat([torch.randn(60, 2), torch.ones(60, 1)], 1), {"a": torch.randn(60)}, torch.arange(60) % 5)
    assert abs(found.r2["a"]) < 1
    assert probe(torch.randn(9, 2), {"a": torch.ones(9)}, torch.arange(9) % 3) == Probe({}, ("a",))


def test_two_folds_are_too_few() -> None:
    with pytest.raises(ValueError, match="at least 3 folds, got 2"):
        ridge(torch.randn(8, 2), torch.randn(8, 1), torch.arange(8) % 2)
