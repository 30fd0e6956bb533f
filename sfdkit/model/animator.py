"""The face animator: source and driving face in, animated face out. Plain torch.

Legend: ``B`` batch, ``R`` resolution, ``D`` latent dimensions, ``N`` identity coefficients, ``M`` motion coefficients.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jsonargparse.typing import ClosedUnitInterval, NonNegativeInt
from torch import Tensor, nn

from sfdkit.errors import ConfigError
from sfdkit.model.blocks import resize
from sfdkit.model.descriptors import DescriptorLayer
from sfdkit.model.encoders import Encoder, FeatureAdapter
from sfdkit.model.generator_like import GeneratorLike
from sfdkit.model.heads import IdentityHead, MotionHead
from sfdkit.model.key_points import PER_POINT, KeyPointHead
from sfdkit.model.template import Template
from sfdkit.types import Descriptors, Generated


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
        key_points: The motion coefficients are these points' coordinates and Jacobians and nothing else, six for each,
            as generators of key points (FOMM) want them.
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
        generator: GeneratorLike,
        driving_encoder: Encoder | None = None,
        motion_points: NonNegativeInt = 4,
        code_share: ClosedUnitInterval = 0.0,
        key_points: bool = False,
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
        if 2 * motion_points > descriptors.motion_size or motion_points > generator.led_points:
            raise ConfigError(
                f"animator: motion_points is {motion_points}; two motion coefficients belong to each point, and there "
                f"are {descriptors.motion_size}, and the generator takes {generator.led_points} points; lower "
                "motion_points, or raise descriptors.motion_size or, where the generator has them, its parts or points"
            )
        if key_points and not (descriptors.orthogonal and descriptors.identity_basis):
            raise ConfigError(
                "animator: key_points are read exactly on an orthonormal basis with identity vectors: set "
                "descriptors.orthogonal and descriptors.identity_basis to true"
            )
        if key_points and descriptors.motion_size != PER_POINT * motion_points:
            raise ConfigError(
                f"animator: {motion_points} key points have {PER_POINT * motion_points} coefficients, and "
                f"descriptors.motion_size is {descriptors.motion_size}; set it to that, or key_points to false"
            )
        if not isinstance(generator, nn.Module):
            raise ConfigError(f"animator: the generator {type(generator).__name__} is no torch.nn.Module; make it one")
        self.resolution: int = generator.resolution
        self.encoder = encoder
        self.driving_encoder = driving_encoder
        self.descriptors = descriptors
        self.generator = generator
        self.adapter = FeatureAdapter(encoder.sizes, encoder.channels, generator.sizes, generator.channels)
        self.identity_head = IdentityHead(encoder, descriptors.identity_size, places=code_share > 0)
        reader = driving_encoder or encoder
        self.motion_head: MotionHead | KeyPointHead = (
            KeyPointHead(reader, motion_points)
            if key_points
            else MotionHead(reader, descriptors.motion_size, motion_points)
        )
        self.key_points = key_points
        self.code_share = code_share
        self.template = Template(self.resolution, generator.sizes, generator.channels) if code_share else None
        generator.lead(descriptors.basis().detach()[:, -descriptors.motion_size :], motion_points)

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
                "cannot change who is seen; train one with model.animator.init_args.code_share, for example 0.05"
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
        if state.image.shape[0] != motion.shape[0]:  # not len(), of which an export would make a constant
            raise ValueError(f"{len(state.image)} sources and {len(motion)} motions; use state.expand(k)")
        with self.descriptors.kept():
            latent = self.recombine(state.descriptors.identity, motion)
            own = self.recombine(*state.descriptors)
        return self.generator(latent, own, state.features, state.image)

    def forward(self, source: Tensor, driving: Tensor) -> Generated:
        """Animate ``source`` (B 3 H W) with the motion of ``driving`` (B 3 H W), both in [0, 1]."""
        return self.generate(self.source_state(source), self.motion(driving))
