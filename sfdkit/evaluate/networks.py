"""The networks that measure pictures in an evaluation, besides L1, PSNR and SSIM."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from sfdkit.face_networks.measurer import open_measurer
from sfdkit.face_networks.types import FaceMeasurer, MeasureSettings
from sfdkit.files import Value
from sfdkit.metrics.features import load_features
from sfdkit.metrics.lpips import load_lpips

READ = ("landmarks", "pose", "expression", "identity")
"""What a network can read in a face."""
READABLE = 0.5
"""Minimum correlation (or R2) with the known factor to count as readable."""


@dataclass(frozen=True)
class Networks:
    """The networks that are available, on the device of the pictures; None for those that are not."""

    measurer: FaceMeasurer | None = None
    """Reads landmarks, pose, expression and identity."""
    lpips: Callable[[Tensor, Tensor], Tensor] | None = None
    """Perceptual distance of pictures F 3 R R from others, in [0, 1]: F values."""
    features: nn.Module | None = None
    """Maps pictures to features, by which sets of pictures are compared."""
    about: Mapping[str, Value] = field(default_factory=dict)
    """Which networks they are, and how accurate; keys of metrics.json."""
    missing: Mapping[str, str] = field(default_factory=dict)
    """What cannot be measured, and how to get it."""

    @property
    def read_without_truth(self) -> bool:
        """Whether results can be measured whose truth is not known."""
        return self.measurer is not None or self.features is not None


def open_networks(settings: MeasureSettings, resolution: int, puppets: bool, device: torch.device) -> Networks:
    """Open the networks that a user named, for pictures of ``resolution`` pixels of puppets or of real faces.

    Raises:
        CheckpointError: The regressor that was named, or the one in the cache, cannot be used.
        ConfigError: Another network that was named cannot be used.
    """
    measurer = open_measurer(settings, resolution, puppets)
    lpips = load_lpips(settings.lpips)
    about = dict(measurer.about)
    missing = {f"{what.capitalize()}, read by a network": how for what, how in measurer.missing.items()}
    if isinstance(lpips, str):
        missing["LPIPS"] = lpips
    features = None
    if settings.features is None:
        missing["FID and KID"] = "name a network with --measure.features FILE, or timm:NAME"
    else:
        features, about["networks/features"] = load_features(settings.features).to(device), settings.features
    return Networks(
        None if set(READ) <= set(measurer.missing) else measurer,
        None if isinstance(lpips, str) else lpips.to(device),
        features,
        about,
        missing,
    )
