"""That a training learns at all: what many small faults leave undone."""

from __future__ import annotations

import warnings
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from sfdkit.errors import TrainingError
from sfdkit.losses.reconstruction import MultiScaleL1
from sfdkit.model.discriminator import Discriminator
from sfdkit.puppets.clips import make_clip
from sfdkit.train.task import AnimationTask
from sfdkit.types import FrameBatch
from tests.tiny import tiny_animator

WEIGHTS = {"l1": 1.0, "l2": 2.0, "warp": 0.3, "kl": 1e-5, "leakage": 0.01, "consistency": 0.01}


def puppets(rows: int = 6) -> FrameBatch:
    """A source and two driving frames of each of some people, 32 pixels."""
    clips = [make_clip(number, "train", 0, 3, 32, fps=1.0)[0].float() / 255 for number in range(rows)]
    frames = torch.stack(clips)
    names = [str(row) for row in range(rows)]
    return FrameBatch(source=frames[:, 0], driving=frames[:, 1:], key=names, identity=names)


def train(task: AnimationTask, batches: list[FrameBatch], steps: int, *callbacks: L.Callback, **options: Any) -> None:
    trainer = L.Trainer(
        accelerator="cpu",
        max_steps=steps,
        max_epochs=-1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
        **options,
    )
    trainer.fit(task, DataLoader(batches, batch_size=None))  # type: ignore[arg-type]


def adam(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=3e-3, betas=(0.9, 0.99), fused=True)


@pytest.mark.slow
def test_sixty_steps_on_one_batch_halve_the_loss_and_follow_the_motion() -> None:
    batch, distance = puppets(), MultiScaleL1()
    task = AnimationTask(tiny_animator(), WEIGHTS, optimizer=adam, warmup_steps=5)

    def rendered() -> Tensor:
        with torch.no_grad():
            image = task.eval().render(batch)[0].image
        task.train()
        return image.unflatten(0, (-1, 2))

    before = distance(rendered(), batch["driving"])
    train(task, [batch], 60)
    after = rendered()
    assert distance(after, batch["driving"]) < 0.5 * before
    crossed = distance(after, batch["driving"].flip(1))
    assert distance(after, batch["driving"]) < 0.75 * crossed, "each result must be nearer to its own driver"


def bad(batch: FrameBatch) -> FrameBatch:
    spoilt = batch.copy()
    spoilt["driving"] = torch.full_like(batch["driving"], float("nan"))
    return spoilt


def test_a_bad_batch_is_left_out_and_the_training_goes_on() -> None:
    good = puppets(2)
    task = AnimationTask(tiny_animator(), WEIGHTS, optimizer=adam, warmup_steps=1, max_skipped_steps=4)
    with pytest.warns(UserWarning, match=r"step 4: the gradient was not finite; steps left out so far: 1"):
        train(task, [good, good, bad(good), good], 6)
    assert task.clipping.skipped == 1 and task.clipping.skipped_in_a_row == 0
    assert all(value.isfinite().all() for value in task.state_dict().values())


def test_many_bad_batches_in_a_row_end_the_training_with_good_weights() -> None:
    good = puppets(2)
    task = AnimationTask(tiny_animator(), WEIGHTS, optimizer=adam, warmup_steps=1, max_skipped_steps=3)
    with pytest.raises(TrainingError, match=r"not finite in the last 4 steps before step 6;.*--ckpt_path"):
        train(task, [good, good, bad(good), bad(good), bad(good), bad(good)], 20)
    assert all(value.isfinite().all() for value in task.state_dict().values())


def test_a_bad_batch_among_those_of_a_step_spoils_nothing() -> None:
    good = puppets(2)
    task = AnimationTask(tiny_animator(), WEIGHTS, optimizer=adam, warmup_steps=1, accumulate_grad_batches=2)
    train(task, [bad(good), good, good, good], 2)
    assert task.clipping.skipped == 1 and task.clipping.skipped_in_a_row == 0
    assert all(value.isfinite().all() for value in task.state_dict().values())


def test_a_step_of_fewer_batches_than_wanted_is_their_mean() -> None:
    def sgd(parameters: Any) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr=0.1)

    states = []
    for batches in (1, 4):
        task = AnimationTask(
            tiny_animator(), {"l1": 1.0}, optimizer=sgd, gradient_clip_norm=0.0, accumulate_grad_batches=batches
        )
        train(task, [puppets(2)], 1)
        states.append(task.animator.state_dict())
    torch.testing.assert_close(*states)


class Rivals(AnimationTask):
    """Notes whether the discriminator begins its turn without the animator's gradients, and how much it sees."""

    clean = True
    seen = 0

    def _discriminator_phase(self, *arguments: Any) -> None:
        assert self.discriminator is not None
        self.seen = len(arguments[0])
        self.clean &= all(parameter.grad is None for parameter in self.discriminator.parameters())
        super()._discriminator_phase(*arguments)


def test_the_discriminator_learns_from_its_own_loss_and_leaves_out_bad_steps() -> None:
    good, rival = puppets(2), Discriminator(32, width=4, max_channels=8)
    before = {name: value.clone() for name, value in rival.state_dict().items()}
    weights = {"l1": 1.0, "adversarial": 0.1, "feature_matching": 1.0, "r1": 1.0}
    task = Rivals(
        tiny_animator(), weights, discriminator=rival, optimizer=adam, discriminator_optimizer=adam, warmup_steps=1
    )
    train(task, [good, bad(good), good], 3)
    assert task.clean and task.discriminator_clipping.skipped == 1
    assert task.seen == len(good["source"]) < good["driving"].shape[:2].numel()
    assert all(value.isfinite().all() and not torch.equal(value, before[n]) for n, value in rival.state_dict().items())


def test_steps_left_out_before_a_resume_are_not_told_again() -> None:
    good = puppets(2)
    task = AnimationTask(tiny_animator(), WEIGHTS, optimizer=adam, warmup_steps=1, max_skipped_steps=1)
    task.clipping.skipped.fill_(5)  # as a checkpoint brings it
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*left out so far")
        train(task, [good], 2)


@pytest.mark.parametrize(
    ("batches", "accumulate", "epochs", "most", "steps"),
    [(5, 2, 3, -1, 9), (4, 4, 2, -1, 2), (3, 1, 2, -1, 6), (4, 2, 2, 100, 4), (4, 2, 2, 3, 3)],
)
def test_the_schedule_ends_with_the_training(batches: int, accumulate: int, epochs: int, most: int, steps: int) -> None:
    class Progress(L.Callback):
        last = 0.0

        def on_train_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
            assert isinstance(trainer.lightning_module, AnimationTask)
            self.last = trainer.lightning_module.progress.at(trainer.global_step)

    task, progress = AnimationTask(tiny_animator(), {"l1": 1.0}, accumulate_grad_batches=accumulate), Progress()
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        max_steps=most,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[progress],
    )
    trainer.fit(task, DataLoader([puppets(2)] * batches, batch_size=None))  # type: ignore[arg-type]
    assert task.progress.total_steps == trainer.global_step == steps
    assert progress.last == pytest.approx((steps - 1) / steps)
