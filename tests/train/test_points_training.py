"""Training with the loss terms that read points of the face."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch

from sfdkit.cli import main
from sfdkit.errors import CheckpointError, ConfigError
from sfdkit.points import FACE5, FACE31
from sfdkit.train.parameter_groups import fit_state
from sfdkit.train.task import AnimationTask
from tests.running import SLOTS, config, fit, make_data, small
from tests.shards import make_shards
from tests.tiny import tiny_animator
from tests.train.test_task import BATCH, at_step, task

WITH_POINTS = ("--model.weights.points=1.0", "--model.weights.parts=1.0")


def batch_with(points: int | None, of: str = "face31") -> Any:
    if points is None:
        return BATCH
    return {**BATCH, "points": torch.rand(4, 3, points, 2) * 2 - 1, "point_set": of}


def test_points_that_are_wanted_must_come() -> None:
    made = task(weights={"parts": 1.0, "points": 1.0}, starts={"points": 10})
    at_step(made, 0)
    with pytest.raises(ConfigError, match=r"model\.weights\.parts reads the points face31 .* bring no points: set"):
        made._require_points(batch_with(None))
    with pytest.raises(ConfigError, match=r"shards bring face5: set model\.point_set to theirs"):
        made._require_points(batch_with(5, "face5"))
    made._require_points(batch_with(31))
    task(point_set="face5")._require_points(batch_with(None))
    five = task(weights={"points": 1.0}, starts={"points": 10}, point_set="face5")
    at_step(five, 0)  # long before it counts
    with pytest.raises(ConfigError, match=r"model\.weights\.points reads the points face5"):
        five._require_points(batch_with(31))
    with pytest.raises(ConfigError, match=r"model\.point_set: there is no set of points 'face6'\. Did you mean"):
        task(point_set="face6")


def test_points_of_the_targets_reach_the_terms() -> None:
    made = task(weights={"parts": 1.0, "points": 1.0}, point_set="face5")
    at_step(made, 0)
    batch = batch_with(5, "face5")
    step = made.take_step(batch)
    assert step.points is not None
    assert torch.equal(step.points, batch["points"][:, 1:].flatten(0, 1)) and step.row_points is batch["points"]
    total, values = made.objective(step)
    assert set(values) == {"l1", "parts", "points"}
    total.backward()
    learned = [p for group in made._groups() for p in group["params"]]
    assert {id(p) for p in made.objective.parameters()} <= {id(p) for p in learned}
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in made.objective.parameters())


def trained(made: AnimationTask) -> tuple[AnimationTask, dict[str, Any]]:
    """The task after a step of its first optimiser, and the optimiser's state."""
    (optimizer, *_) = made.configure_optimizers()
    for parameter in (p for group in optimizer.param_groups for p in group["params"]):
        parameter.grad = torch.rand_like(parameter)
    optimizer.step()
    return made, optimizer.state_dict()


def known(made: AnimationTask, state: dict[str, Any]) -> dict[str, torch.Tensor]:
    """What an optimiser of the task knows of each weight once it has loaded a state."""
    optimizer = made.configure_optimizers()[0]
    optimizer.load_state_dict(state)
    names = {id(p): name for name, p in made.named_parameters()}
    return {names[id(p)]: entry["exp_avg"] for p, entry in optimizer.state.items()}


@pytest.mark.parametrize("other", [{}, {"points": 1.0}, {"points": 1.0, "parts": 1.0, "kl": 1e-4}], ids=str)
@pytest.mark.parametrize("weights", [{}, {"points": 1.0}, {"points": 0.5, "l2": 1.0}], ids=str)
def test_a_state_fits_trainings_with_other_terms(weights: dict[str, float], other: dict[str, float]) -> None:
    before, state = trained(task(weights=weights, basis_lr_factor=0.1))
    past, now = known(before, deepcopy(state)), task(weights=other)
    fitted = fit_state(state, now._groups())
    after = known(now, fitted)
    heads = {name for name, _ in now.named_parameters() if name.startswith("objective.")}
    assert heads == (
        {f"objective.terms.points.head.{n}" for n in ("0.weight", "0.bias", "2.weight", "2.bias")} if other else set()
    )
    assert set(after) == {name for name in past if not name.startswith("objective.")} | (heads & set(past))
    assert all(torch.equal(value, past[name]) for name, value in after.items())
    scales = [group["scale"] for group in fitted["param_groups"]]
    assert scales[:3] == [1.0, 0.1, 5.0] and len(scales) == 3 + bool(other)


def test_a_state_of_another_number_of_weights_is_refused() -> None:
    made, state = trained(task())
    state["param_groups"][0]["params"].pop()
    with pytest.raises(CheckpointError, match=r"trains \d+ weights where this model has \d+: use the config\.yaml"):
        made.on_load_checkpoint({"optimizer_states": [state]})
    made.on_load_checkpoint({})


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    for split, clips in (("train", [5, 4]), ("validation", [3]), ("test", [3])):
        make_shards(folder, split, clips, points=FACE31)
    return folder


def test_terms_of_points_are_switched_on_and_off_between_resumes(data: Path, tmp_path: Path) -> None:
    plain = fit(data, tmp_path / "a", steps=2)
    late = (*WITH_POINTS, "--model.starts.points=0.5", f"--ckpt_path={plain}")
    with_points = fit(data, tmp_path / "b", *late, steps=4)
    stored = torch.load(with_points, weights_only=True)["optimizer_states"][0]
    (head,) = (group["params"] for group in stored["param_groups"] if group.get("term") == "points")
    assert [int(stored["state"][number]["step"]) for number in head] == [2, 2, 2, 2]
    assert int(stored["state"][0]["step"]) == 4
    again = torch.load(fit(data, tmp_path / "c", f"--ckpt_path={with_points}", steps=6), weights_only=True)
    assert again["global_step"] == 6 and len(again["optimizer_states"][0]["param_groups"]) == 3


def test_shards_without_points_are_one_line(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bare = make_data(tmp_path / "bare")
    five = tmp_path / "five"
    for split in ("train", "validation", "test"):
        make_shards(five, split, [3], points=FACE5)
    for folder, more, said in (
        (bare, (), "the shards bring no points: "),
        (five, (), "the shards bring face5: "),
        (data, ("--data.init_args.points=false",), "the shards bring no points: "),
    ):
        words = [*config(*SLOTS), *small(folder, tmp_path / folder.name), "--trainer.logger=false", *WITH_POINTS, *more]
        capsys.readouterr()
        assert main(["fit", *words]) == 1
        line = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
        assert len(line) == 1 and "model.weights.parts reads the points face31" in line[0] and said in line[0]


def test_points_that_no_term_needs_help_those_that_can_use_them() -> None:
    made = task(weights={"portrait": 1.0})
    at_step(made, 0)
    assert made.take_step(batch_with(31)).points is not None
    assert made.take_step(batch_with(5, "face5")).points is None  # of another set


def test_the_flow_of_what_is_drawn_from_the_code_is_not_led_to_points() -> None:
    made = AnimationTask(tiny_animator(code_share=0.5), {"l1": 1.0, "point_flow": 1.0})
    at_step(made, 0)
    batch = batch_with(31)
    warped = made.take_step(batch, torch.Generator().manual_seed(0)).warped_points
    assert warped is not None
    unknown = warped.isnan().all(2).all(1)
    assert 0 < unknown.sum() < len(unknown)
    sources = batch["points"][:, :1].expand(-1, 2, -1, -1).flatten(0, 1)
    assert torch.equal(warped[~unknown], sources[~unknown])
