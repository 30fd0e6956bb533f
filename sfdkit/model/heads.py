"""The heads: from an encoder's feature maps to identity and motion coefficients.

Legend: ``B`` batch, ``M`` motion coefficients.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sfdkit.model.blocks import RunningNorm, SoftPoints, full_precision, resize
from sfdkit.model.encoders import Encoder
from sfdkit.model.generator import POINT_UNIT

READ_SIZE = 8
"""Height and width of the feature map that the heads read."""
READ_CHANNELS = 16
"""Channels of that map."""
HEAT_SIZE = 16
"""The most height and width of the soft points' heat maps."""
REACH = 4.0
"""Bound on the motion head's outputs, in standard deviations. Without one a few of them grow and dominate the rest."""
NOISE = 0.2
"""Standard deviation of the motion coefficients' noise when training begins."""


def _read_out(inputs: int, outputs: int, hidden: int) -> nn.Sequential:
    layers = nn.Sequential(
        RunningNorm(inputs), nn.Linear(inputs, hidden), nn.LeakyReLU(0.2), nn.Linear(hidden, outputs)
    )
    for layer in layers:
        if isinstance(layer, nn.Linear):
            nn.init.kaiming_normal_(layer.weight, a=0.2)
            nn.init.zeros_(layer.bias)
    return layers


class CoarseMap(nn.Module):
    """Brings one of the encoder's maps to few channels and :data:`READ_SIZE`, to be read place by place.

    Args:
        encoder: The encoder whose maps are read.
    """

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        coarse = [i for i, size in enumerate(encoder.sizes) if size >= READ_SIZE]
        self.level = min(coarse, key=lambda i: encoder.sizes[i]) if coarse else 0
        self.size = min(READ_SIZE, encoder.sizes[self.level])
        self.mix = nn.Conv2d(encoder.channels[self.level], READ_CHANNELS, 1)
        self.places = READ_CHANNELS * self.size**2

    def read_places(self, features: list[Tensor]) -> Tensor:
        """Map the encoder's feature maps to B places, float32."""
        return resize(self.mix(features[self.level]).float(), self.size).flatten(1)


class IdentityHead(nn.Module):
    """Reads identity coefficients from pooled features, as identity does not depend on position.

    A code from which faces are drawn must also know shapes, which pooled features hardly tell: then a coarse map is
    read place by place as well, as the motion head does. Trained with labels on puppets for 250 steps, such a head
    predicted the width of the face, beard and clothes' hue of unknown people with an R2 of 0.52, 0.49 and 0.48, pooled
    features alone with 0.28, 0.29 and 0.15.

    Args:
        encoder: The encoder whose maps are read.
        outputs: Number of coefficients.
        places: Read the coarse map too.
        hidden: Width of the hidden layer.
    """

    def __init__(self, encoder: Encoder, outputs: int, places: bool = False, hidden: int = 256) -> None:
        super().__init__()
        self.coarse = CoarseMap(encoder) if places else None
        inputs = encoder.channels[-1] + (self.coarse.places if self.coarse is not None else 0)
        self.layers = _read_out(inputs, outputs, hidden)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Map the encoder's feature maps to B outputs, float32."""
        read = features[-1].mean((2, 3)).float()
        if self.coarse is not None:
            read = torch.cat([read, self.coarse.read_places(features)], 1)
        return self.layers(read).float()


class NoisyCoefficients:
    """Motion coefficients that get noise in training, each with a standard deviation of its own."""

    log_noise: nn.Parameter
    """M: its logarithm, see :func:`begin_noise`."""

    def noisy(self, motion: Tensor, share: float = 1.0, generator: torch.Generator | None = None) -> Tensor:
        """Return coefficients with the noise of training added.

        Args:
            motion: ... M.
            share: Factor on the noise's standard deviation.
            generator: On the device of ``motion``; None: torch's own.
        """
        noise = torch.randn(motion.shape, generator=generator, device=motion.device)
        return motion + share * self.log_noise.exp() * noise


def begin_noise(outputs: int) -> nn.Parameter:
    """Return the logarithm of the noise's standard deviations when training begins."""
    return nn.Parameter(torch.full((outputs,), math.log(NOISE)))


class MotionHead(NoisyCoefficients, CoarseMap):
    """Reads motion coefficients from feature maps without pooling, since motion is position.

    A coarse map is projected to few channels, flattened and read by two layers. Trained with labels on puppets, such a
    head predicted roll and mouth opening of unknown faces (R2 0.9 and 0.7) after as few steps as pooled features with
    soft points needed for position alone. The coordinates of soft points are added: between two frames of a face they
    move as the face does from the first step on, so that flow need not be found by chance. A linear map, initialised as
    the identity, turns both into coefficients, the first ``2 P`` of which start as the points.

    With the loss term ``kl``, noise with a learned standard deviation per coefficient is added in training, as in an
    information bottleneck (https://arxiv.org/abs/1612.00410): information that does not improve the image, such as who
    the driver is, costs more than it gains.

    Args:
        encoder: The encoder whose maps are read.
        outputs: Number of coefficients, at least ``2 * points``.
        points: ``P``, number of soft points; 0 for none.
        hidden: Width of the hidden layer.
    """

    def __init__(self, encoder: Encoder, outputs: int, points: int, hidden: int = 128) -> None:
        super().__init__(encoder)
        self.layers = _read_out(self.places, outputs, hidden)
        heat_size = min(HEAT_SIZE, max(encoder.sizes))
        self.points = SoftPoints(encoder.channels, points, heat_size) if points else None
        self.led = 2 * points
        self.turn = nn.Linear(outputs, outputs)
        self.log_noise = begin_noise(outputs)
        with torch.no_grad():
            self.layers[-1].weight[: self.led].mul_(0.1)  # type: ignore[operator, index]  # the points come first
            nn.init.eye_(self.turn.weight)
            nn.init.zeros_(self.turn.bias)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Map the encoder's feature maps to B outputs, float32: x and y of the points, then the others."""
        read = self.layers(self.read_places(features)).float()
        if self.points is not None:
            read = read + F.pad(self.points(features).flatten(1) / POINT_UNIT, (0, read.shape[1] - self.led))
        with full_precision(read):
            return self.turn(REACH * torch.tanh(read / REACH))
