"""Beginning with what a model of another resolution has learned."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sfdkit.checkpoint import adopt_weights, load_animator
from sfdkit.errors import CheckpointError
from sfdkit.model.animator import FaceAnimator
from sfdkit.model.descriptors import DescriptorLayer
from sfdkit.model.encoders import TimmEncoder
from sfdkit.model.generator import Generator
from sfdkit.model.methods.lia import LiaGenerator
from tests.model.test_generators import make_animator
from tests.running import compile_to_the_same, fit, make_data
from tests.tiny import tiny_animator
from tests.written import write_checkpoint


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("first")
    return fit(make_data(folder / "data"), folder / "run", steps=2)


def test_twice_the_resolution_takes_over_all_but_the_finest_level(first: Path) -> None:
    source = load_animator(first).animator
    torch.manual_seed(5)
    target = FaceAnimator(
        TimmEncoder("test_resnet", 2 * source.resolution, max_stride=16),
        DescriptorLayer(96, 32),
        Generator(2 * source.resolution, latent_size=128, width=16),
        TimmEncoder("test_resnet", 64, max_stride=16),
    )
    adopted = adopt_weights(target, first)
    own, weights = target.state_dict(), source.state_dict()
    assert all(torch.equal(own[name], weights[name]) for name in adopted.taken)
    left = [name for name in adopted.left if name != "motion_head.log_noise"]  # the source was trained without it
    assert {name.split(".")[0] for name in left} == {"adapter", "generator"}
    assert {".".join(n.split(".")[:3]) for n in left if "levels" in n} == {"generator.levels.2"}
    assert len(adopted.taken) > 5 * len(adopted.left)


@pytest.mark.parametrize(("before", "now", "begins"), [(-20.0, -1.6, -1.6), (-0.5, -1.6, -0.5), (-0.5, -20.0, -20.0)])
def test_noise_is_taken_over_where_both_pay_for_information(
    before: float, now: float, begins: float, tmp_path: Path
) -> None:
    """A noise of exp(-20) costs 19.5 nats for each coefficient."""
    source, target = tiny_animator(32), tiny_animator(32, seed=1)
    torch.nn.init.constant_(source.motion_head.log_noise, before)
    torch.nn.init.constant_(target.motion_head.log_noise, now)
    adopt_weights(target, write_checkpoint(tmp_path / "model.ckpt", source))
    assert torch.equal(target.motion_head.log_noise, torch.full((4,), begins))
    assert torch.equal(target.motion_head.turn.weight, source.motion_head.turn.weight)


def test_weights_of_another_method_are_told(tmp_path: Path) -> None:
    source, target = tiny_animator(32), tiny_animator(32, seed=1)
    path = write_checkpoint(tmp_path / "model.ckpt", source)
    assert adopt_weights(target, path).method is None
    target.generator = LiaGenerator(32, 16, width=4, max_channels=16)
    assert adopt_weights(target, path).method == "sfdkit.model.generator.Generator"


def test_key_points_keep_the_basis_that_they_are_read_on(tmp_path: Path) -> None:
    """The basis of another method has the same shape, and its motion vectors are others."""
    path = write_checkpoint(tmp_path / "model.ckpt", tiny_animator(32))
    target = make_animator("fomm", seed=3)
    adopted = adopt_weights(target, path)
    assert "descriptors.weight" in adopted.left and "encoder.model.stem.conv1.conv.weight" not in adopted.left
    columns = target.descriptors.basis()[:, -12:]
    torch.testing.assert_close(target.generator.reader.columns, columns, atol=1e-5, rtol=0)
    again = adopt_weights(make_animator("fomm", seed=4), write_checkpoint(tmp_path / "fomm.ckpt", target))
    assert {"descriptors.weight", "generator.reader.columns"} <= set(again.taken)


def test_a_checkpoint_that_is_not_there_or_unlike_is_refused(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "model.ckpt", tiny_animator(32))
    with pytest.raises(CheckpointError, match=r"gone\.ckpt does not exist"):
        adopt_weights(tiny_animator(32), tmp_path / "gone.ckpt")
    other = tiny_animator(32)
    for name, part in list(other.named_children()):
        setattr(other, name, torch.nn.Sequential(part))  # the same weights by other names
    with pytest.raises(CheckpointError, match=r"model\.start_from: no weight in .*model\.ckpt"):
        adopt_weights(other, path)


def test_training_begins_there(first: Path, tmp_path: Path) -> None:
    data = first.parent.parent.parent / "data"
    second = fit(data, tmp_path / "second", f"--model.start_from={first}", "--model.optimizer.init_args.lr=0", steps=2)
    weights = dict(load_animator(first).animator.named_parameters())
    assert all(torch.equal(weights[n], value) for n, value in load_animator(second).animator.named_parameters())
    priced = fit(data, tmp_path / "priced", f"--model.start_from={first}", "--model.weights.kl=1e-4", steps=1)
    assert load_animator(priced).animator.motion_head.log_noise.exp().min() > 0.15


def test_a_compiled_generator_learns_what_the_plain_one_does(
    first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = compile_to_the_same(monkeypatch)
    data = first.parent.parent.parent / "data"
    plain, other = (
        load_animator(fit(data, tmp_path / word, f"--model.compile={word}", steps=2)).animator.state_dict()
        for word in ("false", "true")
    )
    assert len(compiled) == 1 and list(plain) == list(other)
    for name, value in plain.items():
        torch.testing.assert_close(other[name], value, rtol=1e-3, atol=1e-5)
