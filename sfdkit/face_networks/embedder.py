"""Identity embeddings with gradients to the picture, for a loss.

Legend: ``B`` pictures, ``H W`` pixels, ``Z`` dimensions of the embedding.
"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from sfdkit.face_networks.conventions import ARCFACE
from sfdkit.face_networks.puppet_measurer import load_regressor
from sfdkit.face_networks.puppet_network import PuppetNetwork
from sfdkit.face_networks.third_party import NETWORK_SUFFIXES, NetworkFile, require_file

_KEY = "identity network"


class Embedder(nn.Module):
    """Embeds pictures of any size.

    Args:
        network: The kit's network for puppets, or a third-party face recognition network.
    """

    def __init__(self, network: PuppetNetwork | NetworkFile) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Map B 3 H W in [0, 1] to B Z of length 1.

        Raises:
            ConfigError: A third-party network gives something else.
        """
        return self.network.embed(images)


def load_embedder(path: str | Path) -> Embedder:
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
    require_file(_KEY, path, (".safetensors", *NETWORK_SUFFIXES))
    if path.suffix == ".safetensors":
        return Embedder(load_regressor(path).network).eval()
    return Embedder(NetworkFile(_KEY, path, ARCFACE, differentiable=True)).eval()
