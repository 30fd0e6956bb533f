"""The discriminator of the adversarial loss."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jsonargparse.typing import PositiveInt
from torch import Tensor, nn

from sfdkit.errors import ConfigError


class DownBlock(nn.Module):
    """Residual block that halves the size.

    Args:
        inputs: Input channels.
        outputs: Output channels.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, inputs, 3, padding=1)
        self.second = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.skip = nn.Conv2d(inputs, outputs, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map B inputs H W to B outputs H/2 W/2."""
        y = F.leaky_relu(self.first(x), 0.2)
        y = F.avg_pool2d(F.leaky_relu(self.second(y), 0.2), 2)
        return (y + F.avg_pool2d(self.skip(x), 2)) * 0.7071


class Discriminator(nn.Module):
    """Residual discriminator without normalisation layers, with the batch's standard deviation as a last feature.

    The form of StyleGAN2's, https://arxiv.org/abs/1912.04958.

    Args:
        resolution: Size of the pictures: a power of two, at least 32.
        width: Channels at full resolution; they double with each halving.
        max_channels: The most channels.
    """

    def __init__(self, resolution: int = 256, width: PositiveInt = 16, max_channels: PositiveInt = 256) -> None:
        super().__init__()
        if resolution < 32 or resolution & (resolution - 1):
            raise ConfigError(f"discriminator: resolution must be a power of two from 32 on, got {resolution}")
        self.resolution = resolution
        self.enter = nn.Conv2d(3, width, 3, padding=1)
        blocks: list[nn.Module] = []
        size, channels = resolution, width
        while size > 4:
            wider = min(channels * 2, max_channels)
            blocks.append(DownBlock(channels, wider))
            size, channels = size // 2, wider
        self.blocks = nn.Sequential(*blocks)
        self.mix = nn.Conv2d(channels + 1, channels, 3, padding=1)
        self.head = nn.Linear(channels * size * size, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Return the logits, B, of pictures B 3 R R in [0, 1]; higher means more real."""
        return self.judge(self.features(image))

    def features(self, image: Tensor) -> list[Tensor]:
        """Return the maps of all depths, B C r r each, of pictures B 3 R R in [0, 1], finest first."""
        maps = [F.leaky_relu(self.enter(image * 2 - 1), 0.2)]
        for block in self.blocks:
            maps.append(block(maps[-1]))
        return maps

    def judge(self, features: list[Tensor]) -> Tensor:
        """Return the logits, B, of the pictures whose :meth:`features` these are."""
        x = features[-1]
        spread = (x.float().var(0, unbiased=False) + 1e-8).sqrt().mean().to(x.dtype)
        x = torch.cat([x, spread.expand(len(x), 1, x.shape[2], x.shape[3])], 1)
        x = F.leaky_relu(self.mix(x), 0.2)
        return self.head(x.flatten(1)).squeeze(1)
