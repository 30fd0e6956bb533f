"""Rate: what the motion coefficients cost, so that they carry what the picture needs and nothing else."""

from __future__ import annotations

from torch import Tensor

from sfdkit.losses.term import LossTerm


class Rate(LossTerm):
    """Information that goes through the noisy motion coefficients, in nats.

    It is bounded by the divergence from a normal distribution of variance 1 around the batch's mean: an offset that all
    frames share tells nothing and is free. Around 0 it would cost most of all where a term that starts late finds
    coefficients that have grown one, and the motion with it is lost.

    Who the driver is need not be sent, since the source shows it; so identity is the first thing that a price on
    information removes from motion. Coefficients that no picture needs fall silent, which is sparsity; and noise that
    differs between coefficients makes it pay to align them with independent causes (https://arxiv.org/abs/1812.06775).
    The bound is that of the deep variational information bottleneck (https://arxiv.org/abs/1612.00410).
    """

    def forward(self, motion: Tensor, log_noise: Tensor) -> Tensor:
        """Return nats per frame.

        Args:
            motion: ... M, coefficients without noise.
            log_noise: M, logarithm of the noise's standard deviation.
        """
        energy = motion.flatten(0, -2).var(0, correction=0)
        return 0.5 * (energy + (2 * log_noise).exp() - 1 - 2 * log_noise).sum()
