from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from sfdkit.data.shards.index import load_index
from sfdkit.evaluate.command import evaluate
from sfdkit.evaluate.frames import load_frames
from sfdkit.evaluate.networks import Networks
from sfdkit.evaluate.run import Row, Run, Scores, drive, reenact
from sfdkit.evaluate.samples import Pair, Sample, read_samples, read_videos
from sfdkit.evaluate.summarise import follow_figures, pair_figures
from sfdkit.face_networks.types import Measured, MeasureSettings
from sfdkit.metrics.faces import correlation, csim
from tests.measuring import BrightnessMeasurer
from tests.networks import save_centres, save_linear, save_onnx, save_yunet
from tests.written import lively_animator, write_checkpoint, write_puppets

CPU = torch.device("cpu")
SHAPES = np.random.default_rng(1).normal(size=(6, 52)) / 100


class FindingMeasurer(BrightnessMeasurer):
    """The same, with blendshapes and a distance of the eyes, and blind to pictures that are rather dark."""

    least = 0.0

    def measure(self, images: Tensor) -> Measured:
        read = super().measure(images)
        assert read.landmarks is not None and read.expression is not None
        found = images.mean((1, 2, 3)) > self.least
        apart = (read.landmarks[:, 0] - read.landmarks[:, 1]).norm(dim=1)
        read = read._replace(blendshapes=read.expression.repeat(1, 26), eye_distance=apart)
        lost = [None if v is None else torch.where(found.view(-1, *[1] * (v.dim() - 1)), v, torch.nan) for v in read]
        return Measured(*lost)._replace(found=found)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    write_checkpoint(folder / "model.ckpt", lively_animator())
    write_puppets(folder / "real", shards=(3,), frames=20, real=True)
    write_puppets(folder / "puppets", shards=(2,))
    return folder


@pytest.fixture(scope="module")
def samples(files: Path) -> list[Sample]:
    videos = read_videos(files / "real", load_index(files / "real"))
    return [video.sample([0, *range(20)]) for video in videos]


def run(pairs: list[Pair], measurer: FindingMeasurer) -> Scores:
    return reenact(lively_animator(), pairs, 16, Networks(measurer), "any")


def read(pair: Pair) -> dict[str, Measured]:
    """What is read in the pictures of one pair, driven here."""
    frames, measure = load_frames([pair], CPU), FindingMeasurer().measure
    pictures = {
        "result": drive(lively_animator(), frames, 99).image,
        "driving": frames.driving[0],
        "source": frames.source,
        "first": load_frames([Pair(pair.driver, pair.driver)], CPU).source,
    }
    return {name: measure(picture) for name, picture in pictures.items()}


def test_self_figures_of_real_faces_by_hand(samples: list[Sample]) -> None:
    row = run([Pair(samples[0], samples[0])], FindingMeasurer()).rows[0].values
    by_hand = read(Pair(samples[0], samples[0]))
    result, truth, source = (by_hand[name] for name in ("result", "driving", "source"))
    assert result.landmarks is not None and truth.landmarks is not None and truth.eye_distance is not None
    nme = ((result.landmarks - truth.landmarks).norm(dim=2).mean(1) / truth.eye_distance).mean()
    assert row["nme"] == pytest.approx(float(nme), rel=1e-3)
    assert result.blendshapes is not None and truth.blendshapes is not None and result.embedding is not None
    shapes = (result.blendshapes - truth.blendshapes).abs().mean()
    assert row["blendshape_error"] == pytest.approx(float(shapes), rel=1e-3)
    assert source.embedding is not None and truth.embedding is not None
    assert row["csim_source"] == pytest.approx(float(csim(result.embedding, source.embedding).mean()), rel=1e-4)
    same = csim(truth.embedding, source.embedding)
    assert row["copy_csim"] == pytest.approx(float(same.mean()), rel=1e-5)
    assert row["csim_same_clip"] == pytest.approx(float(same[1:].mean()), rel=1e-5)  # frame 0 is the source itself
    assert row["no_face"] == row["reference_no_face"] == row["unread"] == 0


def test_cross_figures_of_real_faces_by_hand(samples: list[Sample]) -> None:
    pair = Pair(samples[0], samples[1])
    scores = run([pair], FindingMeasurer())
    row, by_hand = scores.rows[0].values, read(pair)
    result, driving, first = (by_hand[name] for name in ("result", "driving", "first"))
    assert first.embedding is not None and driving.embedding is not None
    same = csim(driving.embedding, first.embedding)[1:]
    assert row["csim_same_clip"] == pytest.approx(float(same.mean()), rel=1e-5)
    assert result.blendshapes is not None and driving.blendshapes is not None and result.pose is not None
    shapes = (result.blendshapes - driving.blendshapes).abs().mean()
    assert row["blendshape_error"] == pytest.approx(float(shapes), rel=1e-3)
    assert "nme" not in row and "copy_blendshape_error" in row
    assert driving.pose is not None and float(driving.pose[:, 0].double().std()) > 1.5
    yaw = correlation(result.pose[:, 0], driving.pose[:, 0])
    assert row["temporal_yaw"] == pytest.approx(yaw, abs=1e-3)
    figures = follow_figures(Run(Scores([], {}, {}), scores))
    assert figures["cross/temporal_yaw"] == pytest.approx(yaw, abs=1e-3) and figures["cross/temporal_yaw_clips"] == 1


def test_puppets_get_none_of_it(files: Path) -> None:
    samples = read_samples(files / "puppets", load_index(files / "puppets"), None, 20)
    for pair in (Pair(samples[0], samples[0]), Pair(samples[0], samples[1])):
        scores = run([pair], FindingMeasurer())
        assert not {"csim_same_clip", "temporal_yaw"} & set(scores.rows[0].values)
        assert not any("temporal" in key for key in follow_figures(Run(scores, scores)))


def test_faces_that_are_not_found_are_counted(samples: list[Sample]) -> None:
    pairs = [Pair(samples[0], samples[1]), Pair(samples[2], samples[0])]
    brightness = [read_brightness(pair) for pair in pairs]
    measurer = FindingMeasurer()
    measurer.least = float(torch.cat([b["result"] for b in brightness] + [b["driving"] for b in brightness]).median())
    scores = run(pairs, measurer)
    figures = pair_figures(Run(Scores([], {}, {}), scores))
    for key, name in (("no_face_frames", "result"), ("reference_no_face_frames", "driving")):
        lost = sum(int((b[name] <= measurer.least).sum()) for b in brightness)
        assert figures[f"cross/{key}"] == lost
    assert 0 < figures["cross/no_face_frames"] + figures["cross/reference_no_face_frames"] < 80


def read_brightness(pair: Pair) -> dict[str, Tensor]:
    frames = load_frames([pair], CPU)
    result = drive(lively_animator(), frames, 16).image
    return {"result": result.mean((1, 2, 3)), "driving": frames.driving[0].mean((1, 2, 3))}


def test_medians_leave_temporal_values_out_of_the_means(samples: list[Sample]) -> None:
    pair = Pair(samples[0], samples[1])
    rows = [Row(pair, {"l1": 1.0, "temporal_yaw": value}) for value in (0.1, 0.2, 0.9)]
    figures = pair_figures(Run(Scores([], {}, {}), Scores(rows, {}, {})))
    assert figures == {"cross/l1": 1.0}


@pytest.mark.parametrize("always", [1.0, 0.0])
@pytest.mark.parametrize("protocol", ["reconstruction", "cross"])
def test_an_evaluation_with_a_folder_of_networks(
    files: Path, tmp_path: Path, protocol: str, always: float, capsys: pytest.CaptureFixture[str]
) -> None:
    """A detector that sees a face in every picture, and one that sees none in any."""
    networks = tmp_path / "networks"
    networks.mkdir()
    points = (-40.0, -40.0, 40.0, -40.0, 0.0, 0.0, -24.0, 40.0, 24.0, 40.0)
    save_yunet(networks / "yunet.onnx", (120.0, 120.0, 200.0, 200.0), points, always)
    save_centres(networks / "points.onnx", 64)
    save_linear(networks / "shapes.onnx", SHAPES)
    save_onnx(networks / "embed.onnx", np.random.default_rng(0).normal(size=(3, 6)), 16)
    np.savez(networks / "face.npz", vertices_cm=np.array([[-2.0, 1, 0], [2, 1, 0], [0, -2, 1]]))
    for name, text in {
        "yunet.onnx": "like: yunet",
        "points.onnx": "{like: mediapipe_face_landmarks, margin: 1.0, margin_again: null, "
        "face31: {left_eye_outer: 0, right_eye_outer: 1}}",
        "shapes.onnx": "{like: mediapipe_blendshapes, points: [0, 1, 2]}",
        "embed.onnx": "like: mobilefacenet",
        "face.npz": "{like: mediapipe_canonical_face, points: [0, 1, 2], weights: []}",
    }.items():
        (networks / f"{name}.yaml").write_text(text)
    evaluate(
        str(files / "model.ckpt"),
        str(files / "real"),
        str(tmp_path / "out"),
        cross_pairs=2,
        device="cpu",
        sheet_rows=1,
        measure=MeasureSettings(networks=str(networks), lpips="none"),
        protocol=protocol,  # type: ignore[arg-type]
    )
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    printed = capsys.readouterr().out
    kind, count = ("self", 60) if protocol == "reconstruction" else ("cross", 40)
    lost = 0 if always else count
    assert metrics[f"{kind}/no_face_frames"] == metrics[f"{kind}/reference_no_face_frames"] == lost
    names = ("csim_source", "csim_same_clip", "blendshape_error", "pose_error", "jaw_open_error")
    assert [f"{kind}/{name}" in metrics for name in names] == [bool(always)] * 5
    assert (f"{kind}/nme" in metrics) == (bool(always) and kind == "self")
    assert metrics["networks/canonical_face"] == "face.npz"
    assert ("PSNR" in printed) == (kind == "self")
    if always and kind == "cross":
        assert f"{'cosine of result and source, cross':<44}{metrics['cross/csim_source']:7.3f}" in printed
    if not always:
        assert metrics[f"{kind}/temporal_yaw"] is None and metrics[f"{kind}/temporal_yaw_clips"] == 0
    page = (tmp_path / "out" / "report.html").read_text()
    assert "How results follow within a clip" in page and f"No face was found in {lost} results" in page
    with (tmp_path / "out" / "pairs.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["no_face"] for row in rows} == {"0" if always else "1"}
