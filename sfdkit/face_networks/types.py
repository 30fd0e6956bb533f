"""Measurements of faces, and the interface of what measures them.

Legend: ``F`` pictures, ``R`` resolution, ``L`` landmarks, ``E`` expression values, ``Z`` dimensions of an embedding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

from torch import Tensor


class Measured(NamedTuple):
    """Measurements of F faces; None where no network reads them."""

    landmarks: Tensor | None = None
    """F L 2: x to the right, y down, in pixels of the pictures given; whole numbers at the middle of pixels."""
    pose: Tensor | None = None
    """F 3: yaw, pitch and roll in degrees."""
    expression: Tensor | None = None
    """F E."""
    embedding: Tensor | None = None
    """F Z of length 1: the identity embedding."""


class FaceMeasurer(Protocol):
    """Measures faces."""

    expression_names: tuple[str, ...]
    """E names of the values of ``expression``."""
    about: dict[str, float | int | str | None]
    """The networks and their held-out accuracy, as keys of metrics.json."""
    missing: dict[str, str]
    """What it cannot measure (landmarks, pose, expression, identity), and how to get it."""

    def measure(self, images: Tensor) -> Measured:
        """Measure faces F 3 R R in [0, 1], on their device; no gradient."""


@dataclass(frozen=True)
class MeasureSettings:
    """Which networks measure faces.

    Args:
        regressor: Of puppets: a file that ``sfdkit measure train`` wrote, ``auto`` for the one in the cache if it is
            there, ``none`` for none.
        embedder: Face recognition network for real faces (ArcFace's form): a local .onnx or TorchScript file.
        landmarks: Landmark network for real faces: a local .onnx or TorchScript file.
        head_pose: Head pose network for real faces: a local .onnx or TorchScript file.
        features: Network by whose features sets of pictures are compared (FID, KID): a local .onnx or TorchScript file,
            or timm:NAME; none by default.
        lpips: AlexNet weights of torchvision for LPIPS: a local file; ``none`` leaves LPIPS out, ``auto`` takes what
            torchvision has in its cache.
    """

    regressor: str = "auto"
    embedder: str | None = None
    landmarks: str | None = None
    head_pose: str | None = None
    features: str | None = None
    lpips: str = "auto"
