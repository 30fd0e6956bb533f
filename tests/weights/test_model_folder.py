"""Model folders: what is written, what loading checks, and that every command takes them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file

from sfdkit.apply.edit import Edit
from sfdkit.bench.subject import open_subject
from sfdkit.checkpoint import adopt_weights, load_animator
from sfdkit.cli import main
from sfdkit.errors import CheckpointError, ConfigError, DataError
from sfdkit.model.fingerprints import basis_fingerprint
from sfdkit.weights.commands import Pack
from sfdkit.weights.file import StoredAnimator, read_weights, write_weights
from sfdkit.weights.sharing import Save
from tests.tiny import tiny_animator
from tests.written import (
    TRAIN,
    known_axes,
    lively_animator,
    puppet_frames,
    write_checkpoint,
    write_puppets,
    write_video,
)

METRICS = {
    "self/psnr": 24.5,
    "self/ssim": 0.8,
    "self/copy_psnr": 20.0,
    "copy/psnr": 20.0,
    "evaluation/dataset": "clips",
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a checkpoint, axes, figures and a configuration, and the model folder made of it."""
    folder = tmp_path_factory.mktemp("files")
    (folder / "run/checkpoints").mkdir(parents=True)
    checkpoint = write_checkpoint(folder / "run/checkpoints/last.ckpt", lively_animator())
    known_axes().save(folder / "run/axes.json")
    (folder / "run/metrics.json").write_text(json.dumps(METRICS))
    data = {"class_path": "datamodules.clips.ClipsDataModule", "init_args": {"root": "/home/ann/shards/people"}}
    (folder / "run/config.yaml").write_text(yaml.safe_dump({"data": data}))
    Save(checkpoint=str(checkpoint), output=str(folder / "mine"), licence="CC-BY-4.0").run()
    Image.fromarray(puppet_frames(0, 1, 32)[0]).save(folder / "source.png")
    write_video(folder / "driving.mp4", puppet_frames(1, 3, 48))
    return folder


def front_matter(folder: Path) -> dict[str, Any]:
    return yaml.safe_load((folder / "README.md").read_text(encoding="utf-8").split("---\n")[1])


def test_what_is_in_it(files: Path, tmp_path: Path) -> None:
    assert {path.name for path in (files / "mine").iterdir()} == {
        "README.md", "axes.json", "model.json", "model.safetensors"
    }  # fmt: skip
    Pack(checkpoint=str(files / "run/checkpoints/last.ckpt"), output=str(tmp_path / "o.safetensors")).run()
    one, other = (read_weights(path) for path in (files / "mine/model.safetensors", tmp_path / "o.safetensors"))
    assert all(torch.equal(value, other.weights[name]) for name, value in one.weights.items())
    assert one._replace(weights={}) == other._replace(weights={})
    about = json.loads((files / "mine/model.json").read_text())
    whole = lively_animator()
    assert about["basis"] == basis_fingerprint(whole.descriptors) and about["training"] == {**TRAIN, "seed": 3}
    assert (about["resolution"], about["identity_size"], about["motion_size"]) == (32, 12, 4)
    assert about["animator"]["class_path"] == "sfdkit.model.animator.FaceAnimator"
    assert json.loads((files / "mine/axes.json").read_text()) == json.loads((files / "run/axes.json").read_text())


def test_the_card(files: Path) -> None:
    card = (files / "mine/README.md").read_text(encoding="utf-8")
    tags = ["sfdkit", "face-animation", "face-reenactment"]
    assert front_matter(files / "mine") == {"license": "cc-by-4.0", "library_name": "sfdkit", "tags": tags}
    for words in (
        "Shards people of datamodules.clips.ClipsDataModule.",
        "| self-reenactment |  | 24.5 | 0.8 |  |",
        "| the source unchanged |  | 20 |  |  |",
        "dataset clips",
        "7 steps in 0.0 minutes on 5 identities, seed 3",
        "Label animated pictures and videos as such",
        "## Licence\n\nCC-BY-4.0\n",
        'load_animator("hf://USER/mine")',
    ):
        assert words in card
    assert "/home/ann" not in card and "cross" not in card


def test_a_card_of_what_nobody_told(files: Path, tmp_path: Path) -> None:
    """Weights files belong to no run: figures above their folder are of something else."""
    (tmp_path / "below").mkdir()
    (tmp_path / "metrics.json").write_text(json.dumps(METRICS))
    small = shutil.copy(files / "mine/model.safetensors", tmp_path / "below/small.safetensors")
    Save(checkpoint=str(small), output=str(tmp_path / "one")).run()
    card = (tmp_path / "one/README.md").read_text(encoding="utf-8")
    assert "There are none: no evaluation came along." in card and card.count("ask who made the model") == 2
    assert front_matter(tmp_path / "one")["license"] == "unknown"
    words = {"metrics": str(tmp_path / "metrics.json"), "data": "Clips of Ann."}
    Save(checkpoint=str(small), output=str(tmp_path / "two"), **words).run()
    card = (tmp_path / "two/README.md").read_text(encoding="utf-8")
    assert "| 24.5 |" in card and "## Training data\n\nClips of Ann.\n" in card


def test_the_card_of_shipped_weights_tells_what_theirs_does(tmp_path: Path) -> None:
    Save(checkpoint="puppets64", output=str(tmp_path / "made"), axes="none").run()
    card = (tmp_path / "made/README.md").read_text(encoding="utf-8")
    assert front_matter(tmp_path / "made")["license"] == "apache-2.0" and not (tmp_path / "made/axes.json").exists()
    assert "no picture of a real person" in card and "| 22.77 |" in card and "- heads come out narrow" in card


def test_it_appears_whole_or_not_at_all(files: Path, tmp_path: Path) -> None:
    given = {"checkpoint": str(files / "run/checkpoints/last.ckpt")}
    (tmp_path / "full").mkdir()
    (tmp_path / "full/note").touch()
    (tmp_path / "file").touch()
    for name in ("full", "file"):
        with pytest.raises(ConfigError, match="exists and is no empty folder"):
            Save(**given, output=str(tmp_path / name)).run()
    animator = tiny_animator()
    with torch.no_grad():
        animator.motion_head.layers[-1].weight[0, 0] = float("nan")
    broken = write_checkpoint(tmp_path / "broken.ckpt", animator)
    with pytest.raises(CheckpointError, match="is not finite"):
        Save(checkpoint=str(broken), output=str(tmp_path / "new")).run()
    (tmp_path / "bad.json").write_text("[1]")
    with pytest.raises(DataError, match="holds no figures by name"):
        Save(**given, output=str(tmp_path / "new"), metrics=str(tmp_path / "bad.json")).run()
    with pytest.raises(DataError, match=r"absent\.json cannot be read"):
        Save(**given, output=str(tmp_path / "new"), metrics=str(tmp_path / "absent.json")).run()
    with pytest.raises(ConfigError, match="is no identifier"):
        Save(**given, output=str(tmp_path / "new"), licence="free: yes").run()
    assert {path.name for path in tmp_path.iterdir()} == {"full", "file", "broken.ckpt", "bad.json"}
    (tmp_path / "empty").mkdir()
    Save(**given, output=str(tmp_path / "empty")).run()
    assert len(list((tmp_path / "empty").iterdir())) == 4


def test_it_is_the_checkpoint(files: Path) -> None:
    loaded, whole = load_animator(files / "mine"), load_animator(files / "run/checkpoints/last.ckpt")
    assert loaded.train == whole.train and loaded.experiment == whole.experiment
    for name, value in whole.animator.state_dict().items():
        torch.testing.assert_close(loaded.animator.state_dict()[name], value, rtol=2**-11, atol=2**-25)
    assert adopt_weights(tiny_animator(32, seed=1), files / "mine").left == []


def test_each_command_takes_it(files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, model = ["--source", str(files / "source.png")], ["--checkpoint", str(files / "mine")]
    plain, driving = [*model, "--crop", "none"], ["--driving", str(files / "driving.mp4")]
    shards = write_puppets(tmp_path / "shards", (3,))
    out = {
        name: ["--output", str(tmp_path / name)] for name in ("o.gif", "e.png", "w.png", "t.safetensors", "re", "ev")
    }
    edit = ["--axis", "yaw", "--from", "-3", "--to", "3", "--steps", "3"]
    words = ["--clips", "2", "--cross_pairs", "1", "--frames", "2", "--sheet_rows", "1", "--probes", "false"]
    for command in (
        ["animate", *plain, *source, *driving, *out["o.gif"]],
        ["edit", *plain, *source, *edit, *out["e.png"]],
        ["interpolate", *plain, *source, "--target", str(files / "source.png"), *out["w.png"], "--steps", "2"],
        ["motion", "extract", *plain, *driving, *out["t.safetensors"]],
        ["model", "save", *model, *out["re"]],
        ["model", "summary", *model],
        ["model", "card", *model],
        ["evaluate", *model, "--shards", str(shards), *words, *out["ev"]],
    ):
        assert main(command) == 0, command
    assert "# mine" in capsys.readouterr().out
    again, first = (load_file(folder / "model.safetensors") for folder in (tmp_path / "re", files / "mine"))
    assert again.keys() == first.keys() and all(torch.equal(again[name], first[name]) for name in first)
    assert open_subject(str(files / "mine"), torch.device("cpu"), "float32", None).runner.resolution == 32


def test_its_axes_are_found_also_where_the_weights_hold_none(files: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(files / "mine", tmp_path / "mine"))
    stored = read_weights(folder / "model.safetensors")
    write_weights(folder / "model.safetensors", StoredAnimator(stored.config, stored.weights, stored.train, None))
    seal(folder)
    given: dict[str, Any] = {"source": str(files / "source.png"), "axis": "yaw", "from_": -3, "to": 3, "steps": 3}
    for name in ("mine", "mine/model.safetensors"):
        Edit(checkpoint=str(tmp_path / name), output=str(tmp_path / "o.png"), crop="none", device="cpu", **given).run()
        assert np.asarray(Image.open(tmp_path / "o.png")).size


def seal(folder: Path, **changes: Any) -> None:
    """Write into model.json the sha256 of the files as they are, and other changes."""
    from sfdkit.files import sha256_of

    about = json.loads((folder / "model.json").read_text())
    about["sha256"] = {name: sha256_of(folder / name) for name in about["sha256"]}
    (folder / "model.json").write_text(json.dumps({**about, **changes}))


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("weights", "files disagree: sha256 of model.safetensors is "),
        ("axes", "files disagree: sha256 of axes.json is "),
        ("resolution", "files disagree: resolution of model.safetensors is 32, model.json says 64"),
        ("sizes", "files disagree: motion_size of model.safetensors is 4, model.json says 5"),
        ("basis", "files disagree: basis of model.safetensors is "),
        ("animator", "the animator that model.json describes is not that of model.safetensors"),
        ("foreign axes", "files disagree: basis of axes.json is "),
        ("no weights", "is incomplete: it lacks model.safetensors, which model.json names"),
        ("no axes", "is incomplete: it lacks axes.json"),
        ("no description", "is no model folder: model.json cannot be read"),
        ("damaged", "model.json is damaged"),
        ("newer", "has the schema 'sfdkit.model/2', 'sfdkit.model/1' is needed"),
        ("bare", "is incomplete: it lacks the sha256 of model.safetensors"),
    ],
)
def test_files_that_disagree_are_one_line(
    how: str, said: str, files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(files / "mine", tmp_path / "mine"))
    about = json.loads((folder / "model.json").read_text())
    if how == "weights":
        shutil.copy(
            Pack(checkpoint="puppets64", output=str(tmp_path / "p.safetensors")).run(), folder / "model.safetensors"
        )
    elif how == "axes":
        (folder / "axes.json").write_text((folder / "axes.json").read_text() + " ")
    elif how == "resolution":
        seal(folder, resolution=64)
    elif how == "sizes":
        seal(folder, motion_size=5)
    elif how == "basis":
        seal(folder, basis="0" * 16)
    elif how == "animator":
        seal(folder, animator={**about["animator"], "init_args": {}})
    elif how == "foreign axes":
        known_axes(seed=1).save(folder / "axes.json")
        seal(folder)
    elif how.startswith("no "):
        (folder / {"weights": "model.safetensors", "axes": "axes.json", "description": "model.json"}[how[3:]]).unlink()
    elif how == "damaged":
        (folder / "model.json").write_text("{")
    elif how == "newer":
        seal(folder, schema="sfdkit.model/2")
    elif how == "bare":
        (folder / "model.json").write_text(json.dumps({**about, "sha256": {}}))
    assert main(["model", "summary", "--checkpoint", str(folder)]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("sfdkit: error: ") and str(folder) in line and said in line
    with pytest.raises(CheckpointError):
        load_animator(folder)
    if "disagree: sha256" in said:  # before a model is built, for a training as well
        with pytest.raises(CheckpointError, match="files disagree"):
            adopt_weights(lively_animator(), folder / "model.safetensors")


def test_a_folder_of_a_shipped_name(tmp_path: Path, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(files / "mine", "puppets64")
    assert load_animator("puppets64").animator.resolution == 32


def test_a_folder_that_is_saved_again_tells_the_same(tmp_path: Path) -> None:
    Save(checkpoint="puppets64", output=str(tmp_path / "one/same")).run()
    Save(checkpoint=str(tmp_path / "one/same"), output=str(tmp_path / "two/same")).run()
    one, two = ((tmp_path / name / "same/README.md").read_text(encoding="utf-8") for name in ("one", "two"))
    assert one == two and "license: apache-2.0" in two and "| 22.77 |" in two


@pytest.mark.parametrize(
    ("card", "words"),
    [
        ("My model: trained: on people", r"card \S+small\.yaml cannot be read: mapping values are not allowed"),
        (
            "figures: {self/psnr: 25.1}",
            r"small\.yaml: figures is .*; give keys of metrics\.json, each with \{is: VALUE\}",
        ),
        ("limits: none known", r"small\.yaml: limits is 'none known'; give a list of texts"),
        ("licence: [a]", r"small\.yaml: licence is \['a'\]; give an identifier"),
    ],
)
def test_a_card_that_cannot_be_read_is_one_line(card: str, words: str, files: Path, tmp_path: Path) -> None:
    small = shutil.copy(files / "mine/model.safetensors", tmp_path / "small.safetensors")
    (tmp_path / "small.yaml").write_text(card)
    with pytest.raises(DataError, match=words) as caught:
        Save(checkpoint=str(small), output=str(tmp_path / "made")).run()
    assert "\n" not in str(caught.value) and not (tmp_path / "made").exists()
