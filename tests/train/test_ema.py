from __future__ import annotations

from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from sfdkit.checkpoint import EMA_KEY, animator_weights
from sfdkit.train.callbacks import WeightEMA
from sfdkit.train.task import AnimationTask
from sfdkit.types import FrameBatch
from tests.tiny import tiny_animator


@pytest.mark.parametrize(
    ("decay", "averages"),
    [
        (0.999, (1.0, 20 / 11, 3.4545455, 6.6013986)),  # 2/11, 3/12 and 4/13 of the average stay
        (0.2, (1.0, 20 / 11, 3.5636364, 7.1127273)),  # 2/11, then 0.2
        (0.0, (1.0, 2.0, 4.0, 8.0)),
    ],
)
def test_the_decay_is_the_smaller_of_its_own_and_that_of_the_beginning(decay: float, averages: tuple) -> None:
    callback, layer = WeightEMA(decay), nn.BatchNorm1d(1)
    callback.average = nn.BatchNorm1d(1)  # type: ignore[assignment]
    for number, (weight, average) in enumerate(zip((1.0, 2.0, 4.0, 8.0), averages, strict=True)):
        layer.weight.data.fill_(weight)
        layer.running_var.fill_(weight)
        layer.num_batches_tracked.fill_(number + 5)
        callback.update(layer)
        assert callback.updates == number + 1
        for mine in (callback.average.weight, callback.average.running_var):
            assert mine.item() == pytest.approx(average, rel=1e-6)
        assert int(callback.average.num_batches_tracked) == number + 5, "whole numbers are copied"


def batches(count: int) -> DataLoader:
    pictures = torch.rand(count, 2, 2, 3, 32, 32)
    rows: list[FrameBatch] = [
        {"source": some[0], "driving": some[1][:, None], "key": ["a", "b"], "identity": ["a", "b"]} for some in pictures
    ]
    return DataLoader(rows, batch_size=None)  # type: ignore[arg-type]


class Seen(AnimationTask):
    """Notes the weights that a validation sees."""

    def validation_step(self, batch: FrameBatch, batch_idx: int) -> None:
        self.during = {name: value.clone() for name, value in self.animator.state_dict().items()}
        super().validation_step(batch, batch_idx)


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def test_validation_and_evaluation_use_the_average_and_training_does_not() -> None:
    task, callback = Seen(tiny_animator(), {"l1": 1.0}, warmup_steps=0), WeightEMA(0.5)
    trainer = L.Trainer(
        max_steps=2,
        accelerator="cpu",
        callbacks=[callback],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(task, batches(2), batches(1))
    assert callback.average is not None and callback.updates == 2
    assert equal(task.during, callback.average.state_dict())
    assert not equal(task.animator.state_dict(), callback.average.state_dict())
    stored: dict[str, Any] = {"state_dict": task.state_dict(), "global_step": 2}
    callback.on_save_checkpoint(trainer, task, stored)
    assert equal(animator_weights(stored), callback.average.state_dict()), "what evaluation loads"
    assert set(stored[EMA_KEY]) == {"n_averaged", *(f"module.{name}" for name in task.animator.state_dict())}

    again = WeightEMA(0.5)
    again.on_load_checkpoint(trainer, task, stored)
    again.setup(trainer, task, "fit")
    again.on_fit_start(trainer, task)
    assert again.updates == 2 and again.last_step == 2 and again.average is not None
    assert equal(again.average.state_dict(), callback.average.state_dict())


def test_without_an_update_the_weights_themselves_are_used() -> None:
    task, callback = AnimationTask(tiny_animator(), {"l1": 1.0}), WeightEMA()
    callback.setup(None, task, "validate")  # type: ignore[arg-type]
    nn.init.zeros_(callback.average.descriptors.weight)  # type: ignore[union-attr]
    callback.on_validation_epoch_start(None, task)  # type: ignore[arg-type]
    assert task.animator.descriptors.weight.abs().sum() > 0
    stored: dict[str, Any] = {"state_dict": task.state_dict()}
    callback.on_save_checkpoint(None, task, stored)  # type: ignore[arg-type]
    assert equal(animator_weights(stored), task.animator.state_dict())
