from __future__ import annotations

import pytest
import torch

from sfdkit.task import USUAL_SHARE, AnimationTask, cross_rows, frozen
from tests.tiny import tiny_animator


def task(**options: object) -> AnimationTask:
    return AnimationTask(tiny_animator(), {"l1": 1.0, **options.pop("weights", {})}, **options)  # type: ignore


def test_rows_are_crossed_with_other_people_only() -> None:
    assert cross_rows(["a", "a", "b", "c"], 1.0) == [(0, 2), (1, 2), (2, 3), (3, 0)]
    assert cross_rows(["a", "a", "b", "c"], 0.5) == [(0, 2), (1, 2)]
    assert cross_rows(["a", "a"], 1.0) == [] and cross_rows(["a", "b"], 0.0) == []


def test_frozen_parts_pass_gradients_on_and_learn_nothing() -> None:
    layer, kept = torch.nn.Linear(3, 2), torch.nn.Linear(3, 3)
    kept.bias.requires_grad_(False)
    x = torch.rand(4, 3, requires_grad=True)
    with frozen([layer, kept]):
        y = layer(kept(x)).sum()
    y.backward()
    assert x.grad is not None and x.grad.abs().sum() > 0
    assert layer.weight.grad is None and layer.weight.requires_grad and not kept.bias.requires_grad


def test_a_surge_of_the_gradient_is_limited_to_a_multiple_of_what_is_usual() -> None:
    made = task(gradient_clip=0.0, gradient_surge=2.0)
    layer, usual = torch.nn.Linear(1, 1, bias=False), made.usual_gradient[0]

    def clip(gradient: float) -> float:
        layer.weight.grad = torch.tensor([[gradient]])
        assert made._clip(layer, usual) == pytest.approx(gradient)
        return float(layer.weight.grad)

    assert clip(0.5) == pytest.approx(0.5) and usual == pytest.approx(0.5)
    assert clip(0.6) == pytest.approx(0.6) and usual == pytest.approx(0.5 + 0.1 * USUAL_SHARE)
    assert clip(50.0) == pytest.approx(2 * 0.502, rel=1e-3)
    assert usual == pytest.approx(0.502 + 0.502 * USUAL_SHARE, rel=1e-3)
    made.gradient_surge = 0.0
    assert clip(50.0) == 50.0
    made.gradient_clip = 0.1
    assert clip(50.0) == pytest.approx(0.1)


def test_without_a_price_there_is_no_noise() -> None:
    motion = torch.rand(3, 4)
    torch.testing.assert_close(task().animator.motion_head.noisy(motion), motion)
    assert (task(weights={"rate": 1e-4}).animator.motion_head.noisy(motion) - motion).abs().max() > 0.01


def test_crossed_rows_are_who_they_should_be() -> None:
    made = task(weights={"reencode": 1.0, "cycle": 1.0, "consistency": 1.0, "rate": 1e-4}, cross_share=0.5)
    made._trainer = type("Trainer", (), {"global_step": 0})()  # type: ignore[assignment]
    batch = {
        "source": torch.rand(4, 3, 32, 32),
        "driving": torch.rand(4, 2, 3, 32, 32),
        "key": list("abcd"),
        "identity": ["x", "x", "y", "z"],
    }
    step = made.take_step(batch)  # type: ignore[arg-type]
    assert step.crossed is not None and step.identity is not None and step.people is not None
    torch.testing.assert_close(step.crossed.source, batch["source"][[0, 1]])
    torch.testing.assert_close(step.crossed.driver, batch["driving"][[2, 2], 0])
    torch.testing.assert_close(step.crossed.driver_motion, step.motion[[2, 2], 1])
    torch.testing.assert_close(step.crossed.source_identity, step.identity[[0, 1], 0])
    assert step.people.tolist() == [0, 0, 1, 2] or len(set(step.people.tolist())) == 3
    assert step.crossed.restored is not None and step.crossed.restored.shape == (2, 3, 32, 32)
    total, values = made.objective(step, 0)
    assert set(values) == {"l1", "reencode", "cycle", "consistency", "rate"}
    total.backward()
    assert made.animator.motion_head.log_noise.grad is not None
