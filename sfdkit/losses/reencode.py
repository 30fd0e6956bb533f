"""Re-encoding: a cross-identity result must be encoded to the descriptors that it was rendered from."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from sfdkit.losses.term import LossTerm


class Reencode(LossTerm):
    """Distance of a result's descriptors from the source's identity and the driver's motion.

    Identity is compared by its direction, as in :class:`sfdkit.losses.consistency.Consistency`. Each motion coefficient
    is weighted by what its noise leaves of it, ``1 - noise^2`` (see :class:`sfdkit.losses.kl.KLDivergence`).
    """

    def forward(
        self, identity: Tensor, motion: Tensor, source_identity: Tensor, driver_motion: Tensor, log_noise: Tensor
    ) -> Tensor:
        """Return ``1 - cosine`` of the identities plus half the weighted mean squared difference of the motions.

        Args:
            identity: C N, encoded from the results.
            motion: C M, encoded from the results.
            source_identity: C N.
            driver_motion: C M.
            log_noise: M, logarithm of the standard deviation of the coefficients' noise.
        """
        who = 1 - F.cosine_similarity(identity, source_identity, dim=1).mean()
        weight = (1 - (2 * log_noise.detach()).exp()).clamp(min=0)
        return who + 0.5 * (weight * (motion - driver_motion).square()).mean()
