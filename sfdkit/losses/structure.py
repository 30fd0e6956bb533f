"""Structural similarity as a loss."""

from __future__ import annotations

from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from sfdkit.losses.term import LossTerm


class StructureLoss(LossTerm):
    """``1 - SSIM`` with a Gaussian window of 11 pixels (https://doi.org/10.1109/TIP.2003.819861), by torchmetrics."""

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Return the mean over B 3 H W in [0, 1]."""
        similarity = structural_similarity_index_measure(prediction, target, data_range=1.0)
        assert isinstance(similarity, Tensor)
        return 1 - similarity
