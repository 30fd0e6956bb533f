"""Animators of three families of backbones come back from ONNX Runtime as they are."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sfdkit.export.write import export_animator
from sfdkit.model.animator import FaceAnimator
from sfdkit.model.descriptors import DescriptorLayer
from sfdkit.model.encoders import TimmEncoder
from sfdkit.model.generator import Generator


@pytest.mark.parametrize("name", ["resnet10t", "mobilenetv4_conv_small_050", "test_vit"])
def test_round_trip_of_three_families_of_backbones(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    encoder = TimmEncoder(name, 64, max_stride=16)
    animator = FaceAnimator(encoder, DescriptorLayer(12, 4), Generator(64, 16, 8, 16, 16, detail=4), motion_points=2)
    manifest = export_animator(animator.eval().requires_grad_(False), tmp_path / "model")
    assert manifest.checked["images"] <= 2 and manifest.checked["motion"] < 1e-3
