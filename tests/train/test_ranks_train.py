from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from sfdkit.train.task import AnimationTask
from tests.train.two_ranks import PICTURES, sgd, train, without_batch_statistics

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """What two processes ended with, by training."""
    folder = tmp_path_factory.mktemp("ranks")
    command = [sys.executable, "-m", "tests.train.two_ranks", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-3000:]
    names = ("rows", "accumulated", "timed", "variance")
    return {n: [torch.load(folder / f"{n}-{rank}.pt", weights_only=True) for rank in (0, 1)] for n in names}


def assert_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor], atol: float = 0.0) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], rtol=0, atol=atol, msg=lambda text, name=name: f"{name}: {text}")


def moved(state: dict[str, torch.Tensor]) -> float:
    before = without_batch_statistics().state_dict()
    return max(float((state[name] - value).abs().max()) for name, value in before.items() if value.is_floating_point())


def test_two_processes_take_the_step_of_one_with_all_rows(ranks: dict[str, list[dict[str, Any]]]) -> None:
    alone = AnimationTask(
        without_batch_statistics(),
        PICTURES,
        optimizer=sgd,
        warmup_steps=1,
        gradient_clip_norm=0.0,
        gradient_clip_factor=0.0,
    )
    whole = train(alone, 2, 1)
    assert moved(whole["state"]) > 1e-3
    for rank in ranks["rows"]:
        assert_equal(rank["state"], whole["state"], atol=2e-6)


def test_accumulated_batches_are_reduced_once_and_weighted_alike(ranks: dict[str, list[dict[str, Any]]]) -> None:
    """Three batches are a step of two and a step of one, which weighs as much as a step of one should."""
    alone = AnimationTask(
        without_batch_statistics(),
        PICTURES,
        optimizer=sgd,
        warmup_steps=1,
        gradient_clip_norm=0.0,
        gradient_clip_factor=0.0,
        accumulate_grad_batches=2,
    )
    whole = train(alone, 3, 1)
    one, other = ranks["accumulated"]
    assert one["steps"] == other["steps"] == whole["steps"] == 2
    assert one["seen"]["unreduced"] == [0.0], "only the first batch of the first step is not reduced"
    assert_equal(one["state"], whole["state"], atol=2e-6)
    assert_equal(other["state"], whole["state"], atol=2e-6)


def test_under_a_time_limit_processes_share_one_clock(ranks: dict[str, list[dict[str, Any]]]) -> None:
    one, other = ranks["timed"]
    assert one["seen"]["lr"] == other["seen"]["lr"]
    assert_equal(one["state"], other["state"])  # batch statistics as well


@pytest.mark.parametrize("what", ["noise", "chance"])
def test_processes_draw_numbers_of_their_own(what: str, ranks: dict[str, list[dict[str, Any]]]) -> None:
    one, other = (set(rank["seen"][what]) for rank in ranks["timed"])
    assert len(one) == len(other) == 12 and not one & other


def test_a_checkpoint_holds_the_random_state_of_every_process(ranks: dict[str, list[dict[str, Any]]]) -> None:
    one, other = (rank["states"] for rank in ranks["timed"])
    assert len(one) == len(other) == 2 and not torch.equal(one[0], one[1])
    assert torch.equal(one[0], other[0]) and torch.equal(one[1], other[1])


def test_the_usual_variance_is_that_of_all_processes(ranks: dict[str, list[Any]]) -> None:
    draws = [torch.randn(4, 3, 2, generator=torch.Generator().manual_seed(rank)) * (1 + rank) for rank in (0, 1)]
    mean = torch.stack([draw.var((0, 1), correction=0).mean() for draw in draws]).mean()
    for usual in ranks["variance"]:
        torch.testing.assert_close(usual, mean)
