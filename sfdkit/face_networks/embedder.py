"""Identity embeddings with gradients to the picture, for a loss.

Legend: ``B`` pictures, ``H W`` pixels, ``Z`` dimensions of the embedding.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor, nn

from sfdkit.face_networks.conventions import ARCFACE, Convention
from sfdkit.face_networks.puppet_measurer import load_regressor
from sfdkit.face_networks.puppet_network import PuppetNetwork
from sfdkit.face_networks.third_party import convert_onnx, load_script, require_file, wrong_output

_KEY = "identity network"


class PuppetEmbedder(nn.Module):
    """Embeds pictures of any size with the kit's own network for puppets.

    Args:
        network: Trained.
    """

    def __init__(self, network: PuppetNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Map B 3 H W in [0, 1] to B Z of length 1."""
        return self.network.embed(images)


class RealFaceEmbedder(nn.Module):
    """Embeds pictures of any size with a third-party face recognition network.

    Args:
        network: Maps its input to B Z.
        convention: How it wants its pictures.
        path: Where it came from, for messages.
    """

    def __init__(self, network: nn.Module, convention: Convention, path: Path) -> None:
        super().__init__()
        self.network, self.convention, self.path = network, convention, path

    def forward(self, images: Tensor) -> Tensor:
        """Map B 3 H W in [0, 1] to B Z of length 1.

        Raises:
            ConfigError: The network gives something else.
        """
        values = self.network(self.convention.prepare(images))
        if isinstance(values, list | tuple):
            values = values[self.convention.result]
        if not isinstance(values, Tensor) or len(values) != len(images) or values[0].numel() < 2:
            raise wrong_output(_KEY, self.path, values, f"B Z of {len(images)} pictures")
        return F.normalize(values.flatten(1).float(), dim=1)


def load_embedder(path: str | Path) -> nn.Module:
    """Load a network that maps B 3 H W in [0, 1] to B Z of length 1, with gradients to the pictures.

    Args:
        path: A regressor of the kit (.safetensors), or a face recognition network of ArcFace's form as TorchScript or
            as ONNX (converted by onnx2torch); :mod:`sfdkit.face_networks.conventions` says what pictures it gets.

    Returns:
        The module, in eval mode and without gradients of its own.

    Raises:
        ConfigError: The file is missing or of another kind, or cannot be made differentiable.
        CheckpointError: The regressor is damaged or of another version.
    """
    path = Path(path)
    require_file(_KEY, path, (".safetensors", ".onnx", ".pt", ".pth", ".ts"))
    if path.suffix == ".safetensors":
        return PuppetEmbedder(load_regressor(path).network).eval()
    convention = ARCFACE.read_beside(path)
    if path.suffix == ".onnx":
        network, size = convert_onnx(_KEY, path)
        convention = convention if size is None else replace(convention, size=size)
    else:
        network = load_script(_KEY, path)
    return RealFaceEmbedder(network, convention, path).eval()
