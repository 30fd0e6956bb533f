"""Small real parts for tests."""

from __future__ import annotations

import torch

from sfdkit.model.animator import FaceAnimator
from sfdkit.model.descriptors import DescriptorLayer
from sfdkit.model.encoders import TimmEncoder
from sfdkit.model.generator import Generator


def tiny_animator(
    resolution: int = 32,
    seed: int = 0,
    driving: bool = False,
    code_share: float = 0.0,
    flow_size: int | None = None,
) -> FaceAnimator:
    """Return a real animator of about 0.1 M parameters."""
    torch.manual_seed(seed)
    return FaceAnimator(
        TimmEncoder("test_byobnet", resolution, max_stride=16),
        DescriptorLayer(identity_size=12, motion_size=4),
        Generator(resolution, latent_size=16, width=8, max_channels=16, style_size=16, detail=4, flow_size=flow_size),
        TimmEncoder("test_efficientnet", 32, max_stride=16) if driving else None,
        motion_points=2,
        code_share=code_share,
    )
