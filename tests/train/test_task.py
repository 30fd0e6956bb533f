from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import pytest
import torch
from jsonargparse.typing import NonNegativeFloat
from lightning.pytorch.callbacks import Timer
from torch import nn

from sfdkit.checkpoint import EMA_KEY, NO_NOISE, NOISE
from sfdkit.errors import ConfigError
from sfdkit.model import blocks, generator
from sfdkit.train.forward import cross_rows, frozen
from sfdkit.train.task import AnimationTask
from sfdkit.types import Generated
from tests.tiny import tiny_animator

BATCH: dict[str, Any] = {
    "source": torch.rand(4, 3, 32, 32),
    "driving": torch.rand(4, 2, 3, 32, 32),
    "key": list("abcd"),
    "identity": ["x", "x", "y", "z"],
}


def task(**options: object) -> AnimationTask:
    return AnimationTask(tiny_animator(), {"l1": 1.0, **options.pop("weights", {})}, **options)  # type: ignore


def at_step(made: AnimationTask, step: int) -> None:
    made._trainer = SimpleNamespace(global_step=step)  # type: ignore[assignment]


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


def test_what_the_optimiser_keeps_are_plain_numbers() -> None:
    """From YAML comes a float of jsonargparse's, with which a checkpoint could not be read with weights_only."""
    made = task(basis_lr_factor=NonNegativeFloat(0.5))
    assert {type(group["scale"]) for group in made.configure_optimizers()[0].param_groups} == {float}


def test_without_a_price_there_is_no_noise() -> None:
    motion = torch.rand(3, 4)
    torch.testing.assert_close(task().animator.motion_head.noisy(motion), motion)
    assert (task(weights={"kl": 1e-4}).animator.motion_head.noisy(motion) - motion).abs().max() > 0.01


def test_crossed_rows_are_who_they_should_be() -> None:
    made = task(weights={"reencode": 1.0, "cycle": 1.0, "consistency": 1.0, "kl": 1e-4}, cross_share=0.5)
    at_step(made, 0)
    batch = BATCH
    step = made.take_step(batch)  # type: ignore[arg-type]
    assert step.crossed is not None and step.identity is not None and step.people is not None
    torch.testing.assert_close(step.crossed.source, batch["source"][[0, 1]])
    torch.testing.assert_close(step.crossed.driver, batch["driving"][[2, 2], 0])
    torch.testing.assert_close(step.crossed.driver_motion, step.motion[[2, 2], 1])
    torch.testing.assert_close(step.crossed.source_identity, step.identity[[0, 1], 0])
    assert step.people.tolist() == [0, 0, 1, 2] or len(set(step.people.tolist())) == 3
    assert step.crossed.restored is not None and step.crossed.restored.shape == (2, 3, 32, 32)
    total, values = made.objective(step, 0)
    assert set(values) == {"l1", "reencode", "cycle", "consistency", "kl"}
    total.backward()
    assert made.animator.motion_head.log_noise.grad is not None


def test_a_step_orthogonalises_once_and_warps_each_picture_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made = task(weights={"warp": 1.0, "reencode": 1.0, "cycle": 1.0}, cross_share=0.5)
    at_step(made, 0)
    count = {"qr": 0, "warps": 0}
    qr, warp = torch.linalg.qr, generator.warp

    def counted_qr(*arguments: object) -> object:
        count["qr"] += 1
        return qr(*arguments)  # type: ignore[arg-type]

    def counted_warp(image: torch.Tensor, flow: torch.Tensor) -> torch.Tensor:
        count["warps"] += image.shape[1] == 3
        return warp(image, flow)

    monkeypatch.setattr(torch.linalg, "qr", counted_qr)
    monkeypatch.setattr(generator, "warp", counted_warp)
    monkeypatch.setattr(blocks, "warp", counted_warp)
    step = made.take_step(BATCH)  # type: ignore[arg-type]
    assert step.crossed is not None and step.crossed.restored is not None
    assert count == {"qr": 1, "warps": 3}, "the batch, the crossed rows and those restored"
    made.objective(step)[0].backward()
    weight = made.animator.descriptors.weight
    assert weight.grad is not None and weight.grad.abs().sum() > 0
    made.animator.generate(made.animator.source_state(BATCH["source"]), torch.rand(4, 4))  # type: ignore[arg-type]
    assert count["qr"] == 2


def test_activation_checkpointing_keeps_less_for_the_same_gradients() -> None:
    torch.manual_seed(0)
    made, kept = task(), []
    at_step(made, 0)
    start = {name: value.clone() for name, value in made.state_dict().items()}
    for on in (False, True):
        made.load_state_dict(start)
        made.animator.generator.activation_checkpointing = on
        sizes: dict[int, int] = {}

        def keep(tensor: torch.Tensor, sizes: dict[int, int] = sizes) -> torch.Tensor:
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        made.zero_grad()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss, _ = made.objective(made.take_step(BATCH), 0)  # type: ignore[arg-type]
        bytes_kept = sum(sizes.values())
        loss.backward()
        kept.append((bytes_kept, [p.grad for p in made.animator.parameters() if p.grad is not None]))
    (all_bytes, wanted), (fewer_bytes, gradients) = kept
    assert fewer_bytes < 0.7 * all_bytes and len(gradients) == len(wanted) > 20
    for one, other in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-7)
    assert task(activation_checkpointing=True).animator.generator.activation_checkpointing


def test_noise_of_a_term_that_starts_late_grows_with_its_weight() -> None:
    made = task(weights={"kl": 1e-4}, starts={"kl": 1000}).eval()  # no statistics move
    sent = []
    monitored = made.animator.generate

    def generate(state: object, motion: torch.Tensor) -> object:
        sent.append(motion)
        return monitored(state, motion)  # type: ignore[arg-type]

    made.animator.generate = generate  # type: ignore[method-assign, assignment]
    for step in (999, 1000, 1099, 1199, 5000):
        at_step(made, step)
        made.take_step(BATCH, torch.Generator().manual_seed(0))  # type: ignore[arg-type]
    noise = [(motion - sent[0]).std().item() for motion in sent]
    assert noise[0] == 0 and noise[3] == pytest.approx(noise[4], rel=1e-4) and noise[3] > 0.1
    assert noise[1] == pytest.approx(noise[3] / 200, rel=0.01) and noise[2] == pytest.approx(noise[3] / 2, rel=0.01)


def test_results_that_are_read_again_move_no_batch_statistics() -> None:
    made = task(weights={"reencode": 1.0}, cross_share=0.25)  # a single row is read
    at_step(made, 0)
    made.take_step(BATCH)  # type: ignore[arg-type]
    with_crossing = [b.clone() for b in norms(made)]
    plain = task()
    at_step(plain, 0)
    plain.take_step(BATCH)  # type: ignore[arg-type]
    assert len(with_crossing) > 4
    for one, other in zip(with_crossing, norms(plain), strict=True):
        torch.testing.assert_close(one, other)
    assert made.animator.encoder.training


def norms(made: AnimationTask) -> list[torch.Tensor]:
    parts = [m for m in made.animator.modules() if isinstance(m, nn.BatchNorm2d)]
    return [b for m in parts for b in (m.running_mean, m.running_var) if b is not None]


def test_a_training_goes_on_with_other_terms_than_it_began_with() -> None:
    """What a term remembers of batches is no part of the model."""
    with_leakage, plain = task(weights={"leakage": 0.1}), task()
    with_leakage.objective.terms["leakage"].running_mean.fill_(2.0)  # type: ignore[union-attr, operator]
    for one, other in ((with_leakage, plain), (plain, task(weights={"leakage": 0.1}))):
        other.load_state_dict(one.state_dict())
    again = task(weights={"leakage": 0.1})
    again.load_state_dict(with_leakage.state_dict())
    assert again.objective.terms["leakage"].running_mean == 2.0


def test_asking_how_far_a_training_is_takes_no_other_process() -> None:
    """One process alone may ask; the others would be waited for."""
    made = task()
    timer = Timer(duration={"seconds": 60})
    made._trainer = SimpleNamespace(  # type: ignore[assignment]
        global_step=5, callbacks=[timer], world_size=2, fit_loop=SimpleNamespace(total_batch_idx=0)
    )
    made.progress.total_steps = 20.0
    assert made.progress.at(5) == 0.25
    made.progress.time_share = 0.5
    assert made.progress.at(5) == 0.5


def test_heads_take_a_single_row() -> None:
    animator = tiny_animator().train()
    descriptors = animator.describe(torch.rand(1, 3, 32, 32))
    assert descriptors.identity.shape == (1, 12) and descriptors.motion.isfinite().all()
    heads = [*animator.identity_head.modules(), *animator.motion_head.modules()]
    assert not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in heads)


def test_validation_counts_in_float32_under_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    made, flat = task(), torch.full((4, 3, 32, 32), 0.85)
    result = Generated(flat.bfloat16().float(), flat[:, :2], flat[:, :1], flat)
    monkeypatch.setattr(made, "render", lambda batch: (result, None, flat.bfloat16().float()))
    with torch.autocast("cpu", torch.bfloat16):
        made.validation_step(BATCH, 0)  # type: ignore[arg-type]
    assert made.val_metrics.compute()["val/ssim"] == pytest.approx(1, abs=3e-3)  # type: ignore[operator, union-attr]


def test_validation_takes_pictures_of_any_memory_order(monkeypatch: pytest.MonkeyPatch) -> None:
    made, image = task(), torch.rand(4, 3, 32, 32)
    result = Generated(image.to(memory_format=torch.channels_last), image[:, :2], image[:, :1], image)
    monkeypatch.setattr(made, "render", lambda batch: (result, None, image))
    made.validation_step(BATCH, 0)  # type: ignore[arg-type]
    assert made.val_metrics.compute()["val/l1"] == 0  # type: ignore[operator, union-attr]


def test_gradients_are_computed_without_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    made, seen = task(), []
    value = torch.ones(2, requires_grad=True)
    value.register_hook(lambda _: seen.append(torch.is_autocast_enabled("cpu")))
    monkeypatch.setattr(made, "manual_backward", lambda loss: loss.backward())
    with torch.autocast("cpu", torch.bfloat16):
        made._backward(value.sum())
    assert seen == [False]


def test_the_kinds_of_ddp_that_cannot_work_are_refused(tmp_path: Path) -> None:
    made = task()
    for strategy in ("ddp", "ddp_find_unused_parameters_true"):
        made.trainer = L.Trainer(strategy=strategy, accelerator="cpu", devices=2, logger=False, barebones=True)
        if strategy == "ddp":
            with pytest.raises(ConfigError, match=r"trainer\.strategy: .* add --config trainer/ddp\.yaml"):
                made.setup("fit")
            made.setup("test")
        else:
            made.setup("fit")


def test_a_price_that_a_resumed_training_adds_begins_with_noise() -> None:
    made = task(weights={"kl": 1e-4})
    states = {"state_dict": {f"animator.{NOISE}": torch.full((4,), NO_NOISE)}, EMA_KEY: {}}
    made.on_load_checkpoint(states)
    assert torch.equal(states["state_dict"][f"animator.{NOISE}"], made.animator.motion_head.log_noise)
    kept = {"state_dict": {f"animator.{NOISE}": torch.full((4,), -3.0)}}
    made.on_load_checkpoint(kept)
    assert (kept["state_dict"][f"animator.{NOISE}"] == -3.0).all()


def test_the_statistics_are_those_of_layers_that_lightning_has_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    made = task()
    made._trainer = SimpleNamespace(ckpt_path=None)  # type: ignore[assignment]
    made.animator = nn.SyncBatchNorm.convert_sync_batchnorm(made.animator)
    made.on_fit_start()
    norms = [module for module in made.animator.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    assert norms and all(any(norm is kept for kept in made.statistics.norms) for norm in norms)
