"""What an animator asks of its generator, so that methods can be exchanged.

Legend: ``B`` batch, ``R`` resolution, ``D`` latent dimensions, ``C r r`` feature maps.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from sfdkit.types import Generated


class GeneratorLike(Protocol):
    """A module that renders a face from a latent code and what is known of the source.

    Any ``torch.nn.Module`` with these attributes and methods is one; it need not inherit from this class. Its
    ``__init__`` takes ``resolution``, which configurations link to that of the data. One that neither waits for the
    device nor goes other ways for other values is driven faster on a GPU, see :mod:`sfdkit.apply.cuda_graph`.
    """

    resolution: int
    """``R``."""
    latent_size: int
    """``D``."""
    sizes: tuple[int, ...]
    """Heights and widths of the source's feature maps that it takes, coarse to fine."""
    channels: tuple[int, ...]
    """Channels of these maps."""
    led_points: int
    """How many points the motion head may lead at the start of a training, see :meth:`lead`; 0 for none."""
    activation_checkpointing: bool
    """Whether to compute maps once more in the backward pass in place of keeping them; the training sets it."""

    def lead(self, columns: Tensor, points: int) -> None:
        """Take what the motion coefficients mean when a training begins: coordinates of points, and others.

        Args:
            columns: D M, the motion vectors of the basis, orthonormal.
            points: ``P``, at most ``led_points``: the first 2P coefficients are x and y of P points in turn.

        Raises:
            ConfigError: The method reads other coefficients.
        """

    def forward(self, latent: Tensor, source_latent: Tensor, features: list[Tensor], image: Tensor) -> Generated:
        """Render.

        Args:
            latent: B D, the latent code wanted.
            source_latent: B D, the source's own latent code.
            features: Maps of the source, B channels[i] sizes[i] sizes[i].
            image: B 3 R R, the source in [0, 1].

        Returns:
            The image, with the flow and the mask that it was made with: the share of each pixel that is taken from the
            warped source, 0 where nothing is.
        """
