"""KL divergence: the information that the noisy motion coefficients carry."""

from __future__ import annotations

from torch import Tensor

from sfdkit.losses.term import LossTerm


class KLDivergence(LossTerm):
    """KL divergence of the noisy motion coefficients from a standard normal distribution around the batch's mean.

    It bounds the information that reaches the generator, as in the deep variational information bottleneck
    (https://arxiv.org/abs/1612.00410). The source already shows who the person is, so identity is the first thing that
    this term removes from motion. Coefficients that the image does not need lose their variance; and because the noise
    differs between coefficients, aligning them with independent factors is cheaper (https://arxiv.org/abs/1812.06775).

    The mean is the batch's and not 0: an offset that all frames share carries no information. Where the term starts
    late, coefficients have grown such offsets, and pulling those to 0 destroys the motion with them.
    """

    def forward(self, motion: Tensor, log_noise: Tensor) -> Tensor:
        """Return nats per frame.

        Args:
            motion: ... M, coefficients without noise.
            log_noise: M, logarithm of the noise's standard deviation.
        """
        energy = motion.flatten(0, -2).var(0, correction=0)
        return 0.5 * (energy + (2 * log_noise).exp() - 1 - 2 * log_noise).sum()
