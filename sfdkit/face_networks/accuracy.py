"""How well faces are read: errors, explained variance, and whether people are told apart.

Legend: ``F`` pictures, ``V`` values, ``Z`` dimensions of an embedding.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sfdkit.metrics.exact import exact


def explained(prediction: Tensor, truth: Tensor) -> Tensor:
    """Return R2, V values, of F V predictions: 1 is perfect, 0 is what the mean of the truth would give."""
    rest = (prediction - truth).square().mean(0)
    return 1 - rest / (truth - truth.mean(0)).square().mean(0)


def pair_similarities(embedding: Tensor, identity: Tensor) -> tuple[Tensor, Tensor]:
    """Return the cosines of all pairs of two different pictures: those of the same identity, and the others.

    Args:
        embedding: F Z of length 1.
        identity: F numbers.
    """
    first, second = torch.triu_indices(len(embedding), len(embedding), offset=1)
    cosine = (embedding @ embedding.T)[first, second]
    same = identity[first] == identity[second]
    return cosine[same], cosine[~same]


def area_under_curve(same: Tensor, other: Tensor) -> float:
    """Return the probability that a pair of ``same`` is more alike than one of ``other``; ties count half.

    This is the area under the ROC curve, https://doi.org/10.1148/radiology.143.1.7063747.
    """
    ordered = other.sort().values
    below = torch.searchsorted(ordered, same, right=False) + torch.searchsorted(ordered, same, right=True)
    return float(exact(below).mean() / (2 * len(other)))


def equal_error_rate(same: Tensor, other: Tensor) -> float:
    """Return the error of verification at the threshold where both kinds of error are as equal as they get.

    A pair is taken for the same identity when its similarity reaches the threshold; every similarity that occurs is
    tried, and the mean of the share of ``same`` refused and of ``other`` taken is given where they differ least.
    """
    thresholds = torch.cat([same, other]).unique()
    refused = exact(torch.searchsorted(same.sort().values, thresholds, right=False)) / len(same)
    taken = 1 - exact(torch.searchsorted(other.sort().values, thresholds, right=False)) / len(other)
    best = (refused - taken).abs().argmin()
    return float((refused[best] + taken[best]) / 2)


def retrieval(embedding: Tensor, identity: Tensor) -> float:
    """Return the share of pictures whose most alike first picture of an identity is that of their own.

    The first picture of each identity is in the gallery, the others are looked up in it.

    Args:
        embedding: F Z of length 1.
        identity: F numbers, at least two pictures of each.
    """
    numbers = identity.tolist()
    gallery = torch.tensor([numbers.index(number) for number in sorted(set(numbers))], device=embedding.device)
    asked = torch.ones(len(identity), dtype=torch.bool, device=embedding.device)
    asked[gallery] = False
    found = identity[gallery][(embedding[asked] @ embedding[gallery].T).argmax(1)]
    return float((found == identity[asked]).float().mean())
