from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torchmetrics.functional.image.lpips import _LPIPS
from torchvision.models import alexnet

from sfdkit.errors import ConfigError
from sfdkit.metrics.lpips import FrameLpips, load_lpips


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("alexnet") / "alexnet.pth"
    torch.save(alexnet().state_dict(), path)
    return path


def test_lpips_is_the_formula_of_the_paper(weights: Path) -> None:
    lpips = load_lpips(str(weights))
    assert isinstance(lpips, FrameLpips)
    x, y = torch.rand(3, 3, 64, 64), torch.rand(3, 3, 64, 64)
    backbone, reference = alexnet().eval(), _LPIPS(net="alex", pnet_rand=True)
    backbone.load_state_dict(torch.load(weights, weights_only=True))
    expected = np.zeros(3)
    scale = [(2 * image - 1 - torch.tensor([-0.030, -0.088, -0.188])[:, None, None]) for image in (x, y)]
    a, b = (image / torch.tensor([0.458, 0.448, 0.450])[:, None, None] for image in scale)
    depth = 0
    for layer in backbone.features:
        a, b = layer(a), layer(b)
        if isinstance(layer, torch.nn.ReLU):
            head = reference.lins[depth].model[1].weight.detach().numpy()[0, :, 0, 0]
            p, q = a.detach().double().numpy().copy(), b.detach().double().numpy().copy()
            for n in range(3):
                places = [(i, j) for i in range(p.shape[2]) for j in range(p.shape[3])]
                values = []
                for i, j in places:
                    u, v = p[n, :, i, j], q[n, :, i, j]
                    values.append((head * (u / np.linalg.norm(u) - v / np.linalg.norm(v)) ** 2).sum())
                expected[n] += np.mean(values)
            depth += 1
    assert depth == 5
    found = lpips(x, y)
    assert found.shape == (3,) and found.numpy() == pytest.approx(expected, rel=1e-4)
    for k, slice_ in enumerate(lpips.slices):
        getattr(reference.net, f"slice{k + 1}").load_state_dict(
            dict(zip(getattr(reference.net, f"slice{k + 1}").state_dict(), slice_.state_dict().values(), strict=True))
        )
    torch.testing.assert_close(found, reference(x, y, normalize=True).flatten(), rtol=1e-4, atol=1e-7)
    assert lpips(x, x).abs().max() == 0


def test_absent_weights_are_told_and_never_downloaded(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    words = load_lpips("auto")
    assert isinstance(words, str) and "alexnet-owt-7be5be79.pth" in words and str(tmp_path) in words
    assert not list(tmp_path.iterdir())
    assert isinstance(load_lpips("none"), str)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "alexnet-owt-7be5be79.pth").write_bytes(weights.read_bytes())
    assert isinstance(load_lpips("auto"), FrameLpips)
    with pytest.raises(ConfigError, match="no file"):
        load_lpips(str(tmp_path / "other.pth"))
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(ConfigError, match="no AlexNet"):
        load_lpips(str(tmp_path / "other.pth"))
