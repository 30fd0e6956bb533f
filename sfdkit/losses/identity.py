"""Identity loss: the result must be the person of the source."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor, nn

from sfdkit.measure.embedder import load_embedder
from sfdkit.model.blocks import full_precision


class IdentityTerm(nn.Module):
    """One minus the cosine of face recognition embeddings.

    The network serves training alone: it stays in eval mode, learns nothing and is not saved in checkpoints.
    Used so with ArcFace for instance in https://arxiv.org/abs/1912.13457.

    Args:
        network: File of the network, see :func:`sfdkit.measure.embedder.load_embedder`.

    Raises:
        ConfigError: The file is missing, of another kind, or gradients cannot go through it.
    """

    def __init__(self, network: str) -> None:
        super().__init__()
        self.embedder = load_embedder(network)

    def forward(self, prediction: Tensor, source: Tensor) -> Tensor:
        """Return the mean over B pictures: 0 for the same person, up to 2.

        Args:
            prediction: B 3 H W in [0, 1]; gradients go to it.
            source: B 3 H W in [0, 1]: who it should be.
        """
        with full_precision(prediction):
            with torch.no_grad():
                wanted = self.embedder(source.float())
            return 1 - (self.embedder(prediction.float()) * wanted).sum(1).mean()

    def train(self, mode: bool = True) -> Self:
        """Stay in eval mode: the network's statistics are its own."""
        return super().train(False)
