"""The examples run from any folder, and what they make can be used."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sfdkit.checkpoint import load_animator
from sfdkit.media.video_reader import read_frames
from sfdkit.puppets.commands import render_file
from tests.running import ROOT

pytestmark = pytest.mark.slow
EXAMPLES = ROOT / "examples"


def run(name: str, folder: Path, *words: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, str(EXAMPLES / f"{name}.py"), *words]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_there_are_no_others() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == {"train", "animate", "own_backbone", "own_dataset"}


def test_train_and_animate_with_what_was_trained(tmp_path: Path) -> None:
    assert "--checkpoint runs/example/checkpoints/last.ckpt" in run("train", tmp_path, "--steps", "2")
    checkpoint = tmp_path / "runs/example/checkpoints/last.ckpt"
    loaded = load_animator(checkpoint)
    assert loaded.train["steps"] == 2 and loaded.train["identities"] == 64 and loaded.animator.resolution == 64
    run("animate", tmp_path, "--checkpoint", str(checkpoint), "--output", "own.mp4")
    assert (tmp_path / "own.mp4").is_file()


def test_animate_with_weights_that_come_along(tmp_path: Path) -> None:
    (tmp_path / "source.png").write_text("not to be written over")
    render_file(str(tmp_path / "driving.mp4"), identity=19, motion=19, resolution=64, frames=25, pose=0.5)
    run("animate", tmp_path, "--driving", "driving.mp4")
    assert (tmp_path / "source.png").read_text() == "not to be written over"
    driving, made = (
        np.stack([frame for frame, _ in read_frames(tmp_path / name)]).astype(int)
        for name in ("driving.mp4", "animated.mp4")
    )
    assert driving.shape == made.shape == (25, 64, 64, 3)
    assert np.abs(made - made[0]).max() > 8 and np.abs(made - driving).mean() > 4, "it moves, and is another person"


def test_own_backbone(tmp_path: Path) -> None:
    assert "Pyramid, frames (1, 3, 64, 64)" in run("own_backbone", tmp_path, "--steps", "2", "--output", "o")


def test_own_dataset(tmp_path: Path) -> None:
    assert "o/checkpoints/last.ckpt" in run("own_dataset", tmp_path, "--steps", "2", "--output", "o")
    assert load_animator(tmp_path / "o/checkpoints/last.ckpt").train["identities"] == 4
