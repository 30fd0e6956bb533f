"""Training a feature network for the perceptual loss on puppets.

Legend: ``B`` pictures, ``R`` side of the pictures that the network is trained on, ``D`` depths, ``N`` distortions.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from sfdkit.face_networks.distortions import DISTORTIONS, distort, soften
from sfdkit.face_networks.feature_network import BLOCKS, LAYERS, blur_pool
from sfdkit.face_networks.puppet_examples import Examples, mirror
from sfdkit.face_networks.puppet_network import SIDE

BATCH = 32
LR = 3e-3
CHANNELS = (16, 16, 32, 32, 64, 64, 64, 64, 128)
"""Of the nine convolutions: a quarter of VGG-19's."""

_GAIN, _OFFSET = 4.0, -2.0
"""From colours in [0, 1] to the first layer."""
_DETAIL = 15.0
"""Factor on a picture minus its blurred self, which makes most values of the order of 1."""
_WARM_UP = 50
_WEIGHTS = {"labels": 2.0, "colour": 0.5, "detail": 0.5, "true detail": 0.5, "distortions": 4.0}


class _Learner(nn.Module):
    """The convolutions with batch normalisation, and what the tasks are read with."""

    def __init__(self, labels: int) -> None:
        super().__init__()
        sizes = dict(zip(LAYERS, zip((3, *CHANNELS[:-1]), CHANNELS, strict=True), strict=True))
        self.convs = nn.ModuleDict({name: nn.Conv2d(*sizes[name], 3, bias=False) for name in LAYERS})
        self.norms = nn.ModuleDict({name: nn.BatchNorm2d(sizes[name][1]) for name in LAYERS})
        for conv in self.convs.values():
            nn.init.kaiming_normal_(conv.weight)
        self.places = nn.ModuleList(
            nn.Conv2d(sizes[block[0]][1], 3 + 6 * 4**depth + len(DISTORTIONS), 1) for depth, block in enumerate(BLOCKS)
        )
        last = CHANNELS[-1] * (SIDE >> (len(BLOCKS) - 1)) ** 2
        self.whole = nn.Sequential(nn.Flatten(), nn.Linear(last, 128), nn.ReLU(), nn.Linear(128, labels))
        self.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return what :class:`sfdkit.face_networks.feature_network.FeatureNetwork` returns."""
        x, found = (images * _GAIN + _OFFSET).contiguous(memory_format=torch.channels_last), []
        for depth, block in enumerate(BLOCKS):
            x = blur_pool(x) if depth else x
            for name in block:
                x = F.relu(self.norms[name](self.convs[name](F.pad(x, (1, 1, 1, 1), mode="reflect"))))
                found += [x] if name == block[0] else []
        return found

    @torch.no_grad()
    def folded(self) -> dict[str, Tensor]:
        """Return the tensors of a feature network, batch normalisation folded into the convolutions."""
        tensors = {"conv0.weight": _GAIN * torch.eye(3)[:, :, None, None], "conv0.bias": torch.full((3,), _OFFSET)}
        for name in LAYERS:
            conv, norm = self.convs[name], self.norms[name]
            assert isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None and norm.running_var is not None
            factor = norm.weight / (norm.running_var + norm.eps).sqrt()
            tensors[f"conv{name}.weight"] = conv.weight * factor[:, None, None, None]
            tensors[f"conv{name}.bias"] = norm.bias - norm.running_mean * factor
        return {name: tensor.cpu() for name, tensor in tensors.items()}


def fit_features(
    examples: Examples,
    steps: int,
    seed: int,
    report: Callable[[dict[str, float]], None] | None = None,
    device: torch.device | None = None,
) -> dict[str, Tensor]:
    """Train a feature network with AdamW on distorted pictures.

    At each of the four depths a linear map reads, place by place, the colour, the detail of the picture as it is and of
    the true one, and the strength of each distortion. From the last depth of whole pictures two layers read landmarks,
    pose and expression. So features differ where anything of a picture differs that these tasks need.

    Args:
        examples: Pictures of twice :data:`sfdkit.face_networks.puppet_network.SIDE`: half of the batches see them
            whole, at half their size, the others see a window in full size.
        steps: Number of batches.
        seed: Draws the weights, the batches and the distortions.
        report: Called with the loss terms of each step.
        device: Where to train, the CPU by default; batches are drawn on the CPU, so that a seed gives the same ones.

    Returns:
        The tensors of a :class:`sfdkit.face_networks.feature_network.FeatureNetwork` with ``blur`` as its pool.
    """
    device = device or torch.device("cpu")
    labels = _labels(examples)
    mean, std = labels.mean(0), labels.std(0) + 1e-3
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        learner = _Learner(labels.shape[1]).train().to(device)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(learner.parameters(), lr=LR, weight_decay=0.01)
    with tqdm(range(steps), desc="training", unit="step", leave=False) as bar:
        for step in bar:
            whole = step % 2 == 0
            true, batch = draw(examples, whole, generator)
            seen, strengths = distort(true, generator)
            found = learner(seen.to(device))
            terms = _place_terms(learner, found, *(x.to(device) for x in (true, seen, strengths)))
            if whole:
                wanted = ((_labels(batch) - mean) / std).to(device)
                terms["labels"] = F.mse_loss(learner.whole(found[-1]), wanted)
            for group in optimizer.param_groups:
                group["lr"] = LR * min(1, (step + 1) / _WARM_UP) * (1 - step / steps)
            optimizer.zero_grad()
            torch.stack([_WEIGHTS[name] * value for name, value in terms.items()]).sum().backward()
            optimizer.step()
            if step % 10 == 0:
                bar.set_postfix({name: f"{value.item():.3f}" for name, value in terms.items()})
            if report is not None:
                report({name: value.item() for name, value in terms.items()})
    return learner.folded()


def _labels(examples: Examples) -> Tensor:
    return torch.cat([examples.landmarks.flatten(1), examples.pose, examples.expression], 1)


def draw(examples: Examples, whole: bool, generator: torch.Generator) -> tuple[Tensor, Examples]:
    """Draw pictures B 3 R R in [0, 1] and their examples: half are mirrored, and all are recoloured.

    Args:
        examples: Pictures of 2 R.
        whole: Whether the pictures are shown whole, or a window of each.
        generator: Draws them.
    """
    rows = torch.randint(len(examples.images), (BATCH,), generator=generator)
    chosen = Examples(*(column[rows] for column in examples[:4]), 1)
    chosen = mirror(chosen, torch.rand(BATCH, generator=generator) < 0.5)
    images = chosen.images.float() / 255
    if whole:
        images = F.avg_pool2d(images, 2)
    else:
        half = images.shape[3] // 2
        y, x = torch.randint(half + 1, (2,), generator=generator).tolist()
        images = images[:, :, y : y + half, x : x + half]
    order = torch.rand(BATCH, 3, generator=generator).argsort(1)
    order = torch.where(torch.rand(BATCH, 1, generator=generator) < 0.3, order, torch.arange(3))
    images = images.gather(1, order[:, :, None, None].expand_as(images))
    gain, offset = 2 * torch.rand((2, BATCH, 3, 1, 1), generator=generator) - 1
    return (images * (1 + 0.25 * gain) + 0.1 * offset).clamp(0, 1), chosen


def _place_terms(
    learner: _Learner, found: list[Tensor], true: Tensor, seen: Tensor, strengths: Tensor
) -> dict[str, Tensor]:
    """Return the sums over depths of what is read place by place."""
    details = [_DETAIL * (images - soften(images)) for images in (seen, true)]
    errors = []
    for depth, (head, features) in enumerate(zip(learner.places, found, strict=True)):
        side = 2**depth
        folded = [F.pixel_unshuffle(detail, side) for detail in details]
        wanted = [F.avg_pool2d(seen, side) * _GAIN + _OFFSET, *folded, F.avg_pool2d(strengths, side)]
        read = head(features).split([part.shape[1] for part in wanted], 1)
        errors.append(torch.stack([F.mse_loss(a, b) for a, b in zip(read, wanted, strict=True)]))
    return dict(zip(("colour", "detail", "true detail", "distortions"), torch.stack(errors).sum(0), strict=True))
