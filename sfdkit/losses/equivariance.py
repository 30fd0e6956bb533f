"""Equivariance: key points of a bent picture lie where bending moved them.

Legend: ``B`` rows, ``P`` key points, ``C`` control points.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from sfdkit.errors import ConfigError
from sfdkit.losses.term import LossTerm
from sfdkit.model.blocks import full_precision, identity_grid
from sfdkit.model.key_points import PER_POINT, KeyPoints, inverse

AFFINE = 0.05
"""Standard deviation of the affine maps' entries, as in FOMM."""
BENDING = 0.005
"""Standard deviation of the weights of the thin-plate splines, as in FOMM."""
SIDE = 5
"""Control points per side."""


class Bend(NamedTuple):
    """A smooth change of pictures: an affine map and a thin-plate spline, from a bent picture to what it shows."""

    affine: Tensor
    """B 2 3."""
    weights: Tensor
    """B C 2: of the splines' control points, an even grid over the picture."""

    @classmethod
    def draw(cls, rows: int, device: torch.device, generator: torch.Generator | None) -> Bend:
        """Draw one for each row; ``generator`` on that device."""
        noise = torch.randn(rows, 6 + 2 * SIDE**2, generator=generator, device=device)
        affine = torch.eye(2, 3, device=device) + AFFINE * noise[:, :6].view(rows, 2, 3)
        return cls(affine, BENDING * noise[:, 6:].view(rows, -1, 2))

    def at(self, points: Tensor) -> Tensor:
        """Return the places, B P 2, that points of the bent picture, B P 2, show; coordinates in [-1, 1]."""
        offset = self._offsets(points)
        square = offset.square().sum(3)
        spline = 0.5 * square * torch.log(square + 1e-6)
        return self._linear(points) + torch.einsum("bpc,bcd->bpd", spline, self.weights)

    def jacobians(self, points: Tensor) -> Tensor:
        """Return the derivatives of :meth:`at`, B P 2 2."""
        offset = self._offsets(points)
        square = offset.square().sum(3)
        slope = torch.log(square + 1e-6) + square / (square + 1e-6)
        bent = torch.einsum("bpc,bpce,bcd->bpde", slope, offset, self.weights)
        return self.affine[:, None, :, :2] + bent

    def apply(self, pictures: Tensor) -> Tensor:
        """Bend pictures, B 3 H W; beyond their border it is repeated by reflection."""
        with full_precision(pictures):
            height, width = pictures.shape[2:]
            grid = identity_grid(height, width, pictures).flatten(2).transpose(1, 2)
            places = self.at(grid.expand(len(pictures), -1, -1)).unflatten(1, (height, width))
            return F.grid_sample(pictures.float(), places, padding_mode="reflection", align_corners=False)

    def _linear(self, points: Tensor) -> Tensor:
        return torch.einsum("bij,bpj->bpi", self.affine[:, :, :2], points) + self.affine[:, None, :, 2]

    def _offsets(self, points: Tensor) -> Tensor:
        """Return where points B P 2 lie from the control points, B P C 2."""
        controls = identity_grid(SIDE, SIDE, points).flatten(2).transpose(1, 2)
        return points[:, :, None] - controls[:, None]


class Equivariance(LossTerm):
    """L1 between key points and those of a bent picture, brought back, and between their Jacobians.

    The equivariance constraints of FOMM (https://arxiv.org/abs/2003.00196, section 3.2): for a picture ``Y`` that shows
    ``X`` at ``t(z)``, places ``p(X) = t(p(Y))`` and Jacobians ``1 = J(X)⁻¹ t' J(Y)``. FOMM weighs both by 10, and its
    splines move both axes alike and measure distances by their sum over the axes.

    Args:
        motion_size: ``M``; the coefficients must be key points.

    Raises:
        ConfigError: They cannot be.
    """

    def __init__(self, motion_size: int) -> None:
        super().__init__()
        if motion_size % PER_POINT:
            raise ConfigError(
                f"weights: equivariance is for key points, {PER_POINT} coefficients each, and motion_size is "
                f"{motion_size}; set the weight to 0, or see methods/fomm.yaml"
            )

    def forward(self, motion: Tensor, bent: Tensor, affine: Tensor, weights: Tensor) -> Tensor:
        """Return the sum of both means.

        Args:
            motion: B M, read from the pictures.
            bent: B M, read from the bent pictures.
            affine: B 2 3, and
            weights: B C 2, of their :class:`Bend`.
        """
        bend = Bend(affine, weights)
        own, other = KeyPoints.read(motion), KeyPoints.read(bent)
        places = (own.places - bend.at(other.places)).abs().mean()
        product = inverse(own.jacobians) @ bend.jacobians(other.places) @ other.jacobians
        return places + (product - torch.eye(2, device=product.device)).abs().mean()
