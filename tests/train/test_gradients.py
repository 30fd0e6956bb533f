from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from sfdkit.train.gradients import USUAL_SHARE, BatchStatistics, GradientGuard, prepare_step


def limited(guard: GradientGuard, gradient: float, batches: int = 1) -> tuple[float, float, bool]:
    """The norm, what became of the gradient, and whether it was finite."""
    layer = nn.Linear(1, 1, bias=False)
    layer.weight.grad = torch.tensor([[gradient]])
    norm, finite = guard.limit(layer, batches)
    return float(norm), float(layer.weight.grad), bool(finite)


def test_a_surge_of_the_gradient_is_limited_to_a_multiple_of_what_is_usual() -> None:
    guard = GradientGuard(clip=0.0, surge=2.0)
    assert limited(guard, 0.5) == pytest.approx((0.5, 0.5, True)) and guard.usual == pytest.approx(0.5)
    assert limited(guard, 0.6)[1] == pytest.approx(0.6)
    assert guard.usual == pytest.approx(0.5 + 0.1 * USUAL_SHARE)
    assert limited(guard, 50.0)[:2] == pytest.approx((50.0, 2 * 0.502), rel=1e-3)
    assert guard.usual == pytest.approx(0.502 + 0.502 * USUAL_SHARE, rel=1e-3)
    guard.surge = 0.0
    assert limited(guard, 50.0)[1] == pytest.approx(50.0)
    guard.clip = 0.1
    assert limited(guard, 50.0)[1] == pytest.approx(0.1)


def test_summed_gradients_become_their_mean() -> None:
    assert limited(GradientGuard(clip=0.0, surge=0.0), 6.0, batches=3) == pytest.approx((2.0, 2.0, True))
    assert limited(GradientGuard(clip=1.0, surge=0.0), 6.0, batches=3)[1] == pytest.approx(1.0)


def test_steps_that_are_not_finite_are_counted_and_change_nothing_that_is_remembered() -> None:
    guard = GradientGuard(clip=1.0, surge=2.0)
    limited(guard, 0.5)
    for gradient in (float("nan"), float("inf")):
        assert not limited(guard, gradient)[2]
    assert guard.usual == pytest.approx(0.5) and guard.skipped == guard.in_a_row == 2
    assert limited(guard, 0.5)[2] and guard.skipped == 2 and guard.in_a_row == 0


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD])
def test_a_bad_step_changes_neither_weights_nor_moments(kind: type[torch.optim.Optimizer], fused: bool) -> None:
    weight = nn.Parameter(torch.ones(3))
    options = {"momentum": 0.9} if kind is torch.optim.SGD else {}
    optimizer = kind([weight], lr=0.1, fused=fused, **options)  # type: ignore[call-arg]

    def step(gradient: Tensor) -> Tensor:
        weight.grad = gradient
        prepare_step(optimizer, gradient.isfinite().all())
        optimizer.step()
        return weight.detach().clone()

    after = step(torch.ones(3))
    moments = {k: v.clone() for k, v in optimizer.state[weight].items() if isinstance(v, Tensor)}
    assert torch.equal(step(torch.tensor([1.0, float("nan"), 1.0])), after)
    assert all(torch.equal(value, optimizer.state[weight][name]) for name, value in moments.items())
    assert not torch.equal(step(torch.ones(3)), after)


def test_batch_statistics_go_back_after_a_bad_step() -> None:
    network = nn.Sequential(nn.BatchNorm1d(2), nn.BatchNorm1d(2, track_running_stats=False))
    statistics = BatchStatistics(network)
    norm = network[0]
    assert isinstance(norm, nn.BatchNorm1d) and norm.running_mean is not None and norm.running_var is not None
    statistics.keep()
    network(torch.randn(8, 2) + 5)
    statistics.settle(torch.tensor(True))
    good = norm.running_mean.clone()
    assert (good > 0.3).all()
    statistics.keep()
    network(torch.full((8, 2), float("nan")))
    assert norm.running_mean.isnan().all()
    statistics.settle(torch.tensor(False))
    assert torch.equal(norm.running_mean, good) and norm.running_var.isfinite().all()
    nothing = BatchStatistics(nn.Linear(1, 1))
    nothing.keep()
    nothing.settle(torch.tensor(False))
