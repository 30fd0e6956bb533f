"""Measuring real faces with third-party networks in local files.

Legend: ``F`` pictures, ``R`` resolution, ``S`` side of a network's input, ``L`` landmarks, ``Z`` dimensions of an
embedding.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor

from sfdkit.errors import ConfigError
from sfdkit.face_networks.conventions import (
    ARCFACE,
    HEAD_POSE_NET,
    LANDMARK_NET,
    HeadPoseConvention,
    LandmarkConvention,
)
from sfdkit.face_networks.third_party import NetworkFile, landmarks_in_pixels
from sfdkit.face_networks.types import Measured

_HOW = {
    "identity": ("embedder", "a face recognition network such as ArcFace's"),
    "landmarks": ("landmarks", "a landmark network such as PFLD"),
    "pose": ("head_pose", "a head pose network such as 6DRepNet"),
}


class ThirdPartyMeasurer:
    """Measures identity embedding, landmarks and head pose of real faces, each with a network in a local file.

    They get the whole face crop, unless a YAML beside a network says otherwise
    (:mod:`sfdkit.face_networks.conventions`). Expressions are read where a detector finds the faces:
    :class:`sfdkit.face_networks.detected_measurer.DetectedFaceMeasurer`.

    Args:
        embedder: Face recognition network, F 3 S S to F Z.
        landmarks: Landmark network, to F L 2 or F 2L (x and y of each point in turn).
        head_pose: Head pose network, to F 3 angles or F 3 3 rotations.

    Raises:
        ConfigError: A file is missing, damaged or of another kind.
    """

    expression_names: tuple[str, ...] = ()

    def __init__(
        self,
        embedder: str | Path | None = None,
        landmarks: str | Path | None = None,
        head_pose: str | Path | None = None,
    ) -> None:
        self.embedder = None if embedder is None else NetworkFile("embedder", embedder, ARCFACE)
        self.landmarks = None if landmarks is None else NetworkFile("landmarks", landmarks, LANDMARK_NET)
        self.head_pose = None if head_pose is None else NetworkFile("head_pose", head_pose, HEAD_POSE_NET)
        networks: dict[str, NetworkFile | None] = {
            "embedder": self.embedder,
            "landmarks": self.landmarks,
            "head_pose": self.head_pose,
        }
        if self.landmarks is not None and self.landmarks.convention.region == "level":
            raise ConfigError(
                f"landmarks: {landmarks} reads faces that are cut out and level; give a detector as well "
                "(--measure.detector FILE)"
            )
        self.about: dict[str, float | int | str | None] = {
            f"networks/{name}": network.path.name for name, network in networks.items() if network is not None
        }
        self.missing = {
            what: f"name {words} with --{key} FILE (.onnx or TorchScript)"
            for what, (key, words) in _HOW.items()
            if networks[key] is None
        }
        self.missing["expression"] = "give --measure.detector, --measure.landmarks and --measure.blendshapes"

    @torch.no_grad()
    def measure(self, images: Tensor) -> Measured:
        """Read faces.

        Args:
            images: F 3 R R in [0, 1].

        Returns:
            What there is a network for, on the device of the pictures.

        Raises:
            ConfigError: A network cannot take the pictures, or its output is not what its kind gives.
        """
        return Measured(
            landmarks=None if self.landmarks is None else _landmarks(self.landmarks, images),
            pose=None if self.head_pose is None else read_pose(self.head_pose, images),
            embedding=None if self.embedder is None else self.embedder.embed(images),
        )


def _landmarks(network: NetworkFile[LandmarkConvention], images: Tensor) -> Tensor:
    points, size = landmarks_in_pixels(network, network(images))[..., :2], network.convention.size
    left, top, right, bottom = network.convention.window(*images.shape[2:])
    shares = (points + 0.5) / size
    return shares * shares.new_tensor([right - left, bottom - top]) + shares.new_tensor([left, top]) - 0.5


def read_pose(network: NetworkFile[HeadPoseConvention], images: Tensor) -> Tensor:
    """Return yaw, pitch and roll in degrees, F 3, that a head pose network reads in pictures F 3 H W.

    Raises:
        ConfigError: It gives something else than angles or rotations.
    """
    values, convention = network(images), network.convention
    if convention.unit == "matrix":
        if values.shape[1:] != (3, 3):
            raise network.wrong_output(values, "F 3 3, a rotation of each picture")
        angles = rotation_to_angles(values)
    else:
        if values.flatten(1).shape[1] != 3:
            raise network.wrong_output(values, "F 3, yaw, pitch and roll of each picture (or unit: matrix)")
        columns = values.flatten(1)
        angles = torch.stack([columns[:, convention.order.index(name)] for name in ("yaw", "pitch", "roll")], 1)
        if convention.unit == "radians":
            angles = angles * (180 / math.pi)
    return angles * angles.new_tensor(convention.signs)


def rotation_to_angles(rotation: Tensor) -> Tensor:
    """Return yaw, pitch and roll in degrees, F 3, of rotations F 3 3.

    The rotation is taken for ``R = Rz(roll) Ry(yaw) Rx(pitch)`` (x to the side, y upright, z along the view), as
    6DRepNet does.
    """
    pitch = torch.atan2(rotation[:, 2, 1], rotation[:, 2, 2])
    yaw = torch.atan2(-rotation[:, 2, 0], torch.hypot(rotation[:, 0, 0], rotation[:, 1, 0]))
    roll = torch.atan2(rotation[:, 1, 0], rotation[:, 0, 0])
    return torch.stack([yaw, pitch, roll], 1) * (180 / math.pi)
