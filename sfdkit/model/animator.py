"""The face animator: source and driving face in, animated face out. Plain torch.

Legend: ``B`` batch, ``R`` resolution, ``D`` latent dimensions, ``N`` identity coefficients, ``M`` motion coefficients.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from sfdkit.errors import ConfigError
from sfdkit.model.blocks import SoftPoints, resize
from sfdkit.model.descriptors import DescriptorLayer
from sfdkit.model.encoders import Encoder, FeatureAdapter
from sfdkit.model.generator import Generator
from sfdkit.types import Descriptors, Generated


class SourceState(NamedTuple):
    """All that depends on the source alone: compute it once, then drive it with any number of frames."""

    image: Tensor
    """B 3 R R in [0, 1]."""
    features: list[Tensor]
    """Maps for the generator's levels."""
    descriptors: Descriptors
    """The source's own identity and motion coefficients."""

    def expand(self, times: int) -> SourceState:
        """Repeat each row ``times`` times in a row: B becomes B * times."""
        if times == 1:
            return self
        return SourceState(
            self.image.repeat_interleave(times, 0),
            [f.repeat_interleave(times, 0) for f in self.features],
            Descriptors(*(d.repeat_interleave(times, 0) for d in self.descriptors)),
        )


class CoefficientHead(nn.Module):
    """Reads coefficients out of feature maps: pooled features, and soft points of a middle map where position matters.

    Args:
        encoder: The encoder whose maps are read.
        outputs: Number of coefficients.
        points: Number of soft points; 0 for none.
        hidden: Width of the hidden layer.
    """

    def __init__(self, encoder: Encoder, outputs: int, points: int, hidden: int = 256) -> None:
        super().__init__()
        middle = [i for i, size in enumerate(encoder.sizes) if size >= encoder.resolution // 8]
        self.level = min(middle, key=lambda i: encoder.sizes[i]) if middle else 0
        self.points = SoftPoints(encoder.channels[self.level], points) if points else None
        inputs = encoder.channels[-1] + 2 * points
        self.layers = nn.Sequential(
            nn.BatchNorm1d(inputs), nn.Linear(inputs, hidden), nn.LeakyReLU(0.2), nn.Linear(hidden, outputs)
        )
        for layer in self.layers:
            if isinstance(layer, nn.Linear):
                nn.init.kaiming_normal_(layer.weight, a=0.2)
                nn.init.zeros_(layer.bias)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Map the encoder's feature maps to B outputs, float32."""
        pooled = features[-1].mean((2, 3))
        if self.points is not None:
            pooled = torch.cat([pooled.float(), self.points(features[self.level])], 1)
        return self.layers(pooled).float()


class FaceAnimator(nn.Module):
    """Recombines the identity of a source face with the motion of a driving face.

        a = identity head(encoder(source))          B N
        b = motion head(motion encoder(driving))    B M
        z = U a + V b                               descriptor layer
        image, flow, mask = generator(z, source)

    Args:
        encoder: Reads the source; its maps are what the generator warps.
        descriptors: The basis.
        generator: Renders; its ``latent_size`` must be the descriptor layer's.
        driving_encoder: Reads the motion; may be lighter and of a lower resolution. ``None``: the source's encoder
            serves both.
        motion_points: Soft points that the motion head sees beside pooled features; 0 for none.

    Raises:
        ConfigError: Parts that do not fit together.
    """

    def __init__(
        self,
        encoder: Encoder,
        descriptors: DescriptorLayer,
        generator: Generator,
        driving_encoder: Encoder | None = None,
        motion_points: int = 16,
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
        self.resolution: int = generator.resolution
        self.encoder = encoder
        self.driving_encoder = driving_encoder
        self.descriptors = descriptors
        self.generator = generator
        self.adapter = FeatureAdapter(encoder.sizes, encoder.channels, generator.sizes, generator.channels)
        self.identity_head = CoefficientHead(encoder, descriptors.identity_size, points=0)
        self.motion_head = CoefficientHead(driving_encoder or encoder, descriptors.motion_size, points=motion_points)

    def motion(self, image: Tensor) -> Tensor:
        """Return the motion coefficients, B M, of faces B 3 H W in [0, 1]."""
        encoder = self.driving_encoder or self.encoder
        return self.motion_head(encoder(resize(image, encoder.resolution)))

    def source_state(self, image: Tensor) -> SourceState:
        """Encode sources, B 3 H W in [0, 1]; what comes back serves any number of driving frames."""
        image = resize(image, self.resolution)
        features = self.encoder(image)
        own = self.motion_head(features) if self.driving_encoder is None else self.motion(image)
        return SourceState(image, self.adapter(features), Descriptors(self.identity_head(features), own))

    def describe(self, image: Tensor) -> Descriptors:
        """Return the semantic facial descriptors of faces B 3 H W in [0, 1]."""
        features = self.encoder(resize(image, self.encoder.resolution))
        motion = self.motion_head(features) if self.driving_encoder is None else self.motion(image)
        return Descriptors(self.identity_head(features), motion)

    def recombine(self, identity: Tensor, motion: Tensor) -> Tensor:
        """Return the latent code, B D, of identity B N and motion B M coefficients."""
        return self.descriptors.combine(identity, motion)

    def generate(self, state: SourceState, motion: Tensor) -> Generated:
        """Render the sources of ``state`` (B rows) under ``motion`` (B M)."""
        if len(state.image) != len(motion):
            raise ValueError(f"{len(state.image)} sources and {len(motion)} motions; use state.expand(k)")
        latent = self.recombine(state.descriptors.identity, motion)
        own = self.recombine(*state.descriptors)
        return self.generator(latent, own, state.features, state.image)

    def forward(self, source: Tensor, driving: Tensor) -> Generated:
        """Animate ``source`` (B 3 H W) with the motion of ``driving`` (B 3 H W), both in [0, 1]."""
        return self.generate(self.source_state(source), self.motion(driving))
