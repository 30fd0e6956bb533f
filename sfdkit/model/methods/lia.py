"""The generator of LIA, Latent Image Animator (https://arxiv.org/abs/2203.09043).

Legend: ``B`` batch, ``C H W`` feature map, ``R`` resolution, ``D`` latent dimensions.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jsonargparse.typing import PositiveInt
from torch import Tensor, nn

from sfdkit.model.blocks import ModulatedConv, call, full_precision, level_sizes, resize, warp
from sfdkit.types import Generated

START = 4
"""Height and width of the learned constant."""


class FlowLevel(nn.Module):
    """One scale: two modulated convolutions, then flow and mask from them, and the source's features under both.

    Args:
        inputs: Channels of the hidden state that comes from the coarser level.
        channels: Channels of this level and of the source's features at it.
        latent_size: ``D``.
    """

    def __init__(self, inputs: int, channels: int, latent_size: int) -> None:
        super().__init__()
        self.first = ModulatedConv(inputs, channels, latent_size)
        self.second = ModulatedConv(channels, channels, latent_size)
        self.style = nn.Linear(latent_size, channels)
        self.field = nn.Conv2d(channels, 3, 1)
        self.colour = nn.Conv2d(channels, 3, 1)
        nn.init.normal_(self.style.weight, std=latent_size**-0.5)
        nn.init.ones_(self.style.bias)
        nn.init.normal_(self.field.weight, std=0.1 * channels**-0.5)
        nn.init.zeros_(self.field.bias)  # type: ignore[arg-type]

    def forward(
        self, hidden: Tensor, feature: Tensor, latent: Tensor, field: Tensor | None, image: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Map hidden B inputs r/2 r/2 and feature B C r r, with field and image B 3 r/2 r/2, to their like at r."""
        size = feature.shape[2]
        hidden = resize(hidden, size)
        hidden = F.leaky_relu(self.first(hidden, latent), 0.2)
        hidden = F.leaky_relu(self.second(hidden, latent), 0.2)
        style = self.style(latent).float()[:, :, None, None]
        with full_precision(hidden):
            change = self.field(hidden.float() * style)
        field = change if field is None else change + resize(field, size)
        mask = torch.sigmoid(field[:, 2:])
        warped = warp(feature.float(), torch.tanh(field[:, :2])) * mask
        colour = self.colour(warped).float()
        image = colour if image is None else colour + resize(image, size)
        return (warped + hidden.float() * (1 - mask)).to(hidden.dtype), field, image


class LiaGenerator(nn.Module):
    """Renders by warping the source's features at every scale under a flow that is read from the latent code.

    As in the paper: a learned constant of 4 x 4; from 8 x 8 to the full resolution two modulated convolutions, after
    which one of 1 x 1 gives flow and mask, added to those of the coarser scale; the source's features warped and
    masked; what they lack is taken from the hidden state; the picture is the sum of what each scale's warped features
    give by a convolution of 1 x 1.

    What differs: features are the encoder's through the animator's adapter, where LIA's encoder has maps of its own at
    every scale; no noise is injected; maps are doubled bilinearly, not by transposed convolutions with a blur;
    activations are scaled, not weights, which is equal. In the authors' code the flow's grid and its sampling disagree
    about where corners are, so that no flow is not the identity; here it is.

    Args:
        resolution: ``R``, a power of two.
        latent_size: ``D``; 512 in the paper.
        width: Channels at R; they double with each coarser level. 64 in the paper, at 256 pixels.
        max_channels: The most channels of a level; 512 in the paper.

    Raises:
        ConfigError: A resolution that is no power of two from 32 to 1024.
    """

    led_points = 0
    activation_checkpointing = False

    def __init__(
        self,
        resolution: int = 256,
        latent_size: int = 512,
        width: PositiveInt = 64,
        max_channels: PositiveInt = 512,
    ) -> None:
        super().__init__()
        self.resolution = resolution
        self.latent_size = latent_size
        self.sizes = tuple(level_sizes(resolution, 2 * START, resolution))
        self.channels = tuple(min(max_channels, width * resolution // size) for size in self.sizes)
        first = self.channels[0]
        self.constant = nn.Parameter(torch.randn(1, first, START, START))
        self.start = ModulatedConv(first, first, latent_size)
        self.levels = nn.ModuleList(
            FlowLevel(inputs, channels, latent_size)
            for inputs, channels in zip((first, *self.channels), self.channels, strict=False)
        )

    def lead(self, columns: Tensor, points: int) -> None:
        """Nothing is led: the flow is read from the latent code as a whole."""

    def forward(self, latent: Tensor, source_latent: Tensor, features: list[Tensor], image: Tensor) -> Generated:
        """Render, see :class:`~sfdkit.model.generator_like.GeneratorLike`; the source's own code plays no part."""
        hidden = self.constant.repeat(latent.shape[0], 1, 1, 1)
        hidden = F.leaky_relu(self.start(hidden, latent), 0.2)
        field = made = None
        for level, feature in zip(self.levels, features, strict=True):
            given = hidden, feature, latent, field, made
            hidden, field, made = call(level, *given, checkpointing=self.activation_checkpointing)
        assert field is not None and made is not None
        flow, mask = torch.tanh(field[:, :2]), torch.sigmoid(field[:, 2:])
        result = made + 0.5
        return Generated(result if self.training else result.clamp(0.0, 1.0), flow, mask, warp(image.float(), flow))
