"""The face animator: source and driving face in, animated face out. Plain torch.

Legend: ``B`` batch, ``R`` resolution, ``D`` latent dimensions, ``N`` identity coefficients, ``M`` motion coefficients.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jsonargparse.typing import ClosedUnitInterval, NonNegativeInt
from torch import Tensor, nn

from sfdkit.errors import ConfigError
from sfdkit.model.blocks import RunningNorm, SoftPoints, full_precision, resize
from sfdkit.model.descriptors import DescriptorLayer
from sfdkit.model.encoders import Encoder, FeatureAdapter
from sfdkit.model.generator import POINT_UNIT, Generator
from sfdkit.model.template import Template
from sfdkit.types import Descriptors, Generated

READ_SIZE = 8
"""Height and width of the feature map that the motion head reads."""
READ_CHANNELS = 16
"""Channels of that map."""
HEAT_SIZE = 16
"""The most height and width of the soft points' heat maps."""
REACH = 4.0
"""Bound on the motion head's outputs, in standard deviations. Without one a few of them grow and dominate the rest."""
NOISE = 0.2
"""Standard deviation of the motion coefficients' noise when training begins."""


class SourceState(NamedTuple):
    """What depends on the source only: computed once, then driven with any number of frames."""

    image: Tensor
    """B 3 R R in [0, 1]."""
    features: list[Tensor]
    """Maps for the generator's levels."""
    descriptors: Descriptors
    """The source's own identity and motion coefficients."""

    def expand(self, times: int) -> SourceState:
        """Repeat each row ``times`` times, next to each other: B becomes B * times."""
        if times == 1:
            return self
        return SourceState(
            self.image.repeat_interleave(times, 0),
            [f.repeat_interleave(times, 0) for f in self.features],
            Descriptors(*(d.repeat_interleave(times, 0) for d in self.descriptors)),
        )

    def rows(self, numbers: Tensor) -> SourceState:
        """Return the rows of these numbers."""
        return SourceState(
            self.image[numbers],
            [f[numbers] for f in self.features],
            Descriptors(*(d[numbers] for d in self.descriptors)),
        )

    def replace_rows(self, chosen: Tensor, others: SourceState) -> SourceState:
        """Return these rows, and where ``chosen`` (B booleans) is true the rows of ``others`` (B rows)."""

        def pick(own: Tensor, other: Tensor) -> Tensor:
            return torch.where(chosen.view(-1, *[1] * (own.dim() - 1)), other.to(own.dtype), own)

        return SourceState(
            pick(self.image, others.image),
            [pick(*each) for each in zip(self.features, others.features, strict=True)],
            Descriptors(*(pick(*each) for each in zip(self.descriptors, others.descriptors, strict=True))),
        )


def _read_out(inputs: int, outputs: int, hidden: int) -> nn.Sequential:
    layers = nn.Sequential(
        RunningNorm(inputs), nn.Linear(inputs, hidden), nn.LeakyReLU(0.2), nn.Linear(hidden, outputs)
    )
    for layer in layers:
        if isinstance(layer, nn.Linear):
            nn.init.kaiming_normal_(layer.weight, a=0.2)
            nn.init.zeros_(layer.bias)
    return layers


class IdentityHead(nn.Module):
    """Reads identity coefficients from pooled features, as identity does not depend on position.

    Args:
        encoder: The encoder whose maps are read.
        outputs: Number of coefficients.
        hidden: Width of the hidden layer.
    """

    def __init__(self, encoder: Encoder, outputs: int, hidden: int = 256) -> None:
        super().__init__()
        self.layers = _read_out(encoder.channels[-1], outputs, hidden)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Map the encoder's feature maps to B outputs, float32."""
        return self.layers(features[-1].mean((2, 3))).float()


class MotionHead(nn.Module):
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
        super().__init__()
        coarse = [i for i, size in enumerate(encoder.sizes) if size >= READ_SIZE]
        self.level = min(coarse, key=lambda i: encoder.sizes[i]) if coarse else 0
        self.size = min(READ_SIZE, encoder.sizes[self.level])
        self.mix = nn.Conv2d(encoder.channels[self.level], READ_CHANNELS, 1)
        self.layers = _read_out(READ_CHANNELS * self.size**2, outputs, hidden)
        heat_size = min(HEAT_SIZE, max(encoder.sizes))
        self.points = SoftPoints(encoder.channels, points, heat_size) if points else None
        self.led = 2 * points
        self.turn = nn.Linear(outputs, outputs)
        self.log_noise = nn.Parameter(torch.full((outputs,), math.log(NOISE)))
        with torch.no_grad():
            self.layers[-1].weight[: self.led].mul_(0.1)  # type: ignore[operator, index]  # the points come first
            nn.init.eye_(self.turn.weight)
            nn.init.zeros_(self.turn.bias)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Map the encoder's feature maps to B outputs, float32: x and y of the points, then the others."""
        coarse = resize(self.mix(features[self.level]).float(), self.size)
        read = self.layers(coarse.flatten(1)).float()
        if self.points is not None:
            read = read + F.pad(self.points(features).flatten(1) / POINT_UNIT, (0, read.shape[1] - self.led))
        with full_precision(read):
            return self.turn(REACH * torch.tanh(read / REACH))

    def noisy(self, motion: Tensor, share: float = 1.0, generator: torch.Generator | None = None) -> Tensor:
        """Return coefficients with the noise of training added.

        Args:
            motion: ... M.
            share: Factor on the noise's standard deviation.
            generator: On the device of ``motion``; None: torch's own.
        """
        noise = torch.randn(motion.shape, generator=generator, device=motion.device)
        return motion + share * self.log_noise.exp() * noise


class FaceAnimator(nn.Module):
    """Recombines the identity of a source face with the motion of a driving face.

        a = identity head(encoder(source))          B N
        b = motion head(motion encoder(driving))    B M
        z = U a + V b                               descriptor layer
        image, flow, mask = generator(z, source)

    Args:
        encoder: Encodes the source; the generator warps its feature maps.
        descriptors: The basis.
        generator: Renders the result; its ``latent_size`` must be the descriptor layer's.
        driving_encoder: Encodes the motion; may be lighter and of a lower resolution. ``None``: the source's encoder
            is used for both.
        motion_points: ``P``, soft points whose coordinates the motion head uses beside its map; each moves one of the
            generator's parts when training begins. 0 for none: correspondence must then be found by chance.
        code_share: Share of the results in training that are drawn from the code alone: a learned template replaces the
            source's features and picture, so that the identity coefficients have to say who it is. 0: none, and no
            template.

    Raises:
        ConfigError: Parts that do not fit together.
    """

    def __init__(
        self,
        encoder: Encoder,
        descriptors: DescriptorLayer,
        generator: Generator,
        driving_encoder: Encoder | None = None,
        motion_points: NonNegativeInt = 4,
        code_share: ClosedUnitInterval = 0.0,
    ) -> None:
        super().__init__()
        if descriptors.latent_size != generator.latent_size:
            raise ConfigError(
                f"animator: descriptors have latent_size {descriptors.latent_size}, "
                f"generator has {generator.latent_size}; set generator.latent_size to the former "
                "(identity_size + motion_size for a complete basis)"
            )
        if encoder.resolution != generator.resolution:
            raise ConfigError(
                f"animator: encoder has resolution {encoder.resolution}, generator {generator.resolution}; "
                "give both the same"
            )
        if 2 * motion_points > descriptors.motion_size or motion_points >= generator.parts:
            raise ConfigError(
                f"animator: motion_points is {motion_points}; two motion coefficients belong to each point, and there "
                f"are {descriptors.motion_size}, and one part of the generator's {generator.parts}, the last of which "
                "stands still; lower motion_points, or raise descriptors.motion_size or generator.parts"
            )
        self.resolution: int = generator.resolution
        self.encoder = encoder
        self.driving_encoder = driving_encoder
        self.descriptors = descriptors
        self.generator = generator
        self.adapter = FeatureAdapter(encoder.sizes, encoder.channels, generator.sizes, generator.channels)
        self.identity_head = IdentityHead(encoder, descriptors.identity_size)
        self.motion_head = MotionHead(driving_encoder or encoder, descriptors.motion_size, motion_points)
        self.code_share = code_share
        self.template = Template(self.resolution, generator.sizes, generator.channels) if code_share else None
        if motion_points:
            columns = descriptors.basis().detach()[:, -descriptors.motion_size :]
            generator.lead(columns[:, : 2 * motion_points])

    def motion(self, image: Tensor) -> Tensor:
        """Return the motion coefficients, B M, of faces B 3 H W in [0, 1]."""
        encoder = self.driving_encoder or self.encoder
        return self.motion_head(encoder(resize(image, encoder.resolution)))

    def identity(self, image: Tensor) -> Tensor:
        """Return the identity coefficients, B N, of faces B 3 H W in [0, 1]."""
        return self.identity_head(self.encoder(resize(image, self.encoder.resolution)))

    def reading_parts(self) -> list[nn.Module]:
        """Return the modules that encode images to descriptors."""
        parts = [self.encoder, self.identity_head, self.motion_head, self.driving_encoder]
        return [part for part in parts if part is not None]

    def source_state(self, image: Tensor, motion: Tensor | None = None) -> SourceState:
        """Encode sources, once for any number of driving frames.

        Args:
            image: B 3 H W in [0, 1].
            motion: B M, the sources' own motion coefficients if computed already.
        """
        image = resize(image, self.resolution)
        features = self.encoder(image)
        own = motion
        if own is None:
            own = self.motion_head(features) if self.driving_encoder is None else self.motion(image)
        return SourceState(image, self.adapter(features, image), Descriptors(self.identity_head(features), own))

    def code_state(self, identity: Tensor) -> SourceState:
        """Return the states of faces that no picture shows: the template with identity coefficients, and no motion.

        ``generate(code_state(a), b)`` draws faces from their descriptors alone.

        Args:
            identity: B N.

        Raises:
            ConfigError: The model was trained without such faces.
        """
        if self.template is None:
            raise ConfigError(
                "animator: code_share is 0: this model was not trained to draw faces from their code alone, so it "
                "cannot change who is seen; train one with model.animator.init_args.code_share, for example 0.2"
            )
        image, features = self.template(len(identity))
        return SourceState(
            image, features, Descriptors(identity, identity.new_zeros(len(identity), self.descriptors.motion_size))
        )

    def describe(self, image: Tensor) -> Descriptors:
        """Return the semantic facial descriptors of faces B 3 H W in [0, 1]."""
        features = self.encoder(resize(image, self.encoder.resolution))
        motion = self.motion_head(features) if self.driving_encoder is None else self.motion(image)
        return Descriptors(self.identity_head(features), motion)

    def recombine(self, identity: Tensor, motion: Tensor) -> Tensor:
        """Return the latent code, B D, of identity B N and motion B M coefficients."""
        return self.descriptors.combine(identity, motion)

    def project(self, latent: Tensor) -> Descriptors:
        """Return the coefficients of latent codes B D: the inverse of :meth:`recombine`.

        Exact with an identity basis; without one the identity is the residual of the projection on the motion basis.
        """
        return self.descriptors.project(latent)

    def generate(self, state: SourceState, motion: Tensor) -> Generated:
        """Render the sources of ``state`` (B rows) under ``motion`` (B M)."""
        if len(state.image) != len(motion):
            raise ValueError(f"{len(state.image)} sources and {len(motion)} motions; use state.expand(k)")
        with self.descriptors.kept():
            latent = self.recombine(state.descriptors.identity, motion)
            own = self.recombine(*state.descriptors)
        return self.generator(latent, own, state.features, state.image)

    def forward(self, source: Tensor, driving: Tensor) -> Generated:
        """Animate ``source`` (B 3 H W) with the motion of ``driving`` (B 3 H W), both in [0, 1]."""
        return self.generate(self.source_state(source), self.motion(driving))
