"""Adversarial losses: non-saturating or hinge, with the R1 penalty, and matching of the discriminator's features."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sfdkit.losses.relative import relative_difference
from sfdkit.model.blocks import full_precision, in_float32

AdversarialKind = Literal["nonsaturating", "hinge"]


@in_float32
def generator_loss(fake_logits: Tensor, kind: AdversarialKind) -> Tensor:
    """Return the generator's loss for the discriminator's logits (B) of rendered images."""
    return F.softplus(-fake_logits).mean() if kind == "nonsaturating" else -fake_logits.mean()


@in_float32
def discriminator_loss(real_logits: Tensor, fake_logits: Tensor, kind: AdversarialKind) -> Tensor:
    """Return the discriminator's loss for its logits of real and of rendered images (B each)."""
    if kind == "nonsaturating":
        return F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()
    return F.relu(1 - real_logits).mean() + F.relu(1 + fake_logits).mean()


def feature_matching(found: list[Tensor], wanted: list[Tensor]) -> Tensor:
    """Return the mean difference of a discriminator's features, over depths (https://arxiv.org/abs/1512.09300).

    Each depth is divided by the mean size of what is wanted there, so that all count alike. What the discriminator
    looks at changes as the results do, so that no pattern deceives this term for long, as one can a fixed network.

    Args:
        found: Of the results, B C r r for each depth.
        wanted: Of the targets, without gradients.
    """
    return torch.stack([relative_difference(f, w) for f, w in zip(found, wanted, strict=True)]).mean()


def r1_penalty(discriminator: nn.Module, real: Tensor) -> Tensor:
    """Return half the mean squared gradient of the logits at real images B 3 H W (https://arxiv.org/abs/1801.04406)."""
    real = real.detach().float().requires_grad_(True)
    with full_precision(real):
        logits = discriminator(real)
        (slope,) = torch.autograd.grad(logits.sum(), real, create_graph=True)
    return slope.square().sum((1, 2, 3)).mean() / 2
