"""The descriptor layer: a learned orthonormal basis whose columns span an identity and a motion subspace.

Legend: ``B`` batch, ``D`` latent dimensions, ``N`` identity coefficients, ``M`` motion coefficients.

    [U | V] = QR(W)            W learned, D x (N + M); U identity, V motion; sign of diag(R) fixed to +
    z = U a + V b              a: B N identity coefficients, b: B M motion coefficients

After "Learning Semantic Facial Descriptors for Accurate Face Animation", https://arxiv.org/abs/2501.17718; the free
residual code is the setting of "Latent Image Animator", https://arxiv.org/abs/2203.09043.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jsonargparse.typing import PositiveInt
from torch import Tensor, nn

from sfdkit.errors import ConfigError
from sfdkit.model.blocks import full_precision
from sfdkit.types import Descriptors


def orthonormalise(weight: Tensor) -> Tensor:
    """Return the Q factor of ``weight``, with the sign of R's diagonal made positive: it is unique and continuous.

    Args:
        weight: D C with D >= C, any floating type.

    Returns:
        D C float32 with orthonormal columns.
    """
    with full_precision(weight):
        q, r = torch.linalg.qr(weight.float())
        sign = torch.where(torch.diagonal(r) < 0, -1.0, 1.0)
        return q * sign


class DescriptorLayer(nn.Module):
    """Maps identity and motion coefficients to a latent code, and back by projection.

    The raw matrix ``W`` is stored and orthonormalised in float32 in every training step, once inside :meth:`kept`: an
    EMA of orthonormal matrices is not orthonormal, an EMA of ``W`` is a valid ``W``.
    In eval mode the basis is computed once and kept until ``W`` changes.

    Args:
        identity_size: ``N``, number of identity vectors. Ignored when ``identity_basis`` is off.
        motion_size: ``M``, number of motion vectors.
        latent_size: ``D``; ``None`` makes the basis complete, ``D = N + M``.
        orthogonal: Off: the columns of ``W`` are only scaled to length 1 (ablation).
        identity_basis: Off: the identity code is a free residual of ``D`` numbers, ``z = w + V b`` (the LIA setting);
            then ``latent_size`` must be given.

    Raises:
        ConfigError: Sizes that cannot form a basis.
    """

    def __init__(
        self,
        identity_size: PositiveInt = 108,
        motion_size: PositiveInt = 20,
        latent_size: PositiveInt | None = None,
        orthogonal: bool = True,
        identity_basis: bool = True,
    ) -> None:
        super().__init__()
        if latent_size is None and not identity_basis:
            raise ConfigError(
                "descriptors: identity_basis=false needs latent_size, the length of the free residual code"
            )
        columns = (identity_size if identity_basis else 0) + motion_size
        self.latent_size: int = columns if latent_size is None else latent_size
        if columns > self.latent_size:
            raise ConfigError(
                f"descriptors: {columns} basis vectors do not fit into latent_size={self.latent_size}; "
                f"give latent_size >= {columns}, or none for a complete basis"
            )
        self.motion_size = motion_size
        self.identity_basis = identity_basis
        self.identity_size: int = identity_size if identity_basis else self.latent_size
        self.orthogonal = orthogonal
        self.weight = nn.Parameter(torch.empty(self.latent_size, columns))
        nn.init.orthogonal_(self.weight)
        self._kept: Tensor | None = None
        self._cached: Tensor | None = None
        self._cached_for: tuple[int, int] = (-1, -1)

    def train(self, mode: bool = True) -> DescriptorLayer:
        """Switch modes, and forget the basis: fused optimisers leave no mark on the weight that they change."""
        self._cached = None
        return super().train(mode)

    @property
    def complete(self) -> bool:
        """Whether the basis spans the whole latent space."""
        return self.weight.shape[0] == self.weight.shape[1]

    def basis(self) -> Tensor:
        """Return ``[U | V]``, D (N + M) float32: identity columns first (without an identity basis ``V`` alone)."""
        if self._kept is not None:
            return self._kept
        if self.training or torch.is_grad_enabled() or self.weight.is_meta:
            return self._compute()
        now = (self.weight._version, self.weight.data_ptr())
        if self._cached is None or self._cached_for != now:
            self._cached, self._cached_for = self._compute(), now
        return self._cached

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Compute the basis once, with its gradient, for everything inside the context, such as one training step."""
        outer, self._kept = self._kept, self.basis()
        try:
            yield
        finally:
            self._kept = outer

    def _compute(self) -> Tensor:
        if self.orthogonal:
            return orthonormalise(self.weight)
        return nn.functional.normalize(self.weight.float(), dim=0)

    def combine(self, identity: Tensor, motion: Tensor) -> Tensor:
        """Return the latent code of identity and motion coefficients.

        Args:
            identity: B N (B D without an identity basis).
            motion: B M.

        Returns:
            B D float32.
        """
        with full_precision(motion):
            basis, identity, motion = self.basis(), identity.float(), motion.float()
            if not self.identity_basis:
                return identity + motion @ basis.T
            return torch.cat([identity, motion], dim=1) @ basis.T

    def project(self, latent: Tensor) -> Descriptors:
        """Return the coefficients of latent codes; exact for results of :meth:`combine` with an identity basis.

        Without an identity basis the motion coefficients are the projection on ``V`` and the identity is what remains.

        Args:
            latent: B D.
        """
        with full_precision(latent):
            basis, latent = self.basis(), latent.float()
            dual = basis if self.orthogonal else torch.linalg.pinv(basis).T
            coefficients = latent @ dual
            if not self.identity_basis:
                return Descriptors(latent - coefficients @ basis.T, coefficients)
            return Descriptors(coefficients[:, : self.identity_size], coefficients[:, self.identity_size :])
