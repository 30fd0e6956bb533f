"""Measuring real faces that a detector finds: what each network sees is cut out and aligned as it was trained.

Legend: ``F`` pictures, ``R`` resolution, ``L`` landmarks, ``Z`` dimensions of an embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sfdkit.errors import ConfigError
from sfdkit.face_networks.blendshapes import EXPRESSION, BlendshapeNetwork
from sfdkit.face_networks.canonical_face import CanonicalFace
from sfdkit.face_networks.conventions import ARCFACE, HEAD_POSE_NET, Convention
from sfdkit.face_networks.landmarks import LandmarkReader, MainFaceDetector, eye_corners
from sfdkit.face_networks.regions import cut, map_of_face
from sfdkit.face_networks.third_party import NetworkFile
from sfdkit.face_networks.third_party_measurer import read_pose
from sfdkit.face_networks.types import Measured
from sfdkit.media.box import Box
from sfdkit.media.detect import Face

_GREY = ((24.0, 24.0), (40.0, 24.0), (32.0, 34.0), (26.0, 44.0), (38.0, 44.0))


@dataclass(frozen=True)
class FaceFiles:
    """Files of networks for real faces; :class:`sfdkit.face_networks.types.MeasureSettings` explains them."""

    detector: Path
    embedder: Path | None = None
    landmarks: Path | None = None
    blendshapes: Path | None = None
    canonical_face: Path | None = None
    head_pose: tuple[Path, ...] = ()
    """The mean of their angles is taken."""


class DetectedFaceMeasurer:
    """Measures the largest face of each picture; small pictures are enlarged to what a network needs.

    Pose is found from the landmarks where there is a canonical face, else by the head pose networks. Yaw is to the
    right of the picture, pitch up, roll counter-clockwise. Where the detector or the landmark network finds no face,
    all is NaN, and ``found`` says so.

    Args:
        files: The networks.

    Raises:
        ConfigError: A file is missing, damaged or of another kind, or one needs another that is not there.
    """

    def __init__(self, files: FaceFiles) -> None:
        self.detector = MainFaceDetector(files.detector)
        self.landmarks = None if files.landmarks is None else LandmarkReader(files.landmarks, self.detector)
        self.blendshapes = None if files.blendshapes is None else BlendshapeNetwork(files.blendshapes)
        self.canonical = None if files.canonical_face is None else CanonicalFace(files.canonical_face)
        self.embedder = None if files.embedder is None else NetworkFile("embedder", files.embedder, ARCFACE, cut=True)
        self.head_pose = [NetworkFile("head_pose", path, HEAD_POSE_NET, cut=True) for path in files.head_pose]
        for reader in (self.blendshapes, self.canonical):
            if reader is not None:
                _require_landmarks(reader, self.landmarks)
        self.expression_names: tuple[str, ...] = tuple(EXPRESSION) if self.blendshapes is not None else ()
        self.about: dict[str, float | int | str | None] = _about(files)
        self.missing = _missing(files)
        # what is read of a grey picture tells the shape of each output, and whether the networks belong together
        grey = np.full((64, 64, 3), 128, np.uint8)
        points = None if self.landmarks is None else self.landmarks.points_of_grey()
        self._grey = self._read_found([grey], [Face(Box(8, 8, 56, 56), 1.0, _GREY[:2], _GREY)], points)

    @torch.no_grad()
    def measure(self, images: Tensor) -> Measured:
        """Read faces.

        Args:
            images: F 3 R R in [0, 1]; they are rounded to 8 bits, as those of a video are.

        Returns:
            What there is a network for, on the device of the pictures.

        Raises:
            ConfigError: A network cannot take the pictures, or its output is not what its kind gives.
        """
        pictures = (images.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
        seen = {k: face for k, picture in enumerate(pictures) if (face := self.detector.find(picture)) is not None}
        points = None
        if self.landmarks is not None:
            read = {k: self.landmarks.read_face(pictures[k], face) for k, face in seen.items()}
            kept = {k: face.points for k, face in read.items() if face is not None}
            seen = {k: seen[k] for k in kept}
            points = torch.from_numpy(np.stack(list(kept.values()))) if kept else None
        rows = list(seen)
        values = self._read_found([pictures[k] for k in rows], list(seen.values()), points) if rows else None
        found = torch.zeros(len(images), dtype=torch.bool)
        found[rows] = True
        columns: list[Tensor | None] = []
        for number, one in enumerate(self._grey):
            column = None if one is None else torch.full((len(images), *one.shape[1:]), torch.nan)
            there = None if values is None else values[number]
            if column is not None and there is not None:
                column[rows] = there
            columns.append(None if column is None else column.to(images.device))
        return Measured(*columns)._replace(found=found.to(images.device))

    def _read_found(self, pictures: Sequence[np.ndarray], faces: Sequence[Face], points: Tensor | None) -> Measured:
        """Read pictures that each show a face with landmarks F L 2 or F L 3; on the CPU, without ``found``."""
        embedding, blendshapes, pose = None, None, None
        if self.embedder is not None:
            embedding = self.embedder.embed(self._cut(self.embedder.convention, pictures, faces))
        if self.blendshapes is not None and points is not None:
            blendshapes = self.blendshapes(points)
        if self.canonical is not None and points is not None:
            pose = self.canonical(points)
        elif self.head_pose:
            read = [read_pose(net, self._cut(net.convention, pictures, faces)) for net in self.head_pose]
            pose = torch.stack(read).mean(0)
        expression = (
            None if blendshapes is None or self.blendshapes is None else self.blendshapes.expression(blendshapes)
        )
        landmarks = None if points is None else points[:, :, :2]
        return Measured(landmarks, pose, expression, embedding, blendshapes, self._eye_distance(points))

    def _cut(self, convention: Convention, pictures: Sequence[np.ndarray], faces: Sequence[Face]) -> Tensor:
        """Return what a network sees of each picture: F 3 S S in [0, 1]."""
        cuts = []
        for picture, face in zip(pictures, faces, strict=True):
            to_input = map_of_face(convention, picture, face, self.detector.five_points(face))
            cuts.append(cut(picture, to_input, convention.size))
        return torch.from_numpy(np.stack(cuts)).permute(0, 3, 1, 2) / 255

    def _eye_distance(self, points: Tensor | None) -> Tensor | None:
        if self.landmarks is None or points is None:
            return None
        corners = eye_corners(self.landmarks.convention, points.transpose(0, 1))
        return None if corners is None else (corners[0] - corners[1])[:, :2].norm(dim=1)


def _require_landmarks(reader: BlendshapeNetwork | CanonicalFace, landmarks: LandmarkReader | None) -> None:
    """Check that the landmark network gives the points that blendshapes or a canonical face need."""
    key, last = reader.convention.kind, max(reader.convention.points)
    if landmarks is None:
        raise ConfigError(
            f"{key}: {reader.path} reads landmarks; name a landmark network as well (--measure.landmarks FILE)"
        )
    count, numbers = landmarks.points_of_grey().shape[1:]
    if count <= last or numbers < reader.numbers:
        raise ConfigError(
            f"{key}: {reader.path} reads {reader.numbers} numbers of point {last}, and {landmarks.network.path} gives "
            f"{count} points of {numbers}; take the landmark network that belongs to it"
        )


def _about(files: FaceFiles) -> dict[str, float | int | str | None]:
    """Return the names of the files, as keys of metrics.json."""
    about: dict[str, float | int | str | None] = {}
    for field in fields(files):
        value = getattr(files, field.name)
        paths = value if isinstance(value, tuple) else () if value is None else (value,)
        if paths:
            about[f"networks/{field.name}"] = ", ".join(path.name for path in paths)
    return about


def _missing(files: FaceFiles) -> dict[str, str]:
    """Return what cannot be measured, and how to get it."""
    ways = {
        "landmarks": (files.landmarks, "name a landmark network with --measure.landmarks FILE"),
        "pose": (
            files.canonical_face or files.head_pose,
            "name a canonical face with --measure.canonical_face FILE, or a network with --measure.head_pose FILE",
        ),
        "expression": (files.blendshapes, "name a blendshape network with --measure.blendshapes FILE"),
        "identity": (files.embedder, "name a face recognition network with --measure.embedder FILE"),
    }
    return {what: how for what, (given, how) in ways.items() if not given}
