from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sfdkit.data.shards.index import load_index
from sfdkit.evaluate.distances import TrueFrames, detail_region, distances, true_frames
from sfdkit.evaluate.frames import load_frames, true_landmarks
from sfdkit.evaluate.samples import Pair, Sample, read_samples
from sfdkit.metrics.detail import central_ellipse, frame_detail
from sfdkit.puppets.landmarks import LANDMARKS
from tests.written import write_puppets

CPU = torch.device("cpu")
MASKED = {"face_l1", "face_psnr", "face_ssim", "l1_eyes", "l1_mouth"}


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    folder = write_puppets(tmp_path_factory.mktemp("files") / "puppets")
    return read_samples(folder, load_index(folder), None, 3)


def known(pair: Pair) -> TrueFrames:
    found = true_frames([pair], load_frames([pair], CPU).driving[0])
    assert found is not None
    return found


def test_small_parts_see_what_happens_in_them_alone(samples: list[Sample]) -> None:
    pair = Pair(samples[0], samples[1])
    truth = known(pair)
    points = true_landmarks([pair], CPU)[0].round().long()
    for name, other, point in (("eyes", "mouth", "left_iris"), ("mouth", "eyes", "lip_lower_inner")):
        image = truth.image.clone()
        for frame, (x, y) in enumerate(points[:, LANDMARKS.index(point)].tolist()):
            image[frame, :, y, x] += 0.5
        values = distances(image, truth, None)
        assert float(values[f"l1_{name}"].min()) > 5 * float(values["l1"].max())
        assert values[f"l1_{other}"].tolist() == [0, 0, 0]
    shifted = distances(truth.image + 0.1, truth, None)
    assert shifted["l1_eyes"].tolist() == pytest.approx([0.1] * 3) == shifted["l1_mouth"].tolist()


def test_truth_of_a_clip_that_drives_itself_is_its_own_frames(samples: list[Sample]) -> None:
    own, crossed = Pair(samples[0], samples[0]), Pair(samples[0], samples[1])
    assert torch.equal(known(own).image, load_frames([own], CPU).driving[0])
    assert not torch.equal(known(crossed).image, load_frames([crossed], CPU).driving[0])
    assert known(own).mask is not None and known(own).parts is not None


def test_real_faces_are_compared_in_the_middle(tmp_path: Path, samples: list[Sample]) -> None:
    folder = write_puppets(tmp_path / "real", real=True)
    real = read_samples(folder, load_index(folder), None, 3)
    own, crossed = Pair(real[0], real[0]), Pair(real[0], real[1])
    assert true_frames([crossed], load_frames([crossed], CPU).driving[0]) is None
    truth = known(own)
    assert truth.mask is None and truth.parts is None
    image = (truth.image * 0.8).flip(0)
    values = distances(image, truth, None)
    assert values.keys() | MASKED == distances(image, known(Pair(samples[0], samples[0])), None).keys()
    wanted = frame_detail(image, truth.image, central_ellipse(image))
    assert all(torch.equal(values[name], value) for name, value in wanted.items())
    assert [detail_region(pairs) for pairs in ([], [own], [Pair(samples[0], samples[1])])] == [
        "",
        "central ellipse",
        "face mask",
    ]
