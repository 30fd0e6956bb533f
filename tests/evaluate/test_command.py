from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sfdkit.apply.axes import Axes
from sfdkit.cli import main
from sfdkit.data.shards.decode import decode_frames
from sfdkit.data.shards.index import load_index
from sfdkit.data.shards.reader import read_clips
from sfdkit.errors import CheckpointError, ConfigError, DataError, ShardError
from sfdkit.evaluate.command import evaluate
from sfdkit.evaluate.frames import load_frames, render_truth, true_landmarks
from sfdkit.evaluate.plan import draw_pairs
from sfdkit.evaluate.probes import encode_samples, group_means
from sfdkit.evaluate.run import drive
from sfdkit.evaluate.samples import Pair, read_samples
from sfdkit.evaluate.write import distance_table
from sfdkit.face_networks.puppet_measurer import SCHEMA, Regressor, save_regressor
from sfdkit.face_networks.puppet_network import PuppetNetwork
from sfdkit.face_networks.types import MeasureSettings
from sfdkit.files import make_folder, write_metrics
from sfdkit.metrics.dci import DCI
from sfdkit.metrics.image import frame_psnr
from sfdkit.model.fingerprints import basis_fingerprint
from sfdkit.points import FACE31, from_pixels, part_boxes
from sfdkit.puppets.factors import IdentityFactors, MotionFactors
from sfdkit.puppets.surface_flow import surface_flow
from tests.written import lively_animator, write_checkpoint, write_puppets

CPU = torch.device("cpu")
DISTANCES = ("l1", "psnr", "ssim")
DETAIL = ("sharpness", *(f"detail_{what}_{band}" for what in ("energy", "agreement") for band in (1, 2, 3)))
PARTS = ("l1_eyes", "l1_mouth", "flow_error")
FILES = ["axes.json", "metrics.json", "pairs.csv", "report.html", "sheet.png", "traversal.png"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    write_checkpoint(folder / "model.ckpt", lively_animator())
    write_puppets(folder / "puppets")
    write_puppets(folder / "real", shards=(3,), real=True)
    return folder


def run(files: Path, output: Path, shards: str = "puppets", **options: Any) -> dict[str, float]:
    nothing = MeasureSettings(regressor="none", lpips="none")
    arguments = {"device": "cpu", "frames": 2, "cross_pairs": 4, "sheet_rows": 2, "measure": nothing, **options}
    return evaluate(str(files / "model.ckpt"), str(files / shards), str(output), **arguments)


def test_metrics_file_holds_every_key(files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    returned = run(files, tmp_path / "a" / "out", device="auto")
    text = (tmp_path / "a" / "out" / "metrics.json").read_text()
    stored = json.loads(text)
    groups = ("self/", "self/copy_", "cross/", "copy/")
    measured = {f"{group}{part}{name}" for group in groups for part in ("", "face_") for name in DISTANCES}
    measured |= {group + name for group in groups for name in (*DETAIL, *PARTS)}
    about = {f"train/{name}" for name in ("steps", "seconds", "images_per_second")}
    about |= {"model/parameters", "model/gmac_per_driven_frame", "identities/train", "identities/test", "seed"}
    names = (
        "clips",
        "frames_per_clip",
        "pairs",
        "seed",
        "seconds",
        "dataset",
        "split",
        "resolution",
        "device",
        "protocol",
        "driven_frames",
        "detail_region",
    )
    measured |= {f"probe/{name}" for name in ("frames", "identities")} | {"basis/orthonormality"}
    for place in ("motion", "identity", "backbone"):
        measured |= {f"probe/motion_from_{place}/{name}" for name in (*MotionFactors.names(), "mean")}
        measured |= {f"probe/identity_from_{place}/{name}" for name in (*varying(files), "mean")}
        measured |= {
            f"probe/identity_groups_from_{place}/{name}" for name in group_means(dict.fromkeys(varying(files), 0.0))
        }
    measured |= {f"dci/{b}/{n}" for b in ("motion", "identity") for n in DCI._fields}
    measured |= {"dci/own_vectors", "dci/active_vectors", "dci/factors", "probe/skipped"}
    others = {key for key in stored if not key.startswith("groups/")}
    assert others == measured | about | {f"evaluation/{name}" for name in names}
    assert stored["probe/frames"] == 15 and stored["probe/identities"] == 5 and stored["dci/factors"] == 12
    assert stored["basis/orthonormality"] < 1e-5
    assert list(stored) == sorted(stored) and len(text.splitlines()) == len(stored) + 2
    assert [stored[k] for k in ("train/steps", "seed", "identities/train", "identities/test")] == [7, 3, 5, 5]
    assert (stored["evaluation/clips"], stored["evaluation/pairs"]) == (5, 4)
    assert stored["model/parameters"] == sum(p.numel() for p in lively_animator().parameters())
    assert 0 < stored["model/gmac_per_driven_frame"] < 0.1
    assert stored["self/l1"] == pytest.approx(returned["self/l1"], rel=1e-5)
    assert f"{stored['cross/psnr']:.2f}" in capsys.readouterr().out
    assert sorted(p.name for p in (tmp_path / "a" / "out").iterdir()) == FILES


def varying(files: Path) -> list[str]:
    """Identity factors that are not the same in all five puppets."""
    samples = read_samples(files / "puppets", load_index(files / "puppets"), None, 1)
    rows = torch.cat([sample.factors()[0].stack() for sample in samples])
    return [name for name, spread in zip(IdentityFactors.names(), rows.std(0), strict=True) if spread > 0]


def test_self_figures_equal_a_calculation_by_hand(files: Path, tmp_path: Path) -> None:
    metrics = run(files, tmp_path)
    animator = lively_animator()
    copy, own = [], []
    for shard in sorted((files / "puppets").glob("*.tar")):
        for clip in read_clips(shard):
            source, *driving = decode_frames(clip, [0, 2, 4]).float() / 255
            copy.append(np.mean([float((source - frame).abs().mean()) for frame in driving]))
            with torch.no_grad():
                made = [animator(source[None], frame[None]).image.clamp(0, 1) for frame in driving]
            own.append(np.mean([float(frame_psnr(m, f[None])) for m, f in zip(made, driving, strict=True)]))
    assert len(copy) == 5
    assert metrics["self/copy_l1"] == pytest.approx(np.mean(copy), rel=1e-5)
    assert metrics["self/psnr"] == pytest.approx(np.mean(own), rel=1e-4)


def test_cross_figures_equal_a_calculation_by_hand(files: Path, tmp_path: Path) -> None:
    metrics = run(files, tmp_path, cross_pairs=1, seed=5)
    samples = read_samples(files / "puppets", load_index(files / "puppets"), None, 2)
    ((i, j),) = draw_pairs([s.identity for s in samples], 1, 5)
    source = decode_frames(samples[i].clip, [0]).float() / 255
    driving = decode_frames(samples[j].clip, [1, 2]).float() / 255
    pair = Pair(samples[i], samples[j])
    truth, mask = (t[0] for t in render_truth([pair], CPU))
    with torch.no_grad():
        made = lively_animator()(source.expand(2, -1, -1, -1), driving).image.clamp(0, 1)
    assert metrics["cross/l1"] == pytest.approx(float((made - truth).abs().mean()), rel=1e-4)
    assert metrics["copy/l1"] == pytest.approx(float((source - truth).abs().mean()), rel=1e-5)
    inside = [float(((source[0] - t).abs() * m).sum() / (3 * m.sum())) for t, m in zip(truth, mask, strict=True)]
    assert metrics["copy/face_l1"] == pytest.approx(np.mean(inside), rel=1e-4)
    assert 0.02 < float(mask.mean()) < 0.6
    identity, motion = samples[i].factors()[0].expand(2), samples[j].factors()[1]
    moved = surface_flow(identity, samples[i].first_motion().expand(2), motion, truth.shape[3])
    parts = part_boxes(from_pixels(true_landmarks([pair], CPU)[0], truth.shape[3]), FACE31, truth.shape[3])
    seen = moved.seen * mask * (1 - parts.amax(1, keepdim=True))
    length = moved.flow[:, :2].norm(dim=1, keepdim=True) * truth.shape[3] / 2
    error = (length * seen).sum((1, 2, 3)) / seen.sum((1, 2, 3))
    assert metrics["copy/flow_error"] == pytest.approx(float(error.mean()), rel=1e-4)
    assert error.mean() > 0.5


def test_result_does_not_depend_on_the_batch_and_repeats(files: Path, tmp_path: Path) -> None:
    first = run(files, tmp_path, batch_size=1)
    for size in (3, 16):
        again = run(files, tmp_path, batch_size=size)
        keys = [f"{group}{name}" for group in ("self/", "cross/", "copy/face_") for name in DISTANCES]
        for key in (*keys, "self/sharpness", "cross/detail_agreement_1", "cross/l1_eyes"):
            assert again[key] == pytest.approx(first[key], rel=1e-4)
    once_more = run(files, tmp_path, batch_size=16)
    assert again == {**once_more, "evaluation/seconds": again["evaluation/seconds"]}
    assert run(files, tmp_path, seed=1)["copy/l1"] != first["copy/l1"]


def test_clips_are_taken_from_the_start_across_shards(files: Path, tmp_path: Path) -> None:
    index = load_index(files / "puppets")
    assert [s.clip["key"][-1] for s in read_samples(files / "puppets", index, 4, 2)] == ["0", "1", "2", "3"]
    assert len(read_samples(files / "puppets", index, 99, 2)) == 5
    assert run(files, tmp_path, clips=2)["evaluation/clips"] == 2


def test_real_faces_have_no_cross_truth(files: Path, tmp_path: Path) -> None:
    metrics = run(files, tmp_path, shards="real")
    assert not [key for key in metrics if key.startswith(("cross/", "copy/face"))]
    for name in (*DISTANCES, "sharpness"):
        assert metrics[f"copy/{name}"] == metrics[f"self/copy_{name}"]
    assert 0 < metrics["self/sharpness"] < 1.5 and metrics["evaluation/detail_region"] == "central ellipse"
    assert "self/l1_eyes" not in metrics and "self/flow_error" not in metrics
    assert metrics["evaluation/pairs"] == 0
    axes = Axes.load(tmp_path / "axes.json", basis_fingerprint(lively_animator().descriptors))
    assert not axes.motion.directions and float(axes.motion.std.min()) > 0
    with_pairs = Image.open(tmp_path / "sheet.png").size
    run(files, tmp_path, shards="real", cross_pairs=0)
    assert Image.open(tmp_path / "sheet.png").size[1] < with_pairs[1]


def test_sheet_shows_rows_large_enough(files: Path, tmp_path: Path) -> None:
    heights = {}
    for rows in (1, 3):
        run(files, tmp_path, sheet_rows=rows)
        heights[rows] = Image.open(tmp_path / "sheet.png").size[1]
    assert heights[3] - heights[1] == 2 * 2 * (128 + 4)
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    assert sheet.shape[1] == 7 * (128 + 4) + 4
    assert len(np.unique(sheet.reshape(-1, 3), axis=0)) > 1000


def test_the_command_line_reads_every_option(files: Path, tmp_path: Path) -> None:
    words = (
        f"evaluate --checkpoint {files}/model.ckpt --shards {files}/puppets --output {tmp_path}/o --clips 3 --frames 1"
    )
    words += " --cross_pairs 2 --batch_size 2 --device cpu --seed 1 --sheet_rows 1 --probes false --groups [skin]"
    words += " --measure.regressor none --measure.lpips none"
    assert main(words.split()) == 0
    stored = json.loads((tmp_path / "o" / "metrics.json").read_text())
    about = [stored[f"evaluation/{name}"] for name in ("clips", "frames_per_clip", "pairs", "seed")]
    assert about == [3, 1, 2, 1]
    assert not [key for key in stored if key.startswith(("probe/", "dci/"))]
    assert {key.split("/")[1] for key in stored if key.startswith("groups/")} == {"skin"}
    report = (tmp_path / "o" / "report.html").read_text()
    assert "--probes False --groups" in report and "they were switched off" in report


def test_a_regressor_that_is_named_reads_results(files: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    about = {"schema": SCHEMA, "resolution": 32, "seed": 1, "steps": 5, "accuracy": {"yaw": 3.5}, "accuracy_soft": {}}
    regressor = Regressor(PuppetNetwork().eval(), about)
    save_regressor(tmp_path / "r.safetensors", regressor)
    words = f"evaluate --checkpoint {files}/model.ckpt --shards {files}/puppets --output {tmp_path}/o --frames 2"
    words += f" --cross_pairs 4 --device cpu --measure.regressor {tmp_path}/r.safetensors --measure.lpips none"
    assert main(words.split()) == 0
    stored = json.loads((tmp_path / "o" / "metrics.json").read_text())
    assert stored["regressor/yaw"] == 3.5
    for prefix in ("self/", "self/copy_", "cross/", "copy/", "measure/floor_"):
        for name in ("landmark_error", "pose_error", "yaw_error", "expression_error", "mouth_open_error"):
            assert stored[prefix + name] > 0
    assert all(stored[f"{place}csim_driver"] < 1 for place in ("cross/", "truth/", "copy/"))
    gaps = [stored[f"{place}csim_gap"] for place in ("truth/", "cross/")]
    assert stored["cross/leakage"] == pytest.approx(gaps[0] - gaps[1], abs=1e-4)
    assert -1 <= stored["cross/follow_mouth_open"] <= 1
    samples = read_samples(files / "puppets", load_index(files / "puppets"), None, 2)
    pairs = [Pair(samples[i], samples[j]) for i, j in draw_pairs([s.identity for s in samples], 4, 0)]
    errors = []
    for pair in pairs:
        result = drive(lively_animator(), load_frames([pair], CPU), 9).image
        with torch.no_grad():
            read, wanted = (regressor.network(t) for t in (result, render_truth([pair], CPU)[0][0]))
        errors.append(float((read.pose - wanted.pose).abs().mean()))
    assert stored["cross/pose_error"] == pytest.approx(np.mean(errors), rel=1e-3)
    report = (tmp_path / "o" / "report.html").read_text()
    assert "<dt>LPIPS</dt><dd>switched off</dd>" in report and "--measure.regressor" in report


def test_shards_that_are_missing_are_named(files: Path, tmp_path: Path) -> None:
    with pytest.raises(ShardError, match=r"gone' does not exist"):
        run(files, tmp_path, shards="gone")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ShardError, match=r"empty' has no index\.json"):
        run(files, tmp_path, shards=str(tmp_path / "empty"))
    broken = write_puppets(tmp_path / "broken")
    (broken / "shard-001.tar").unlink()
    with pytest.raises(ShardError, match=r"shard-001\.tar is in the index and not on disk"):
        run(files, tmp_path, shards=str(broken))


def test_numbers_that_cannot_work(files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["evaluate", f"--checkpoint={files}/model.ckpt", f"--shards={files}/puppets", f"--output={tmp_path}/o"]
    wrong = {"clips": 0, "frames": 0, "batch_size": -1, "sheet_rows": 0, "cross_pairs": -1}
    for name, value in [*wrong.items(), ("frames", "many")]:
        with pytest.raises(SystemExit) as left:
            main([*words, f"--{name}={value}"])
        (line,) = capsys.readouterr().err.splitlines()
        assert left.value.code == 2 and re.search(f"{name}: .*{value}.*(whole number|out of range)", line), line
        assert "takes null" not in line
    assert not (tmp_path / "o").exists()


def test_probes_that_cannot_be_made(files: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"probes: .*real cannot be probed: the clips hold no known factors"):
        run(files, tmp_path, shards="real", probes=True)
    with pytest.raises(ConfigError, match=r"probes: .* need at least 3 people, these clips show 2"):
        run(files, tmp_path, clips=2, probes=True)
    assert not [key for key in run(files, tmp_path, clips=2) if key.startswith("probe/")]
    assert "need at least 3 people" in (tmp_path / "report.html").read_text()


def test_axes_belong_to_the_model_and_point_the_right_way(files: Path, tmp_path: Path) -> None:
    run(files, tmp_path, frames=4)
    animator = lively_animator()
    axes = Axes.load(tmp_path / "axes.json", basis_fingerprint(animator.descriptors))
    samples = read_samples(files / "puppets", load_index(files / "puppets"), None, 4)
    codes = encode_samples(animator, samples, 8)
    assert np.allclose(axes.motion.mean, codes.motion.mean(0), atol=1e-4)
    assert np.allclose(axes.identity.std, codes.identity.std(0, correction=0), atol=1e-4)
    assert set(axes.motion.directions) == set(MotionFactors.names())
    assert axes.motion.directions["yaw"].unit == "degrees"
    assert [v.index for v in axes.motion.vectors] == [0, 1, 2, 3]


def test_shards_of_another_resolution_are_refused(files: Path, tmp_path: Path) -> None:
    other = write_puppets(tmp_path / "other", shards=(1,))
    index = json.loads((other / "index.json").read_text())
    (other / "index.json").write_text(json.dumps(index | {"resolution": 64}))
    with pytest.raises(ConfigError, match=r"holds pictures of 64 pixels and the model in .* makes 32; pack"):
        run(files, tmp_path, shards=str(other))


def test_a_diverged_model_is_called_that(files: Path, tmp_path: Path) -> None:
    animator = lively_animator()
    for parameter in animator.generator.parameters():
        parameter.data.fill_(float("nan"))
    write_checkpoint(tmp_path / "nan.ckpt", animator)
    with pytest.raises(CheckpointError, match=r"nan\.ckpt: self/l1 is nan.*diverged"):
        evaluate(str(tmp_path / "nan.ckpt"), str(files / "puppets"), str(tmp_path), clips=1, frames=1, device="cpu")
    assert not (tmp_path / "metrics.json").exists()


def test_metrics_are_rounded_and_whole(tmp_path: Path) -> None:
    write_metrics(tmp_path / "m.json", {"b": 1.23456789, "a": 2, "c": None, "d": "x"})
    assert (tmp_path / "m.json").read_text() == '{\n  "a": 2,\n  "b": 1.23457,\n  "c": null,\n  "d": "x"\n}\n'
    with pytest.raises(ValueError):
        write_metrics(tmp_path / "m.json", {"b": float("nan")})
    assert json.loads((tmp_path / "m.json").read_text())["a"] == 2
    assert [p.name for p in tmp_path.iterdir()] == ["m.json"]


def test_table_leaves_out_what_was_not_measured() -> None:
    metrics = {"self/l1": 0.05, "self/psnr": 21.234, "self/ssim": 0.7, "self/sharpness": 0.456}
    metrics |= {f"self/face_{name}": metrics[f"self/{name}"] for name in DISTANCES}
    lines = distance_table(metrics, (("own", "self/"), ("cross", "cross/"), ("face", "self/face_"))).splitlines()
    assert [line.split() for line in lines] == [
        ["L1", "PSNR", "SSIM", "sharpness"],
        ["own", "0.0500", "21.23", "0.7000", "0.46"],
        ["face", "0.0500", "21.23", "0.7000"],
    ]


def test_a_file_in_the_way_of_the_output_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"cannot create the folder .*file"):
        make_folder(tmp_path / "file")
