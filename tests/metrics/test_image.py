from __future__ import annotations

import math

import pytest
import torch
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from sfdkit.metrics.image import PSNR_LIMIT, frame_l1, frame_psnr, frame_ssim


def pictures(count: int = 5, size: int = 24) -> tuple[torch.Tensor, torch.Tensor]:
    target = torch.rand(count, 3, size, size)
    noise = torch.linspace(0.02, 0.3, count)[:, None, None, None]
    return (target + noise * torch.randn_like(target)).clamp(0, 1), target


def test_frame_values_are_those_of_torchmetrics_frame_by_frame() -> None:
    prediction, target = pictures()
    psnr = [float(peak_signal_noise_ratio(p, t, data_range=1.0)) for p, t in zip(prediction, target, strict=True)]
    ssim = [
        float(structural_similarity_index_measure(p[None], t[None], data_range=1.0))
        for p, t in zip(prediction, target, strict=True)
    ]
    assert frame_psnr(prediction, target).tolist() == pytest.approx(psnr, rel=1e-5)
    assert frame_ssim(prediction, target).tolist() == pytest.approx(ssim, rel=1e-4)
    assert frame_l1(prediction, target)[2] == pytest.approx(float((prediction[2] - target[2]).abs().mean()))


def test_equal_pictures_have_the_best_values() -> None:
    _, target = pictures(2)
    assert frame_l1(target, target).tolist() == [0, 0]
    assert frame_psnr(target, target).tolist() == pytest.approx([PSNR_LIMIT] * 2)
    assert frame_ssim(target, target).tolist() == pytest.approx([1, 1], abs=1e-5)


def test_mask_leaves_the_outside_out() -> None:
    _, target = pictures(1, 32)
    prediction = target.clone()
    prediction[..., :16] = 0
    left = torch.zeros(1, 1, 32, 32)
    left[..., :8] = 1
    right = torch.zeros(1, 1, 32, 32)
    right[..., 24:] = 1
    assert frame_l1(prediction, target, right).item() == 0
    assert frame_psnr(prediction, target, right).item() == pytest.approx(PSNR_LIMIT)
    assert frame_ssim(prediction, target, right).item() == pytest.approx(1, abs=1e-5)
    assert frame_l1(prediction, target, left).item() == pytest.approx(float(target[..., :8].mean()), rel=1e-5)
    assert frame_ssim(prediction, target, left).item() < 0.1
    assert math.isnan(frame_l1(prediction, target, torch.zeros(1, 1, 32, 32)).item())


def test_half_weights_of_a_mask_count_half() -> None:
    target = torch.zeros(1, 3, 8, 8)
    prediction = target.clone()
    prediction[..., 0] = 1
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., 0], mask[..., 1] = 0.5, 1.0
    assert frame_l1(prediction, target, mask).item() == pytest.approx(1 / 3)
