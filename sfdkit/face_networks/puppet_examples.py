"""Pictures of puppets with labels, and their augmentation, to train and test the network that reads puppets.

Legend: ``N`` identities, ``K`` pictures of each, ``B`` pictures, ``R`` side of the pictures, ``L`` landmarks,
``E`` expression values.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from kornia.filters import gaussian_blur2d
from torch import Tensor
from torchvision.io import decode_jpeg, encode_jpeg
from tqdm import tqdm

from sfdkit.face_networks.puppet_network import EXPRESSION, POSE, SIDE
from sfdkit.model.blocks import resize
from sfdkit.points import FACE31, take
from sfdkit.puppets.factors import IdentityFactors, MotionFactors, sample_identity, sample_motion
from sfdkit.puppets.render import render

SURROUNDINGS = tuple(
    name for name in IdentityFactors.names() if name.startswith(("back_", "clothes_", "light_", "neckline"))
)
"""Identity factors outside of the face: drawn anew for every picture, so that the embedding cannot rely on them."""

_SECONDS_BETWEEN = 2.7
"""Of two motions drawn one after the other: long enough for them to have nothing in common."""
_AT_ONCE = 32


class Examples(NamedTuple):
    """Pictures with labels; picture k of identity n is row n * K + k."""

    images: Tensor
    """B 3 R R, uint8."""
    landmarks: Tensor
    """B L 2, from -1 to 1 across the picture."""
    pose: Tensor
    """B 3 in degrees."""
    expression: Tensor
    """B E."""
    pictures_each: int
    """K."""

    def to(self, device: torch.device) -> Examples:
        """Return the same on a device."""
        images, landmarks, pose, expression = (column.to(device) for column in self[:4])
        return Examples(images, landmarks, pose, expression, self.pictures_each)


def draw_examples(
    identities: int,
    pictures_each: int,
    resolution: int,
    seed: int,
    supersample: int = 2,
    words: str = "rendering",
    device: torch.device | None = None,
    side: int = SIDE,
) -> Examples:
    """Render identities of a seed under motions of the same seed, each picture with surroundings of its own.

    Args:
        identities: N.
        pictures_each: K.
        resolution: Height and width at which they are rendered.
        seed: Of the puppets.
        supersample: Samples per pixel along each axis.
        words: Text of the progress bar.
        device: Where to render; the CPU by default. What comes back is on the CPU.
        side: Pixels of the pictures that are kept, if they are rendered larger; the trunk's by default.
    """
    parts: list[Examples] = []
    surroundings = torch.Generator().manual_seed(seed)
    for first in tqdm(range(0, identities, _AT_ONCE), desc=words, unit="batch", leave=False):
        who = IdentityFactors.concat(
            [sample_identity(k, "train", seed) for k in range(first, min(first + _AT_ONCE, identities))]
        )
        who = who[torch.arange(len(who)).repeat_interleave(pictures_each)]
        order = torch.randperm(len(who), generator=surroundings)
        who = replace(who, **{name: getattr(who, name)[order] for name in SURROUNDINGS})
        what = sample_motion(first, "train", seed, frames=len(who), fps=1 / _SECONDS_BETWEEN)
        there = who.to(device or "cpu"), what.to(device or "cpu")
        parts.append(_render(*there, resolution, supersample, pictures_each, side).to(torch.device("cpu")))
    images, landmarks, pose, expression = (torch.cat(column) for column in list(zip(*parts, strict=True))[:4])
    return Examples(images, landmarks, pose, expression, pictures_each)


def _render(
    who: IdentityFactors, what: MotionFactors, resolution: int, supersample: int, each: int, side: int
) -> Examples:
    rendered = render(who, what, resolution, supersample)
    images = resize(rendered.image, min(resolution, side))
    return Examples(
        (images * 255).round().to(torch.uint8),
        (rendered.landmarks + 0.5) * (2 / resolution) - 1,
        torch.stack([getattr(what, name) for name in POSE], 1),
        torch.stack([getattr(what, name) for name in EXPRESSION], 1),
        each,
    )


def augment(examples: Examples, generator: torch.Generator) -> tuple[Tensor, Examples]:
    """Augment pictures, so that the network reads generated and stored ones as well.

    Half of the identities are mirrored; pictures are shifted by up to two pixels, blurred, recoloured and made noisy,
    and a quarter of them is compressed as JPEG.

    Args:
        examples: Rows of one identity follow each other.
        generator: Draws the parameters.

    Returns:
        The pictures B 3 R R in [0, 1], and the examples with the labels that belong to them.
    """
    count, _, side, _ = examples.images.shape
    mirrored = _rand(count // examples.pictures_each, generator).repeat_interleave(examples.pictures_each) < 0.5
    examples = mirror(examples, mirrored)
    examples = _move(examples, torch.randint(-2, 3, (count, 2), generator=generator))
    images = examples.images.float() / 255
    soft = blur(images, 0.4 + 1.1 * float(_rand(1, generator)) * side / SIDE)
    share = (1.4 * _rand(count, generator) - 0.4).clamp(min=0)[:, None, None, None]
    images = images + share * (soft - images)
    colour = 2 * _rand((2, count, 3, 1, 1), generator) - 1
    images = images * (1 + 0.08 * colour[0]) + 0.04 * colour[1]
    strength = 0.02 * _rand((count, 1, 1, 1), generator)
    images = (images + strength * torch.randn(images.shape, generator=generator)).clamp(0, 1)
    for k in torch.randperm(count, generator=generator)[: count // 4].tolist():
        quality = int(torch.randint(50, 96, (), generator=generator))
        images[k] = decode_jpeg(encode_jpeg((images[k] * 255).round().to(torch.uint8), quality)) / 255
    return images, examples


def mirror(examples: Examples, rows: Tensor) -> Examples:
    """Mirror pictures and labels in the rows (B booleans) that are true."""
    sign = torch.where(rows, -1.0, 1.0)[:, None]
    turns = torch.tensor([name in ("yaw", "roll") for name in POSE])
    looks = torch.tensor([name == "gaze_x" for name in EXPRESSION])
    flipped = take(examples.landmarks, FACE31.mirrored) * torch.tensor([-1.0, 1.0])
    return Examples(
        torch.where(rows[:, None, None, None], examples.images.flip(3), examples.images),
        torch.where(rows[:, None, None], flipped, examples.landmarks),
        torch.where(turns, examples.pose * sign, examples.pose),
        torch.where(looks, examples.expression * sign, examples.expression),
        examples.pictures_each,
    )


def _move(examples: Examples, offset: Tensor) -> Examples:
    """Move each picture by whole pixels, B 2 (x, y); what comes in at an edge repeats it."""
    side, reach = examples.images.shape[3], int(offset.abs().max())
    padded = F.pad(examples.images.float(), (reach,) * 4, mode="replicate").to(torch.uint8)
    images = [
        picture[:, reach - y : reach - y + side, reach - x : reach - x + side]
        for picture, (x, y) in zip(padded, offset.tolist(), strict=True)
    ]
    landmarks = examples.landmarks + offset[:, None] * (2 / side)
    return examples._replace(images=torch.stack(images), landmarks=landmarks)


def blur(images: Tensor, sigma: float) -> Tensor:
    """Blur B C H W by a Gaussian of ``sigma`` pixels; outside, the border is repeated."""
    side = 2 * max(1, int(3 * sigma + 0.5)) + 1
    return gaussian_blur2d(images, (side, side), (sigma, sigma), border_type="replicate")


def _rand(size: int | tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.rand(size, generator=generator)
