"""Training the network that reads puppets, and its accuracy on puppets of another seed.

Legend: ``N`` identities, ``B`` pictures, ``Z`` dimensions of the embedding.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from sfdkit.face_networks.accuracy import area_under_curve, equal_error_rate, explained, pair_similarities, retrieval
from sfdkit.face_networks.examples import Examples, augment, blur
from sfdkit.face_networks.network import EXPRESSION, POSE, SIDE, PuppetNetwork, Read

CPU = torch.device("cpu")
BATCH_IDENTITIES = 32
"""Identities of a step, two pictures of each."""
TEMPERATURE = 0.1
RATE = 4e-3
SOFT = 1.0
"""Sigma, in pixels at 64, of the blur under which accuracy is told as well."""
_SPREAD = 15.0
_WEIGHTS = {"landmarks": 10.0, "pose": 2.0, "expression": 4.0, "identity": 0.2}


def fit(
    examples: Examples,
    steps: int,
    seed: int,
    report: Callable[[dict[str, float]], None] | None = None,
    device: torch.device = CPU,
) -> PuppetNetwork:
    """Train a network.

    Adam with decoupled weight decay and one cycle of the learning rate; absolute errors of landmarks and pose, a
    smooth one of expressions, and the contrastive loss on pairs of pictures of one identity.

    Args:
        examples: Two pictures or more of each identity.
        steps: Number of batches.
        seed: Draws the weights, the batches and the augmentation.
        report: Given the loss terms of each step.
        device: Where to train; batches are drawn and augmented on the CPU, so that a seed gives the same ones.

    Returns:
        The network in eval mode, on the device.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = PuppetNetwork().train().to(device)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=0.02)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, steps + 1, pct_start=0.15)
    with tqdm(range(steps), desc="training", unit="step", leave=False) as bar:
        for step in bar:
            images, truth = augment(_draw(examples, generator), generator)
            terms = losses(network(images.to(device)), truth.to(device))
            optimizer.zero_grad()
            torch.stack([_WEIGHTS[name] * value for name, value in terms.items()]).sum().backward()
            optimizer.step()
            rate.step()
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


@torch.no_grad()
def accuracy(
    network: PuppetNetwork, examples: Examples, sigma: float = 0.0, device: torch.device = CPU
) -> dict[str, float]:
    """Measure a network on pictures whose truth is known.

    Args:
        network: In eval mode.
        examples: Of identities and motions it has not seen.
        sigma: Blur of the pictures, in pixels at 64.
        device: Where the network is.

    Returns:
        ``landmarks`` (mean distance, in pixels at 64), ``yaw pitch roll`` (mean absolute error in degrees), per
        expression value its mean absolute error under its name and ``r2_`` before it, and of the embedding
        ``identity_equal_error``, ``identity_auc``, ``identity_top1``.
    """
    side = examples.images.shape[3]
    images = examples.images.float() / 255
    if sigma:
        images = blur(images, sigma * side / SIDE)
    parts = [network(chunk.to(device)) for chunk in images.split(64)]
    read = Read(*(torch.cat(column).cpu() for column in zip(*parts, strict=True)))
    identity = torch.arange(len(images)) // examples.pictures_each
    same, other = pair_similarities(read.embedding, identity)
    error = (read.expression - examples.expression).abs().mean(0)
    share = explained(read.expression, examples.expression)
    return {
        "landmarks": float((read.landmarks - examples.landmarks).norm(dim=2).mean() * (SIDE / 2)),
        **_named(POSE, (read.pose - examples.pose).abs().mean(0)),
        **_named(EXPRESSION, error),
        **_named([f"r2_{name}" for name in EXPRESSION], share),
        "identity_equal_error": equal_error_rate(same, other),
        "identity_auc": area_under_curve(same, other),
        "identity_top1": retrieval(read.embedding, identity),
    }


def _named(names: tuple[str, ...] | list[str], values: Tensor) -> dict[str, float]:
    return {name: float(value) for name, value in zip(names, values, strict=True)}
