"""The weights that come with sfdkit: found by name, small, and as good as their cards say."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from sfdkit.checkpoint import adopt_weights, load_animator
from sfdkit.cli import main
from sfdkit.errors import CheckpointError
from sfdkit.weights.shipped import card_of, find_weights, shipped_weights
from tests.written import lively_animator, puppet_frames, write_checkpoint, write_video

NAMES = list(shipped_weights())
MOST_BYTES = 4_000_000


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    for number, name in enumerate(("source.png", "target.png")):
        Image.fromarray(puppet_frames(number, 1, 64)[0]).save(folder / name)
    write_video(folder / "driving.mp4", puppet_frames(1, 3, 64))
    return folder


def test_there_are_some() -> None:
    assert "puppets64" in NAMES


@pytest.mark.parametrize("name", NAMES)
def test_each_is_small_and_loads_and_has_a_card_and_axes(name: str) -> None:
    path = shipped_weights()[name]
    assert path.stat().st_size <= MOST_BYTES
    loaded = load_animator(name)
    assert loaded.axes is not None and loaded.train["steps"] > 0
    card = yaml.safe_load(card_of(path).read_text(encoding="utf-8"))
    assert set(card) == {"summary", "licence", "data", "made", "figures", "measured", "limits"}
    assert card["licence"] == "Apache-2.0" and "model pack --checkpoint" in card["made"]["commands"]
    assert card["figures"] and all(set(figure) == {"is", "within"} for figure in card["figures"].values())


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_commands_of_a_card_give_its_figures(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    card = yaml.safe_load(card_of(shipped_weights()[name]).read_text(encoding="utf-8"))
    for line in card["measured"].strip().splitlines():
        program, *words = shlex.split(line)
        assert program == "sfdkit" and main(words) == 0
    (file,) = tmp_path.rglob("metrics.json")
    found = json.loads(file.read_text())
    figures = card["figures"]
    assert {key: pytest.approx(figure["is"], abs=figure["within"]) for key, figure in figures.items()} == {
        key: found[key] for key in figures
    }


def test_each_command_takes_the_name(files: Path, tmp_path: Path) -> None:
    source, plain = ["--source", str(files / "source.png")], ["--checkpoint", "puppets64", "--crop", "none"]
    driving = ["--driving", str(files / "driving.mp4")]
    edit = ["--axis", "yaw", "--from", "-10", "--to", "10", "--steps", "3"]
    track = str(tmp_path / "track.safetensors")
    for words in (
        ["animate", *plain, *source, *driving, "--output", str(tmp_path / "o.gif")],
        ["edit", *plain, *source, *edit, "--output", str(tmp_path / "edit.png")],
        ["interpolate", *plain, *source, "--target", str(files / "target.png"), "--output", str(tmp_path / "way.png")],
        ["motion", "extract", *plain, *driving, "--output", track],
        ["animate", *plain, *source, "--motion", track, "--output", str(tmp_path / "frames")],
    ):
        assert main(words) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"o.gif", "edit.png", "way.png", "track.safetensors", "frames"}
    frames = [np.asarray(Image.open(path)).astype(int) for path in sorted((tmp_path / "frames").iterdir())]
    assert len(frames) == 3 and np.abs(frames[2] - frames[0]).max() > 8, "the face moves"


def test_list_card_and_summary(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["model", "list"]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in listed] == NAMES
    assert main(["model", "card", "--checkpoint", "puppets64"]) == 0
    card = capsys.readouterr().out
    assert "pixels:      64" in card and "licence: Apache-2.0" in card and "cross/psnr" in card
    assert main(["model", "summary", "--checkpoint=puppets64"]) == 0
    assert "driven frame at 64" in capsys.readouterr().out


def test_weights_of_ones_own_have_a_card_if_it_lies_beside_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_checkpoint(tmp_path / "mine.ckpt", lively_animator())
    words = ["model", "card", "--checkpoint", str(tmp_path / "mine.safetensors")]
    assert main(["model", "pack", "--checkpoint", str(path), "--output", words[-1]]) == 0
    assert "without axes" in capsys.readouterr().out
    assert main(words) == 0
    assert "none; it would be mine.yaml beside the file" in capsys.readouterr().out
    (tmp_path / "mine.yaml").write_text("summary: größer", encoding="utf-8")
    assert main(words) == 0 and "summary: größer" in capsys.readouterr().out
    (tmp_path / "mine.yaml").write_text("summary: größer", encoding="latin-1")
    assert main(words) == 1 and "mine.yaml cannot be read" in capsys.readouterr().err


def test_a_file_of_that_name_wins_and_a_folder_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "puppets64").mkdir()
    assert find_weights("puppets64") == shipped_weights()["puppets64"]
    (tmp_path / "puppets64").rmdir()
    write_checkpoint(tmp_path / "puppets64", lively_animator())
    assert load_animator("puppets64").animator.resolution == 32


def test_frames_may_go_to_a_folder_of_that_name(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    given = ["--source", str(files / "source.png"), "--driving", str(files / "driving.mp4"), "--crop", "none"]
    assert main(["animate", "--checkpoint", "puppets64", *given, "--output", "puppets64"]) == 0
    assert len(list((tmp_path / "puppets64").iterdir())) == 3


def test_a_training_begins_with_them() -> None:
    animator = load_animator("puppets64").animator
    assert adopt_weights(animator, "puppets64").left == []


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("pupets64", "there are no weights 'pupets64', and there is no such file. Did you mean 'puppets64'?"),
        ("puppets64.safetensors", "Did you mean 'puppets64'?"),
        ("last", "sfdkit comes with puppets64"),
        ("runs/puppets64", "checkpoint runs/puppets64 does not exist"),
        ("puppets64.ckpt", "checkpoint puppets64.ckpt does not exist"),
    ],
)
def test_a_name_that_is_none_is_one_line(
    name: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for word in ("card", "summary"):
        assert main(["model", word, "--checkpoint", name]) == 1
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert line.startswith("sfdkit: error: ") and said in line
    with pytest.raises(CheckpointError) as refused:
        adopt_weights(lively_animator(), name)
    assert said in str(refused.value)
