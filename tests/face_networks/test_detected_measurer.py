from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sfdkit.errors import ConfigError
from sfdkit.face_networks.blendshapes import EXPRESSION
from sfdkit.face_networks.detected_measurer import DetectedFaceMeasurer, FaceFiles
from sfdkit.face_networks.landmarks import LandmarkReader
from sfdkit.face_networks.measurer import open_measurer
from sfdkit.face_networks.regions import Region, arcface_input, cut
from sfdkit.face_networks.third_party_measurer import ThirdPartyMeasurer
from sfdkit.face_networks.types import MeasureSettings
from tests.face_networks.test_landmarks import BOX, CENTRES, POINTS, face
from tests.networks import Pooled, save_centres, save_linear, save_onnx, save_script, save_yunet

WEIGHTS = np.random.default_rng(0).normal(size=(3, 6))
SHAPES = np.random.default_rng(1).normal(size=(6, 52)) / 100
VERTICES = np.array([[-2.0, 1, 0], [2, 1, 0], [0, -2, 1]])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Networks of every kind, each known by the YAML beside it."""
    below = tmp_path / "networks" / "below"
    below.mkdir(parents=True)
    save_yunet(below / "detector.onnx", BOX, POINTS)
    save_centres(below / "points.onnx", 64)
    save_linear(below / "shapes.onnx", SHAPES)
    save_onnx(below / "embed.onnx", WEIGHTS, "s")
    np.savez(below / "face.npz", vertices_cm=VERTICES)
    for name, seed in (("pose_a.pt", 0), ("pose_b.pt", 1)):
        save_script(below / name, Pooled([3], seed))
        (below / f"{name}.yaml").write_text("like: fsanet")
    (below / "detector.onnx.yaml").write_text("like: yunet")
    (below / "points.onnx.yaml").write_text("like: mediapipe_face_landmarks" + CENTRES)
    (below / "shapes.onnx.yaml").write_text("{like: mediapipe_blendshapes, points: [0, 1, 2]}")
    (below / "embed.onnx.yaml").write_text("{like: mobilefacenet, size: 16}")
    (below / "face.npz.yaml").write_text("{like: mediapipe_canonical_face, points: [0, 1, 2], weights: []}")
    (below / "other.onnx").write_bytes(b"of no interest")
    return below


def opened(folder: Path, **settings: str) -> DetectedFaceMeasurer:
    found = open_measurer(MeasureSettings(networks=str(folder.parent), **settings), 256, puppets=False)
    assert isinstance(found, DetectedFaceMeasurer)
    return found


def pictures() -> Tensor:
    """A face, none, another face, and one that the landmark network does not see."""
    seen = [face()[0][:, :256], np.zeros((256, 256, 3), np.uint8), face(x=91.5, angle=0.2)[0][:, :256]]
    image, middles = face()
    x, y = (round(v) for v in middles[2])
    image[y - 4 : y + 4, x - 4 : x + 4] = 0
    return torch.from_numpy(np.stack([*seen, image[:, :256]])).permute(0, 3, 1, 2).float() / 255


def test_a_folder_gives_all_networks_and_lost_faces_are_not_numbers(folder: Path) -> None:
    measurer, images = opened(folder), pictures()
    assert not measurer.missing and measurer.expression_names == tuple(EXPRESSION)
    assert measurer.about["networks/canonical_face"] == "face.npz" and "networks/head_pose" not in measurer.about
    read = measurer.measure(images)
    assert read.found is not None and read.found.tolist() == [True, False, True, False]
    assert read.eye_distance is not None and read.blendshapes is not None
    assert [None if v is None else tuple(v.shape) for v in read] == [
        (4, 3, 2), (4, 3), (4, 6), (4, 6), (4, 52), (4,), (4,),
    ]  # fmt: skip
    for values in read[:-1]:
        assert values is not None
        assert values[[0, 2]].isfinite().all() and values[[1, 3]].isnan().all()
    alone = measurer.measure(images[1:2])
    assert [None if v is None else v.shape[1:] for v in alone] == [None if v is None else v.shape[1:] for v in read]


def test_each_network_sees_what_it_was_trained_on(folder: Path) -> None:
    image, _ = face()
    image = image[:, :256]
    images = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    read = opened(folder).measure(images)
    reader = LandmarkReader(folder / "points.onnx", folder / "detector.onnx")
    points = reader.read(image)
    assert points is not None and read.landmarks is not None and read.blendshapes is not None
    torch.testing.assert_close(read.landmarks[0], torch.from_numpy(points.points[:, :2]))
    shapes = torch.from_numpy(points.points[:, :2]).flatten() @ torch.from_numpy(SHAPES).float()
    torch.testing.assert_close(read.blendshapes[0], shapes, atol=1e-4, rtol=1e-4)
    assert read.eye_distance is not None
    assert float(read.eye_distance) == pytest.approx(np.hypot(*(points.points[0] - points.points[1])[:2]), rel=1e-5)
    detected = reader.detector.find(image)
    assert detected is not None
    aligned = cut(image, arcface_input(reader.detector.five_points(detected), 16), 16)
    x = torch.from_numpy(aligned).permute(2, 0, 1).float() / 255
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    means = ((x - mean[:, None, None]) / std[:, None, None]).relu().mean((1, 2))
    expected = F.normalize(means @ torch.from_numpy(WEIGHTS).float(), dim=0)
    torch.testing.assert_close(read.embedding[0], expected)


def test_head_pose_networks_are_averaged_and_signed(folder: Path) -> None:
    image, _ = face()
    image = image[:, :256]
    (folder / "face.npz").unlink()
    measurer = opened(folder)
    assert measurer.about["networks/head_pose"] == "pose_a.pt, pose_b.pt"
    images = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    found = measurer.measure(images).pose
    detected = measurer.detector.find(image)
    assert detected is not None and found is not None
    box = detected.box
    region = Region((box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2, 1.2 * (box.y1 - box.y0))
    x = torch.from_numpy(cut(image, region.to_input(64), 64)).permute(2, 0, 1)[None].float()
    x = (x.flip(1) - 127.5) / 128
    with torch.no_grad():
        by_hand = (Pooled([3], 0)(x) + Pooled([3], 1)(x)) / 2
    torch.testing.assert_close(found, by_hand * torch.tensor([-1.0, 1, -1]), atol=1e-5, rtol=1e-4)


def test_a_network_that_is_named_goes_before_the_folder(folder: Path, tmp_path: Path) -> None:
    other = save_onnx(tmp_path / "named.onnx", 2 * WEIGHTS[:, :4], "s")
    (tmp_path / "named.onnx.yaml").write_text("size: 16")
    measurer = opened(folder, embedder=str(other), head_pose=str(folder / "pose_a.pt"))
    assert measurer.about["networks/embedder"] == "named.onnx"
    assert measurer.about["networks/head_pose"] == "pose_a.pt" and "networks/canonical_face" not in measurer.about


def test_what_cannot_be_opened_is_refused(folder: Path, tmp_path: Path) -> None:
    def settings(**named: str) -> None:
        open_measurer(MeasureSettings(**named), 64, puppets=False)

    with pytest.raises(ConfigError, match=r"networks: .*gone is no folder"):
        settings(networks=str(tmp_path / "gone"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"holds no network that is known; known are .*YuNet"):
        settings(networks=str(tmp_path / "empty"))
    with pytest.raises(ConfigError, match="both give the pose"):
        opened(folder, canonical_face=str(folder / "face.npz"), head_pose=str(folder / "pose_a.pt"))
    with pytest.raises(ConfigError, match=r"blendshapes: .*needs a detector"):
        settings(blendshapes=str(folder / "shapes.onnx"))
    with pytest.raises(ConfigError, match=r"landmarks: .*give a detector as well"):
        ThirdPartyMeasurer(landmarks=folder / "points.onnx")
    detector = folder / "detector.onnx"
    with pytest.raises(ConfigError, match=r"blendshapes: .*name a landmark network as well"):
        DetectedFaceMeasurer(FaceFiles(detector, blendshapes=folder / "shapes.onnx"))
    (folder / "shapes.onnx.yaml").write_text("{like: mediapipe_blendshapes, points: [0, 1, 3]}")
    with pytest.raises(ConfigError, match=r"reads 2 numbers of point 3, and .*points\.onnx gives 3 points of 3"):
        opened(folder)
    save_yunet(folder / "second.onnx", BOX, POINTS)
    (folder / "second.onnx.yaml").write_text("like: yunet")
    with pytest.raises(ConfigError, match=r"holds detector\.onnx and second\.onnx, both for detector; name one"):
        opened(folder)


def test_without_a_detector_pictures_are_read_whole(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"networks: .*needs a detector, and there is none"):
        (folder / "detector.onnx").unlink()
        opened(folder)
    measurer = open_measurer(MeasureSettings(embedder=str(folder / "embed.onnx")), 64, puppets=False)
    assert isinstance(measurer, ThirdPartyMeasurer)
    found = measurer.measure(torch.rand(2, 3, 32, 32))
    assert found.found is None and found.embedding is not None and found.embedding.shape == (2, 6)
