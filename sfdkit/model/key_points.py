"""Key points, each with a linear map of its neighbourhood, as in FOMM (https://arxiv.org/abs/2003.00196).

Legend: ``B`` batch, ``P`` points, ``r`` size of a map.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sfdkit.model.blocks import SoftPoints, full_precision, identity_grid, shares, sum_of_scales, warp
from sfdkit.model.encoders import Encoder
from sfdkit.model.generator import POINT_UNIT
from sfdkit.model.heads import HEAT_SIZE, NoisyCoefficients, begin_noise

PER_POINT = 6
"""Coefficients of a point: x, y, and the four entries of its Jacobian."""
JACOBIAN_UNIT = 0.1
"""Units of the Jacobians' entries in coefficients."""
LEAST_AREA = 0.05
"""The least determinant that an inverted Jacobian is taken to have."""
SPREAD = 0.1
"""Standard deviation of the region round a point, in halves of the picture, as in FOMM."""


class KeyPoints(NamedTuple):
    """Points and how their neighbourhood is turned and stretched, against a reference that no picture shows."""

    places: Tensor
    """B P 2: x and y in [-1, 1]."""
    jacobians: Tensor
    """B P 2 2: from the reference to the picture."""

    @classmethod
    def read(cls, coefficients: Tensor) -> KeyPoints:
        """Read them from coefficients, B 6P: x and y of all points, then the Jacobians' differences from 1."""
        points = coefficients.shape[1] // PER_POINT
        places, change = coefficients.float().split([2 * points, 4 * points], 1)
        unit = torch.eye(2, device=coefficients.device)
        return cls(POINT_UNIT * places.unflatten(1, (-1, 2)), unit + JACOBIAN_UNIT * change.unflatten(1, (-1, 2, 2)))

    def write(self) -> Tensor:
        """Return the coefficients, B 6P."""
        change = self.jacobians - torch.eye(2, device=self.places.device)
        return torch.cat([self.places.flatten(1) / POINT_UNIT, change.flatten(1) / JACOBIAN_UNIT], 1)

    def regions(self, size: int) -> Tensor:
        """Return a bump round each point, B P size size, 1 at its place."""
        offset = identity_grid(size, size, self.places) - self.places[..., None, None]
        return torch.exp(-offset.square().sum(2) / (2 * SPREAD**2))

    def motions(self, source: KeyPoints, size: int) -> Tensor:
        """Return where each point's neighbourhood comes from, B P 2 size size: offsets from these points to ``source``.

        Near a point the picture moves by the affine map ``source + J_source J⁻¹ (z - place)``.
        """
        grid = identity_grid(size, size, self.places)
        matrix = source.jacobians @ inverse(self.jacobians)
        offset = grid - self.places[..., None, None]
        return source.places[..., None, None] + torch.einsum("bpij,bpjhw->bpihw", matrix, offset) - grid


def inverse(matrices: Tensor) -> Tensor:
    """Invert matrices ... 2 2; one that is hardly invertible is taken to have the determinant :data:`LEAST_AREA`."""
    a, b, c, d = matrices.flatten(-2).unbind(-1)
    area = a * d - b * c
    area = torch.where(area.abs() < LEAST_AREA, torch.where(area < 0, -LEAST_AREA, LEAST_AREA), area)
    return torch.stack([d, -b, -c, a], -1).unflatten(-1, (2, 2)) / area[..., None, None]


class KeyPointHead(NoisyCoefficients, nn.Module):
    """Reads key points from feature maps: the expected place of each heat map, and Jacobians averaged under it.

    Heat maps and Jacobians are sums over maps of all scales, where FOMM has an hourglass of its own.

    Args:
        encoder: The encoder whose maps are read.
        points: ``P``.
    """

    def __init__(self, encoder: Encoder, points: int) -> None:
        super().__init__()
        self.points = SoftPoints(encoder.channels, points, min(HEAT_SIZE, max(encoder.sizes)))
        self.local = nn.ModuleList(nn.Conv2d(inputs, 4 * points, 1) for inputs in encoder.channels)
        self.log_noise = begin_noise(PER_POINT * points)
        for layer in self.local:
            nn.init.zeros_(layer.weight)  # type: ignore[arg-type]
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, features: list[Tensor]) -> Tensor:
        """Map the encoder's feature maps to coefficients, B 6P, see :meth:`KeyPoints.read`."""
        with full_precision(features[0]):
            heat = self.points.heat_maps(features)
            change = sum_of_scales(self.local, features, self.points.size).unflatten(1, (-1, 4))
            local = torch.einsum("bphw,bpkhw->bpk", heat, change).unflatten(2, (2, 2))
            places = self.points.places(heat)
        return KeyPoints(places, local + torch.eye(2, device=local.device)).write()


class Hourglass(nn.Module):
    """Maps at falling and rising sizes, with shortcuts between maps of one size.

    Args:
        inputs: Input channels.
        size: Height and width of the input.
        width: Channels at its full size; they double with each coarser one.
        max_channels: The most channels.
        depth: How often maps are halved; never below 2 x 2.
    """

    def __init__(self, inputs: int, size: int, width: int, max_channels: int, depth: int = 5) -> None:
        super().__init__()
        depth = max(1, min(depth, size.bit_length() - 2))
        channels = [min(max_channels, width * 2 ** (level + 1)) for level in range(depth)]
        before = [inputs, *channels]
        self.down = nn.ModuleList(convolution(i, c) for i, c in zip(before, channels, strict=False))
        self.up = nn.ModuleList()
        given = channels[-1]
        for level in reversed(range(depth)):
            made = min(max_channels, width * 2**level)
            self.up.append(convolution(given, made))
            given = made + before[level]
        self.outputs = given

    def forward(self, x: Tensor) -> Tensor:
        """Map B inputs s s to B outputs s s."""
        shortcuts = []
        for layer in self.down:
            shortcuts.append(x)
            x = F.avg_pool2d(layer(x), 2)
        for layer in self.up:
            skipped = shortcuts.pop()
            x = layer(F.interpolate(x, scale_factor=2, mode="nearest"))
            x = torch.cat([x, skipped.to(x.dtype)], 1)
        return x


def convolution(inputs: int, outputs: int, kernel: int = 3) -> nn.Sequential:
    """Return a convolution that keeps the size, with batch normalisation and ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
    )


class DenseMotion(nn.Module):
    """Flow and occlusion from key points: an hourglass weighs the points' affine motions, and none for the background.

    It sees, for each motion, the difference of the points' bumps and the source warped by it.

    Args:
        points: ``P``.
        size: Height and width of the flow.
        width: Channels of the hourglass at its full size.
        max_channels: The most channels.
    """

    def __init__(self, points: int, size: int, width: int, max_channels: int) -> None:
        super().__init__()
        self.size = size
        self.hourglass = Hourglass((points + 1) * 4, size, width, max_channels)
        self.shares = nn.Conv2d(self.hourglass.outputs, points + 1, 7, padding=3)
        self.occlusion = nn.Conv2d(self.hourglass.outputs, 1, 7, padding=3)

    def forward(self, image: Tensor, driving: KeyPoints, source: KeyPoints) -> tuple[Tensor, Tensor]:
        """Return the flow, B 2 r r float32, and the logit of what the source shows, B 1 r r.

        Args:
            image: B 3 r r, the source in [0, 1].
            driving: Where the points should be.
            source: Where they are in the source.
        """
        with full_precision(image):
            motions = F.pad(driving.motions(source, self.size), (0, 0, 0, 0, 0, 0, 1, 0))  # the first: none
            bumps = F.pad(driving.regions(self.size) - source.regions(self.size), (0, 0, 0, 0, 1, 0))
            count = motions.shape[1]
            copies = image.float()[:, None].expand(-1, count, -1, -1, -1).flatten(0, 1)
            moved = warp(copies, motions.flatten(0, 1)).unflatten(0, (-1, count))
        read = self.hourglass(torch.cat([bumps[:, :, None], moved], 2).flatten(1, 2))
        weights = shares(self.shares(read).float())
        return (weights[:, :, None] * motions).sum(1), self.occlusion(read).float()
