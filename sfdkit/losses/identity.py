"""Identity loss: face recognition must see the source's person in the result."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor, nn

from sfdkit.face_networks.embedder import load_embedder
from sfdkit.losses.term import LossTerm


class IdentityTerm(LossTerm):
    """One minus the cosine of face recognition embeddings.

    The network is frozen, stays in eval mode and is not saved in checkpoints. FaceShifter uses ArcFace in this way
    (https://arxiv.org/abs/1912.13457).

    Args:
        network: File of the network, see :func:`sfdkit.face_networks.embedder.load_embedder`.

    Raises:
        ConfigError: The file is missing, of another kind, or gradients cannot go through it.
    """

    def __init__(self, network: str) -> None:
        super().__init__()
        self._kept = [load_embedder(network)]  # in a list, so that it is no submodule

    @property
    def embedder(self) -> nn.Module:
        """Maps B 3 H W in [0, 1] to B Z of length 1."""
        return self._kept[0]

    def forward(self, prediction: Tensor, source: Tensor) -> Tensor:
        """Return the mean over B images: 0 for the same person, up to 2.

        Args:
            prediction: B 3 H W in [0, 1]; with gradients.
            source: B 3 H W in [0, 1], without.
        """
        with torch.no_grad():
            wanted = self.embedder(source)
        return 1 - (self.embedder(prediction) * wanted).sum(1).mean()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self.embedder._apply(fn)
        return super()._apply(fn, recurse)
