"""The generator: warps the source's features and picture by a multi-scale flow and paints the rest.

Legend: ``B`` batch, ``D`` latent dimensions, ``R`` resolution, ``C`` channels of a level, ``r`` size of a level (8, 16, ... R/2).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sfdkit.errors import ConfigError
from sfdkit.model.blocks import ModulatedBlock, ModulatedConv, identity_grid, resize, warp
from sfdkit.types import Generated

START = 8
AFFINE_GAIN = 0.2
FLOW_GAIN = 0.05
"""Units of the flow heads: without it the first steps of Adam throw the flow off the picture, where gradients are zero."""


class GeneratorLevel(nn.Module):
    """One scale: refines flow and mask, warps the source's features and merges them into the hidden state.

    Args:
        inputs: Channels of the hidden state that comes from the coarser level.
        channels: Channels of this level and of the source's features at it.
        style_size: Style dimensions.
    """

    def __init__(self, inputs: int, channels: int, style_size: int) -> None:
        super().__init__()
        self.enter = ModulatedConv(inputs, channels, style_size)
        self.flow_and_mask = nn.Conv2d(channels, 3, 3, padding=1)
        self.merge = ModulatedConv(2 * channels, channels, style_size)
        nn.init.zeros_(self.flow_and_mask.weight)
        nn.init.zeros_(self.flow_and_mask.bias)

    def forward(self, hidden: Tensor, feature: Tensor, flow: Tensor, style: Tensor) -> tuple[Tensor, Tensor]:
        """Map hidden B inputs r/2 r/2 (or r r), feature B C r r, flow B 2 . . to hidden B C r r and flow B 2 r r."""
        size = feature.shape[2]
        if hidden.shape[2] != size:
            hidden = F.interpolate(hidden, scale_factor=2, mode="nearest")
        hidden = F.leaky_relu(self.enter(hidden, style), 0.2)
        change = self.flow_and_mask(hidden).float()
        flow = resize(flow, size) + FLOW_GAIN * change[:, :2]
        warped = warp(feature, flow) * torch.sigmoid(change[:, 2:])
        merged = self.merge(torch.cat([hidden, warped.to(hidden.dtype)], 1), style)
        return F.leaky_relu(merged, 0.2), flow


class Generator(nn.Module):
    """Renders a face from a latent code and the source.

    It starts at 8x8 from the unwarped source features under modulation by the latent code, with an affine flow that is linear in the codes,
    doubles up to R/2 with the flow refined at each level, and ends in one sub-pixel step to R (https://arxiv.org/abs/1609.05158) that gives the painted picture, the last change of the flow
    and the blending mask: ``image = mask * warp(source, flow) + (1 - mask) * painted``. At initialisation the flow is zero.

    Args:
        resolution: ``R``: 64, 128, 256 or 512.
        latent_size: ``D``, as the descriptor layer has it.
        width: Channels at R/2; they double with each coarser level.
        max_channels: The most channels of a level.
        style_size: Dimensions of the style that modulates the convolutions.
        source_code: The style also sees the displacement from the source's own latent code, so that the flow knows where motion starts from.

    Raises:
        ConfigError: A resolution that is no power of two from 32 to 1024.
    """

    def __init__(
        self,
        resolution: int = 256,
        latent_size: int = 128,
        width: int = 32,
        max_channels: int = 192,
        style_size: int = 128,
        source_code: bool = True,
    ) -> None:
        super().__init__()
        if resolution not in (32, 64, 128, 256, 512, 1024):
            raise ConfigError(f"generator: resolution must be 32, 64, 128, 256, 512 or 1024, got {resolution}")
        self.resolution = resolution
        self.latent_size = latent_size
        self.source_code = source_code
        sizes = [START]
        while sizes[-1] < resolution // 2:
            sizes.append(sizes[-1] * 2)
        self.sizes = tuple(sizes)
        self.channels = tuple(min(max_channels, width * (resolution // 2) // r) for r in sizes)
        inputs = latent_size * (2 if source_code else 1)
        self.mapping = nn.Sequential(nn.Linear(inputs, style_size), nn.LeakyReLU(0.2), nn.Linear(style_size, style_size))
        for layer in (self.mapping[0], self.mapping[2]):
            nn.init.kaiming_normal_(layer.weight, a=0.2)
            nn.init.zeros_(layer.bias)
        self.affine = nn.Linear(inputs, 6)
        nn.init.zeros_(self.affine.weight)
        nn.init.zeros_(self.affine.bias)
        first = self.channels[0]
        self.start = nn.Conv2d(first + 2, first, 3, padding=1)
        self.body = nn.ModuleList([ModulatedBlock(first, style_size) for _ in range(2)])
        entering = (first, *self.channels[:-1])
        self.levels = nn.ModuleList(
            GeneratorLevel(i, c, style_size) for i, c in zip(entering, self.channels, strict=True)
        )
        self.last = nn.Conv2d(self.channels[-1], 4 * 6, 3, padding=1)
        with torch.no_grad():
            self.last.weight[12:] = 0  # flow and mask start at zero
            nn.init.zeros_(self.last.bias)

    def _global_flow(self, code: Tensor, grid: Tensor) -> Tensor:
        """Return the affine flow that is read linearly from the codes, B 2 8 8; position, roll and scale are learned by it first."""
        matrix = AFFINE_GAIN * self.affine(code).float().view(-1, 2, 3)
        return torch.einsum("bij,bjhw->bihw", matrix[:, :, :2], grid) + matrix[:, :, 2, None, None]

    def forward(self, latent: Tensor, source_latent: Tensor, features: list[Tensor], image: Tensor) -> Generated:
        """Render.

        Args:
            latent: B D, the latent code wanted.
            source_latent: B D, the source's own latent code.
            features: One map per level, B channels[i] sizes[i] sizes[i].
            image: B 3 R R, the source in [0, 1].
        """
        code = torch.cat([latent, latent - source_latent], 1) if self.source_code else latent
        style = self.mapping(code)
        grid = identity_grid(START, START, features[0]).expand(len(image), -1, -1, -1)
        hidden = F.leaky_relu(self.start(torch.cat([features[0], grid.to(features[0].dtype)], 1)), 0.2)
        for block in self.body:
            hidden = block(hidden, style)
        flow = self._global_flow(code, grid)
        for level, feature in zip(self.levels, features, strict=True):
            hidden, flow = level(hidden, feature, flow, style)
        last = F.pixel_shuffle(self.last(hidden).float(), 2)
        flow = resize(flow, self.resolution) + FLOW_GAIN * last[:, 3:5]
        mask = torch.sigmoid(last[:, 5:])
        painted = torch.sigmoid(last[:, :3])
        return Generated(mask * warp(image.float(), flow) + (1 - mask) * painted, flow, mask)
