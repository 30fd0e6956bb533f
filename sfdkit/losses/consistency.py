"""Descriptor consistency: either frame of a clip gives the same identity coefficients."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sfdkit.losses.term import LossTerm


class Consistency(LossTerm):
    """Contrast of identity coefficients: frames of a clip agree, frames of other people differ.

    Agreement alone is reached by coefficients that never change; the contrast is the normalised temperature-scaled
    cross entropy (https://arxiv.org/abs/2002.05709), in which rows of the same person are left out of the others.

    Args:
        temperature: Of the cosine similarities.
    """

    def __init__(self, temperature: float = 0.2) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, identity: Tensor, people: Tensor) -> Tensor:
        """Return the mean over rows and directions, about 0 (told apart) to the logarithm of the batch size.

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
