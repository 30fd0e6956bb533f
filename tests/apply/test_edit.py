from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sfdkit.apply.edit import Edit, Interpolate
from sfdkit.apply.frame_source import read_source
from sfdkit.apply.torch_runner import TorchRunner
from sfdkit.cli import main
from sfdkit.errors import CheckpointError, ConfigError, DataError
from sfdkit.media.crop import CropRule
from sfdkit.media.draw import GAP, enlarge
from sfdkit.media.video_reader import probe, read_frames
from tests.written import known_axes, lively_animator, puppet_frames, write_checkpoint

CELL = 40


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a checkpoint and axes, a run without axes, a source and a target."""
    folder = tmp_path_factory.mktemp("files")
    for name in ("run", "bare"):
        (folder / name / "checkpoints").mkdir(parents=True)
        write_checkpoint(folder / name / "checkpoints" / "last.ckpt", lively_animator(code_share=0.5))
    known_axes().save(folder / "run" / "axes.json")
    for number, name in enumerate(("source.png", "target.png")):
        Image.fromarray(puppet_frames(number, 1, 32)[0]).save(folder / name)
    return folder


def run(files: Path, output: Path, axis: list[str] | str = "yaw", name: str = "run", **options: Any) -> Path:
    arguments = {"crop": "none", "device": "cpu", "size": CELL, "from_": -3, "to": 3, **options}
    checkpoint = files / name / "checkpoints" / "last.ckpt"
    paths = {"checkpoint": str(checkpoint), "source": str(files / "source.png"), "output": str(output)}
    return Edit(axis=axis, **(paths | arguments)).run()


def go(files: Path, output: Path, **options: Any) -> Path:
    arguments = {"crop": "none", "device": "cpu", "size": CELL, **options}
    given = {"checkpoint": "run/checkpoints/last.ckpt", "source": "source.png", "target": "target.png"}
    paths = {name: str(files / value) for name, value in given.items()}
    return Interpolate(**paths, output=str(output), **arguments).run()


def cells(path: Path, count: int, row: int = 0, head: int = 36) -> list[np.ndarray]:
    """The pictures of one row of a strip; over it are ``head`` pixels of title and captions."""
    sheet = np.asarray(Image.open(path)).astype(int)
    top = row * (head + CELL + 2 * GAP) + head
    lefts = [GAP + k * (CELL + GAP) for k in range(count)]
    return [sheet[top : top + CELL, left : left + CELL] for left in lefts]


def by_hand(files: Path, motions: np.ndarray) -> list[np.ndarray]:
    """What the animator makes of the source with these added to its motion coefficients."""
    runner = TorchRunner(lively_animator(code_share=0.5))
    source = runner.source(read_source(files / "source.png", 32, CropRule("none")))
    made = runner.render(source, runner.describe(source).motion + motions)
    return [enlarge(picture, CELL).astype(int) for picture in made]


def test_a_strip_shows_the_source_and_the_steps(files: Path, tmp_path: Path) -> None:
    run(files, tmp_path / "new" / "strip.png", steps=5)
    shown = cells(tmp_path / "new" / "strip.png", 6)
    amounts = np.array([-3.0, -1.5, 0.0, 1.5, 3.0])[:, None]
    wanted = by_hand(files, amounts * np.array([0.05, 0.0, 0.02, 0.0]))
    for made, right in zip(shown[1:], wanted, strict=True):
        assert np.abs(made - right).max() <= 1
    source = enlarge(read_source(files / "source.png", 32, CropRule("none")), CELL)
    assert np.abs(shown[0] - source).max() <= 1


def test_pictures_really_change_along_the_axis(files: Path, tmp_path: Path) -> None:
    run(files, tmp_path / "strip.png", "mouth_open", steps=5, **{"from_": -1, "to": 1})
    _, *shown = cells(tmp_path / "strip.png", 6)
    from_start = [np.abs(picture - shown[0]).mean() for picture in shown]
    assert from_start[0] == 0 and all(a < b for a, b in pairwise(from_start))
    assert from_start[-1] > 1


def test_several_axes_give_several_rows(files: Path, tmp_path: Path) -> None:
    run(files, tmp_path / "both.png", ["yaw", "mouth_open"], steps=3)
    for row, axis in enumerate(("yaw", "mouth_open")):
        run(files, tmp_path / "one.png", axis, steps=3)
        for made, right in zip(cells(tmp_path / "both.png", 4, row), cells(tmp_path / "one.png", 4), strict=True):
            assert (made == right).all()


def test_basis_vectors_move_in_sigma_with_axes_and_raw_without(files: Path, tmp_path: Path) -> None:
    ends = np.array([-1.0, 1.0])[:, None]
    for name, options, scale in (("run", {}, 0.5), ("bare", {}, 1.0), ("run", {"axes": "none"}, 1.0)):
        run(files, tmp_path / "o.png", "motion:2", name, steps=2, **{"from_": -1, "to": 1}, **options)
        wanted = by_hand(files, ends * np.array([0.0, 0.0, scale, 0.0]))
        for made, right in zip(cells(tmp_path / "o.png", 3)[1:], wanted, strict=True):
            assert np.abs(made - right).max() <= 1


def test_axes_can_be_named_and_taken_in_sigma(files: Path, tmp_path: Path) -> None:
    run(files, tmp_path / "o.png", "mouth_open", "bare", axes=str(files / "run" / "axes.json"), sigma=True, steps=2)
    wanted = by_hand(files, np.array([[-6.0], [6.0]]) * np.array([0.0, 0.0, 0.0, 1.0]))  # 3 times a std of 2
    for made, right in zip(cells(tmp_path / "o.png", 3)[1:], wanted, strict=True):
        assert np.abs(made - right).max() <= 1


def test_a_video_goes_there_and_back(files: Path, tmp_path: Path) -> None:
    run(files, tmp_path / "o.mp4", ["yaw", "motion:1"], steps=6, fps=5)
    info = probe(tmp_path / "o.mp4")
    assert (info.frames, info.fps, info.width) == (10, 5.0, 3 * (CELL + GAP) + GAP)
    frames = [frame.astype(int) for frame, _ in read_frames(tmp_path / "o.mp4")]
    assert np.abs(frames[1] - frames[9]).mean() < 2 < np.abs(frames[0] - frames[5]).mean() * 10
    run(files, tmp_path / "frames", steps=3)
    assert len(list((tmp_path / "frames").iterdir())) == 4
    run(files, tmp_path / "long.mp4")
    assert probe(tmp_path / "long.mp4").frames == 98
    run(files, tmp_path / "o.gif", steps=3)
    assert len(list(read_frames(tmp_path / "o.gif"))) == 4


def test_an_identity_edit_changes_the_picture(files: Path, tmp_path: Path) -> None:
    run(files, tmp_path / "o.png", "identity:3", steps=3)
    shown = cells(tmp_path / "o.png", 4)
    assert np.abs(shown[1] - shown[3]).max() > 1
    assert np.abs(shown[2] - by_hand(files, np.zeros((1, 4)))[0]).max() <= 1, "0 is the source as it is rendered"


def test_a_model_without_a_template_edits_motion_alone(files: Path, tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    checkpoint = write_checkpoint(tmp_path / "checkpoints" / "last.ckpt", lively_animator())
    run(files, tmp_path / "o.png", "motion:0", checkpoint=str(checkpoint))
    with pytest.raises(ConfigError, match="code_share is 0"):
        run(files, tmp_path / "o.png", "identity:0", checkpoint=str(checkpoint))


def test_interpolation_goes_from_one_motion_to_the_other(files: Path, tmp_path: Path) -> None:
    go(files, tmp_path / "o.png", steps=3)
    faces = np.stack([read_source(files / name, 32, CropRule("none")) for name in ("source.png", "target.png")])
    motion = TorchRunner(lively_animator(code_share=0.5)).motion(faces)
    change = motion[1:] - motion[:1]
    shown = cells(tmp_path / "o.png", 5, head=20)
    for made, right in zip(shown[1:4], by_hand(files, np.array([[0.0], [0.5], [1.0]]) * change), strict=True):
        assert np.abs(made - right).max() <= 1
    assert np.abs(shown[1] - shown[3]).max() > 5


def test_interpolating_the_identity_keeps_the_motion(files: Path, tmp_path: Path) -> None:
    for what in ("motion", "identity", "both"):
        go(files, tmp_path / f"{what}.png", what=what, steps=2)
    motion, identity, both = (cells(tmp_path / f"{w}.png", 4, head=20) for w in ("motion", "identity", "both"))
    assert np.abs(motion[1] - identity[1]).max() <= 1 and np.abs(motion[1] - both[1]).max() <= 1
    assert (identity[2] != identity[1]).any() and (both[2] != motion[2]).any()
    go(files, tmp_path / "o.gif", steps=4)
    assert len(list(read_frames(tmp_path / "o.gif"))) == 6


def test_names_need_axes(files: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'yaw' is a name, and names need an axes\.json; give --axes FILE"):
        run(files, tmp_path / "o.png", "yaw", "bare")
    with pytest.raises(ConfigError, match=r"there is no 'mouth_opn'\. Did you mean 'mouth_open'"):
        run(files, tmp_path / "o.png", "mouth_opn")
    with pytest.raises(ConfigError, match=r"sigma: standard deviations are in an axes\.json"):
        run(files, tmp_path / "o.png", "motion:1", "bare", sigma=True)
    with pytest.raises(DataError, match=r"gone\.json cannot be read"):
        run(files, tmp_path / "o.png", axes=str(tmp_path / "gone.json"))
    with pytest.raises(ConfigError, match="axis: the list is empty"):
        run(files, tmp_path / "o.png", [])
    assert not os.listdir(tmp_path)


def test_axes_of_another_model_are_refused(files: Path, tmp_path: Path) -> None:
    known_axes(1).save(tmp_path / "axes.json")
    with pytest.raises(CheckpointError, match=r"axes\.json were measured on another model"):
        run(files, tmp_path / "o.png", axes=str(tmp_path / "axes.json"))


def test_what_cannot_work_is_refused(files: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"o\.jpg has the suffix '\.jpg'; use \.mp4, \.gif"):
        run(files, tmp_path / "o.jpg")
    with pytest.raises(ConfigError, match="to: inf is no amount"):
        run(files, tmp_path / "o.png", to=float("inf"))
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--steps=1", "steps: 1 is out of range; give 2 or more, or null"),
        ("--size=0", "size: 0 is out of range; give 1 to 4096, or null"),
        ("--fps=0", "fps: 0 is out of range; give 0.1 to 1000"),
    ],
)
def test_numbers_that_cannot_work(option: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--checkpoint=c", "--source=s", "--output=o.png", option]
    for command in (["edit", "--axis=yaw", "--from=0", "--to=1"], ["interpolate", "--target=t"]):
        with pytest.raises(SystemExit):
            main([*command, *given])
        assert capsys.readouterr().err.strip() == f"sfdkit: error: {words}"


def test_the_command_line(files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = f"edit --checkpoint {files}/run/checkpoints/last.ckpt --source {files}/source.png --crop none --device cpu"
    words += f" --axis [yaw,motion:1] --from -2 --to 2 --steps 3 --output {tmp_path}/o.png"
    assert main(words.split()) == 0
    assert "yaw (degrees), motion:1 (sigma) from -2 to 2" in capsys.readouterr().out
    assert Image.open(tmp_path / "o.png").size[0] == 4 * (128 + GAP) + GAP
    assert (
        main([*words.replace("o.png", "raw.png").replace("[yaw,motion:1]", "motion:1").split(), "--axes", "none"]) == 0
    )
    assert "raw.png: motion:1 (raw) from -2 to 2" in capsys.readouterr().out
    words = f"interpolate --checkpoint {files}/run/checkpoints/last.ckpt --source {files}/source.png --crop none"
    words += f" --target {files}/target.png --what both --steps 4 --output {tmp_path}/i.png --device cpu"
    assert main(words.split()) == 0
    assert Image.open(tmp_path / "i.png").size[0] == 6 * (128 + GAP) + GAP
    words = f"edit --checkpoint {files}/run/checkpoints/last.ckpt --source {files}/source.png --crop none --device cpu"
    assert main(f"{words} --axis yew --from -2 --to 2 --output {tmp_path}/x.png".split()) == 1
    assert "Did you mean 'yaw'" in capsys.readouterr().err
