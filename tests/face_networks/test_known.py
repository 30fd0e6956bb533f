from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from sfdkit.errors import ConfigError
from sfdkit.face_networks import known
from sfdkit.face_networks.conventions import (
    ARCFACE,
    HEAD_POSE_NET,
    LANDMARK_NET,
    BlendshapeConvention,
    CanonicalConvention,
    Convention,
    DetectorConvention,
)
from sfdkit.face_networks.known import KnownNetwork, known_networks, read_convention
from sfdkit.face_networks.landmarks import FivePointReader
from sfdkit.points import FACE31
from tests.networks import save_onnx

OF_KIND = (ARCFACE, LANDMARK_NET, HEAD_POSE_NET, DetectorConvention(), BlendshapeConvention(), CanonicalConvention())
USUAL = {usual.kind: usual for usual in OF_KIND}


@pytest.mark.parametrize("name", known_networks())
def test_each_known_network_has_a_convention_and_a_public_address(name: str, tmp_path: Path) -> None:
    network = known_networks()[name]
    (tmp_path / "net.onnx").write_bytes(b"")
    (tmp_path / "net.onnx.yaml").write_text(f"like: {name}")
    assert type(read_convention("key", tmp_path / "net.onnx", USUAL[network.kind])) is type(USUAL[network.kind])
    assert network.address.startswith("https://") and network.licence and network.title
    assert network.sha256 and all(len(bytes.fromhex(digest)) == 32 for digest in network.sha256)


def test_mediapipe_has_all_points_of_the_kit_and_each_of_its_own_once(tmp_path: Path) -> None:
    places = known_networks()["mediapipe_face_landmarks"].convention["face31"]
    assert tuple(places) == FACE31.names
    taken = [k for place in places.values() for k in (place if isinstance(place, list) else [place])]
    assert len(set(taken)) == len(taken) and max(taken) < 478


def test_a_file_is_known_by_its_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_onnx(tmp_path / "a.onnx", np.ones((3, 4)), 16)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    tiny = KnownNetwork("tiny", "embedder", "Tiny", "MIT", "https://x", (digest,), {"size": 16, "channels": "bgr"})
    monkeypatch.setattr(known, "known_networks", lambda: {"tiny": tiny})
    found = read_convention("embedder", path, ARCFACE)
    assert found == Convention(16, ARCFACE.mean, ARCFACE.std, "bgr", region="five_points")
    (tmp_path / "a.onnx.yaml").write_text("size: 8")
    changed = read_convention("embedder", path, ARCFACE)
    assert changed.size == 8 and changed.channels == "bgr"
    for key, usual in (("landmarks", LANDMARK_NET), ("detector", DetectorConvention())):
        with pytest.raises(ConfigError, match=rf"{key}: .*a\.onnx is Tiny; give a network of the kind {key}"):
            (tmp_path / "a.onnx.yaml").unlink(missing_ok=True)
            read_convention(key, path, usual)


def test_a_known_network_of_another_kind_is_refused_with_what_is_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save_onnx(tmp_path / "a.onnx", np.ones((3, 4)), 16)
    pose = known_networks()["fsanet"]
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    every = {**known_networks(), "fsanet": KnownNetwork(**{**vars(pose), "sha256": (digest,)})}
    monkeypatch.setattr(known, "known_networks", lambda: every)
    with pytest.raises(ConfigError, match=r"detector: .*a\.onnx is FSA-Net, head pose; give YuNet, .*opencv_zoo"):
        FivePointReader(path)
