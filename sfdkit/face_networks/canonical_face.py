"""Head pose from landmarks with depth: the rotation that takes a canonical face to them.

The canonical face is the mean face whose vertices are the points of MediaPipe's landmark network; the rotation is that
of weighted Procrustes analysis, https://doi.org/10.1109/34.88573 (Umeyama 1991).

Legend: ``F`` faces, ``P`` points of the landmark network.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sfdkit.errors import ConfigError
from sfdkit.face_networks.conventions import CanonicalConvention
from sfdkit.face_networks.known import read_convention, remedy_of
from sfdkit.face_networks.third_party import require_file
from sfdkit.face_networks.third_party_measurer import rotation_to_angles
from sfdkit.metrics.exact import exact


class CanonicalFace:
    """A canonical face in a local file.

    Args:
        path: An .obj (the lines ``v x y z``), or an .npz with the array ``vertices_cm``. x is to the right of the
            picture, y up, z towards the viewer.

    Raises:
        ConfigError: The file is missing or of another kind, or lacks vertices that the convention names.
    """

    numbers = 3
    """Of each landmark that it reads."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        require_file("canonical_face", self.path, (".obj", ".npz"))
        self.convention = read_convention("canonical_face", self.path, CanonicalConvention())
        if not self.convention.points:
            raise ConfigError(
                f"canonical_face: {path} is not known; if its vertices are in the order of the landmark network's "
                f"points, {remedy_of('canonical_face', self.path)}"
            )
        vertices = _read_vertices(self.path)
        self._points = self.convention.points
        if len(vertices) <= max(self._points):
            raise ConfigError(
                f"canonical_face: {path} has {len(vertices)} vertices, and pose is found by vertex "
                f"{max(self._points)}; name others under points in {self.path.name}.yaml beside it"
            )
        weights = torch.tensor(self.convention.weights or [1.0] * len(self._points), dtype=torch.float64)
        self._weights = weights / weights.sum()
        self._vertices = exact(torch.from_numpy(vertices))[self._points]

    def rotation(self, points: Tensor) -> Tensor:
        """Return the rotations of heads with landmarks F P 3: F 3 3 float64, x to the right, y up, z to the viewer."""
        places = exact(points[:, self._points]) * torch.tensor([1.0, -1.0, -1.0], dtype=torch.float64)
        weights = self._weights[:, None]
        vertices = self._vertices - (weights * self._vertices).sum(0)
        places = places - (weights * places).sum(1, keepdim=True)
        u, _, vt = torch.linalg.svd((weights * vertices).T @ places)
        sign = torch.ones(len(points), 3, dtype=torch.float64)
        sign[:, 2] = torch.linalg.det(u @ vt).sign()  # a rotation, not a reflection
        return ((u * sign[:, None]) @ vt).transpose(1, 2)

    def __call__(self, points: Tensor) -> Tensor:
        """Return yaw (to the right of the picture), pitch (up) and roll (counter-clockwise) in degrees, F 3.

        Args:
            points: F P 3 in pixels.
        """
        return (rotation_to_angles(self.rotation(points)) * torch.tensor([1.0, -1.0, 1.0])).float()


def _read_vertices(path: Path) -> np.ndarray:
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                vertices = np.asarray(arrays["vertices_cm"], np.float64)
        else:
            lines = path.read_text(encoding="utf-8").splitlines()
            vertices = np.array([[float(x) for x in line.split()[1:4]] for line in lines if line.startswith("v ")])
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise ConfigError(
            f"canonical_face: {path} cannot be read ({str(error).strip()}); give an .obj with lines 'v x y z', or an "
            ".npz with the array vertices_cm"
        ) from error
    if vertices.ndim != 2 or vertices.shape[1] != 3:
        raise ConfigError(f"canonical_face: {path} holds {vertices.shape}, where x, y and z of each vertex are needed")
    return vertices
