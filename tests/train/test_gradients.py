from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from sfdkit.train.gradients import MOMENTUM, BatchStatistics, GradientClipping, skip_unless_finite


def limited(clipping: GradientClipping, gradient: float, batches: int = 1) -> tuple[float, float, bool]:
    """The norm, what became of the gradient, and whether it was finite."""
    layer = nn.Linear(1, 1, bias=False)
    layer.weight.grad = torch.tensor([[gradient]])
    norm, finite = clipping.clip(layer, batches)
    return float(norm), float(layer.weight.grad), bool(finite)


def test_a_surge_of_the_gradient_is_limited_to_a_multiple_of_what_is_usual() -> None:
    clipping = GradientClipping(clip_norm=0.0, clip_factor=2.0)
    assert limited(clipping, 0.5) == pytest.approx((0.5, 0.5, True)) and clipping.running_mean == pytest.approx(0.5)
    assert limited(clipping, 0.6)[1] == pytest.approx(0.6)
    assert clipping.running_mean == pytest.approx(0.5 + 0.1 * MOMENTUM)
    assert limited(clipping, 50.0)[:2] == pytest.approx((50.0, 2 * 0.502), rel=1e-3)
    assert clipping.running_mean == pytest.approx(0.502 + 0.502 * MOMENTUM, rel=1e-3)
    clipping.clip_factor = 0.0
    assert limited(clipping, 50.0)[1] == pytest.approx(50.0)
    clipping.clip_norm = 0.1
    assert limited(clipping, 50.0)[1] == pytest.approx(0.1)


def test_summed_gradients_become_their_mean() -> None:
    assert limited(GradientClipping(clip_norm=0.0, clip_factor=0.0), 6.0, batches=3) == pytest.approx((2.0, 2.0, True))
    assert limited(GradientClipping(clip_norm=1.0, clip_factor=0.0), 6.0, batches=3)[1] == pytest.approx(1.0)


def test_steps_that_are_not_finite_are_counted_and_change_nothing_that_is_remembered() -> None:
    clipping = GradientClipping(clip_norm=1.0, clip_factor=2.0)
    limited(clipping, 0.5)
    for gradient in (float("nan"), float("inf")):
        assert not limited(clipping, gradient)[2]
    assert clipping.running_mean == pytest.approx(0.5) and clipping.skipped == clipping.skipped_in_a_row == 2
    assert limited(clipping, 0.5)[2] and clipping.skipped == 2 and clipping.skipped_in_a_row == 0


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD])
def test_a_bad_step_changes_neither_weights_nor_moments(kind: type[torch.optim.Optimizer], fused: bool) -> None:
    weight = nn.Parameter(torch.ones(3))
    options = {"momentum": 0.9} if kind is torch.optim.SGD else {}
    optimizer = kind([weight], lr=0.1, fused=fused, **options)  # type: ignore[call-arg]

    def step(gradient: Tensor) -> Tensor:
        weight.grad = gradient
        skip_unless_finite(optimizer, gradient.isfinite().all())
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
    statistics.save()
    network(torch.randn(8, 2) + 5)
    statistics.reduce(torch.tensor(True))
    good = norm.running_mean.clone()
    assert (good > 0.3).all()
    statistics.save()
    network(torch.full((8, 2), float("nan")))
    assert norm.running_mean.isnan().all()
    statistics.reduce(torch.tensor(False))
    assert torch.equal(norm.running_mean, good) and norm.running_var.isfinite().all()
    nothing = BatchStatistics(nn.Linear(1, 1))
    nothing.save()
    nothing.reduce(torch.tensor(False))
