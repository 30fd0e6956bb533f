"""The generator of FOMM, the first order motion model (https://arxiv.org/abs/2003.00196).

Legend: ``B`` batch, ``C r r`` feature map, ``R`` resolution, ``D`` latent dimensions, ``P`` key points.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jsonargparse.typing import PositiveInt
from torch import Tensor, nn

from sfdkit.errors import ConfigError
from sfdkit.model.blocks import call, full_precision, level_sizes, resize, warp
from sfdkit.model.key_points import PER_POINT, DenseMotion, KeyPoints, convolution
from sfdkit.types import Generated

SCALE = 4
"""How many times smaller than the picture are flow and warped features."""


class ResidualBlock(nn.Module):
    """Two convolutions with batch normalisation before each, added to what they were given.

    Args:
        channels: Input and output channels.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(
                layer
                for _ in range(2)
                for layer in (nn.BatchNorm2d(channels), nn.ReLU(), nn.Conv2d(channels, channels, 3, padding=1))
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map B C r r to B C r r."""
        return x + self.layers(x)


class KeyPointReader(nn.Module):
    """Reads key points from latent codes: the coefficients on the motion vectors, exactly, while the basis stays.

    Args:
        latent_size: ``D``.
        points: ``P``.
        owner: The generator's name, for messages.
    """

    columns: Tensor
    """D 6P: the motion vectors."""

    def __init__(self, latent_size: int, points: int, owner: str) -> None:
        super().__init__()
        self.count = points
        self.owner = owner
        self.register_buffer("columns", torch.zeros(latent_size, PER_POINT * points))

    def take(self, columns: Tensor, points: int) -> None:
        """Take the motion vectors of the basis.

        Raises:
            ConfigError: The motion coefficients are not the key points.
        """
        if points != self.count or tuple(columns.shape) != tuple(self.columns.shape):
            raise ConfigError(
                f"animator: {self.owner} reads {self.count} key points, and the {columns.shape[1]} motion coefficients "
                f"are not they: set animator.key_points to true, animator.motion_points to {self.count} and "
                f"descriptors.motion_size to {PER_POINT * self.count}"
            )
        with torch.no_grad():
            self.columns.copy_(columns)

    def forward(self, latent: Tensor) -> KeyPoints:
        """Read B D codes."""
        with full_precision(latent):
            return KeyPoints.read(latent.float() @ self.columns)


class OfKeyPoints(nn.Module):
    """A generator whose motion is key points, read from latent codes.

    Args:
        latent_size: ``D``.
        points: ``P``.
    """

    def __init__(self, latent_size: int, points: int) -> None:
        super().__init__()
        self.latent_size = latent_size
        self.led_points = points
        self.reader = KeyPointReader(latent_size, points, type(self).__name__)

    def lead(self, columns: Tensor, points: int) -> None:
        """Take the motion vectors on which the key points are read.

        Raises:
            ConfigError: The motion coefficients are not the key points.
        """
        self.reader.take(columns, points)


class FommGenerator(OfKeyPoints):
    """Renders by warping one map of the source's features under a soft combination of key points' affine motions.

    As in the paper: near each key point the picture moves by an affine map, from the point's place and Jacobian in the
    driving picture to those in the source; an hourglass at a quarter of the resolution sees the source warped by each
    of them, weighs them, and gives an occlusion map; the source's features at that size are warped and masked, and
    residual blocks and two doublings turn them into the picture.

    What differs: the encoder's features through the animator's adapter are added to those of FOMM's own convolutions,
    and key points are read from an encoder's maps, not by an hourglass; in relative motion Jacobians are added, where
    FOMM multiplies them. The identity coefficients play no part.

    Args:
        resolution: ``R``, a power of two.
        latent_size: ``D``: the animator's key points are read from latent codes.
        points: ``P``; 10 in the paper.
        width: Channels at R; they double with each coarser level. 64 in the paper.
        max_channels: The most channels; 512 in the paper.
        motion_width: Channels of the hourglass at its full size. 64 in the paper, up to 1024.
        blocks: Residual blocks; 6 in the paper.

    Raises:
        ConfigError: A resolution that is no power of two from 32 to 1024.
    """

    activation_checkpointing = False

    def __init__(
        self,
        resolution: int = 256,
        latent_size: int = 64,
        points: PositiveInt = 10,
        width: PositiveInt = 64,
        max_channels: PositiveInt = 512,
        motion_width: PositiveInt = 64,
        blocks: PositiveInt = 6,
    ) -> None:
        super().__init__(latent_size, points)
        self.resolution = resolution
        self.sizes = tuple(level_sizes(resolution, resolution // SCALE, resolution // SCALE))
        self.channels = (min(max_channels, SCALE * width),)
        self.motion = DenseMotion(points, self.sizes[0], motion_width, 2 * max_channels)
        self.body = nn.Sequential(*(ResidualBlock(self.channels[0]) for _ in range(blocks)))
        half = min(max_channels, 2 * width)
        self.encoder = nn.Sequential(
            convolution(3, width, 7),
            *(convolution(width, half), nn.AvgPool2d(2)),
            *(convolution(half, self.channels[0]), nn.AvgPool2d(2)),
        )
        self.up = nn.ModuleList([convolution(self.channels[0], half), convolution(half, width)])
        self.last = nn.Conv2d(width, 3, 7, padding=3)

    def forward(self, latent: Tensor, source_latent: Tensor, features: list[Tensor], image: Tensor) -> Generated:
        """Render, see :class:`~sfdkit.model.generator_like.GeneratorLike`."""
        driving, source = self.reader(latent), self.reader(source_latent)
        small = resize(image, self.sizes[0])
        flow, seen = call(self.motion, small, driving, source, checkpointing=self.activation_checkpointing)
        own = call(self.encoder, image, checkpointing=self.activation_checkpointing)
        hidden = warp(features[0].float() + own.float(), flow) * torch.sigmoid(seen)
        hidden = call(self.body, hidden, checkpointing=self.activation_checkpointing)
        for layer in self.up:
            doubled = F.interpolate(hidden, scale_factor=2, mode="nearest")
            hidden = call(layer, doubled, checkpointing=self.activation_checkpointing)
        made = torch.sigmoid(self.last(hidden).float())
        flow = resize(flow, self.resolution)
        mask = resize(torch.sigmoid(seen), self.resolution)
        return Generated(made, flow, mask, warp(image.float(), flow))
