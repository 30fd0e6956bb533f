"""Learned perceptual distance per frame: LPIPS with AlexNet.

Legend: ``F`` frames, ``C H W`` feature map.
"""

from __future__ import annotations

from importlib.resources import as_file, files
from pathlib import Path
from urllib.parse import urlparse

import torch
from torch import Tensor, nn
from torchvision.models import AlexNet_Weights, alexnet

from sfdkit.errors import ConfigError
from sfdkit.model.blocks import in_float32

_ENDS = (2, 5, 8, 10, 12)
"""Ends of relu1 … relu5 in torchvision's AlexNet, exclusive."""
_MEAN, _STD = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
"""ImageNet's colours on the scale from -1 to 1, as the heads were trained with."""


class FrameLpips(nn.Module):
    """LPIPS version 0.1 with AlexNet: feature maps of five depths, normalised, compared and weighed by learned heads.

    Zhang et al. 2018, https://arxiv.org/abs/1801.03924. Features of each depth are scaled to length 1 in every place;
    the squared differences are summed over channels under weights that were fitted to human judgement, averaged over
    places and summed over depths. The weights of the heads are those that torchmetrics carries.

    Args:
        backbone: torchvision's AlexNet with ImageNet weights.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        features = backbone.get_submodule("features")
        assert isinstance(features, nn.Sequential)
        starts = (0, *_ENDS[:-1])
        self.slices = nn.ModuleList(features[a:b] for a, b in zip(starts, _ENDS, strict=True))
        for depth, weight in enumerate(_heads()):
            self.register_buffer(f"head{depth}", weight)
        self.register_buffer("mean", torch.tensor(_MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(_STD).view(1, 3, 1, 1))
        self.eval().requires_grad_(False)

    @torch.no_grad()
    @in_float32
    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Return the distance of each of F frames, F 3 H W in [0, 1], at least 32 pixels high and wide; 0 is best."""
        x, y = ((2 * image - 1 - self.mean) / self.std for image in (prediction, target))
        total = x.new_zeros(len(x))
        for depth, part in enumerate(self.slices):
            x, y = part(x), part(y)
            difference = (_unit(x) - _unit(y)).square()
            total += (difference * self.get_buffer(f"head{depth}")).sum(1).mean((1, 2))
        return total


def _unit(features: Tensor) -> Tensor:
    return features / (features.square().sum(1, keepdim=True) + 1e-16).sqrt()


def _heads() -> list[Tensor]:
    """Return the weights of the five depths, each 1 C 1 1."""
    with as_file(files("torchmetrics.functional.image") / "lpips_models" / "alex.pth") as path:
        stored = torch.load(path, map_location="cpu", weights_only=True)
    return [stored[f"lin{depth}.model.1.weight"].float() for depth in range(len(_ENDS))]


def load_lpips(weights: str = "auto") -> FrameLpips | str:
    """Load the network, without ever starting a download.

    Args:
        weights: A local copy of torchvision's AlexNet weights; ``auto`` takes the copy in torchvision's cache if there
            is one; ``none`` takes none.

    Returns:
        The network, or why there is none and how to get it.

    Raises:
        ConfigError: The file is missing or of another network.
    """
    url = AlexNet_Weights.IMAGENET1K_V1.url
    if weights == "none":
        return "switched off"
    if weights == "auto":
        path = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(url).path).name
        if not path.is_file():
            return f"AlexNet's weights are not in torchvision's cache: save {url} as {path}"
    else:
        path = Path(weights)
        if not path.is_file():
            raise ConfigError(f"lpips: {path} is no file; save {url} there, or set lpips to none")
    backbone = alexnet()
    try:
        backbone.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"lpips: {path} holds no AlexNet state dict ({reason}); save {url} there") from error
    return FrameLpips(backbone)
