from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode

from sfdkit.config.parser import OneLineParser
from sfdkit.data.augment import DriverViewAugmentation, driver_view
from sfdkit.data.augment.draws import Change, draw_affine, draw_bend, draw_colour
from sfdkit.data.module import FramesDataModule
from sfdkit.types import FrameBatch

OFF = dict(flip=0.0, joint_colour=0.0, colour=0.0, grayscale=0.0, scale=0.0, shift=0.0, tps=0.0)


def make_batch(rows: int = 6, driving: int = 3, side: int = 24) -> FrameBatch:
    """Smooth pictures that differ by row and frame."""
    small = torch.rand(rows * (1 + driving), 3, 4, 4, generator=torch.Generator().manual_seed(3))
    frames = torch.nn.functional.interpolate(small, size=(side, side), mode="bilinear").view(rows, -1, 3, side, side)
    names = [f"clip{row}" for row in range(rows)]
    return FrameBatch(source=frames[:, 0], driving=frames[:, 1:], key=names, identity=names)


def same(one: FrameBatch, other: FrameBatch) -> bool:
    return all(torch.equal(one[name], other[name]) for name in ("source", "driving", "driving_view"))  # type: ignore


def test_the_seed_alone_decides_and_the_global_generator_stays() -> None:
    augment, batch = DriverViewAugmentation(tps=0.02), make_batch()
    before = torch.get_rng_state()
    first = augment(batch, 1)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(99)
    assert same(augment(batch, 1), first)
    assert not same(augment(batch, 2), first)


def test_batches_keep_shapes_names_and_range_and_are_float32_under_autocast() -> None:
    batch = make_batch()
    batch["source"].requires_grad_()
    plain = DriverViewAugmentation(tps=0.05)(batch, 1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = DriverViewAugmentation(tps=0.05)(batch, 1)
    assert same(plain, result)
    for name in ("source", "driving", "driving_view"):
        image = result[name]  # type: ignore[literal-required]
        assert image.dtype == torch.float32 and not image.requires_grad
        assert image.min() >= 0 and image.max() <= 1
    assert result["source"].shape == batch["source"].shape
    assert result["driving"].shape == result["driving_view"].shape == batch["driving"].shape
    assert result["key"] == batch["key"] and result["identity"] == batch["identity"]


def test_all_strengths_zero_is_the_identity() -> None:
    batch = make_batch()
    result = DriverViewAugmentation(**OFF)(batch, 1)
    assert torch.equal(result["source"], batch["source"])
    assert torch.equal(result["driving"], batch["driving"])
    assert torch.equal(result["driving_view"], batch["driving"])


@pytest.mark.parametrize("name", ["colour", "grayscale", "scale", "shift", "tps"])
def test_each_driver_strength_changes_the_view_and_nothing_else(name: str) -> None:
    batch = make_batch()
    result = DriverViewAugmentation(**(OFF | {name: 0.3}))(batch, 1)
    assert torch.equal(result["source"], batch["source"]) and torch.equal(result["driving"], batch["driving"])
    assert not torch.equal(result["driving_view"], batch["driving"])
    again = DriverViewAugmentation(**(OFF | {name: 0.1}))(batch, 1)
    far, near = ((other["driving_view"] - batch["driving"]).abs().mean() for other in (result, again))
    assert far > near


def test_draws_differ_between_frames_of_a_row() -> None:
    batch = make_batch()
    batch["driving"] = batch["driving"][:, :1].expand(-1, 3, -1, -1, -1)
    view = DriverViewAugmentation()(batch, 1)["driving_view"]
    assert not torch.equal(view[:, 0], view[:, 1])


def test_flip_mirrors_whole_rows() -> None:
    batch = make_batch(rows=64, driving=1, side=8)
    result = DriverViewAugmentation(**(OFF | {"flip": 0.25}))(batch, 1)
    mirrored = 0
    for row in range(64):
        pairs = [(result["source"][row], batch["source"][row]), (result["driving"][row], batch["driving"][row])]
        kept = [torch.equal(one, other) for one, other in pairs]
        turned = [torch.equal(one, other.flip(-1)) for one, other in pairs]
        assert all(kept) or all(turned)
        mirrored += all(turned)
    assert 6 <= mirrored <= 28
    assert torch.equal(result["driving_view"], result["driving"])
    everything = DriverViewAugmentation(**(OFF | {"flip": 1.0}))(batch, 1)
    assert torch.equal(everything["source"], batch["source"].flip(-1))


def test_joint_colour_is_one_linear_map_per_row() -> None:
    batch = make_batch(driving=2)
    batch["driving"] = batch["source"][:, None].expand(-1, 2, -1, -1, -1)
    result = DriverViewAugmentation(**(OFF | {"joint_colour": 0.2}))(batch, 1)
    assert torch.equal(result["driving"][:, 0], result["source"]) and torch.equal(
        result["driving"][:, 1], result["source"]
    )
    change = (result["source"] - batch["source"]).mean((1, 2, 3))
    assert change.unique().numel() == 6


@pytest.mark.parametrize("name", ["joint_scale", "joint_tps"])
def test_joint_proportions_are_one_change_per_row(name: str) -> None:
    batch = make_batch(driving=2)
    batch["driving"] = batch["source"][:, None].expand(-1, 2, -1, -1, -1).clone()
    batch["source"][1:] = batch["source"][:1].clone()
    batch["driving"][1:] = batch["driving"][:1].clone()
    result = DriverViewAugmentation(**(OFF | {name: 0.2}))(batch, 1)
    for frame in result["driving"].unbind(1):
        torch.testing.assert_close(frame, result["source"])
    assert torch.equal(result["driving_view"], result["driving"])
    assert (result["source"][1:] - result["source"][:1]).abs().mean((1, 2, 3)).min() > 1e-3, "rows differ"


def test_colour_draws_have_the_promised_reach() -> None:
    matrix, offset = draw_colour(4000, 0.2, 0.0, torch.Generator().manual_seed(0))
    white = matrix @ torch.ones(3) + offset
    assert 0.5 < white.min() < 0.75 and 1.25 < white.max() < 1.6
    assert torch.allclose(matrix.mean(0), torch.eye(3), atol=0.02)
    grey, _ = draw_colour(50, 0.2, 1.0, torch.Generator().manual_seed(0))
    assert torch.allclose(grey[:, 0], grey[:, 1]) and torch.allclose(grey[:, 1], grey[:, 2])
    half, _ = draw_colour(4000, 0.2, 0.5, torch.Generator().manual_seed(0))
    share = (half[:, 0] == half[:, 1]).all(1).float().mean()
    assert 0.45 < share < 0.55


def test_affine_draws_have_the_promised_reach() -> None:
    theta = draw_affine(4000, 0.25, 0.1, torch.Generator().manual_seed(0))
    width, height = theta[:, 0, 0], theta[:, 1, 1]
    assert 1 / 1.25 - 1e-6 <= width.min() < 0.81 and 1.24 < width.max() <= 1.25 + 1e-6
    assert abs(torch.corrcoef(torch.stack([width, height]))[0, 1]) < 0.05
    assert 0.195 < theta[:, :, 2].abs().max() <= 0.2
    assert (theta[:, 0, 1] == 0).all() and (theta[:, 1, 0] == 0).all()


def test_a_positive_shift_looks_further_right() -> None:
    column = torch.arange(16.0).expand(1, 1, 3, 16, 16) / 16
    batch = FrameBatch(source=column[:, 0], driving=column, key=["a"], identity=["a"])
    for seed in range(5):
        view = DriverViewAugmentation(**(OFF | {"shift": 0.25}))(batch, seed)["driving_view"]
        generator = torch.Generator().manual_seed(seed)
        offset = float(draw_affine(1, 0.0, 0.25, generator)[0, 0, 2])
        middle = slice(5, 11)
        moved = (view - column)[0, 0, 0, 8, middle]
        assert torch.allclose(moved, torch.full((6,), offset / 2), atol=1e-5)


def test_bends_are_smooth_and_of_the_promised_size() -> None:
    bend = draw_bend(500, 0.03, torch.Generator().manual_seed(0))
    assert bend.shape == (500, 2, 9, 9)
    control = bend[:, :, ::4, ::4]
    assert 0.057 < control.std() < 0.063
    moved = torch.randn(500, 9, 2, generator=torch.Generator().manual_seed(0)) * 0.06
    assert torch.allclose(control.permute(0, 2, 3, 1).reshape(500, 9, 2), moved, atol=1e-5)
    assert (bend.diff(dim=-1)).abs().max() < 0.2


@pytest.mark.parametrize("padding", ["reflection", "border", "zeros"])
def test_padding_decides_what_shows_past_the_border(padding: str) -> None:
    batch = make_batch()
    for name in ("source", "driving"):
        batch[name] = batch[name] * 0.5 + 0.5  # type: ignore[literal-required]
    view = DriverViewAugmentation(**(OFF | {"shift": 0.4}), padding=padding)(batch, 1)["driving_view"]  # type: ignore
    assert ((view == 0).float().mean() > 0.05) == (padding == "zeros")


@pytest.mark.parametrize(("name", "value"), [("flip", 1.5), ("colour", -0.1), ("scale", 0.9), ("tps", -1.0)])
def test_a_strength_out_of_range_is_named(name: str, value: float, capsys: pytest.CaptureFixture[str]) -> None:
    parser = OneLineParser()
    parser.add_class_arguments(FramesDataModule, "data")
    given = ["--data.root=r", "--data.resolution=64", "--data.augmentation=DriverViewAugmentation"]
    parser.parse_args([*given, f"--data.augmentation.{name}=0.25"])
    with pytest.raises(SystemExit):
        parser.parse_args([*given, f"--data.augmentation.{name}={value}"])
    (line,) = capsys.readouterr().err.splitlines()
    assert f"augmentation.init_args.{name}: {value} is out of range; give" in line


def test_a_seed_gives_the_same_pictures_in_every_version() -> None:
    """So that a training which is resumed after an update goes on as it was."""
    augment = DriverViewAugmentation(joint_colour=0.1, joint_scale=0.1, joint_tps=0.02, grayscale=0.2, tps=0.02)
    result = augment(make_batch(), 7)
    known = {
        "source": ([0.0, 0.32785, 0.41037, 0.23641, 0.63727, 0.74545, 0.40285, 0.02319], 0.503586),
        "driving": ([0.39762, 0.32517, 0.47311, 0.16559, 0.3942, 0.25672, 0.37528, 0.0], 0.503374),
        "driving_view": ([0.46804, 0.37223, 0.32921, 0.66372, 0.34523, 0.59954, 0.41636, 0.0], 0.515239),
    }
    for name, (values, mean) in known.items():
        flat = result[name].flatten()  # type: ignore[literal-required]
        assert torch.allclose(flat[:: len(flat) // 7][:8], torch.tensor(values), atol=2e-5), name
        assert float(flat.mean()) == pytest.approx(mean, abs=1e-5)


class Calls(TorchFunctionMode):
    """Notes which functions of torch are called."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(getattr(function, "__name__", ""))
        return function(*args, **(kwargs or {}))


def test_one_small_tensor_goes_to_the_device_and_nothing_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[int] = []
    send = driver_view.send

    def watched(changes: Sequence[Change], device: torch.device) -> list[Change]:
        calls.names.clear()  # what was called to draw was called on the CPU
        sent.append(sum(part.numel() for change in changes for part in change))
        return send(changes, device)

    monkeypatch.setattr(driver_view, "send", watched)
    augment, batch = DriverViewAugmentation(joint_scale=0.1, joint_tps=0.02, tps=0.02), make_batch(side=48)
    with Calls() as calls:
        augment(batch, 1)
    each = 9 + 3 + 6 + 2 * 9 * 9  # matrix, offset, proportions, bend
    assert sent == [6 * (1 + each) + 18 * each]
    assert sent[0] * 15 < 18 * 48 * 48 * 2, "grids are larger"
    waiting = {"item", "tolist", "nonzero", "cpu", "numpy", "__bool__", "__float__", "__int__", "cuda", "masked_select"}
    assert calls.names.count("to") == 1 and not waiting & set(calls.names)
