"""Training the network that reads puppets.

Legend: ``B`` pictures, ``Z`` dimensions of the embedding.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from sfdkit.face_networks.puppet_examples import Examples, augment
from sfdkit.face_networks.puppet_network import PuppetNetwork, Read

BATCH_IDENTITIES = 32
"""Identities of a batch, two pictures of each."""
TEMPERATURE = 0.1
LR = 4e-3
_SPREAD = 15.0
_WEIGHTS = {"landmarks": 10.0, "pose": 2.0, "expression": 4.0, "identity": 0.2}


def fit(
    examples: Examples,
    steps: int,
    seed: int,
    report: Callable[[dict[str, float]], None] | None = None,
    device: torch.device | None = None,
) -> PuppetNetwork:
    """Train a network with AdamW and a one-cycle learning rate.

    The loss: L1 of landmarks and pose, smooth L1 of expressions, and the contrastive loss of the embeddings of two
    pictures of one identity.

    Args:
        examples: Two pictures or more of each identity.
        steps: Number of batches.
        seed: Draws the weights, the batches and the augmentation.
        report: Called with the loss terms of each step.
        device: Where to train, the CPU by default; batches are drawn and augmented on the CPU, so that a seed gives the
            same ones.

    Returns:
        The network in eval mode, on the device.
    """
    device = device or torch.device("cpu")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = PuppetNetwork().train().to(device)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(network.parameters(), lr=LR, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, steps + 1, pct_start=0.15)
    with tqdm(range(steps), desc="training", unit="step", leave=False) as bar:
        for step in bar:
            images, truth = augment(_draw(examples, generator), generator)
            terms = losses(network(images.to(device)), truth.to(device))
            optimizer.zero_grad()
            torch.stack([_WEIGHTS[name] * value for name, value in terms.items()]).sum().backward()
            optimizer.step()
            schedule.step()
            if step % 10 == 0:
                bar.set_postfix({name: f"{value.item():.3f}" for name, value in terms.items()})
            if report is not None:
                report({name: value.item() for name, value in terms.items()})
    return network.eval().requires_grad_(False)


def _draw(examples: Examples, generator: torch.Generator) -> Examples:
    """Draw two pictures each of some identities."""
    each = examples.pictures_each
    who = torch.randperm(len(examples.images) // each, generator=generator)[:BATCH_IDENTITIES]
    which = torch.rand(len(who), each, generator=generator).argsort(1)[:, :2]
    rows = (who[:, None] * each + which).flatten()
    images, landmarks, pose, expression = (column[rows] for column in examples[:4])
    return Examples(images, landmarks, pose, expression, 2)


def losses(read: Read, truth: Examples) -> dict[str, Tensor]:
    """Return the terms of the loss; rows 2n and 2n + 1 are of one identity."""
    return {
        "landmarks": (read.landmarks - truth.landmarks).abs().mean(),
        "pose": (read.pose - truth.pose).abs().mean() / _SPREAD,
        "expression": F.smooth_l1_loss(read.expression, truth.expression, beta=0.5),
        "identity": contrastive(read.embedding),
    }


def contrastive(embedding: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """Return the normalised temperature-scaled cross entropy of picking a picture's pair out of all others.

    NT-Xent of https://arxiv.org/abs/2002.05709, with a second picture of the identity in place of a second view.

    Args:
        embedding: B Z of length 1; rows 2n and 2n + 1 are of one identity.
        temperature: Divides the cosines.
    """
    cosine = (embedding @ embedding.T) / temperature
    own = torch.arange(len(embedding), device=embedding.device)
    cosine = cosine.masked_fill(torch.eye(len(embedding), dtype=torch.bool, device=embedding.device), -torch.inf)
    return F.cross_entropy(cosine, own ^ 1)
