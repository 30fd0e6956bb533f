from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from sfdkit.train.callbacks import DataReport, TrainingProgress, TrainingStatistics
from sfdkit.train.schedule import logs_step


class Logged:
    """A trainer and a task that note what is logged; the clock is a list of seconds."""

    def __init__(self, every: int, clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
        self.trainer: Any = SimpleNamespace(
            log_every_n_steps=every, fit_loop=SimpleNamespace(total_batch_idx=0), world_size=2, callback_metrics={}
        )
        self.values: list[tuple[int, str, float]] = []
        for module in ("statistics", "data_report"):
            monkeypatch.setattr(f"sfdkit.train.callbacks.{module}.time.perf_counter", lambda: clock[0])

    def log(self, name: str, value: float, **_: Any) -> None:
        assert isinstance(value, float)
        self.values.append((self.trainer.fit_loop.total_batch_idx, name, value))


def test_the_first_logged_step_is_the_last_of_the_first_interval() -> None:
    trainer = SimpleNamespace(log_every_n_steps=3, fit_loop=SimpleNamespace(total_batch_idx=0))
    logged = []
    for step in range(7):
        trainer.fit_loop.total_batch_idx = step
        logged.append(logs_step(trainer))
    assert logged == [False, False, True, False, False, True, False]
    trainer.log_every_n_steps = 0
    assert not logs_step(trainer)


def test_pictures_per_second_are_logged_with_the_others_and_are_the_mean_since(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    seen = Logged(2, clock, monkeypatch)
    statistics, batch = TrainingStatistics(), {"driving": torch.zeros(3, 2, 1)}
    statistics.on_train_start(seen.trainer, seen)  # type: ignore[arg-type]
    for step, seconds in enumerate((1.0, 3.0, 1.0, 1.0)):
        clock[0] += seconds
        seen.trainer.fit_loop.total_batch_idx = step
        statistics.on_train_batch_end(seen.trainer, seen, None, batch, step)  # type: ignore[arg-type]
        if step == 2:  # a validation in between does not count
            clock[0] += 100.0
            statistics.on_validation_end(seen.trainer, seen)  # type: ignore[arg-type]
    assert seen.values == [(1, "train/images_per_second", 6.0), (3, "train/images_per_second", 12.0)]
    assert (statistics.frames, statistics.seconds) == (48, 6.0)


def test_the_share_of_waiting_is_logged_with_the_others_and_is_of_the_time_since(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, loader = [0.0], SimpleNamespace(waited=0.0)
    seen = Logged(2, clock, monkeypatch)
    seen.trainer.datamodule = SimpleNamespace(loaders={"train": loader})
    report = DataReport()
    report.on_train_epoch_start(seen.trainer, seen)  # type: ignore[arg-type]
    for step, (seconds, waiting) in enumerate(((1.0, 1.0), (3.0, 0.0), (2.0, 1.0), (2.0, 2.0))):
        clock[0] += seconds
        loader.waited += waiting
        seen.trainer.fit_loop.total_batch_idx = step
        report.on_train_batch_end(seen.trainer, seen, None, None, step)  # type: ignore[arg-type]
    assert seen.values == [(1, "train/wait_share", 0.25), (3, "train/wait_share", 0.75)]


def test_the_bar_shows_the_loss_without_its_being_logged_for_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    bar, statistics = TrainingProgress(), TrainingStatistics()
    assert bar.refresh_rate == 10
    statistics.images_per_second = 12.3
    trainer = SimpleNamespace(
        loggers=[], progress_bar_metrics={}, callback_metrics={"loss": torch.tensor(0.25)}, callbacks=[statistics]
    )
    assert bar.get_metrics(trainer, None) == {"loss": 0.25, "images/s": "12"}  # type: ignore[arg-type]
    trainer.callback_metrics = {}
    assert bar.get_metrics(trainer, None) == {"images/s": "12"}  # type: ignore[arg-type]
