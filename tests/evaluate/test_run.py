from __future__ import annotations

import numpy as np
import pytest
import torch

from sfdkit.data.shards.index import load_index
from sfdkit.evaluate.frames import load_frames, render_truth
from sfdkit.evaluate.networks import Networks
from sfdkit.evaluate.run import drive, reenact
from sfdkit.evaluate.samples import Pair, Sample, read_samples
from sfdkit.evaluate.summarise import means
from sfdkit.face_networks.types import Measured
from tests.measuring import BrightnessMeasurer
from tests.written import lively_animator, write_puppets

CPU = torch.device("cpu")
NETWORKS = Networks(BrightnessMeasurer(), lambda one, other: (one - other).square().mean((1, 2, 3)))


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    folder = write_puppets(tmp_path_factory.mktemp("files") / "puppets")
    return read_samples(folder, load_index(folder), None, 3)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    folder = write_puppets(tmp_path_factory.mktemp("files") / "real", real=True)
    return read_samples(folder, load_index(folder), None, 3)


def test_cross_figures_equal_a_calculation_by_hand(samples: list[Sample]) -> None:
    animator = lively_animator()
    pairs = [Pair(samples[0], samples[1]), Pair(samples[2], samples[0]), Pair(samples[4], samples[3])]
    scores = reenact(animator, pairs, 5, NETWORKS, "cross")
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
    whole = reenact(animator, pairs, 99, NETWORKS, "cross").rows[0].values
    measurer = FailingMeasurer()
    measurer.failing = (1,)
    part = reenact(animator, pairs, 99, Networks(measurer), "cross").rows[0].values
    assert part["unread"] == pytest.approx(1 / 3)
    assert part["pose_error"] == pytest.approx(whole["pose_error"])
    assert part["landmark_error"] != pytest.approx(whole["landmark_error"])
    measurer.failing = (0, 1, 2)
    none = reenact(animator, pairs, 99, Networks(measurer), "cross").rows[0].values
    assert "landmark_error" not in none and none["unread"] == 1


def test_self_reenactment_is_read_against_the_driving_frame(samples: list[Sample]) -> None:
    animator, own = lively_animator(), [Pair(s, s) for s in samples]
    scores = reenact(animator, own, 16, NETWORKS, "self")
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
    rows = reenact(lively_animator(), [Pair(samples[0], samples[0])], 16, NETWORKS, "self").rows
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
    follow = reenact(lively_animator(), own, 16, NETWORKS, "self").follow["mouth_open"]
    read = BrightnessMeasurer().measure(load_frames(own, CPU).driving.flatten(0, 1)).expression
    known = torch.cat([s.factors()[1].mouth_open for s in samples])
    assert read is not None and torch.equal(follow.known, known)
    assert follow.read_well() == pytest.approx(float(np.corrcoef(read[:, 0], known)[0, 1]), abs=1e-4)


def test_real_faces_are_compared_with_what_is_known(real: list[Sample]) -> None:
    scores = reenact(lively_animator(), [Pair(real[0], real[1]), Pair(real[1], real[2])], 16, NETWORKS, "cross")
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
    monkeypatch.setattr("sfdkit.evaluate.run.drive", lambda *parts: drive(*parts)._replace(image=truth))
    scores = reenact(lively_animator(), [pair], 16, NETWORKS, "cross")
    row = scores.rows[0].values
    assert row["l1"] == row["landmark_error"] == row["pose_error"] == row["lpips"] == 0
    assert row["leakage"] == pytest.approx(0, abs=1e-6)
    assert scores.follow["yaw"].scores()[0] == pytest.approx(1)


def test_driving_in_parts_is_driving_at_once(samples: list[Sample]) -> None:
    frames = load_frames([Pair(s, s) for s in samples[:3]], CPU)
    animator = lively_animator()
    whole, parts = drive(animator, frames, 100), drive(animator, frames, 4)
    assert whole.image.shape == (9, 3, 32, 32)
    for one, other in zip(whole, parts, strict=True):
        assert torch.allclose(one, other, atol=1e-5)
    with torch.no_grad():
        row = animator(frames.source[1:2], frames.driving[1, 2][None]).image
    assert torch.allclose(whole.image[3 + 2], row[0].clamp(0, 1), atol=1e-5)
