"""The commands run from an exported folder, without torch, and do what they do from the checkpoint."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sfdkit.apply.animate import Animate
from sfdkit.apply.edit import Edit, Interpolate
from sfdkit.apply.extract import Extract
from sfdkit.apply.motion_track import MotionTrack
from sfdkit.errors import CheckpointError, ConfigError, DataError
from sfdkit.export.write import export_animator
from tests.running import ROOT
from tests.written import known_axes, lively_animator, puppet_frames, write_video


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two faces and a driving clip."""
    folder = tmp_path_factory.mktemp("files")
    for number, name in enumerate(("source.png", "target.png")):
        Image.fromarray(puppet_frames(number, 1, 32)[0]).save(folder / name)
    write_video(folder / "driving.mp4", puppet_frames(2, 5, 32))
    return folder


def calls(files: Path, out: Path, **which: str) -> list[tuple[type, dict[str, Any]]]:
    """Each command with its options, on an animator by ``which`` option."""
    face = {"source": str(files / "source.png"), "crop": "none", "device": "cpu", **which}
    driving = str(files / "driving.mp4")
    edit = {"axis": ["yaw", "motion:1", "identity:2"], "from_": -2.0, "to": 2.0, "steps": 3}
    return [
        (Animate, {**face, "driving": driving, "output": str(out / "frames"), "mode": "relative"}),
        (Extract, {"driving": driving, "output": str(out / "t.safetensors"), "crop": "none", **which}),
        (Animate, {**face, "motion": str(out / "t.safetensors"), "output": str(out / "track"), "size": 48}),
        (Edit, {**face, **edit, "output": str(out / "strip.png")}),
        (Interpolate, {**face, "target": str(files / "target.png"), "output": str(out / "path.png")}),
    ]


def words(command: type, options: dict[str, Any]) -> list[str]:
    names = {Animate: ["animate"], Extract: ["motion", "extract"], Edit: ["edit"], Interpolate: ["interpolate"]}
    given = {key.rstrip("_"): json.dumps(value) if isinstance(value, list) else value for key, value in options.items()}
    return [*names[command], *(f"--{key}={value}" for key, value in given.items())]


def pictures(out: Path) -> dict[str, np.ndarray]:
    return {str(p.relative_to(out)): np.asarray(Image.open(p)).astype(int) for p in sorted(out.rglob("*.png"))}


def test_every_command_does_the_same_without_torch(exported: Path, files: Path, tmp_path: Path) -> None:
    for command, options in calls(files, tmp_path / "torch", checkpoint=str(exported.parent / "last.ckpt")):
        command(**options, **({"axes": str(exported.parent / "axes.json")} if command is Edit else {})).run()
    lines = [words(*call) for call in calls(files, tmp_path / "onnx", model=str(exported))]
    script = (
        "import json, sys; from sfdkit.cli import main\n"
        "assert all(main(line) == 0 for line in json.loads(sys.argv[1]))\n"
        "assert not {'torch', 'torchvision', 'lightning', 'timm'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script, json.dumps(lines)], check=True, cwd=ROOT, timeout=120)
    wanted, made = pictures(tmp_path / "torch"), pictures(tmp_path / "onnx")
    assert list(wanted) == list(made) and len(made) == 5 + 5 + 2
    for name, picture in made.items():
        assert np.abs(picture - wanted[name]).max() <= 2, name
    tracks = [MotionTrack.load(tmp_path / each / "t.safetensors") for each in ("torch", "onnx")]
    assert tracks[0].model == tracks[1].model and np.allclose(tracks[0].motion, tracks[1].motion, atol=1e-4)
    assert np.abs(tracks[1].motion).max() > 0.1


def test_what_an_exported_model_cannot_do(exported: Path, files: Path, tmp_path: Path) -> None:
    face = {"source": str(files / "source.png"), "crop": "none", "output": str(tmp_path / "o.png")}
    with pytest.raises(ConfigError, match="an exported model interpolates motion alone; give --checkpoint"):
        Interpolate(**face, model=str(exported), target=str(files / "target.png"), what="both").run()
    with pytest.raises(ConfigError, match="device: 'mps' cannot run an exported model; use auto, cpu or cuda"):
        Edit(**face, model=str(exported), axis="yaw", from_=-1, to=1, device="mps").run()
    with pytest.raises(ConfigError, match="trust: an exported model names no classes"):
        Edit(**face, model=str(exported), axis="yaw", from_=-1, to=1, trust=["mine"]).run()
    with pytest.raises(ConfigError, match=r"give either --checkpoint or --model .*; neither is given"):
        Edit(**face, axis="yaw", from_=-1, to=1).run()
    for given in ({"model": ""}, {"checkpoint": ""}):
        with pytest.raises(ConfigError, match=rf"^{next(iter(given))}: the name is empty; is the variable .* set\?$"):
            Edit(**face, **given, axis="yaw", from_=-1, to=1).run()
    with pytest.raises(ConfigError, match="both is given"):
        Edit(**face, model=str(exported), checkpoint="puppets64", axis="yaw", from_=-1, to=1).run()
    with pytest.raises(DataError, match=r"model\.json cannot be read"):
        Edit(**face, model=str(files), axis="yaw", from_=-1, to=1).run()
    with pytest.raises(ConfigError, match=r"output: .* lies in --model"):
        Edit(**(face | {"output": str(exported / "o.png")}), model=str(exported), axis="yaw", from_=-1, to=1).run()
    assert not list(tmp_path.iterdir())


def test_axes_and_tracks_of_another_model_are_refused(exported: Path, files: Path, tmp_path: Path) -> None:
    face = {"source": str(files / "source.png"), "crop": "none", "output": str(tmp_path / "o.mp4")}
    known_axes(1).save(tmp_path / "axes.json")
    with pytest.raises(CheckpointError, match=r"axes\.json were measured on another model"):
        Edit(**face, model=str(exported), axis="yaw", from_=-1, to=1, axes=str(tmp_path / "axes.json")).run()
    MotionTrack(np.zeros((3, 4), np.float32), 25.0, "0" * 16, "c.mp4").save(tmp_path / "t.safetensors")
    with pytest.raises(CheckpointError, match=r"t\.safetensors was read from c\.mp4 by another model"):
        Animate(**face, model=str(exported), motion=str(tmp_path / "t.safetensors")).run()


def test_a_model_without_code_share_draws_no_other_person(files: Path, tmp_path: Path) -> None:
    export_animator(lively_animator().requires_grad_(False), tmp_path / "model")
    assert not (tmp_path / "model" / "person.onnx").exists()
    face = {"source": str(files / "source.png"), "crop": "none", "output": str(tmp_path / "o.png")}
    with pytest.raises(ConfigError, match=r"identity: this model was not trained to draw faces .* \(code_share\)"):
        Edit(**face, model=str(tmp_path / "model"), axis="identity:0", from_=-1, to=1).run()
