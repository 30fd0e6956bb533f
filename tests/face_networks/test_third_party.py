from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sfdkit.errors import ConfigError
from sfdkit.face_networks.embedder import load_embedder
from sfdkit.face_networks.measurer import open_measurer
from sfdkit.face_networks.third_party_measurer import ThirdPartyMeasurer, rotation_to_angles
from sfdkit.face_networks.types import MeasureSettings
from sfdkit.losses.identity import IdentityTerm
from tests.networks import Pooled, save_onnx, save_script

WEIGHTS = np.random.default_rng(0).normal(size=(3, 6))


class Constant(nn.Module):
    """The same row for every picture."""

    def __init__(self, values: Tensor) -> None:
        super().__init__()
        self.register_buffer("values", values)

    def forward(self, x: Tensor) -> Tensor:
        nothing = 0 * x.mean((1, 2, 3))
        return self.values[None] + nothing.reshape([-1] + [1] * self.values.dim())


def by_hand(images: Tensor, side: int, mean: float, std: float) -> Tensor:
    x = F.interpolate(images, (side, side), mode="bilinear", antialias=True)
    means = ((x - mean) / std).relu().mean((2, 3)).double()
    return F.normalize(means @ torch.from_numpy(WEIGHTS), dim=1).float()


@pytest.mark.parametrize("batch", ["n", 1])
def test_onnx_embedder_gets_arcface_input_of_the_size_in_the_file(tmp_path: Path, batch: int | str) -> None:
    path, images = save_onnx(tmp_path / "arc.onnx", WEIGHTS, 16, batch), torch.rand(5, 3, 32, 32)
    measurer = ThirdPartyMeasurer(embedder=path)
    found = measurer.measure(images)
    assert found.landmarks is None and found.pose is None and found.expression is None
    assert found.embedding is not None
    torch.testing.assert_close(found.embedding, by_hand(images, 16, 0.5, 0.5))
    assert measurer.about == {"networks/embedder": "arc.onnx"}
    assert set(measurer.missing) == {"landmarks", "pose", "expression"} and "--head_pose" in measurer.missing["pose"]


def test_yaml_beside_a_network_changes_the_convention(tmp_path: Path) -> None:
    path, images = save_onnx(tmp_path / "arc.onnx", WEIGHTS, "s", second=True), torch.rand(3, 3, 32, 32)
    beside = tmp_path / "arc.onnx.yaml"
    beside.write_text("{size: 8, mean: [0, 0, 0], std: [1, 1, 1], channels: bgr, crop: [0.5, 0, 1, 0.5], result: 1}")
    found = ThirdPartyMeasurer(embedder=path).measure(images).embedding
    torch.testing.assert_close(found, by_hand(images[:, :, :16, 16:].flip(1), 8, 0, 1))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sise: 8", r"net\.pt\.yaml: there is no key 'sise'\. Did you mean size\? The names are size, mean"),
        ("size: big", "size: 'big' is no whole number"),
        ("size: 0", "size: 0 is out of range; give more than 0"),
        ("result: -1", "result: -1 is out of range; give 0 or more"),
        ("mean: [a, 1, 1]", "mean: 'a' will not do; it takes a number"),
        ("std: [1, 1]", r"std: '\[1, 1\]' will not do; it takes tuple with 3 elements"),
        ("std: [1, 0, 1]", "std: 0 is out of range; give more than 0"),
        ("channels: rbg", "channels: 'rbg' will not do; it takes 'rgb', 'bgr'"),
        ("crop: [0.5, 0, 0.5, 1]", r"crop=\(0\.5, 0\.0, 0\.5, 1\.0\): give .* shares"),
        ("crop: [0, 0, 2, 1]", "crop: 2 is out of range"),
        ("unit: pixels", "there is no key 'unit'"),
        ("order: [yaw, pitch, roll]", "there is no key 'order'"),
        ("[1]", r"net\.pt\.yaml must hold a mapping, it holds list"),
        ("a: {", r"net\.pt\.yaml is no YAML"),
    ],
)
def test_wrong_yaml_is_refused_with_its_value(tmp_path: Path, text: str, words: str) -> None:
    path = save_script(tmp_path / "net.pt", Pooled([6]))
    (tmp_path / "net.pt.yaml").write_text(text)
    with pytest.raises(ConfigError, match=words):
        ThirdPartyMeasurer(embedder=path)


@pytest.mark.parametrize(
    ("kind", "text", "words"),
    [
        ("landmarks", "unit: degrees", "unit: 'degrees' will not do; it takes 'share', 'pixels'"),
        ("head_pose", "unit: share", "unit: 'share' will not do; it takes 'degrees', 'radians', 'matrix'"),
        ("head_pose", "order: [yaw, pitch]", "order: .* it takes tuple with 3 elements"),
        ("head_pose", "order: [yaw, pitch, yaw]", "order=.*give yaw, pitch and roll"),
        ("head_pose", "signs: [1, 1]", "signs: .* it takes tuple with 3 elements"),
    ],
)
def test_wrong_yaml_of_another_kind_is_refused(tmp_path: Path, kind: str, text: str, words: str) -> None:
    path = save_script(tmp_path / "net.pt", Pooled([6]))
    (tmp_path / "net.pt.yaml").write_text(text)
    with pytest.raises(ConfigError, match=words):
        ThirdPartyMeasurer(**{kind: path})


def test_landmarks_in_shares_and_pixels_come_back_in_pixels(tmp_path: Path) -> None:
    shares = torch.tensor([[0.25, 0.5], [1.0, 0.0]])
    path = save_script(tmp_path / "points.pt", Constant(shares.flatten()))
    expected = (shares * 32 - 0.5).expand(3, 2, 2)
    assert torch.equal(ThirdPartyMeasurer(landmarks=path).measure(torch.rand(3, 3, 32, 32)).landmarks, expected)
    path = save_script(tmp_path / "pixels.pt", Constant(torch.tensor([[3.5, 7.5], [7.0, 0.0]])))
    (tmp_path / "pixels.pt.yaml").write_text("{unit: pixels, size: 16, crop: [0.5, 0, 1, 0.5]}")
    found = ThirdPartyMeasurer(landmarks=path).measure(torch.rand(1, 3, 32, 32)).landmarks
    assert found is not None and found[0].tolist() == [[19.5, 7.5], [23, 0]]


def turned(yaw: float, pitch: float, roll: float) -> Tensor:
    (cy, sy), (cp, sp), (cr, sr) = ((math.cos(math.radians(a)), math.sin(math.radians(a))) for a in (yaw, pitch, roll))
    about_x = torch.tensor([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    about_y = torch.tensor([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = torch.tensor([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1.0]])
    return about_z @ about_y @ about_x


def test_head_pose_from_angles_and_rotations(tmp_path: Path) -> None:
    torch.testing.assert_close(rotation_to_angles(turned(20, -10, 5)[None]), torch.tensor([[20.0, -10, 5]]))
    images = torch.rand(2, 3, 32, 32)
    path = save_script(tmp_path / "angles.pt", Constant(torch.tensor([0.1, 0.2, 0.3])))
    beside = tmp_path / "angles.pt.yaml"
    beside.write_text("{unit: radians, order: [pitch, yaw, roll], signs: [-1, 1, 1]}")
    found = ThirdPartyMeasurer(head_pose=path).measure(images).pose
    assert found is not None
    torch.testing.assert_close(found[1] * math.pi / 180, torch.tensor([-0.2, 0.1, 0.3]))
    path = save_script(tmp_path / "matrix.pt", Constant(turned(20, -10, 5)))
    with pytest.raises(ConfigError, match="unit: matrix"):
        ThirdPartyMeasurer(head_pose=path).measure(images)
    (tmp_path / "matrix.pt.yaml").write_text("unit: matrix")
    torch.testing.assert_close(ThirdPartyMeasurer(head_pose=path).measure(images).pose[0], torch.tensor([20.0, -10, 5]))


def test_files_that_cannot_serve_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.rand(2, 3, 32, 32)
    with pytest.raises(ConfigError, match=r"embedder: .*no.pt is no file"):
        ThirdPartyMeasurer(embedder=tmp_path / "no.pt")
    for name, words in (("a.h5", "ends in"), ("a.pt", "TorchScript"), ("a.onnx", "damaged")):
        (tmp_path / name).write_bytes(b"nothing of the kind")
        with pytest.raises(ConfigError, match=words):
            ThirdPartyMeasurer(landmarks=tmp_path / name)
    with pytest.raises(ConfigError, match=r"gave \(2, 5\)"):
        ThirdPartyMeasurer(landmarks=save_script(tmp_path / "odd.pt", Pooled([5]))).measure(images)
    with pytest.raises(ConfigError, match=r"gave \(2, 1\)"):
        ThirdPartyMeasurer(embedder=save_script(tmp_path / "one.pt", Pooled([1]))).measure(images)
    path = save_onnx(tmp_path / "arc.onnx", WEIGHTS, "s")
    (tmp_path / "arc.onnx.yaml").write_text("result: 3")
    with pytest.raises(ConfigError, match="1 outputs and result is 3"):
        ThirdPartyMeasurer(embedder=path).measure(images)
    for module in ("onnxruntime", "onnx2torch"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=r"sfdkit\[onnx\]"):
        ThirdPartyMeasurer(embedder=path)
    with pytest.raises(ConfigError, match=r"sfdkit\[onnx\].*TorchScript"):
        load_embedder(path)


def test_open_measurer_for_real_faces(tmp_path: Path) -> None:
    path = save_script(tmp_path / "net.pt", Pooled([6]))
    measurer = open_measurer(MeasureSettings(embedder=str(path)), 32, puppets=False)
    assert isinstance(measurer, ThirdPartyMeasurer) and measurer.expression_names == ()
    assert set(open_measurer(MeasureSettings(), 32, False).missing) == {"landmarks", "pose", "expression", "identity"}


@pytest.mark.parametrize("kind", ["onnx", "script"])
def test_embedder_for_a_loss_agrees_with_the_measurer_and_has_gradients(tmp_path: Path, kind: str) -> None:
    if kind == "onnx":
        path = save_onnx(tmp_path / "arc.onnx", WEIGHTS, 16)
    else:
        path = save_script(tmp_path / "arc.pt", Pooled([6]))
    images = torch.rand(4, 3, 40, 40, requires_grad=True)
    embedding = load_embedder(path)(images)
    measured = ThirdPartyMeasurer(embedder=path).measure(images.detach()).embedding
    torch.testing.assert_close(embedding.detach(), measured, atol=1e-5, rtol=1e-5)
    embedding[:, 0].sum().backward()
    assert images.grad is not None and bool((images.grad.flatten(1).abs().sum(1) > 0).all())


def test_identity_term_pulls_the_result_towards_the_person(tmp_path: Path) -> None:
    term = IdentityTerm(str(save_script(tmp_path / "arc.pt", Pooled([6])))).train()
    source = torch.rand(3, 3, 32, 32)
    assert term(source, source) == pytest.approx(0, abs=1e-6)
    image = torch.rand(3, 3, 32, 32, requires_grad=True)
    wanted, got = term.embedder(source), term.embedder(image)
    value = term(image, source)
    assert value.item() == pytest.approx(1 - (wanted * got).sum(1).mean().item(), abs=1e-6) and value > 1e-4
    (gradient,) = torch.autograd.grad(value, image)
    direction = torch.randn_like(image)
    step = 0.5 / direction.norm()  # float32 has no digits for less
    ahead, behind = (term(image.detach() + sign * step * direction, source) for sign in (1, -1))
    slope = (ahead - behind).item() / (2 * step.item())
    assert slope == pytest.approx((gradient * direction).sum().item(), rel=0.05, abs=1e-6)
    assert not any(p.requires_grad for p in term.embedder.parameters())
    assert not term.state_dict() and not any(module.training for module in term.embedder.modules())
    assert next(term.double().embedder.parameters()).dtype == torch.float64
