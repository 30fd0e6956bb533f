"""Rows that are drawn from the code alone."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from sfdkit.model.animator import SourceState
from sfdkit.train.task import AnimationTask
from tests.tiny import tiny_animator

ROWS, DRIVING = 4, 2
BATCH: dict[str, Any] = {
    "source": torch.rand(ROWS, 3, 32, 32),
    "driving": torch.rand(ROWS, DRIVING, 3, 32, 32),
    "key": list("abcd"),
    "identity": list("wxyz"),
}


def task(code_share: float, batch_number: int = 0, rank: int = 0) -> AnimationTask:
    made = AnimationTask(tiny_animator(code_share=code_share), {"l1": 1.0, "kl": 1e-4})
    loop = SimpleNamespace(total_batch_idx=batch_number)
    made._trainer = SimpleNamespace(global_step=0, global_rank=rank, fit_loop=loop)  # type: ignore[assignment]
    made.experiment["seed"] = 1
    return made.eval()


def rendered(made: AnimationTask, generator: torch.Generator) -> tuple[SourceState, torch.Tensor]:
    """The sources of a step's batch and its results."""
    seen: list[SourceState] = []
    monitored = made.animator.generate

    def generate(state: SourceState, motion: torch.Tensor) -> object:
        seen.append(state)
        return monitored(state, motion)

    made.animator.generate = generate  # type: ignore[method-assign, assignment]
    image = made.take_step(BATCH, generator).image  # type: ignore[arg-type]
    return seen[0], image


def drawn(state: SourceState) -> list[bool]:
    """Which rows have the template's picture, which begins grey."""
    return [bool((image == 0.5).all()) for image in state.image]


def test_rows_drawn_from_the_code_have_no_source() -> None:
    made = task(0.5)
    state, image = rendered(made, torch.Generator().manual_seed(3))
    rows = drawn(state)
    assert True in rows and False in rows
    torch.testing.assert_close(
        state.descriptors.identity, made.animator.identity(BATCH["source"]).repeat_interleave(2, 0)
    )
    weights = [p for p in made.animator.adapter.parameters() if p.requires_grad]
    for row, alone in enumerate(rows):
        grads = torch.autograd.grad(image[row].sum(), weights, retain_graph=True, allow_unused=True)
        assert all(g is None or not g.any() for g in grads) == alone
    identity = torch.autograd.grad(image[rows.index(True)].sum(), made.animator.identity_head.layers[-1].bias)[0]
    assert identity.abs().sum() > 0


def test_without_a_share_nothing_more_is_drawn_at_random() -> None:
    made, generator = task(0.0), torch.Generator().manual_seed(3)
    state, _ = rendered(made, generator)
    torch.testing.assert_close(state.image, BATCH["source"].repeat_interleave(DRIVING, 0), atol=0, rtol=0)
    noise = torch.Generator().manual_seed(3)
    torch.randn(ROWS * DRIVING, 4, generator=noise)
    assert torch.equal(generator.get_state(), noise.get_state())


def test_rows_that_keep_their_source_are_rendered_as_without_a_share() -> None:
    made = task(0.5)
    state, image = rendered(made, torch.Generator().manual_seed(3))
    made.animator.code_share = 0.0
    _, plain = rendered(made, torch.Generator().manual_seed(3))
    kept = [not alone for alone in drawn(state)]
    torch.testing.assert_close(image[kept], plain[kept], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("share", [0.2, 1.0])
def test_the_share_is_kept_and_resumed_trainings_draw_the_same_rows(share: float) -> None:
    batches = {}
    for place in [(0, 0), (1, 0), (2, 0), (3, 0), (4, 0), (0, 1)]:
        first, again = (rendered(task(share, *place), task(share, *place)._noise_generator())[0] for _ in range(2))
        batches[place] = drawn(first)
        assert batches[place] == drawn(again)
    everything = [alone for rows in batches.values() for alone in rows]
    assert sum(everything) / len(everything) == pytest.approx(share, abs=0.15)
    assert share == 1.0 or len({str(rows) for rows in batches.values()}) > 2
