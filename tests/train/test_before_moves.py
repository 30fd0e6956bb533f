"""A checkpoint and a config.yaml of the release before modules moved and keys were renamed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

from sfdkit.checkpoint import build_animator, load_animator
from sfdkit.cli import main
from sfdkit.config import renamed
from sfdkit.errors import SfdkitWarning
from sfdkit.train.command import build
from sfdkit.train.task import AnimationTask
from tests.running import fit, logging_to, make_data, small

CHECKPOINT = Path(__file__).parent / "data/checkpoint-before-moves.ckpt"
CONFIG = Path(__file__).parent / "data/config-before-moves.yaml"


def test_it_serves_inference() -> None:
    loaded = load_animator(CHECKPOINT)
    assert loaded.train["steps"] == 2 and loaded.animator.resolution == 32
    stored = torch.load(CHECKPOINT, weights_only=True)["animator_average"]
    state = loaded.animator.state_dict()
    assert len(state) > 80 and all(torch.equal(value, stored[f"module.{name}"]) for name, value in state.items())
    faces = torch.rand(2, 3, 32, 32)
    assert loaded.animator(faces, faces.flip(0)).image.isfinite().all()


def test_its_configuration_means_what_it_meant(tmp_path: Path) -> None:
    given = [f"--data.init_args.root={make_data(tmp_path / 'data')}", "--trainer.logger=false"]
    old = {
        key: value
        for key, value in yaml.safe_load(CONFIG.read_text()).items()
        if key not in ("ckpt_path", "weights_only")
    }
    (tmp_path / "old.yaml").write_text(yaml.safe_dump(old))  # build runs nothing, and knows no --ckpt_path
    with pytest.warns(SfdkitWarning, match=r"old\.yaml: .*model\.gradient_clip is now .*; the next"):
        task = build(["--config", str(tmp_path / "old.yaml"), *given]).model
    assert isinstance(task, AnimationTask)
    assert task.objective.weights["kl"] == 1e-4 and task.objective.starts == {"kl": 1}
    assert task.basis_lr_factor == 0.1 and task.max_skipped_steps == 5 and task.accumulate_grad_batches == 1
    assert (task.clipping.clip_norm, task.clipping.clip_factor) == (1.0, 3.0)


def test_its_training_goes_on(tmp_path: Path) -> None:
    data = make_data(tmp_path / "data")
    resume = ["--config", str(CONFIG), f"--data.init_args.root={data}", f"--ckpt_path={CHECKPOINT}"]
    resume.append("--model.animator.init_args.generator.init_args.detail=0")  # it comes after a newer base.yaml here
    with pytest.warns(SfdkitWarning, match="config-before-moves") as told:
        path = fit(data, tmp_path, *resume, *small(data, tmp_path, 4), *logging_to(tmp_path))
    assert not [w for w in told if "callbacks" in str(w.message)], "each callback finds its state"
    last = torch.load(path, weights_only=True)
    first = torch.load(CHECKPOINT, weights_only=True)
    assert last["global_step"] == 4 and int(last["animator_average"]["n_averaged"]) == 4
    assert last["sfdkit"]["train"]["frames"] == 2 * first["sfdkit"]["train"]["frames"]
    mean = last["state_dict"]["clipping.running_mean"] / first["state_dict"]["guard.usual"]
    assert 0.8 < mean < 1.25 and mean != 1, "the running mean of the gradient's norm goes on as well"
    assert last["state_dict"]["objective.terms.leakage.running_mean"] > 0


def test_commands_for_one_picture_take_it(tmp_path: Path) -> None:
    picture = tmp_path / "face.png"
    Image.new("RGB", (48, 48), (200, 150, 120)).save(picture)
    words = [f"--checkpoint={CHECKPOINT}", f"--source={picture}", f"--target={picture}", "--steps=2", "--crop=none"]
    assert main(["interpolate", *words, f"--output={tmp_path / 'strip.png'}"]) == 0


def test_class_paths_in_a_checkpoint_are_renamed_too(monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_animator(CHECKPOINT).experiment
    config["init_args"]["encoder"]["class_path"] = "sfdkit.nets.TimmEncoder"
    monkeypatch.setitem(renamed.CLASSES, "sfdkit.nets", "sfdkit.model.encoders")
    with pytest.warns(SfdkitWarning, match=r"old\.ckpt: sfdkit\.nets is now sfdkit\.model\.encoders"):
        assert build_animator(config, Path("old.ckpt"), ()).resolution == 32
