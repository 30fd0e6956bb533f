"""Perceptual loss over VGG19 features."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import VGG19_Weights, vgg19

from sfdkit.errors import ConfigError
from sfdkit.losses.term import LossTerm

LAYERS = (2, 7, 12, 21, 30)
"""Ends of relu1_1 (index 1) … relu5_1 (index 29) in torchvision's VGG19, exclusive."""
WEIGHTS_VARIABLE = "SFDKIT_VGG19"


class PerceptualLoss(LossTerm):
    """L1 between VGG19 features of five depths at several scales.

    After https://arxiv.org/abs/1603.08155; the pyramid is as in FOMM and LIA. The weights come from the file that the
    environment variable ``SFDKIT_VGG19`` names (torchvision's state dict), else from torchvision's cache or download.
    They are frozen and not saved in checkpoints.

    Args:
        scales: Number of scales, the full one included; a scale under 32 pixels is left out.

    Raises:
        ConfigError: The weights cannot be loaded.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, scales: int = 4) -> None:
        super().__init__()
        self.scales = scales
        features = load_vgg19().get_submodule("features")
        assert isinstance(features, nn.Sequential)
        starts = (0, *LAYERS[:-1])
        slices = nn.ModuleList(features[a:b] for a, b in zip(starts, LAYERS, strict=True))
        self._kept = [slices.requires_grad_(False)]  # in a list, so that they are no submodule
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1), persistent=False)

    @property
    def slices(self) -> nn.ModuleList:
        """The parts of VGG19 between two depths."""
        return self._kept[0]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self.slices._apply(fn)
        return super()._apply(fn, recurse)

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Return the mean over scales and depths for B 3 H W in [0, 1]."""
        values = []
        for _ in range(self.scales):
            values += self._one_scale(prediction, target)
            if min(prediction.shape[2:]) < 64:
                break
            prediction, target = F.avg_pool2d(prediction, 2), F.avg_pool2d(target, 2)
        return torch.stack(values).mean()

    def _one_scale(self, prediction: Tensor, target: Tensor) -> list[Tensor]:
        x, y = ((image - self.mean) / self.std for image in (prediction, target))
        values = []
        for part in self.slices:
            x = part(x)
            with torch.no_grad():
                y = part(y)
            values.append((x - y).abs().mean())
        return values


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
