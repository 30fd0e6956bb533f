"""The runs of a study side by side."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sfdkit.checkpoint import load_animator
from sfdkit.cli import main
from sfdkit.data.shards.index import load_index
from sfdkit.evaluate.frames import load_frames, render_truth
from sfdkit.evaluate.plan import plan_clips
from sfdkit.evaluate.samples import read_samples
from sfdkit.media.draw import GAP
from sfdkit.media.tensors import to_uint8
from sfdkit.study.jobs import plan, write_json
from sfdkit.study.spec import load_study
from tests.study.test_study_spec import write
from tests.written import lively_animator, write_checkpoint, write_puppets

SIDE = 128


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A study with two runs that have been trained with seed 1, and none with seed 2."""
    shards = write_puppets(tmp_path / "shards")
    write(tmp_path, evaluate={"shards": str(shards)})
    for job in plan(load_study(tmp_path), tmp_path / "runs"):
        if job.seed == 1:
            job.checkpoint.parent.mkdir(parents=True)
            job.begin()
            job.checkpoint.parent.mkdir(exist_ok=True)
            write_checkpoint(job.checkpoint, lively_animator())
            write_json(job.folder / "trained.json", {})
    return tmp_path


def test_each_run_has_a_row_of_the_same_pairs(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["study", "sheet", str(study), f"--runs={study / 'runs'}", "--pairs=3", "--pairs_seed=4", "--device=cpu"]
    assert main(words) == 0
    sheet = np.asarray(Image.open(study / "runs/sheet.png"))
    assert sheet.shape[1] == 4 * (SIDE + GAP) + GAP and (sheet.shape[0] - GAP) // (SIDE + GAP) == 5
    assert "seed 1, 3 pairs" in capsys.readouterr().out
    samples = read_samples(study / "shards", load_index(study / "shards"), None, 2)
    pairs = plan_clips(samples, 3, 4).cross_pairs
    frames = load_frames(pairs, torch.device("cpu"))
    animator = load_animator(study / "runs/full/seed1/checkpoints/last.ckpt").animator
    rows = [frames.source, frames.driving[:, 1], render_truth(pairs, torch.device("cpu"))[0][:, 1]]
    rows += 2 * [animator(frames.source, frames.driving[:, 1]).image.clamp(0, 1)]
    for number, row in enumerate(rows):
        top = sheet.shape[0] - (len(rows) - number) * (SIDE + GAP)
        for column, picture in enumerate(row):
            left = GAP + (column + 1) * (SIDE + GAP)
            wanted = Image.fromarray(to_uint8(picture)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
            assert np.abs(sheet[top : top + SIDE, left : left + SIDE].astype(int) - np.asarray(wanted)).mean() < 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--seed=2"], "no run of seed 2 has been trained in"),
        (["--seed=7"], "seed: 7 is none of 1, 2"),
        (["--output=sheet.gif"], "output: sheet.gif will not do; give a .png file"),
    ],
)
def test_what_cannot_be_drawn_is_one_line(
    words: list[str], message: str, study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["study", "sheet", str(study), f"--runs={study / 'runs'}", *words]) == 1
    assert message in capsys.readouterr().err
