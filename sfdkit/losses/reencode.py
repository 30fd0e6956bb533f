"""Cross-identity terms: what a result of two people should give when it is read again."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class Reencode(nn.Module):
    """The source's identity and the driver's motion come back from the result.

    Identity by its direction, since only that is contrasted between people; motion coefficient by coefficient, in units
    in which a standard normal would have a variance of 1.
    """

    def forward(self, identity: Tensor, motion: Tensor, source_identity: Tensor, driver_motion: Tensor) -> Tensor:
        """Return ``1 - cosine`` of the identities plus half the mean squared difference of the motions.

        Args:
            identity: C N, read in the results.
            motion: C M, read in the results.
            source_identity: C N.
            driver_motion: C M.
        """
        who = 1 - F.cosine_similarity(identity.float(), source_identity.float(), dim=1).mean()
        return who + 0.5 * (motion.float() - driver_motion.float()).square().mean()
