"""Consistency: contrastive loss on the identity coefficients of two frames of each clip."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sfdkit.losses.term import LossTerm


class Consistency(LossTerm):
    """NT-Xent loss: identity coefficients of one clip's frames agree, those of different people differ.

    Agreement alone would be reached by constant coefficients. Normalised temperature-scaled cross entropy as in SimCLR
    (https://arxiv.org/abs/2002.05709); other clips of the same person are no negatives.

    Args:
        temperature: Of the cosine similarities.
    """

    def __init__(self, temperature: float = 0.2) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, identity: Tensor, people: Tensor) -> Tensor:
        """Return the mean over rows and directions, from about 0 to the logarithm of the batch size.

        Args:
            identity: B 2 N, of two frames of each clip.
            people: B numbers; rows of the same person have the same one.
        """
        first, second = F.normalize(identity, dim=2).unbind(1)
        logits = first @ second.T / self.temperature
        same = (people[:, None] == people[None]) & ~torch.eye(len(people), dtype=torch.bool, device=people.device)
        logits = logits.masked_fill(same, -torch.inf)
        place = torch.arange(len(people), device=logits.device)
        return (F.cross_entropy(logits, place) + F.cross_entropy(logits.T, place)) / 2
