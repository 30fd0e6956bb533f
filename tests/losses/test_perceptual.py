from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor
from torchvision.models import vgg19

from sfdkit.errors import ConfigError
from sfdkit.face_networks.feature_network import LAYERS, blur_pool, load_features
from sfdkit.losses import Objective
from sfdkit.losses.perceptual import PerceptualLoss
from sfdkit.losses.vgg19 import WEIGHTS_VARIABLE
from tests.networks import save_features


def test_perceptual_needs_weights_and_says_where_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(WEIGHTS_VARIABLE, str(tmp_path / "none.pth"))
    with pytest.raises(ConfigError, match=r"none\.pth is no file.*vgg19"):
        Objective({"perceptual": 1.0})
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pth")
    monkeypatch.setenv(WEIGHTS_VARIABLE, str(tmp_path / "other.pth"))
    with pytest.raises(ConfigError, match="holds no VGG19 state dict"):
        Objective({"perceptual": 1.0})
    monkeypatch.delenv(WEIGHTS_VARIABLE)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def offline(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(ConfigError, match=r"could not be downloaded.*--model.weights.perceptual 0"):
        Objective({"perceptual": 1.0})


def test_perceptual_from_a_local_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = vgg19()
    torch.save(network.state_dict(), tmp_path / "vgg19.pth")
    monkeypatch.setenv(WEIGHTS_VARIABLE, str(tmp_path / "vgg19.pth"))
    loss = PerceptualLoss()
    image = torch.rand(1, 3, 48, 48)
    assert loss(image, image) == 0
    moved = image.roll(8, 3).requires_grad_(True)
    loss(moved, image).backward()
    assert moved.grad is not None and moved.grad.abs().sum() > 0
    assert not any(p.requires_grad for p in loss.network.parameters())
    assert not loss.state_dict() and not list(loss.parameters()), "checkpoints stay small"
    assert next(loss.double().network.parameters()).dtype == torch.float64


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return save_features(tmp_path / "small.npz")


def by_hand(path: Path, x: Tensor) -> list[Tensor]:
    arrays = {name: torch.from_numpy(value).float() for name, value in np.load(path).items()}
    x, found = F.conv2d(x, arrays["conv0.weight"], arrays["conv0.bias"]), []
    for layer in LAYERS:
        x = F.max_pool2d(x, 2) if layer in ("21", "31", "41") else x
        x = F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), arrays[f"conv{layer}.weight"], arrays[f"conv{layer}.bias"])
        x = x.relu()
        found += [x] if layer.endswith("1") else []
    return found


def test_a_small_network_compares_each_depth_relative_to_the_target(small: Path) -> None:
    x, y = torch.rand(2, 2, 3, 48, 40)
    pairs = zip(by_hand(small, x), by_hand(small, y), strict=True)
    expected = torch.stack([(a - b).abs().mean() / b.abs().mean() for a, b in pairs]).mean()
    loss = PerceptualLoss(str(small))
    assert loss(x, y) == pytest.approx(expected.item(), rel=1e-5) and loss(x, x) == 0


def test_larger_pictures_are_compared_on_two_scales(small: Path) -> None:
    x, y = torch.rand(2, 1, 3, 128, 128)
    loss, halves = PerceptualLoss(str(small)), [F.avg_pool2d(image, 2) for image in (x, y)]
    pairs = zip(by_hand(small, x), by_hand(small, y), strict=True)
    at_full = torch.stack([(a - b).abs().mean() / b.mean() for a, b in pairs])
    assert loss(x, y) == pytest.approx((at_full.mean() + loss(*halves)).item() / 2, rel=1e-5)


def test_gradients_go_to_the_prediction_alone_and_checkpoints_stay_small(small: Path) -> None:
    loss = Objective({"perceptual": 1.0}, None, {"perceptual": str(small)}).terms["perceptual"]
    x, y = (torch.rand(1, 3, 32, 32, requires_grad=True) for _ in range(2))
    loss(x, y).backward()
    assert x.grad is not None and x.grad.abs().sum() > 0 and y.grad is None
    assert isinstance(loss, PerceptualLoss) and not any(p.requires_grad for p in loss.network.parameters())
    assert not loss.state_dict() and not list(loss.parameters())
    assert next(loss.double().network.parameters()).dtype == torch.float64


def test_npz_and_safetensors_are_one_network(small: Path, tmp_path: Path) -> None:
    tensors = {name: torch.from_numpy(value).float().contiguous() for name, value in np.load(small).items()}
    image = torch.rand(1, 3, 32, 32)
    save_file(tensors, tmp_path / "plain.safetensors")
    save_file({n: t.half() for n, t in tensors.items()}, tmp_path / "blur.safetensors", {"pool": "blur"})
    wanted = load_features(str(small))(image)
    torch.testing.assert_close(load_features(str(tmp_path / "plain.safetensors"))(image), wanted)
    other = load_features(str(tmp_path / "blur.safetensors"))(image)
    torch.testing.assert_close(other[0], wanted[0], atol=0.02, rtol=0.01)
    assert other[1].shape == wanted[1].shape and (other[1] - wanted[1]).abs().mean() > 0.05 * wanted[1].mean()


def test_blur_pool_keeps_flat_maps_and_removes_checkerboards() -> None:
    flat, board = torch.full((1, 2, 8, 8), 0.7), (torch.arange(8)[:, None] + torch.arange(8)) % 2 * 2.0 - 1
    torch.testing.assert_close(blur_pool(flat), torch.full((1, 2, 4, 4), 0.7))
    assert blur_pool(board.expand(1, 2, 8, 8)).abs().max() < 1e-6


def test_files_of_other_networks_are_refused(small: Path, tmp_path: Path) -> None:
    def refused(path: object, pattern: str) -> None:
        with pytest.raises(ConfigError, match=f"networks: perceptual: .*{pattern}") as caught:
            Objective({"perceptual": 1.0}, None, {"perceptual": str(path)})
        assert "\n" not in str(caught.value)

    refused("pupets", "neither a file nor a name.* Did you mean 'puppets'")
    refused(tmp_path / "none.npz", "neither a file nor a name")
    arrays = dict(np.load(small))
    np.savez(tmp_path / "short.npz", **{name: value for name, value in arrays.items() if "41" not in name})
    refused(tmp_path / "short.npz", r"short\.npz .*conv41\.weight or conv41\.bias is missing")
    np.savez(tmp_path / "wide.npz", **arrays | {"conv21.weight": np.zeros((8, 5, 3, 3))})
    refused(tmp_path / "wide.npz", r"conv21\.weight is 8 x 5 x 3 x 3, not 8 x 4 x 3 x 3")
    np.savez(tmp_path / "pickled.npz", **arrays | {"conv0.bias": np.array([{}, 1, 2], object)})
    refused(tmp_path / "pickled.npz", "damaged or no .npz file")
    for name in ("broken.npz", "broken.safetensors"):
        (tmp_path / name).write_bytes(b"PK\x03\x04 and no more")
        refused(tmp_path / name, f"{name} .*damaged")
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    refused(tmp_path / "other.safetensors", "missing")
    refused(small.rename(tmp_path / "small.pth"), r"suffix '\.pth' is unknown")
    with pytest.raises(ConfigError, match="16 pixels or more"):
        load_features(str(save_features(tmp_path / "again.npz")))(torch.rand(1, 3, 12, 12))
