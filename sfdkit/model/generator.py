"""The generator: warps the source's features and image by a multi-scale flow and inpaints the rest.

Legend: ``B`` batch, ``D`` latent dimensions, ``R`` resolution, ``C`` channels, ``r`` size of a level (8, 16 ... R/2).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jsonargparse.typing import NonNegativeInt, PositiveInt
from torch import Tensor, nn

from sfdkit.errors import ConfigError
from sfdkit.model.blocks import (
    ModulatedBlock,
    ModulatedConv,
    call,
    fold_pixels,
    full_precision,
    identity_grid,
    level_sizes,
    resize,
    shares,
    warp,
)
from sfdkit.types import Generated

START = 8
POINT_UNIT = 0.1
"""Units of coordinates in codes, in halves of the picture: about their standard deviation over frames."""
TURN_UNIT = 0.05
"""Units of the parts' rotation and stretch in codes."""
PART_REACH = 0.5
"""Bound on how far a part turns or stretches: outside the image the flow would have no gradient."""
PART_WIDTH = 0.35
"""Standard deviation of a part's region at initialisation, in units of half the image."""
FLOW_GAIN = 0.01
"""Units of the flow heads: Adam's first steps change sums over many inputs a lot, and flow must stay in the image."""


class Places(NamedTuple):
    """Positions and orientations of the parts of a face, read from a latent code."""

    centre: Tensor
    """B P 2: x and y in [-1, 1]."""
    shape: Tensor
    """B P 2 2: linear map of the part, rotated and stretched, minus the identity."""


class PlaceReader(nn.Module):
    """Reads positions and orientations of the parts from a latent code: a linear map plus a network of two layers.

    The same layers read the source's code and the wanted one, so that equal codes mean no flow.

    Args:
        latent_size: ``D``.
        parts: ``P``.
        hidden: Width of the hidden layer.
    """

    def __init__(self, latent_size: int, parts: int, hidden: int = 64) -> None:
        super().__init__()
        self.parts = parts
        self.linear = nn.Linear(latent_size, 6 * parts)
        self.layers = nn.Sequential(
            nn.Linear(latent_size, hidden), nn.LeakyReLU(0.2), nn.Linear(hidden, 6 * parts, bias=False)
        )
        nn.init.normal_(self.linear.weight, std=0.1)
        nn.init.zeros_(self.linear.bias)
        nn.init.normal_(self.layers[2].weight, std=0.01)  # type: ignore[arg-type]
        angle = torch.arange(parts) * 2.4  # the golden angle spreads them evenly
        ring = torch.stack([angle.cos(), angle.sin()], 1) * (torch.arange(parts) + 0.5).div(parts).sqrt()[:, None]
        with torch.no_grad():
            self.linear.bias.view(parts, 6)[:, :2] = 0.6 * ring / POINT_UNIT

    def forward(self, code: Tensor) -> Places:
        """Read B D codes."""
        with full_precision(code):
            read = (self.linear(code) + self.layers(code)).view(-1, self.parts, 6)
        turn = PART_REACH * torch.tanh(TURN_UNIT / PART_REACH * read[:, :, 2:])
        return Places(1.5 * torch.tanh(POINT_UNIT / 1.5 * read[:, :, :2]), turn.unflatten(2, (2, 2)))


class MotionField(NamedTuple):
    """Flow as a few affine motions, each of a soft region of the image, plus a residual."""

    affine: Tensor
    """B P 2 3: motion of each part, an offset that is affine in the position; the last part is static."""
    logits: Tensor
    """B P r r: of the regions; a softmax over P gives their masks."""
    residual: Tensor
    """B 2 r r: flow beside that of the parts."""

    def refine(self, residual: Tensor, logits: Tensor) -> MotionField:
        """Return the field at the size of ``residual`` (B 2 r r) and ``logits`` (B P r r), which are added."""
        size = residual.shape[2]
        return MotionField(self.affine, resize(self.logits, size) + logits, resize(self.residual, size) + residual)

    def flow(self) -> Tensor:
        """Return the flow, B 2 r r, in units of half the picture."""
        grid = identity_grid(self.logits.shape[2], self.logits.shape[3], self.logits)[0]
        with full_precision(self.logits):  # in bfloat16 it would be off by up to a pixel of 256
            matrix = torch.einsum("bphw,bpij->bijhw", shares(self.logits), self.affine)
            return (matrix[:, :, :2] * grid).sum(2) + matrix[:, :, 2] + self.residual


class GeneratorLevel(nn.Module):
    """One scale: refines flow and mask, warps the source's features and merges them into the hidden state.

    Args:
        inputs: Channels of the hidden state that comes from the coarser level.
        channels: Channels of this level and of the source's features at it.
        style_size: Style dimensions.
        parts: Number of parts that move by an affine motion each.
        doubles: The coarser level has half the size, not the same.
    """

    def __init__(self, inputs: int, channels: int, style_size: int, parts: int, doubles: bool) -> None:
        super().__init__()
        self.enter = ModulatedConv(inputs, channels, style_size, doubles=doubles)
        self.motion = nn.Conv2d(channels, 3 + parts, 3, padding=1)
        self.merge = ModulatedConv(2 * channels, channels, style_size)
        with torch.no_grad():
            self.motion.weight[:3] = 0  # residual flow and mask start at zero; the parts must differ from the start
            self.motion.bias.zero_()  # type: ignore[union-attr]

    def forward(self, hidden: Tensor, feature: Tensor, field: MotionField, style: Tensor) -> tuple[Tensor, MotionField]:
        """Map hidden B inputs r/2 r/2 (or r r) and feature B C r r to hidden B C r r and the motion field at r."""
        hidden = F.leaky_relu(self.enter(hidden, style), 0.2)
        change = self.motion(hidden).float()
        field = field.refine(FLOW_GAIN * change[:, :2], change[:, 3:])
        warped = warp(feature, field.flow()) * torch.sigmoid(change[:, 2:3])
        merged = self.merge(torch.cat([hidden, warped.to(hidden.dtype)], 1), style)
        return F.leaky_relu(merged, 0.2), field


class Generator(nn.Module):
    """Renders a face from a latent code and the source.

    It starts at 8x8 from the unwarped source features, modulated by the latent code, and doubles up to R/2 with a flow
    that each level refines: a few soft parts move by an affine motion each, plus a residual. Positions and orientations
    of the parts are read from latent codes; the difference between the source's own code and the wanted one moves them,
    as key points do in FOMM (https://arxiv.org/abs/2003.00196). The last layers see the warped image beside the hidden
    state, so that inpainting can correct it, and end in one sub-pixel step to R (https://arxiv.org/abs/1609.05158),
    which two small convolutions may finish. Flow and mask are interpolated:
    ``image = mask * warp(source, flow) + (1 - mask) * painted``. At initialisation equal codes give no flow.

    Args:
        resolution: ``R``: 64, 128, 256 or 512.
        latent_size: ``D``, as the descriptor layer has it.
        width: Channels at R/2; they double with each coarser level.
        max_channels: The most channels of a level.
        style_size: Dimensions of the style that modulates the convolutions.
        parts: Soft parts of the image that move by an affine motion each, but for the last, which is static; at least
            2, and more than ``motion_points``.
        source_code: The style also gets the difference to the source's own latent code, from which the flow starts.
        detail: Channels that the sub-pixel step gives two last convolutions at R, which see the warped image as well.
            0: the step gives colours itself, and terms that ask for sharp pictures draw stripes two pixels wide.
        flow_size: The most size of levels that refine the flow and take the source's features, R/2 by default. Finer
            levels then are one convolution each, which is faster. FOMM's flow has 64 for pictures of 256.

    Raises:
        ConfigError: A resolution that is no power of two from 32 to 1024, or a flow size below that of all levels.
    """

    activation_checkpointing = False
    """Compute levels once more in the backward pass in place of keeping their maps: less memory, more time."""

    def __init__(
        self,
        resolution: int = 256,
        latent_size: int = 128,
        width: PositiveInt = 32,
        max_channels: PositiveInt = 192,
        style_size: PositiveInt = 128,
        parts: int = 11,
        source_code: bool = True,
        detail: NonNegativeInt = 0,
        flow_size: PositiveInt | None = None,
    ) -> None:
        super().__init__()
        if parts < 2:
            raise ConfigError(f"generator: parts must be at least 2, one of which stands still, got {parts}")
        self.resolution = resolution
        self.latent_size = latent_size
        self.source_code = source_code
        self.led_points = parts - 1
        sizes = level_sizes(resolution, START, resolution // 2)
        if flow_size is not None and flow_size < START:
            raise ConfigError(f"generator: flow_size must be at least {START}, got {flow_size}")
        channels = [min(max_channels, width * (resolution // 2) // r) for r in sizes]
        full = sum(flow_size is None or size <= flow_size for size in sizes)
        self.sizes = tuple(sizes[:full])
        self.channels = tuple(channels[:full])
        inputs = latent_size * (2 if source_code else 1)
        self.mapping = nn.Sequential(
            nn.Linear(inputs, style_size), nn.LeakyReLU(0.2), nn.Linear(style_size, style_size)
        )
        for layer in self.mapping:
            if isinstance(layer, nn.Linear):
                nn.init.kaiming_normal_(layer.weight, a=0.2)
                nn.init.zeros_(layer.bias)
        self.places = PlaceReader(latent_size, parts - 1)
        first = self.channels[0]
        self.start = nn.Conv2d(first + 2, first, 3, padding=1)
        self.body = nn.ModuleList([ModulatedBlock(first, style_size) for _ in range(2)])
        entering = (first, *channels[:-1])
        self.levels = nn.ModuleList(
            GeneratorLevel(before, own, style_size, parts, doubles=number > 0)
            for number, (before, own) in enumerate(zip(entering[:full], self.channels, strict=True))
        )
        self.finer = nn.ModuleList(
            ModulatedConv(before, own, style_size, doubles=True)
            for before, own in zip(entering[full:], channels[full:], strict=True)
        )
        self.touch = nn.Conv2d(channels[-1] + 4 * 3, channels[-1], 1)
        self.last = nn.Conv2d(channels[-1], 4 * (detail or 3) + 1, 3, padding=1)
        self.finish = _finish(detail) if detail else None
        with torch.no_grad():
            self.last.weight[-1:] = 0  # the mask starts even
            self.last.bias.zero_()  # type: ignore[union-attr]

    def lead(self, columns: Tensor, points: int) -> None:
        """Initialise the first parts' positions as the coefficients on the first ``2 * points`` columns of the basis.

        Args:
            columns: D M, orthonormal: x and y of the points in turn, then others.
            points: Fewer than there are parts.
        """
        with torch.no_grad():
            weight, bias = self.places.linear.weight.view(-1, 6, self.latent_size), self.places.linear.bias.view(-1, 6)
            weight[:points, :2] = columns[:, : 2 * points].T.reshape(points, 2, self.latent_size)
            bias[:points, :2] = 0

    def _parts(self, latent: Tensor, source_latent: Tensor) -> MotionField:
        """Return the parts' motions, from their positions in the result to those in the source."""
        driving, source = self.places(latent), self.places(source_latent)
        turn = source.shape - driving.shape
        with full_precision(latent):
            shift = source.centre - driving.centre - (turn @ driving.centre[..., None])[..., 0]
        affine = F.pad(torch.cat([turn, shift[..., None]], 3), (0, 0, 0, 0, 0, 1))
        offset = identity_grid(START, START, latent) - driving.centre[..., None, None]
        near = 4 * torch.exp(-offset.square().sum(2) / (2 * PART_WIDTH**2)) - 2
        residual = affine.new_zeros(latent.shape[0], 2, START, START)
        return MotionField(affine, F.pad(near, (0, 0, 0, 0, 0, 1)), residual)

    def forward(
        self,
        latent: Tensor,
        source_latent: Tensor,
        features: list[Tensor],
        image: Tensor,
    ) -> Generated:
        """Render.

        Args:
            latent: B D, the latent code wanted.
            source_latent: B D, the source's own latent code.
            features: One map per level, B channels[i] sizes[i] sizes[i].
            image: B 3 R R, the source in [0, 1].
        """
        code = torch.cat([latent, latent - source_latent], 1) if self.source_code else latent
        style = self.mapping(code)
        grid = identity_grid(START, START, features[0]).expand(image.shape[0], -1, -1, -1)
        hidden = F.leaky_relu(self.start(torch.cat([features[0], grid.to(features[0].dtype)], 1)), 0.2)
        for block in self.body:
            hidden = block(hidden, style)
        field = self._parts(latent, source_latent)
        for level, feature in zip(self.levels, features, strict=True):
            hidden, field = self._do(level, hidden, feature, field, style)
        for finer in self.finer:
            hidden = F.leaky_relu(self._do(finer, hidden, style), 0.2)
        return self._do(self._picture, hidden, field, image)

    def _do(self, part: Callable[..., Any], *arguments: Any) -> Any:
        """Call a part."""
        return call(part, *arguments, checkpointing=self.activation_checkpointing)

    def _picture(self, hidden: Tensor, field: MotionField, image: Tensor) -> Generated:
        """Paint at R, from the hidden state at R/2 and its motion field, and mix with the warped source."""
        flow = resize(field.flow(), self.resolution)  # smooth: sub-pixels would leave dots
        warped = warp(image.float(), flow)
        seen = torch.cat([hidden, fold_pixels(warped).to(hidden.dtype)], 1)
        last = self.last(F.leaky_relu(self.touch(seen), 0.2))
        painted = F.pixel_shuffle(last[:, :-1], 2)
        if self.finish is not None:
            painted = self.finish(torch.cat([F.leaky_relu(painted, 0.2), (warped * 2 - 1).to(painted.dtype)], 1))
        mask = torch.sigmoid(resize(last[:, -1:].float(), self.resolution))
        return Generated(mask * warped + (1 - mask) * torch.sigmoid(painted.float()), flow, mask, warped)


def _finish(channels: int) -> nn.Module:
    """Return the convolutions at R, from ``channels`` and the warped image's 3 to the painted one's 3."""
    return nn.Sequential(
        nn.Conv2d(channels + 3, channels, 3, padding=1), nn.LeakyReLU(0.2), nn.Conv2d(channels, 3, 3, padding=1)
    )
