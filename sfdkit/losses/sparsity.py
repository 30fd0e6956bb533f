"""Sparsity: few motion coefficients differ from their mean at a time."""

from __future__ import annotations

from torch import Tensor

from sfdkit.losses.term import LossTerm


class Sparsity(LossTerm):
    """L1 norm of the centred motion coefficients over their L2 norm, both as means.

    The ratio is independent of scale: it falls only when fewer coefficients carry the motion.
    """

    def forward(self, motion: Tensor) -> Tensor:
        """Return the ratio, up to 1, for ... M coefficients."""
        centred = motion.flatten(0, -2)
        centred = centred - centred.mean(0)
        size = centred.square().mean().add(1e-8).sqrt()
        return centred.abs().mean() / size
