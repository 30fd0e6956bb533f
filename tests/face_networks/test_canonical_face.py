from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from sfdkit.errors import ConfigError
from sfdkit.face_networks.canonical_face import CanonicalFace
from sfdkit.metrics.faces import angles_to_rotation

VERTICES = np.random.default_rng(0).normal(size=(8, 3))
BESIDE = "{points: [0, 2, 3, 5, 7], weights: [1, 2, 0.5, 1, 1]}"


def write(folder: Path, suffix: str = ".npz", text: str = BESIDE) -> Path:
    path = folder / f"face{suffix}"
    if suffix == ".npz":
        np.savez(path, vertices_cm=VERTICES)
    else:
        path.write_text("# a face\n" + "".join(f"v {x} {y} {z}\n" for x, y, z in VERTICES) + "vt 0 0\nf 1/1 2/2 3/3\n")
    path.with_name(path.name + ".yaml").write_text(text)
    return path


def seen(rotation: Tensor, scale: float = 7.0, shift: tuple[float, float, float] = (30.0, 40.0, 5.0)) -> Tensor:
    """The face in a picture: y downwards, z away from the viewer."""
    turned = torch.from_numpy(VERTICES) @ rotation.T
    return scale * turned * torch.tensor([1.0, -1.0, -1.0]) + torch.tensor(shift)


@pytest.mark.parametrize("suffix", [".npz", ".obj"])
def test_pose_of_a_turned_face_comes_back(tmp_path: Path, suffix: str) -> None:
    angles = torch.tensor([[0.0, 0, 0], [35, -10, 5], [-20, 25, -40]])
    face = CanonicalFace(write(tmp_path, suffix))
    points = torch.stack([seen(rotation) for rotation in angles_to_rotation(angles)])
    torch.testing.assert_close(face.rotation(points), angles_to_rotation(angles), atol=1e-6, rtol=0)
    torch.testing.assert_close(face(points), angles * torch.tensor([1.0, -1, 1]), atol=1e-4, rtol=0)
    other = points.clone()
    other[:, [1, 4, 6]] += 100  # points that do not count
    torch.testing.assert_close(face(other), face(points))


def test_signs_are_right_up_and_counter_clockwise(tmp_path: Path) -> None:
    def turn(axis: int) -> Tensor:
        """5 degrees about x (towards the viewer's up to the viewer), y or z, by the right hand."""
        c, s = math.cos(math.radians(5)), math.sin(math.radians(5))
        rows = {0: [[1, 0, 0], [0, c, -s], [0, s, c]], 1: [[c, 0, s], [0, 1, 0], [-s, 0, c]]}
        return torch.tensor(rows.get(axis, [[c, -s, 0], [s, c, 0], [0, 0, 1]]), dtype=torch.float64)

    face = CanonicalFace(write(tmp_path))
    nose = torch.tensor([0.0, 0, 1], dtype=torch.float64)
    assert (turn(1) @ nose)[0] > 0 and face(seen(turn(1))[None])[0, 0] > 4  # nose to the right: yaw
    assert (turn(0) @ nose)[1] < 0 and face(seen(turn(0))[None])[0, 1] < -4  # nose down: pitch below 0
    top = torch.tensor([0.0, 1, 0], dtype=torch.float64)
    assert (turn(2) @ top)[0] < 0 and face(seen(turn(2))[None])[0, 2] > 4  # top of the head to the left: roll


def test_points_of_a_mirrored_face_give_a_rotation(tmp_path: Path) -> None:
    points = seen(torch.eye(3, dtype=torch.float64)) * torch.tensor([-1.0, 1, 1])
    found = CanonicalFace(write(tmp_path)).rotation(points[None])[0]
    torch.testing.assert_close(found @ found.T, torch.eye(3, dtype=torch.float64))
    assert torch.linalg.det(found) == pytest.approx(1)


def test_weights_say_which_points_count(tmp_path: Path) -> None:
    points = seen(torch.eye(3, dtype=torch.float64))[None]
    points[:, 7] += 3
    path = write(tmp_path)
    much = CanonicalFace(path)(points).abs().sum()
    path.with_name("face.npz.yaml").write_text("{points: [0, 2, 3, 5, 7], weights: [1, 2, 0.5, 1, 0.01]}")
    assert CanonicalFace(path)(points).abs().sum() < 0.1 * much


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("face.npz", b"PK nothing", r"face\.npz cannot be read .*array vertices_cm"),
        ("face.obj", b"v 1 2 3\nv 1 2 x\n", r"face\.obj cannot be read .*lines 'v x y z'"),
        ("face.obj", b"v 1 2 3\n" * 10, r"face\.obj has 10 vertices, and pose is found by vertex 425"),
        (
            "new.obj",
            b"v 1 2 3\n" * 10,
            r"new\.obj is not known; if .* order .* for instance 'like: mediapipe_canonical",
        ),
        ("face.txt", b"", r"ends in '\.txt'; give a file that ends in \.obj, \.npz"),
    ],
)
def test_files_that_hold_no_face_are_refused(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(content)
    if name.startswith("face"):
        (tmp_path / f"{name}.yaml").write_text("like: mediapipe_canonical_face")
    with pytest.raises(ConfigError, match=words):
        CanonicalFace(tmp_path / name)


def test_arrays_of_another_kind_are_refused(tmp_path: Path) -> None:
    (tmp_path / "face.npz.yaml").write_text("like: mediapipe_canonical_face")
    np.savez(tmp_path / "face.npz", vertices_cm=np.zeros((500, 2)))
    with pytest.raises(ConfigError, match=r"holds \(500, 2\)"):
        CanonicalFace(tmp_path / "face.npz")
    np.savez(tmp_path / "face.npz", vertices_cm=np.array([{"a": 1}], dtype=object))
    with pytest.raises(ConfigError, match=r"cannot be read .*allow_pickle"):
        CanonicalFace(tmp_path / "face.npz")
    with pytest.raises(ConfigError, match=r"weights: 1 of them, and 2 points"):
        CanonicalFace(write(tmp_path, text="{points: [0, 1], weights: [1]}"))
