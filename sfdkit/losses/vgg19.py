"""VGG19 of torchvision, cut at five depths."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models import VGG19_Weights, vgg19

from sfdkit.errors import ConfigError

LAYERS = (2, 7, 12, 21, 30)
"""Ends of relu1_1 (index 1) … relu5_1 (index 29) in torchvision's VGG19, exclusive."""
WEIGHTS_VARIABLE = "SFDKIT_VGG19"


class Vgg19Features(nn.Module):
    """VGG19 with ImageNet weights (https://arxiv.org/abs/1409.1556), frozen.

    The weights come from the file that the environment variable ``SFDKIT_VGG19`` names (torchvision's state dict), else
    from torchvision's cache or download.

    Raises:
        ConfigError: The weights cannot be loaded.
    """

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        features = load_vgg19().get_submodule("features")
        assert isinstance(features, nn.Sequential)
        starts = (0, *LAYERS[:-1])
        self.slices = nn.ModuleList(features[a:b] for a, b in zip(starts, LAYERS, strict=True))
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1))
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return relu1_1, relu2_1 … relu5_1, B C h w each, of pictures B 3 H W in [0, 1]."""
        x, found = (images - self.mean) / self.std, []
        for part in self.slices:
            x = part(x)
            found.append(x)
        return found


def load_vgg19() -> nn.Module:
    """Return VGG19 in eval mode with ImageNet weights, from a local file or from torchvision.

    Raises:
        ConfigError: The file is missing or of another network, or the download failed.
    """
    path = os.environ.get(WEIGHTS_VARIABLE)
    remedy = (
        f"Set {WEIGHTS_VARIABLE} to a local copy of {VGG19_Weights.IMAGENET1K_V1.url}, go online once, "
        "or train without it: --model.weights.perceptual 0"
    )
    if path is None:
        try:
            return vgg19(weights=VGG19_Weights.IMAGENET1K_V1).eval()
        except (OSError, RuntimeError) as error:
            raise ConfigError(
                f"weights: perceptual needs VGG19, which could not be downloaded ({error}). {remedy}"
            ) from error
    if not Path(path).is_file():
        raise ConfigError(f"weights: perceptual: {WEIGHTS_VARIABLE}={path} is no file. {remedy}")
    network = vgg19()
    try:
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"weights: perceptual: {path} holds no VGG19 state dict ({reason}). {remedy}") from error
    return network.eval()
