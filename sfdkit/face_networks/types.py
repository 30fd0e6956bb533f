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
    blendshapes: Tensor | None = None
    """F 52: how far each of ARKit's blendshapes is there, 0 to 1."""
    eye_distance: Tensor | None = None
    """F: distance of the outer corners of the eyes, in pixels."""
    found: Tensor | None = None
    """F bool: whether a detector found a face; all that is read of others is NaN."""


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
        networks: A folder with networks for real faces that the kit knows by their sha256, or that a YAML beside them
            says to be ``like`` one; those named one by one go before them.
        detector: Face detector for real faces, which finds and aligns what the others read: YuNet's ONNX file. Without
            it they read pictures whole.
        embedder: Face recognition network for real faces (ArcFace's form): a local .onnx or TorchScript file.
        landmarks: Landmark network for real faces: a local .onnx or TorchScript file.
        blendshapes: Network that reads expressions from MediaPipe's landmarks: a local .onnx file.
        canonical_face: MediaPipe's canonical face (.obj or .npz), by which head pose is found from its landmarks; it
            goes before a head pose network of the folder.
        head_pose: Head pose network for real faces: a local .onnx or TorchScript file.
        features: Network by whose features sets of pictures are compared (FID, KID): a local .onnx or TorchScript file,
            or timm:NAME; none by default.
        lpips: AlexNet weights of torchvision for LPIPS: a local file; ``none`` leaves LPIPS out, ``auto`` takes what
            torchvision has in its cache.
    """

    regressor: str = "auto"
    networks: str | None = None
    detector: str | None = None
    embedder: str | None = None
    landmarks: str | None = None
    blendshapes: str | None = None
    canonical_face: str | None = None
    head_pose: str | None = None
    features: str | None = None
    lpips: str = "auto"
