"""Sparsity: few motion coefficients are away from their middle at a time."""

from __future__ import annotations

from torch import Tensor

from sfdkit.losses.term import LossTerm


class Sparsity(LossTerm):
    """Mean absolute motion coefficient, measured from the batch's mean, against the root mean square over coefficients.

    It does not fall when all coefficients shrink together, only when fewer of them carry the motion.
    """

    def forward(self, motion: Tensor) -> Tensor:
        """Return the share, up to 1, for ... M coefficients."""
        centred = motion.flatten(0, -2)
        centred = centred - centred.mean(0)
        size = centred.square().mean().add(1e-8).sqrt()
        return centred.abs().mean() / size
