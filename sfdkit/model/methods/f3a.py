"""A generator after F3A-GAN, facial flow for face animation (https://arxiv.org/abs/2205.06204).

Legend: ``B`` batch, ``C r r`` feature map, ``R`` resolution, ``D`` latent dimensions.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jsonargparse.typing import PositiveInt
from torch import Tensor, nn

from sfdkit.model.blocks import (
    ModulatedBlock,
    ModulatedConv,
    call,
    full_precision,
    identity_grid,
    level_sizes,
    resize,
    warp,
)
from sfdkit.types import Generated

START = 8
FLOW_GAIN = 0.1
"""Units of the flow's layer: a flow of 1 is half the picture."""


class FlowPredictor(nn.Module):
    """Predicts the facial flow: where each visible place of the head comes from, and how its depth changes.

    Args:
        inputs: Channels of the source's coarsest features.
        width: Channels of its own maps.
        code_size: Of what modulates them.
        doublings: From 8 x 8 to the flow's size.
    """

    def __init__(self, inputs: int, width: int, code_size: int, doublings: int) -> None:
        super().__init__()
        self.start = nn.Conv2d(inputs + 2, width, 3, padding=1)
        self.block = ModulatedBlock(width, code_size)
        self.finer = nn.ModuleList(ModulatedConv(width, width, code_size, doubles=True) for _ in range(doublings))
        self.flow = nn.Conv2d(width, 3, 3, padding=1)
        nn.init.normal_(self.flow.weight, std=0.01)
        nn.init.zeros_(self.flow.bias)  # type: ignore[arg-type]

    def forward(self, feature: Tensor, code: Tensor) -> Tensor:
        """Map features B C 8 8 under a code B S to the flow, B 3 r r float32: x, y, depth, in halves of the picture."""
        grid = identity_grid(START, START, feature).expand(feature.shape[0], -1, -1, -1)
        hidden = F.leaky_relu(self.start(torch.cat([feature, grid.to(feature.dtype)], 1)), 0.2)
        hidden = self.block(hidden, code)
        for layer in self.finer:
            hidden = F.leaky_relu(layer(hidden, code), 0.2)
        with full_precision(hidden):
            return FLOW_GAIN * self.flow(hidden.float())


class Fusion(nn.Module):
    """One scale: the hidden state, the source's features and those of the flow become one map.

    Args:
        inputs: Channels of the hidden state that comes from the coarser level; 0 for the first.
        channels: Channels of this level, of the source's features at it, and of the flow's.
    """

    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__()
        self.flow = nn.Sequential(nn.Conv2d(3, channels, 3, padding=1), nn.LeakyReLU(0.2))
        self.merge = nn.Sequential(
            nn.Conv2d(inputs + 2 * channels, channels, 3, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.LeakyReLU(0.2),
        )

    def forward(self, hidden: Tensor | None, feature: Tensor, flow: Tensor) -> Tensor:
        """Merge hidden B inputs r/2 r/2, feature B C r r and flow B 3 s s into B C r r."""
        parts = [feature, self.flow(resize(flow, feature.shape[2])).to(feature.dtype)]
        if hidden is not None:
            parts.insert(0, F.interpolate(hidden, scale_factor=2, mode="nearest").to(feature.dtype))
        return self.merge(torch.cat(parts, 1))


class F3aGenerator(nn.Module):
    """Renders from the source's features under the condition of a facial flow, fused scale by scale.

    Only abstract and introduction of the paper could be read. As they say: the motion is given as a facial flow, a
    dense map of how the head's surface moves in space (x, y and depth); appearance features of several scales and
    motion features of the flow are combined scale by scale, and decoded to the picture; training is adversarial.

    What they do not say was chosen here: the flow is predicted from the source's coarsest features and the latent
    codes, by convolutions that the codes modulate, at a quarter of the resolution; the source's features are warped by
    it, without which heads that turn far are painted as combs of stripes; fusion is concatenation and two convolutions;
    features are the encoder's through the animator's adapter. Depth is predicted and used, and no term judges it.

    Args:
        resolution: ``R``, a power of two.
        latent_size: ``D``.
        width: Channels at R; they double with each coarser level.
        max_channels: The most channels of a level.
        flow_width: Channels of the maps from which the flow is predicted.
        warps: Warp the source's features by the flow before they are fused with its own.

    Raises:
        ConfigError: A resolution that is no power of two from 32 to 1024.
    """

    led_points = 0
    activation_checkpointing = False

    def __init__(
        self,
        resolution: int = 256,
        latent_size: int = 128,
        width: PositiveInt = 32,
        max_channels: PositiveInt = 256,
        flow_width: PositiveInt = 96,
        warps: bool = True,
    ) -> None:
        super().__init__()
        self.warps = warps
        self.resolution = resolution
        self.latent_size = latent_size
        self.sizes = tuple(level_sizes(resolution, START, resolution // 2))
        self.channels = tuple(min(max_channels, width * resolution // size) for size in self.sizes)
        doublings = len(level_sizes(resolution, START, resolution // 4)) - 1
        self.motion = FlowPredictor(self.channels[0], flow_width, 2 * latent_size, doublings)
        self.levels = nn.ModuleList(
            Fusion(before, own) for before, own in zip((0, *self.channels), self.channels, strict=False)
        )
        self.last = nn.Sequential(
            nn.Conv2d(self.channels[-1], width, 3, padding=1), nn.LeakyReLU(0.2), nn.Conv2d(width, 3, 3, padding=1)
        )

    def lead(self, columns: Tensor, points: int) -> None:
        """Nothing is led: the flow is read from the latent codes as wholes."""

    def forward(self, latent: Tensor, source_latent: Tensor, features: list[Tensor], image: Tensor) -> Generated:
        """Render, see :class:`~sfdkit.model.generator_like.GeneratorLike`; the mask is 0: no pixel is copied."""
        again = self.activation_checkpointing
        code = torch.cat([latent, latent - source_latent], 1)
        flow = call(self.motion, features[0], code, checkpointing=again)
        hidden: Tensor | None = None
        for level, feature in zip(self.levels, features, strict=True):
            if self.warps:
                feature = warp(feature.float(), resize(flow[:, :2], feature.shape[2]))
            hidden = call(level, hidden, feature, flow, checkpointing=again)
        assert hidden is not None
        doubled = F.interpolate(hidden, scale_factor=2, mode="nearest")
        made = torch.sigmoid(call(self.last, doubled, checkpointing=again).float())
        shift = resize(flow[:, :2], self.resolution)
        return Generated(made, shift, torch.zeros_like(shift[:, :1]), warp(image.float(), shift))
