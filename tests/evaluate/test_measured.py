from __future__ import annotations

import numpy as np
import pytest
import torch

from sfdkit.data.shards.index import load_index
from sfdkit.evaluate.reenact import Gauges, drive, reenact
from sfdkit.evaluate.rows import means
from sfdkit.evaluate.samples import Pair, Sample, load_frames, read_samples, render_truth, true_landmarks
from sfdkit.face_networks.types import Measured
from sfdkit.metrics.faces import correlation, csim, expression_errors, landmark_error, pose_errors, reading_errors
from sfdkit.puppets.render import render
from tests.measuring import BrightnessMeasurer
from tests.written import lively_animator, write_puppets

CPU = torch.device("cpu")
GAUGES = Gauges(BrightnessMeasurer(), lambda one, other: (one - other).square().mean((1, 2, 3)))


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    folder = write_puppets(tmp_path_factory.mktemp("files") / "puppets")
    return read_samples(folder, load_index(folder), None, 3)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    folder = write_puppets(tmp_path_factory.mktemp("files") / "real", real=True)
    return read_samples(folder, load_index(folder), None, 3)


def test_distances_by_hand() -> None:
    one = torch.tensor([[[0.0, 0.0], [2.0, 4.0]]])
    assert landmark_error(one, one + torch.tensor([1.0, -3.0])).tolist() == [2.0]
    errors = pose_errors(torch.tensor([[10.0, -5.0, 179.0]]), torch.tensor([[13.0, -5.0, -178.0]]))
    assert {k: v.tolist() for k, v in errors.items()} == {
        "pose_error": [2.0],
        "yaw_error": [3.0],
        "pitch_error": [0.0],
        "roll_error": [3.0],
    }
    values = expression_errors(torch.tensor([[0.5, -1.0]]), torch.tensor([[0.25, 1.0]]), ("a", "b"))
    assert {k: v.tolist() for k, v in values.items()} == {
        "expression_error": [1.125],
        "a_error": [0.25],
        "b_error": [2],
    }
    assert csim(torch.tensor([[3.0, 4.0]]), torch.tensor([[4.0, 3.0]])).tolist() == pytest.approx([0.96])
    assert reading_errors(Measured(), Measured(landmarks=one), ()) == {}


def test_correlation_is_pearsons() -> None:
    a, b = torch.randn(30), torch.randn(30)
    assert correlation(a, a * 3 + b) == pytest.approx(float(np.corrcoef(a, a * 3 + b)[0, 1]), abs=1e-6)
    assert correlation(a, -a) == pytest.approx(-1)
    assert correlation(torch.ones(9), torch.arange(9.0)) == 0.0
    assert correlation(torch.arange(9.0), torch.ones(9)) is None
    hole = torch.tensor([1.0, 2.0, float("nan"), 3.0])
    assert correlation(hole, torch.tensor([2.0, 4.0, -9.0, 6.0])) == pytest.approx(1)
    assert correlation(hole[2:3], hole[2:3]) is None


def test_cross_figures_equal_a_calculation_by_hand(samples: list[Sample]) -> None:
    animator = lively_animator()
    pairs = [Pair(samples[0], samples[1]), Pair(samples[2], samples[0]), Pair(samples[4], samples[3])]
    scores = reenact(animator, pairs, 5, GAUGES, "cross")
    read = BrightnessMeasurer().measure
    results, truths = [], []
    for row, pair in zip(scores.rows, pairs, strict=True):
        frames = load_frames([pair], CPU)
        result, truth = drive(animator, frames, 99).image, render_truth([pair], CPU)[0][0]
        a, t, d, s = read(result), read(truth), read(frames.driving[0]), read(frames.source)
        for m in (a, t, d, s):
            assert m.pose is not None and m.landmarks is not None and m.embedding is not None
        results.append(a), truths.append(t)
        wanted = {
            "landmark_error": (a.landmarks - t.landmarks).abs().mean(),  # type: ignore[operator]
            "copy_landmark_error": (s.landmarks - t.landmarks).abs().mean(),  # type: ignore[operator]
            "yaw_error": (a.pose[:, 0] - t.pose[:, 0]).abs().mean(),  # type: ignore[index]
            "pose_error": (a.pose - t.pose).abs().mean(),  # type: ignore[operator]
            "brows_error": (a.expression[:, 1] - t.expression[:, 1]).abs().mean(),  # type: ignore[index]
            "csim_source": (a.embedding * s.embedding).sum(1).mean(),  # type: ignore[operator]
            "csim_driver": (a.embedding * d.embedding).sum(1).mean(),  # type: ignore[operator]
            "truth_csim_source": (t.embedding * s.embedding).sum(1).mean(),  # type: ignore[operator]
            "truth_csim_driver": (t.embedding * d.embedding).sum(1).mean(),  # type: ignore[operator]
            "copy_csim_driver": (s.embedding * d.embedding).sum(1).mean(),  # type: ignore[operator]
            "lpips": (result - truth).square().mean(),
            "copy_lpips": (frames.source - truth).square().mean(),
        }
        for name, value in wanted.items():
            assert row.values[name] == pytest.approx(float(value), rel=1e-3, abs=1e-5), name
        gap = row.values["csim_source"] - row.values["csim_driver"]
        truth_gap = row.values["truth_csim_source"] - row.values["truth_csim_driver"]
        assert row.values["leakage"] == pytest.approx(truth_gap - gap, abs=1e-6)
        assert row.values["unread"] == 0
    follow = scores.follow["mouth_open"].scores()[0]
    columns = [torch.cat([m.expression[:, 0] for m in some]) for some in (results, truths)]  # type: ignore[index]
    assert follow == pytest.approx(float(np.corrcoef(*columns)[0, 1]), abs=1e-4)
    mean = means(scores.rows, "cross")
    assert mean["cross/leakage"] == pytest.approx(np.mean([row.values["leakage"] for row in scores.rows]))
    assert {"truth/csim_gap", "copy/pose_error", "copy/csim_driver", "copy/lpips"} <= set(mean)


class FailingMeasurer(BrightnessMeasurer):
    """Finds no landmarks in some frames."""

    failing: tuple[int, ...] = ()

    def measure(self, images: torch.Tensor) -> Measured:
        """Fail in the frames that are named."""
        read = super().measure(images)
        assert read.landmarks is not None
        for at in self.failing:
            if at < len(images):
                read.landmarks[at] = float("nan")
        return read


def test_frames_that_cannot_be_read_are_left_out_and_counted(samples: list[Sample]) -> None:
    animator, pairs = lively_animator(), [Pair(samples[0], samples[1])]
    whole = reenact(animator, pairs, 99, GAUGES, "cross").rows[0].values
    measurer = FailingMeasurer()
    measurer.failing = (1,)
    part = reenact(animator, pairs, 99, Gauges(measurer), "cross").rows[0].values
    assert part["unread"] == pytest.approx(1 / 3)
    assert part["pose_error"] == pytest.approx(whole["pose_error"])
    assert part["landmark_error"] != pytest.approx(whole["landmark_error"])
    measurer.failing = (0, 1, 2)
    none = reenact(animator, pairs, 99, Gauges(measurer), "cross").rows[0].values
    assert "landmark_error" not in none and none["unread"] == 1


def test_self_reenactment_is_read_against_the_driving_frame(samples: list[Sample]) -> None:
    animator, own = lively_animator(), [Pair(s, s) for s in samples]
    scores = reenact(animator, own, 16, GAUGES, "self")
    frames = load_frames(own[1:2], CPU)
    read = BrightnessMeasurer().measure
    result, target, still = read(drive(animator, frames, 9).image), read(frames.driving[0]), read(frames.source)
    assert result.pose is not None and target.pose is not None and target.embedding is not None
    row = scores.rows[1].values
    assert row["pose_error"] == pytest.approx(float((result.pose - target.pose).abs().mean()), rel=1e-3)
    assert row["csim"] == pytest.approx(float((result.embedding * target.embedding).sum(1).mean()), rel=1e-4)
    assert row["copy_csim"] == pytest.approx(float((still.embedding * target.embedding).sum(1).mean()), rel=1e-4)
    _, mask = (t[0] for t in render_truth(own[1:2], CPU))
    image = drive(animator, frames, 9).image
    inside = ((image - frames.driving[0]).abs() * mask).sum((1, 2, 3)) / (3 * mask.sum((1, 2, 3)))
    assert row["face_l1"] == pytest.approx(float(inside.mean()), rel=1e-4)


def test_the_floor_is_the_error_of_the_reading_itself(samples: list[Sample]) -> None:
    rows = reenact(lively_animator(), [Pair(samples[0], samples[0])], 16, GAUGES, "self").rows
    motion = samples[0].factors()[1]
    read = BrightnessMeasurer().measure(load_frames([Pair(samples[0], samples[0])], CPU).driving[0])
    assert read.pose is not None and read.expression is not None
    assert rows[0].values["floor_yaw_error"] == pytest.approx(float((read.pose[:, 0] - motion.yaw).abs().mean()))
    wanted = float((read.expression[:, 0] - motion.mouth_open).abs().mean())
    assert rows[0].values["floor_mouth_open_error"] == pytest.approx(wanted, rel=1e-4)
    assert means(rows, "self")["measure/floor_mouth_open_error"] == pytest.approx(wanted, rel=1e-4)
    assert "floor_landmark_error" not in rows[0].values  # two points are not the puppets' points


def test_a_network_that_does_not_read_a_factor_is_found_out(samples: list[Sample]) -> None:
    own = [Pair(s, s) for s in samples]
    follow = reenact(lively_animator(), own, 16, GAUGES, "self").follow["mouth_open"]
    read = BrightnessMeasurer().measure(load_frames(own, CPU).driving.flatten(0, 1)).expression
    known = torch.cat([s.factors()[1].mouth_open for s in samples])
    assert read is not None and torch.equal(follow.known, known)
    assert follow.read_well() == pytest.approx(float(np.corrcoef(read[:, 0], known)[0, 1]), abs=1e-4)


def test_true_landmarks_are_those_of_the_rendered_truth(samples: list[Sample]) -> None:
    pair = Pair(samples[0], samples[1])
    rendered = render(pair.source.factors()[0], pair.driver.factors()[1], 32).landmarks
    assert torch.allclose(true_landmarks([pair], CPU)[0], rendered, atol=1e-5)


def test_real_faces_are_compared_with_what_is_known(real: list[Sample]) -> None:
    scores = reenact(lively_animator(), [Pair(real[0], real[1]), Pair(real[1], real[2])], 16, GAUGES, "cross")
    row = scores.rows[0].values
    assert not {"l1", "landmark_error", "truth_csim_source", "lpips", "face_l1"} & set(row)
    read = BrightnessMeasurer().measure
    frames = load_frames([Pair(real[0], real[1])], CPU)
    moved, still = read(frames.driving[0]), read(frames.source)
    assert moved.pose is not None and still.pose is not None and moved.embedding is not None
    assert row["copy_pose_error"] == pytest.approx(float((still.pose - moved.pose).abs().mean()), rel=1e-4)
    unchanged = 1 - float((still.embedding * moved.embedding).sum(1).mean())
    assert row["leakage"] == pytest.approx(unchanged - row["csim_gap"], abs=1e-5)
    assert len(scores.follow["yaw"].result) == 6
    assert scores.follow["yaw"].read_well() is None


def test_results_that_are_the_truth_leak_nothing(samples: list[Sample], monkeypatch: pytest.MonkeyPatch) -> None:
    pair = Pair(samples[0], samples[1])
    truth = render_truth([pair], CPU)[0][0]
    monkeypatch.setattr("sfdkit.evaluate.reenact.drive", lambda *parts: drive(*parts)._replace(image=truth))
    scores = reenact(lively_animator(), [pair], 16, GAUGES, "cross")
    row = scores.rows[0].values
    assert row["l1"] == row["landmark_error"] == row["pose_error"] == row["lpips"] == 0
    assert row["leakage"] == pytest.approx(0, abs=1e-6)
    assert scores.follow["yaw"].scores()[0] == pytest.approx(1)
