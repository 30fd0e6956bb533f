"""Weights files: what goes in comes out, within half precision, and anything else is refused in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from sfdkit.apply.animate import Animate
from sfdkit.apply.edit import Edit
from sfdkit.checkpoint import adopt_weights, load_animator
from sfdkit.cli import main
from sfdkit.errors import CheckpointError, ConfigError
from sfdkit.model.descriptors import orthonormalise
from sfdkit.model.fingerprints import basis_fingerprint
from sfdkit.weights.commands import Pack
from tests.tiny import tiny_animator
from tests.written import TRAIN, known_axes, lively_animator, puppet_frames, write_checkpoint, write_video


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a checkpoint and axes, what is packed of it, a source and a driver."""
    folder = tmp_path_factory.mktemp("files")
    (folder / "run/checkpoints").mkdir(parents=True)
    write_checkpoint(folder / "run/checkpoints/last.ckpt", lively_animator())
    known_axes().save(folder / "run/axes.json")
    Pack(checkpoint=str(folder / "run/checkpoints/last.ckpt"), output=str(folder / "small.safetensors")).run()
    Image.fromarray(puppet_frames(0, 1, 32)[0]).save(folder / "source.png")
    write_video(folder / "driving.mp4", puppet_frames(1, 6, 48))
    return folder


def test_half_precision_in_the_file_and_single_in_memory(files: Path) -> None:
    stored = load_file(files / "small.safetensors")
    kernels = {name for name, value in stored.items() if value.dim() > 1} - {"descriptors.weight"}
    assert len(kernels) > 20 and all(stored[name].dtype == torch.float16 for name in kernels)
    assert all(value.dtype != torch.float16 for name, value in stored.items() if name not in kernels)
    animator = load_animator(files / "small.safetensors").animator
    assert not animator.training and not any(p.requires_grad for p in animator.parameters())
    for name, value in lively_animator().state_dict().items():
        loaded = animator.state_dict()[name]
        assert loaded.dtype == value.dtype
        torch.testing.assert_close(loaded, value, rtol=2**-11, atol=2**-25)  # half a unit in the last place


def test_the_basis_keeps_its_bits(files: Path) -> None:
    animator, whole = load_animator(files / "small.safetensors").animator, lively_animator()
    assert torch.equal(animator.descriptors.weight, whole.descriptors.weight)
    assert basis_fingerprint(animator.descriptors) == basis_fingerprint(whole.descriptors)
    basis = orthonormalise(animator.descriptors.weight)
    assert (basis.T @ basis - torch.eye(16)).abs().max() < 1e-6


def test_training_and_configuration_come_along(files: Path) -> None:
    loaded, whole = (load_animator(files / name) for name in ("small.safetensors", "run/checkpoints/last.ckpt"))
    assert loaded.train == whole.train == {**TRAIN, "seed": 3}
    assert loaded.experiment == whole.experiment


def test_pretrained_weights_of_the_training_are_not_asked_for_again(files: Path, tmp_path: Path) -> None:
    stored = torch.load(files / "run/checkpoints/last.ckpt", weights_only=True)
    encoder = stored["sfdkit"]["animator"]["init_args"]["encoder"]["init_args"]
    encoder.update(pretrained=True, weights="/home/me/imagenet.pth")
    torch.save(stored, tmp_path / "last.ckpt")
    path = Pack(checkpoint=str(tmp_path / "last.ckpt"), output=str(tmp_path / "o.safetensors")).run()
    assert b"/home/me" not in path.read_bytes()
    kept = load_animator(path).experiment["init_args"]["encoder"]["init_args"]
    assert kept == {**encoder, "pretrained": False, "weights": None}


def test_packing_again_changes_nothing_but_the_name(files: Path, tmp_path: Path) -> None:
    again = Pack(checkpoint=str(files / "small.safetensors"), output=str(tmp_path / "again.safetensors")).run()
    one, other = load_file(files / "small.safetensors"), load_file(again)
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    with safe_open(files / "small.safetensors", "pt") as first, safe_open(again, "pt") as second:
        assert first.metadata() == second.metadata()


def animated(files: Path, checkpoint: str, output: Path) -> np.ndarray:
    given = {"source": str(files / "source.png"), "driving": str(files / "driving.mp4"), "output": str(output)}
    Animate(checkpoint=str(files / checkpoint), crop="none", device="cpu", **given).run()
    return np.stack([np.asarray(Image.open(path)) for path in sorted(output.iterdir())]).astype(int)


def test_it_animates_as_the_checkpoint_does(files: Path, tmp_path: Path) -> None:
    small = animated(files, "small.safetensors", tmp_path / "small")
    whole = animated(files, "run/checkpoints/last.ckpt", tmp_path / "whole")
    assert len(whole) == 6 and np.abs(whole - whole[0]).max() > 8, "the frames move"
    assert np.abs(small - whole).max() <= 1 and np.abs(small - whole).mean() < 0.1


def test_axes_come_along_and_edit_uses_them(files: Path, tmp_path: Path) -> None:
    assert json.loads(load_animator(files / "small.safetensors").axes)["basis"]
    given: dict[str, Any] = {"source": str(files / "source.png"), "axis": "yaw", "from_": -3, "to": 3, "steps": 3}
    for name in ("small.safetensors", "run/checkpoints/last.ckpt"):
        path = str(tmp_path / f"{Path(name).stem}.png")
        Edit(checkpoint=str(files / name), output=path, crop="none", device="cpu", **given).run()
    small, whole = (np.asarray(Image.open(tmp_path / f"{name}.png")).astype(int) for name in ("small", "last"))
    assert small.shape == whole.shape and np.abs(small - whole).max() <= 4


def test_axes_can_be_left_out_and_those_of_another_model_are_refused(files: Path, tmp_path: Path) -> None:
    given = {"checkpoint": str(files / "run/checkpoints/last.ckpt"), "output": str(tmp_path / "bare.safetensors")}
    Pack(**given, axes="none").run()
    assert load_animator(tmp_path / "bare.safetensors").axes is None
    edit = {"source": str(files / "source.png"), "axis": "yaw", "from_": -3, "to": 3, "crop": "none"}
    with pytest.raises(ConfigError, match=r"names need an axes\.json"):
        Edit(checkpoint=given["output"], output=str(tmp_path / "o.png"), **edit).run()
    known_axes(seed=1).save(tmp_path / "axes.json")
    with pytest.raises(CheckpointError, match=r"axes .*axes\.json were measured on another model"):
        Pack(**given, axes=str(tmp_path / "axes.json")).run()


def test_a_training_begins_with_it(files: Path) -> None:
    target = tiny_animator(32, seed=1)
    adopted = adopt_weights(target, files / "small.safetensors")
    assert adopted.left == []
    for name, value in load_animator(files / "small.safetensors").animator.state_dict().items():
        assert torch.equal(value, target.state_dict()[name])


def test_weights_beyond_half_precision_are_kept_and_those_that_are_not_finite_refused(tmp_path: Path) -> None:
    animator = tiny_animator()
    last = animator.motion_head.layers[-1].weight
    with torch.no_grad():
        last[0, 0] = 1e5
    path = write_checkpoint(tmp_path / "last.ckpt", animator)
    given = {"checkpoint": str(path), "output": str(tmp_path / "o.safetensors")}
    Pack(**given).run()
    assert torch.equal(load_animator(given["output"]).animator.motion_head.layers[-1].weight, last)
    with torch.no_grad():
        last[0, 0] = float("nan")
    write_checkpoint(tmp_path / "last.ckpt", animator)
    with pytest.raises(CheckpointError, match=r"motion_head\.layers\.3\.weight is not finite"):
        Pack(**given).run()


def spoil(files: Path, how: str, path: Path) -> None:
    """Write what looks like a weights file, and is none."""
    whole = (files / "small.safetensors").read_bytes()
    with safe_open(files / "small.safetensors", "pt") as file:
        about = file.metadata()
    tensors = load_file(files / "small.safetensors")
    if how == "cut":
        path.write_bytes(whole[: len(whole) // 2])
    elif how == "text":
        path.write_text("no weights")
    elif how == "empty":
        path.touch()
    elif how == "folder":
        path.mkdir()
    elif how == "newer":
        save_file(tensors, path, about | {"schema": "sfdkit.animator/2"})
    elif how == "plain":
        save_file(tensors, path)
    elif how == "bare":
        save_file(tensors, path, {"schema": about["schema"]})
    elif how == "garbled":
        save_file(tensors, path, about | {"animator": "{"})
    elif how == "misfit":
        save_file({name: value for name, value in tensors.items() if "encoder" not in name}, path, about)
    elif how == "foreign":
        save_file(tensors, path, about | {"animator": about["animator"].replace("sfdkit.model.encoders", "subprocess")})


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("cut", "is damaged"),
        ("text", "is damaged or no .safetensors file"),
        ("empty", "is damaged or no .safetensors file"),
        ("folder", "there is no file"),
        ("missing", "there is no file"),
        ("newer", "its schema is 'sfdkit.animator/2', 'sfdkit.animator/1' is needed"),
        ("plain", "holds something else"),
        ("bare", "lacks animator, training"),
        ("garbled", "its header is no json"),
        ("misfit", "the weights do not fit the model"),
        ("foreign", "which is not sfdkit's"),
    ],
)
def test_what_is_no_weights_file_is_one_line(
    how: str, said: str, files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "wrong.safetensors"
    spoil(files, how, path)
    given = ["--source", str(files / "source.png"), "--driving", str(files / "driving.mp4"), "--crop", "none"]
    assert main(["animate", "--checkpoint", str(path), *given, "--output", str(tmp_path / "o.gif")]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("sfdkit: error: ") and "wrong.safetensors" in line and said in line


@pytest.mark.parametrize("part", ["encoder", "driving_encoder", "descriptors", "generator"])
@pytest.mark.parametrize("how", ["name", "json", "file", "key"])
def test_no_part_of_a_model_is_imported_by_a_text(
    part: str, how: str, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A parser reads names of classes, json and files of YAML in the place of a part, and imports what they name."""
    (tmp_path / "hostile.py").write_text("from pathlib import Path\nPath('ran').touch()\n\n\nclass Part: ...\n")
    (tmp_path / "part.yaml").write_text("class_path: hostile.Part\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    with safe_open(files / "small.safetensors", "pt") as file:
        about = file.metadata()
    config = json.loads(about["animator"])
    texts = {"name": "hostile.Part", "json": '{"class_path": "hostile.Part"}', "file": str(tmp_path / "part.yaml")}
    config["init_args"][f"{part}.class_path" if how == "key" else part] = texts.get(how, "hostile.Part")
    save_file(load_file(files / "small.safetensors"), "o.safetensors", about | {"animator": json.dumps(config)})
    with pytest.raises(CheckpointError, match="not written as class_path and init_args"):
        load_animator("o.safetensors")
    assert not (tmp_path / "ran").exists()


def test_arguments_of_a_trusted_encoder_may_be_texts(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = (
        "from pathlib import Path\n\nfrom sfdkit.model.encoders import TimmEncoder\n\n\n"
        "class Mine(TimmEncoder):\n"
        "    def __init__(self, name: str, resolution: int, max_stride: int, notes: Path) -> None:\n"
        "        super().__init__(name, resolution, max_stride=max_stride)\n"
    )
    (tmp_path / "trusted_encoder.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    with safe_open(files / "small.safetensors", "pt") as file:
        about = file.metadata()
    config = json.loads(about["animator"])
    encoder = config["init_args"]["encoder"]
    encoder.update(class_path="trusted_encoder.Mine", init_args={**encoder["init_args"], "notes": "notes.txt"})
    path = tmp_path / "o.safetensors"
    save_file(load_file(files / "small.safetensors"), path, about | {"animator": json.dumps(config)})
    assert type(load_animator(path, trust=["trusted_encoder"]).animator.encoder).__name__ == "Mine"


def test_what_would_be_replaced_or_has_another_suffix_is_refused(files: Path, tmp_path: Path) -> None:
    small = str(files / "small.safetensors")
    with pytest.raises(ConfigError, match="would be replaced"):
        Pack(checkpoint=small, output=small).run()
    with pytest.raises(ConfigError, match=r"use \.safetensors"):
        Pack(checkpoint=small, output=str(tmp_path / "small.pt")).run()
