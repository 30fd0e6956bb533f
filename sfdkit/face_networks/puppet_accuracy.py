"""How well a network reads puppets: errors, explained variance, and whether people are told apart.

Legend: ``F`` pictures, ``Z`` dimensions of an embedding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torchmetrics.functional import r2_score
from torchmetrics.functional.classification import binary_auroc, binary_eer

from sfdkit.face_networks.puppet_examples import Examples, blur
from sfdkit.face_networks.puppet_network import EXPRESSION, POSE, SIDE, PuppetNetwork, Read
from sfdkit.metrics.exact import exact

SOFT = 1.0
"""Sigma, in pixels at 64, of the blur under which accuracy is measured as well."""
_BATCH = 64


@torch.no_grad()
def accuracy(
    network: PuppetNetwork, examples: Examples, sigma: float = 0.0, device: torch.device | None = None
) -> dict[str, float]:
    """Measure a network on pictures whose truth is known.

    Args:
        network: In eval mode.
        examples: Of identities and motions it has not seen; at least two pictures of each identity.
        sigma: Blur of the pictures, in pixels at 64.
        device: Where the network is; the CPU by default.

    Returns:
        ``landmarks`` (mean distance, in pixels at 64), ``yaw pitch roll`` (mean absolute error in degrees), per
        expression value its mean absolute error under its name and its R2 with ``r2_`` before it, and of the embedding
        ``identity_equal_error``, ``identity_auc``, ``identity_top1``.
    """
    images = examples.images.float() / 255
    if sigma:
        images = blur(images, sigma * images.shape[3] / SIDE)
    parts = [network(chunk.to(device or "cpu")) for chunk in images.split(_BATCH)]
    read = Read(*(torch.cat(column).cpu() for column in zip(*parts, strict=True)))
    identity = torch.arange(len(images)) // examples.pictures_each
    equal_error, auc = verification(*pair_similarities(read.embedding, identity))
    return {
        "landmarks": float((read.landmarks - examples.landmarks).norm(dim=2).mean() * (SIDE / 2)),
        **_named(POSE, (read.pose - examples.pose).abs().mean(0)),
        **_named(EXPRESSION, (read.expression - examples.expression).abs().mean(0)),
        **_named(
            [f"r2_{name}" for name in EXPRESSION],
            r2_score(read.expression, examples.expression, multioutput="raw_values"),
        ),
        "identity_equal_error": equal_error,
        "identity_auc": auc,
        "identity_top1": retrieval(read.embedding, identity),
    }


def _named(names: Sequence[str], values: Tensor) -> dict[str, float]:
    return {name: float(value) for name, value in zip(names, values, strict=True)}


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


def verification(same: Tensor, other: Tensor) -> tuple[float, float]:
    """Return the equal error rate and the area under the ROC curve of verification by cosine.

    Args:
        same: Cosines of pairs of one identity.
        other: Cosines of pairs of two identities.
    """
    scores = (exact(torch.cat([same, other])) + 1) / 2  # torchmetrics takes what leaves [0, 1] for logits
    truth = torch.cat([torch.ones(len(same)), torch.zeros(len(other))]).long()
    scores = scores.clamp(0, 1).cpu()
    return float(binary_eer(scores, truth)), float(binary_auroc(scores, truth))


def retrieval(embedding: Tensor, identity: Tensor) -> float:
    """Return the rank-1 accuracy of identification: the gallery is the first picture of each identity.

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


def accuracy_table(sharp: Mapping[str, float], soft: Mapping[str, float], resolution: int) -> str:
    """Lay out the accuracy on held-out puppets, of sharp pictures and of blurred ones.

    Args:
        sharp: Of :func:`accuracy`.
        soft: The same with ``sigma=SOFT``.
        resolution: Of the pictures.
    """
    scale, both = resolution / SIDE, (sharp, soft)
    rows: list[tuple[str, ...]] = [
        (f"held-out puppets, {resolution} pixels", "", "as they are", f"blurred, {SOFT:g} px at {SIDE}")
    ]
    rows.append(("landmarks", "error, px", *(f"{each['landmarks'] * scale:.2f}" for each in both)))
    rows.append(("", f"error, px at {SIDE}", *(f"{each['landmarks']:.2f}" for each in both)))
    for name in POSE:
        rows.append((name, "error, degrees", *(f"{each[name]:.2f}" for each in both)))
    for name in EXPRESSION:
        rows.append((name, "R2 (error)", *(f"{each[f'r2_{name}']:.3f} ({each[name]:.3f})" for each in both)))
    for name, words in (("equal_error", "equal error rate"), ("auc", "AUC"), ("top1", "top-1 of 64")):
        rows.append(("identity", words, *(f"{each[f'identity_{name}']:.3f}" for each in both)))
    name_width, words_width, *widths = (max(map(len, column)) for column in zip(*rows, strict=True))
    return "\n".join(
        f"{name:<{name_width}}  {words:<{words_width}}  {one:>{widths[0]}}  {other:>{widths[1]}}"
        for name, words, one, other in rows
    )
