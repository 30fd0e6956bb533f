from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from sfdkit.errors import ConfigError
from sfdkit.face_networks.blendshapes import EXPRESSION, BlendshapeNetwork
from sfdkit.face_networks.known import known_networks
from tests.networks import save_linear

NAMES = known_networks()["mediapipe_blendshapes"].convention["names"]
WEIGHTS = np.random.default_rng(0).normal(size=(6, 52))


def network(folder: Path, weights: np.ndarray = WEIGHTS, text: str = "points: [4, 0, 2]") -> BlendshapeNetwork:
    path = save_linear(folder / "shapes.onnx", weights)
    (folder / "shapes.onnx.yaml").write_text(text)
    return BlendshapeNetwork(path)


def test_blendshapes_are_read_from_the_points_named_and_summed_to_expressions(tmp_path: Path) -> None:
    read, points = network(tmp_path), torch.rand(3, 5, 3)
    found = read(points)
    by_hand = points[:, [4, 0, 2], :2].flatten(1) @ torch.from_numpy(WEIGHTS).float()
    torch.testing.assert_close(found, by_hand)
    named = dict(zip(NAMES, by_hand.T, strict=True))
    expression = dict(zip(EXPRESSION, read.expression(found).T, strict=True))
    torch.testing.assert_close(expression["jaw_open"], named["jawOpen"])
    torch.testing.assert_close(expression["smile"], named["mouthSmileLeft"] + named["mouthSmileRight"])
    # the person's left eye is on the right of the picture: outwards is to the right
    right = named["eyeLookOutLeft"] + named["eyeLookInRight"] - named["eyeLookInLeft"] - named["eyeLookOutRight"]
    torch.testing.assert_close(expression["gaze_x"], right / 2)


def test_known_names_and_points_are_those_of_the_network() -> None:
    convention = known_networks()["mediapipe_blendshapes"].convention
    assert len(NAMES) == len(set(NAMES)) == 52 and NAMES[0] == "_neutral"
    assert len(set(convention["points"])) == 146 and convention["points"] == sorted(convention["points"])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("points: [0, 1]", r"shapes\.onnx takes points \[1, 3, 2\]; x and y of 2 points"),
        ("{points: [4, 0, 2], names: [jawOpen]}", "does not give browInnerUp; name its outputs"),
    ],
)
def test_another_network_is_refused(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        network(tmp_path, text=text)


def test_another_number_of_values_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="gave 50 values, and 52 have names"):
        network(tmp_path, WEIGHTS[:, :50])(torch.rand(1, 5, 2))
