"""The field's metrics against independent implementations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from scipy.ndimage import correlate1d
from scipy.spatial.transform import Rotation
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor, nn

from sfdkit.errors import ConfigError
from sfdkit.metrics.faces import (
    angles_to_rotation,
    eye_openness,
    identity_distance,
    mouth_openness,
    rotation_distance,
)
from sfdkit.metrics.features import fid, kid, load_features
from sfdkit.metrics.image import frame_l1, frame_ms_ssim, frame_psnr, frame_ssim


def pictures(count: int, size: int) -> tuple[Tensor, Tensor]:
    """Return smooth pictures and noisy copies."""
    coarse = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    clean = nn.functional.interpolate(coarse, (size, size), mode="bicubic").clamp(0, 1)
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(2))
    return (clean + 0.05 * noise).clamp(0, 1), clean


def test_l1_and_psnr_equal_scikit_image() -> None:
    one, other = pictures(3, 48)
    for k in range(3):
        a, b = one[k].double().numpy(), other[k].double().numpy()
        assert float(frame_psnr(one, other)[k]) == pytest.approx(peak_signal_noise_ratio(b, a, data_range=1), abs=1e-4)
        assert float(frame_l1(one, other)[k]) == pytest.approx(float(np.abs(a - b).mean()), abs=1e-6)


def test_ssim_is_that_of_scikit_image_away_from_the_border() -> None:
    one, other = pictures(3, 64)
    inside = torch.zeros(3, 1, 64, 64)
    inside[:, :, 8:-8, 8:-8] = 1
    for k in range(3):
        a, b = one[k].double().numpy(), other[k].double().numpy()
        _, local = structural_similarity(
            a, b, channel_axis=0, data_range=1, gaussian_weights=True, use_sample_covariance=False, full=True
        )
        wanted = float(local[:, 8:-8, 8:-8].mean())
        assert float(frame_ssim(one, other, inside)[k]) == pytest.approx(wanted, abs=1e-4)


def gaussian(picture: np.ndarray) -> np.ndarray:
    x = np.arange(-5, 6)
    window = np.exp(-(x**2) / 4.5)
    window /= window.sum()
    return correlate1d(correlate1d(picture, window, 0), window, 1)[5:-5, 5:-5]


def plain_ms_ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Compute MS-SSIM of one channel as it is published."""
    product = 1.0
    for scale, weight in enumerate((0.0448, 0.2856, 0.3001, 0.2363, 0.1333)):
        ma, mb = gaussian(a), gaussian(b)
        va, vb, cov = gaussian(a * a) - ma**2, gaussian(b * b) - mb**2, gaussian(a * b) - ma * mb
        contrast = (2 * cov + 0.03**2) / (va + vb + 0.03**2)
        local = contrast * (2 * ma * mb + 0.01**2) / (ma**2 + mb**2 + 0.01**2)
        product *= max(0.0, float((local if scale == 4 else contrast).mean())) ** weight
        a, b = (p.reshape(p.shape[0] // 2, 2, p.shape[1] // 2, 2).mean((1, 3)) for p in (a, b))
    return product


def test_ms_ssim_is_the_published_formula_away_from_the_border() -> None:
    one, other = pictures(2, 256)
    one, other = one[:, :1], other[:, :1]
    for k in range(2):
        wanted = plain_ms_ssim(one[k, 0].double().numpy(), other[k, 0].double().numpy())
        assert float(frame_ms_ssim(one, other)[k]) == pytest.approx(wanted, abs=5e-3)
    assert frame_ms_ssim(other, other).tolist() == pytest.approx([1.0, 1.0])
    with pytest.raises(ConfigError, match="at least 161 pixels a side, these have 64 x 64"):
        frame_ms_ssim(one[..., :64, :64], other[..., :64, :64])


def test_rotations_are_those_of_scipy() -> None:
    angles = torch.rand(20, 3, dtype=torch.float64) * 120 - 60
    others = torch.rand(20, 3, dtype=torch.float64) * 120 - 60
    one, other = (Rotation.from_euler("ZYX", a[:, [2, 0, 1]].numpy(), degrees=True) for a in (angles, others))
    assert torch.allclose(angles_to_rotation(angles), torch.from_numpy(one.as_matrix()))
    wanted = torch.from_numpy(np.rad2deg((one.inv() * other).magnitude()))
    assert torch.allclose(rotation_distance(angles, others), wanted)
    assert float(rotation_distance(angles, angles).max()) < 1e-6


def test_aed_of_the_first_order_motion_model_by_hand() -> None:
    one, other = torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.tensor([[0.0, 4.0], [0.0, 0.0]])
    assert identity_distance(one, other).tolist() == [5.0, 0.0]


def test_openness_by_hand() -> None:
    points = torch.zeros(1, 68, 2)
    eye = torch.tensor([[0.0, 0.0], [2.0, 1.0], [4.0, 1.0], [6.0, 0.0], [4.0, -1.0], [2.0, -1.0]])
    points[0, 36:42], points[0, 42:48] = eye, eye * torch.tensor([1.0, 0.5])
    points[0, 60], points[0, 62], points[0, 64], points[0, 66] = (
        torch.tensor(p) for p in ((0.0, 0.0), (2.0, 1.0), (4.0, 0.0), (2.0, -2.0))
    )
    assert eye_openness(points).tolist() == pytest.approx([(2 / 6 + 1 / 6) / 2])
    assert mouth_openness(points).tolist() == pytest.approx([0.75])
    with pytest.raises(ConfigError, match="68 points of iBUG"):
        eye_openness(points[:, :5])


class Means(nn.Module):
    """Features that can be computed by hand: means of quarters of the picture."""

    def forward(self, images: Tensor) -> Tensor:
        return nn.functional.adaptive_avg_pool2d(images.float(), 2).flatten(1)


def test_fid_and_kid_are_the_published_formulas() -> None:
    real, made = torch.rand(60, 3, 16, 16), torch.rand(50, 3, 16, 16) * 0.8
    x, y = (Means()(p).double().numpy() for p in (real, made))
    metric = fid(Means())
    metric.update(real, real=True)
    metric.update(made, real=False)
    a, b = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    wanted = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(a + b - 2 * sqrtm(a @ b).real)
    assert float(metric.compute()) == pytest.approx(wanted, rel=1e-3)
    kernel = kid(Means(), subset=50)
    kernel.update(real[:50], real=True)
    kernel.update(made, real=False)
    x = x[:50]
    k = lambda p, q: (p @ q.T / p.shape[1] + 1) ** 3  # noqa: E731
    inside = sum((m.sum() - np.trace(m)) / (50 * 49) for m in (k(x, x), k(y, y)))
    assert float(kernel.compute()[0]) == pytest.approx(inside - 2 * k(x, y).mean(), rel=1e-3)


class VideoMeans(nn.Module):
    def forward(self, videos: Tensor) -> Tensor:
        return videos.float().mean((3, 4)).flatten(1)


def test_fvd_is_fid_of_whole_videos() -> None:
    real, made = torch.rand(40, 4, 3, 8, 8), torch.rand(40, 4, 3, 8, 8) * 0.5
    metric = fid(VideoMeans(), (4, 3, 8, 8))
    metric.update(real, real=True)
    metric.update(made, real=False)
    x, y = (VideoMeans()(p).double().numpy() for p in (real, made))
    a, b = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    wanted = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(a + b - 2 * sqrtm(a @ b).real)
    assert float(metric.compute()) == pytest.approx(wanted, rel=1e-3)


def test_feature_networks_come_from_files_or_timm(tmp_path: Path) -> None:
    features = load_features("timm:test_resnet", pretrained=False)
    assert features(torch.rand(2, 3, 40, 40)).shape[0] == 2
    torch.jit.script(nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten())).save(str(tmp_path / "net.pt"))
    found = load_features(str(tmp_path / "net.pt"))
    assert found(torch.rand(3, 3, 40, 40)).shape == (3, 12)
    with pytest.raises(ConfigError, match="no model named 'resnet_of_mine'"):
        load_features("timm:resnet_of_mine")
    with pytest.raises(ConfigError, match=r"gone\.onnx"):
        load_features(str(tmp_path / "gone.onnx"))
