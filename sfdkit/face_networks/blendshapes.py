"""Expressions of faces from their landmarks, by MediaPipe's blendshape network.

The 52 values are ARKit's blendshapes (https://developer.apple.com/documentation/arkit/arfaceanchor/blendshapelocation),
in whose names left and right are the person's.

Legend: ``F`` faces, ``P`` points of the landmark network.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from sfdkit.errors import ConfigError
from sfdkit.face_networks.conventions import BlendshapeConvention
from sfdkit.face_networks.known import known_convention, read_convention
from sfdkit.face_networks.onnx_file import OnnxSession
from sfdkit.face_networks.third_party import require_file

EXPRESSION: dict[str, dict[str, float]] = {
    "jaw_open": {"jawOpen": 1},
    "blink": {"eyeBlinkLeft": 1, "eyeBlinkRight": 1},
    "smile": {"mouthSmileLeft": 1, "mouthSmileRight": 1},
    "brow_inner_up": {"browInnerUp": 1},
    "gaze_x": {"eyeLookOutLeft": 0.5, "eyeLookInRight": 0.5, "eyeLookInLeft": -0.5, "eyeLookOutRight": -0.5},
    "gaze_y": {"eyeLookUpLeft": 0.5, "eyeLookUpRight": 0.5, "eyeLookDownLeft": -0.5, "eyeLookDownRight": -0.5},
}
"""The values that are followed: weights of blendshapes. Gaze is to the right of the picture, and up."""


class BlendshapeNetwork:
    """A blendshape network in a local ONNX file.

    Args:
        path: The file; its convention is that of MediaPipe's unless a YAML beside it says otherwise.

    Raises:
        ConfigError: The file is missing, damaged or another network, or lacks a blendshape of :data:`EXPRESSION`.
    """

    numbers = 2
    """Of each landmark that it reads."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        require_file("blendshapes", self.path, (".onnx",))
        usual = known_convention("mediapipe_blendshapes", BlendshapeConvention())
        self.convention = read_convention("blendshapes", self.path, usual)
        self._session = OnnxSession("blendshapes", self.path)
        shapes = list(self._session.inputs.values())
        wanted = (len(self.convention.points), 2)
        if len(shapes) != 1 or shapes[0][1:] != wanted:
            raise ConfigError(
                f"blendshapes: {path} takes {self._session.takes}; x and y of {wanted[0]} points, F {wanted[0]} 2, are "
                f"what it should take; name its points and names in {self.path.name}.yaml beside it"
            )
        needed = {name for parts in EXPRESSION.values() for name in parts}
        if missing := needed - set(self.convention.names):
            raise ConfigError(
                f"blendshapes: {path} does not give {min(missing)}; name its outputs, names, as ARKit does"
            )

    def __call__(self, points: Tensor) -> Tensor:
        """Map landmarks F P 2, in pixels of the picture, to blendshapes F 52.

        Raises:
            ConfigError: The network gives something else.
        """
        values = self._session(points[:, self.convention.points, :2].float())[0].flatten(1)
        if values.shape[1] != len(self.convention.names):
            raise ConfigError(
                f"blendshapes: {self.path} gave {values.shape[1]} values, and {len(self.convention.names)} have names; "
                "is it a network of this kind?"
            )
        return values

    def expression(self, blendshapes: Tensor) -> Tensor:
        """Return the values of :data:`EXPRESSION`, F 6, of blendshapes F 52."""
        weights = [[parts.get(name, 0.0) for name in self.convention.names] for parts in EXPRESSION.values()]
        return blendshapes @ torch.tensor(weights, dtype=blendshapes.dtype).T
