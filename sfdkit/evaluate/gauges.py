"""Opens what measures pictures besides the distances of pixels."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn

from sfdkit.evaluate.reenact import Gauges
from sfdkit.face_networks.measurer import open_measurer
from sfdkit.face_networks.types import MeasureSettings
from sfdkit.metrics.features import load_features
from sfdkit.metrics.lpips import load_lpips

READ = ("landmarks", "pose", "expression", "identity")
"""What a network can read in a face."""


class Opened(NamedTuple):
    """What measures, and what its figures should be read with."""

    gauges: Gauges
    about: dict[str, float | int | str | None]
    """About the networks; keys of metrics.json."""
    missing: dict[str, str]
    """What cannot be measured, and how to get it."""
    features: nn.Module | None = None
    """By whose features sets of pictures are compared."""


def open_gauges(settings: MeasureSettings, resolution: int, puppets: bool, device: torch.device) -> Opened:
    """Open the networks that a user named.

    Args:
        settings: Which.
        resolution: Pixels of the pictures.
        puppets: Whether the faces are puppets.
        device: Where the pictures will be.

    Raises:
        CheckpointError: The regressor that was named, or the one in the cache, cannot be used.
        ConfigError: Another network that was named cannot be used.
    """
    measurer = open_measurer(settings, resolution, puppets)
    lpips = load_lpips(settings.lpips)
    missing = {f"{what.capitalize()}, read by a network": how for what, how in measurer.missing.items()}
    if isinstance(lpips, str):
        missing["LPIPS"] = lpips
    gauges = Gauges(
        None if set(READ) <= set(measurer.missing) else measurer,
        None if isinstance(lpips, str) else lpips.to(device),
    )
    about = dict(measurer.about)
    features = None
    if settings.features is None:
        missing["FID and KID"] = "name a network with --measure.features FILE, or timm:NAME"
    else:
        features, about["networks/features"] = load_features(settings.features).to(device), settings.features
    return Opened(gauges, about, missing, features)
