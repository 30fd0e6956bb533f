"""Exported animators compute what the model computes, without torch, and say what is wrong with a folder."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sfdkit.apply.face import change_identity
from sfdkit.cli import main
from sfdkit.errors import ConfigError, DataError, ExportError, SfdkitWarning
from sfdkit.export.graphs import graphs_of
from sfdkit.export.int8 import read_clips
from sfdkit.export.manifest import FILE_NAME, GRAPHS, PERSON, Manifest
from sfdkit.export.runtime import Animator
from sfdkit.export.write import check, export_animator
from sfdkit.model.animator import FaceAnimator
from tests.running import ROOT
from tests.written import lively_animator, puppet_frames


def pictures(count: int, person: int = 0) -> np.ndarray:
    return np.stack(puppet_frames(person, count, 32))


def eager(animator: FaceAnimator, source: np.ndarray, driving: np.ndarray) -> np.ndarray:
    frames = (torch.from_numpy(each).permute(0, 3, 1, 2).float() / 255 for each in (source[None], driving))
    with torch.no_grad():
        face, motion = animator.source_state(next(frames)), animator.motion(next(frames))
        image = animator.generate(face.expand(len(driving)), motion).image
    return (image.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy()


def most_apart(made: np.ndarray, wanted: np.ndarray) -> int:
    assert made.dtype == np.uint8 and made.shape == wanted.shape
    return int(np.abs(made.astype(int) - wanted).max())


def test_runtime_gives_the_model_s_pictures_for_any_number_of_frames(animator: FaceAnimator, exported: Path) -> None:
    running, source, driving = Animator(exported, threads=1), pictures(1, 1)[0], pictures(5)
    face = running.source(source)
    made = running.render(face, running.motion(driving))
    assert most_apart(made, eager(animator, source, driving)) <= 1
    assert most_apart(running.render(face, running.motion(driving[2:3])), made[2:3]) <= 1
    assert np.abs(made.astype(int) - source).max() > 30, "the source moves"


def test_the_description_suffices(animator: FaceAnimator, exported: Path) -> None:
    manifest = Manifest.read(exported)
    assert (manifest.opset, manifest.batch, manifest.precision, manifest.resolution) == (18, "dynamic", "float32", 32)
    torch.testing.assert_close(torch.tensor(manifest.basis), animator.descriptors.basis())
    assert manifest.axes is not None and list(manifest.axes["motion"]["directions"]) == ["yaw", "mouth_open"]
    assert manifest.normalisation["driving"] == {
        "resolution": 32,
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
    }
    assert set(manifest.graphs["render"].inputs) == {"motion", *manifest.graphs["source"].outputs}
    assert {file.name for file in exported.iterdir()} == {FILE_NAME, *(f"{name}.onnx" for name in (*GRAPHS, PERSON))}


def test_it_runs_without_torch(exported: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "frames.npy", pictures(2))
    script = (
        "import sys, numpy as np; from sfdkit.export.runtime import Animator\n"
        "frames = np.load(sys.argv[2]); animator = Animator(sys.argv[1])\n"
        "made = animator.render(animator.source(frames[0]), animator.motion(frames))\n"
        "assert made.shape == (2, 32, 32, 3) and not {'torch', 'lightning', 'timm'} & set(sys.modules)"
    )
    command = [sys.executable, "-c", script, str(exported), str(tmp_path / "frames.npy")]
    subprocess.run(command, check=True, cwd=ROOT, timeout=120)


def test_int8_is_smaller_and_tells_what_it_loses(animator: FaceAnimator, exported: Path, tmp_path: Path) -> None:
    clips = read_clips("puppets", 32)
    assert len(clips) == 8 and clips[0].shape == (7, 32, 32, 3)
    manifest = export_animator(animator, tmp_path / "int8", int8=clips)
    assert manifest.precision == "int8" and abs(manifest.checked["lost"] or 0) < 1
    sizes = {folder.name: (folder / "render.onnx").stat().st_size for folder in (tmp_path / "int8", exported)}
    assert sizes["int8"] < sizes[exported.name]
    made, wanted = (
        (model := Animator(folder)).render(model.source(clips[0][0]), model.motion(clips[0][1:]))
        for folder in (tmp_path / "int8", exported)
    )
    assert 0 < np.abs(made.astype(int) - wanted).mean() < 4


@pytest.mark.slow
def test_the_weights_that_come_along_are_good_in_int8(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "export",
        "--checkpoint",
        "puppets64",
        "--int8",
        "puppets",
        "--batch",
        "1",
        "--output",
        str(tmp_path / "x"),
    ]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert "checked against the model on puppets:" in printed
    assert float(re.search(r"lose (-?[\d.]+) dB", printed)[1]) < 0.2  # type: ignore[index]


def test_a_clip_that_is_too_short_for_int8_is_named(tmp_path: Path) -> None:
    (tmp_path / "short").mkdir()
    Image.fromarray(puppet_frames(0, 1, 128)[0]).save(tmp_path / "short/0.png")
    with pytest.raises(DataError, match=r"int8: .*short has 1 frames, and 3 are wanted|no face"):
        read_clips(str(tmp_path / "short"), 32)


def test_one_frame_at_a_time_in_half_precision(animator: FaceAnimator, exported: Path, tmp_path: Path) -> None:
    manifest = export_animator(animator, tmp_path / "half", batch="1", half=True)
    assert manifest.precision == "float16" and 0 < manifest.checked["images"] <= 16
    size, whole = (
        sum(file.stat().st_size for file in folder.glob("*.onnx")) for folder in (tmp_path / "half", exported)
    )
    assert size < 0.75 * whole
    running, driving = Animator(tmp_path / "half"), pictures(3)
    made = running.render(running.source(driving[0]), running.motion(driving))
    assert most_apart(made, eager(animator, driving[0], driving)) <= 16


def test_graphs_for_a_processor_compute_the_same_by_other_operations(animator: FaceAnimator, tmp_path: Path) -> None:
    manifest = export_animator(animator, tmp_path / "cpu", target="cpu")
    assert manifest.target == "cpu" and manifest.checked["images"] <= 1
    onnx = pytest.importorskip("onnx")
    kinds = [node.op_type for node in onnx.load(tmp_path / "cpu" / "render.onnx").graph.node]
    assert kinds.count("GridSample") == 1 and "Softmax" not in kinds, "the picture alone is sampled by GridSample"
    running, driving = Animator(tmp_path / "cpu"), pictures(3)
    made = running.render(running.source(driving[0]), running.motion(driving))
    assert most_apart(made, eager(animator, driving[0], driving)) <= 1
    with pytest.raises(ConfigError, match="target: cpu is for ONNX Runtime"):
        export_animator(animator, tmp_path / "other", file_format="pt2", target="cpu")


def test_pt2_is_read_by_torch_and_refused_by_the_runtime(animator: FaceAnimator, tmp_path: Path) -> None:
    export_animator(animator, tmp_path / "model", file_format="pt2")
    motion = torch.export.load(tmp_path / "model" / "motion.pt2").module()
    frames = torch.from_numpy(pictures(3))
    torch.testing.assert_close(motion(frames), graphs_of(animator, 1)["motion"].module(frames))
    with pytest.raises(DataError, match=r"format pt2.*--format onnx"):
        Animator(tmp_path / "model")
    with pytest.raises(ConfigError, match="half: pt2"):
        export_animator(animator, tmp_path / "other", file_format="pt2", half=True)
    with pytest.raises(ConfigError, match="int8: it is for --format onnx without --half"):
        export_animator(animator, tmp_path / "other", half=True, int8=[])


def test_graphs_of_another_model_fail_the_check(exported: Path) -> None:
    running = Animator(exported)
    run = {
        "source": lambda picture: list(running.source(picture[0]).values()),
        "motion": lambda frames: [running.motion(frames)],
        "render": lambda motion, *rest: [
            running.render(dict(zip(running.manifest.graphs["source"].outputs, rest, strict=True)), motion)
        ],
        "person": lambda *given: running._sessions["person"].run(
            None, dict(zip(running.manifest.graphs["person"].inputs, given, strict=True))
        ),
    }
    with torch.no_grad():
        assert check(lively_animator(code_share=0.5), run, "dynamic", "float32").images <= 1
        with pytest.raises(ExportError, match=r"differ from the model, .* by \d+ of 255"):
            check(lively_animator(seed=1, code_share=0.5), run, "dynamic", "float32")


def test_pictures_of_another_size_are_resized_and_told(exported: Path) -> None:
    running = Animator(exported)
    with pytest.warns(SfdkitWarning, match="48x40 are resized to the model's 32x32"):
        assert running.motion(np.zeros((2, 40, 48, 3), np.uint8)).shape == (2, 4)
    with pytest.raises(ValueError, match="uint8 RGB"):
        running.motion(np.zeros((2, 32, 32, 3), np.float32))
    with pytest.raises(ConfigError, match=r"no NoSuchProvider, it has .*: give another device or providers"):
        Animator(exported, providers=["NoSuchProvider"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schema": "sfdkit.export/9"}, "schema 'sfdkit.export/9', this sfdkit reads"),
        ({"opset": 20}, "opset 20"),
        ({"resolution": None}, "incomplete"),
        ({"graphs": {}}, "incomplete"),
        ({"more": 1}, "incomplete"),
    ],
)
def test_a_description_that_does_not_fit_is_refused(exported: Path, tmp_path: Path, change: dict, words: str) -> None:
    folder = Path(shutil.copytree(exported, tmp_path / "model"))
    content = json.loads((folder / FILE_NAME).read_text()) | change
    (folder / FILE_NAME).write_text(json.dumps({key: value for key, value in content.items() if value is not None}))
    with pytest.raises(DataError, match=rf"model\.json.*{words}"):
        Animator(folder)


def test_files_that_are_missing_or_damaged_are_named(exported: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"model\.json cannot be read.*sfdkit export wrote"):
        Animator(tmp_path)
    folder = Path(shutil.copytree(exported, tmp_path / "model"))
    (folder / "render.onnx").write_bytes(b"no graph")
    with pytest.raises(DataError, match=r"render\.onnx cannot be run"):
        Animator(folder)
    (folder / "render.onnx").unlink()
    with pytest.raises(DataError, match=r"render\.onnx is missing"):
        Animator(folder)
    (folder / FILE_NAME).write_text("{")
    with pytest.raises(DataError, match="damaged"):
        Animator(folder)


def test_a_folder_in_the_way_is_refused(animator: FaceAnimator, exported: Path) -> None:
    with pytest.raises(ConfigError, match="is no empty folder"):
        export_animator(animator, exported)


def test_another_person_is_the_one_that_the_model_makes(animator: FaceAnimator, exported: Path) -> None:
    running, source, wanted = Animator(exported), pictures(1, 1)[0], np.full((1, 12), 2.0, np.float32)
    changed = running.change_identity(running.source(source), wanted)
    with torch.no_grad():
        state = animator.source_state(torch.from_numpy(source[None]).permute(0, 3, 1, 2) / 255)
        right = change_identity(animator, state, torch.from_numpy(wanted))
    assert np.abs(changed["image"] - right.image.numpy()).max() < 1e-5 and (changed["identity"] == wanted).all()
    assert (right.image - state.image).abs().max() > 1e-3, "it is another picture"
