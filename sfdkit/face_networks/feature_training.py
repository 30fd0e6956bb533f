"""Training a feature network for the perceptual loss on puppets.

Legend: ``B`` windows of pictures, ``S`` their side, ``C h w`` a feature map.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from sfdkit.device import training_precision
from sfdkit.face_networks.distortions import DISTORTIONS, distort, disturb, soften
from sfdkit.face_networks.feature_examples import draw_windows, heat_maps
from sfdkit.face_networks.feature_network import BLOCKS, LAYERS, blur_pool
from sfdkit.face_networks.puppet_examples import Examples

WINDOWS = 48
"""B of each step; each window is seen as it is, moved, and distorted."""
LR = 3e-3
CHANNELS = (16, 16, 32, 32, 64, 64, 64, 64, 128)
"""Of the nine convolutions: a quarter of VGG-19's."""

_GAIN = 4.0
"""Factor on colours in [0, 1]."""
_DETAIL = 15.0
"""Factor on a picture minus its blurred self, which makes most values of the order of 1."""
_NEAR = 0.45
"""Share of a moved window in the distances, see below, that is small enough: with VGG-19 it is about as large, and
below it pictures get grainy."""
_WARM_UP = 50
_WEIGHTS = {
    "distance": 1.0,
    "colour": 0.2,
    "detail": 0.5,
    "distortions": 4.0,
    "landmarks": 20.0,
}


class _Learner(nn.Module):
    """The convolutions with batch normalisation, and what the tasks are read with."""

    def __init__(self, landmarks: int) -> None:
        super().__init__()
        sizes = dict(zip(LAYERS, zip((3, *CHANNELS[:-1]), CHANNELS, strict=True), strict=True))
        self.convs = nn.ModuleDict({name: nn.Conv2d(*sizes[name], 3, bias=False) for name in LAYERS})
        self.norms = nn.ModuleDict({name: nn.BatchNorm2d(sizes[name][1]) for name in LAYERS})
        for conv in self.convs.values():
            assert isinstance(conv, nn.Conv2d)
            nn.init.kaiming_normal_(conv.weight)
        self.heads = nn.ModuleList(
            nn.Conv2d(sizes[block[0]][1], 3 + 4**depth + len(DISTORTIONS), 1) for depth, block in enumerate(BLOCKS)
        )
        self.register_buffer("prepare", prepared_input())
        self.landmarks = nn.Conv2d(CHANNELS[-1], landmarks, 1)
        self.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return what :class:`sfdkit.face_networks.feature_network.FeatureNetwork` returns."""
        x = F.conv2d(F.pad(images, (2, 2, 2, 2), mode="reflect"), self.get_buffer("prepare"))
        x, found = x.contiguous(memory_format=torch.channels_last), []
        for depth, block in enumerate(BLOCKS):
            x = blur_pool(x) if depth else x
            for name in block:
                x = F.relu(self.norms[name](self.convs[name](F.pad(x, (1, 1, 1, 1), mode="reflect"))))
                found += [x] if name == block[0] else []
        return found

    @torch.no_grad()
    def folded(self) -> dict[str, Tensor]:
        """Return the tensors of a feature network, batch normalisation folded into the convolutions."""
        tensors = {"conv0.weight": self.get_buffer("prepare"), "conv0.bias": torch.zeros(3)}
        for name in LAYERS:
            conv, norm = self.convs[name], self.norms[name]
            assert isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
            assert norm.running_mean is not None and norm.running_var is not None
            factor = norm.weight / (norm.running_var + norm.eps).sqrt()
            tensors[f"conv{name}.weight"] = conv.weight * factor[:, None, None, None]
            tensors[f"conv{name}.bias"] = norm.bias - norm.running_mean * factor
        return {name: tensor.cpu() for name, tensor in tensors.items()}


def prepared_input() -> Tensor:
    """Return the first layer's filters, 3 3 5 5: the mean of the colours, and blurred differences of red and blue.

    What a network does not see, no gradient can draw into a picture: here fine patterns of colour. The mean rather than
    the luma, since a gradient along the luma's weights would colour what it sharpens.
    """
    one, point = torch.eye(3), torch.zeros(1, 1, 5, 5)
    point[..., 2, 2] = 1
    soft = soften(F.pad(point, (4, 4, 4, 4)))[..., 4:-4, 4:-4]
    rows = torch.stack([torch.full((3,), 1 / 3), one[0] - 1 / 3, one[2] - 1 / 3])[:, :, None, None]
    return rows * torch.cat([point, soft, soft]) * _GAIN


def fit_features(
    examples: Examples,
    steps: int,
    seed: int,
    report: Callable[[dict[str, float]], None] | None = None,
    device: torch.device | None = None,
) -> dict[str, Tensor]:
    """Train a feature network with AdamW on windows of pictures, as they are, moved, and distorted.

    At each of the four depths a linear map reads, place by place, the colour and the fine detail that the picture had
    before it was disturbed, and the strength of each distortion; from the last depth another reads the landmarks. So
    features differ where anything differs that these tasks need. Besides, the distance of a moved window in other light
    from the first, taken as the loss takes it, is made small beside that of a distorted one: where a generator cannot
    know the exact place of a feature, a sharp picture then costs less than a blurred one.

    Args:
        examples: Pictures of 128 pixels; half of the batches see them at half their size.
        steps: Number of batches.
        seed: Draws the weights, the batches and the distortions.
        report: Called with the loss terms of each step.
        device: Where to train, the CPU by default; batches are drawn on the CPU, so that a seed gives the same ones.

    Returns:
        The tensors of a :class:`sfdkit.face_networks.feature_network.FeatureNetwork` with ``blur`` as its pool.
    """
    device = device or torch.device("cpu")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        learner = _Learner(examples.landmarks.shape[1]).train().to(device)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(learner.parameters(), lr=LR, weight_decay=0.01)
    with tqdm(range(steps), desc="training", unit="step", leave=False) as bar:
        for step in bar:
            windows = draw_windows(examples, WINDOWS, step % 2 == 0, generator)
            distorted, strengths = distort(windows.first, generator)
            true = torch.cat([windows.first, windows.moved, distorted])
            terms = losses(learner, true, disturb(true, generator), strengths, windows.landmarks, device)
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


def losses(
    learner: _Learner, true: Tensor, seen: Tensor, strengths: Tensor, landmarks: Tensor, device: torch.device
) -> dict[str, Tensor]:
    """Return the terms of the loss; those that are read place by place are summed over depths.

    Args:
        learner: The network.
        true: 3B 3 S S in [0, 1]: the first, the moved and the distorted windows.
        seen: The same, disturbed.
        strengths: B N S S of the distorted windows, see :func:`sfdkit.face_networks.distortions.distort`.
        landmarks: B L 2, from 0 to 1 across the windows.
        device: Where the network is.
    """
    true, seen, strengths = true.to(device), seen.to(device), strengths.to(device)
    everywhere = torch.cat([torch.zeros_like(strengths), torch.zeros_like(strengths), strengths])
    with torch.autocast(device.type, torch.bfloat16, enabled=training_precision() == "bf16-mixed"):
        found = learner(seen)
        read = [head(features) for head, features in zip(learner.heads, found, strict=True)]
        heat = learner.landmarks(found[-1])
    detail, errors = _DETAIL * (true - soften(true)).mean(1, keepdim=True), []
    for depth, values in enumerate(read):
        side = 2**depth
        wanted = [4 * F.avg_pool2d(true, side) - 2, F.pixel_unshuffle(detail, side), F.avg_pool2d(everywhere, side)]
        parts = values.float().split([part.shape[1] for part in wanted], 1)
        errors.append(torch.stack([F.mse_loss(a, b) for a, b in zip(parts, wanted, strict=True)]))
    terms = dict(zip(("colour", "detail", "distortions"), torch.stack(errors).sum(0), strict=True))
    first, _, third = heat.float().chunk(3)
    maps = heat_maps(landmarks, heat.shape[2]).to(device)
    terms["landmarks"] = F.mse_loss(torch.stack([first, third]), maps.expand(2, -1, -1, -1, -1))
    importance = strengths.abs().mean((1, 2, 3))
    importance = importance / (importance.mean() + 1e-6)
    terms["distance"] = torch.stack(
        [(importance * (_moved_share(x.float()) - _NEAR).relu()).mean() for x in found]
    ).sum()
    return terms


def _moved_share(features: Tensor) -> Tensor:
    """Return, for each window, the distance of the moved one as a share of it and that of the distorted one."""
    first, moved, distorted = features.chunk(3)
    moved, distorted = ((other - first).abs().mean((1, 2, 3)) for other in (moved, distorted))
    return moved / (moved + distorted + 1e-6)
