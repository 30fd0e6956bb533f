"""A network that says who somebody is, with gradients to the picture.

Legend: ``B`` pictures, ``H W`` pixels, ``Z`` dimensions of the embedding.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor, nn

from sfdkit.errors import ConfigError
from sfdkit.face_networks.files import ARCFACE, Convention, convert_onnx, load_script, require_file
from sfdkit.face_networks.network import PuppetNetwork
from sfdkit.face_networks.puppets import load_regressor

_KEY = "identity network"


class PuppetEmbedder(nn.Module):
    """The kit's own network for puppets, as an embedder of pictures of any size.

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
    """A face recognition network of another maker, as an embedder of pictures of any size.

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
            shape = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
            raise ConfigError(
                f"{_KEY}: {self.path} gave {shape} for {len(images)} pictures, where B Z is needed; is it a face "
                f"recognition network? {self.path.name}.yaml beside it can name another of its outputs (result)"
            )
        return F.normalize(values.flatten(1).float(), dim=1)


def load_embedder(path: str | Path) -> nn.Module:
    """Load a network that maps B 3 H W in [0, 1] to B Z of length 1, with gradients to the pictures.

    Args:
        path: A regressor of the kit (.safetensors), or a face recognition network of ArcFace's form as TorchScript or
            as ONNX (converted by onnx2torch); see :data:`sfdkit.face_networks.files.ARCFACE` for what it is given, and
            :class:`sfdkit.face_networks.files.Convention` for how to change that.

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
