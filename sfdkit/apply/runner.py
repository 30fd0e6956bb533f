"""What runs an animator for the commands: a checkpoint by torch, or an exported model by ONNX Runtime.

Pictures are arrays, rows x height x width x 3 uint8, so that nothing here needs torch.

Legend: ``B`` frames, ``R`` resolution, ``N`` identity and ``M`` motion coefficients.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, Protocol, TypeAlias

import numpy as np

Source: TypeAlias = Any
"""An encoded source, as the runner that made it keeps it; one face, or B of them."""

Precision: TypeAlias = Literal["float32", "bfloat16", "float16"]
"""What networks compute in."""

What: TypeAlias = Literal["identity", "motion", "both"]
"""Which coefficients change."""


class Coefficients(NamedTuple):
    """The descriptors of a face, or what to add to them."""

    identity: np.ndarray
    """N float32, or rows of them."""
    motion: np.ndarray
    """M float32, or rows of them."""


class Runner(Protocol):
    """An animator that takes and gives arrays."""

    resolution: int
    """``R``."""
    identity_size: int
    """``N``."""
    motion_size: int
    """``M``."""
    basis: str
    """:func:`sfdkit.model.fingerprints.basis_fingerprint`: what named axes belong to."""
    motion_model: str
    """:func:`sfdkit.model.fingerprints.motion_fingerprint`: what motion tracks belong to."""

    @property
    def device(self) -> str:
        """Where it computes, for people."""
        ...

    def source(self, picture: np.ndarray) -> Source:
        """Encode a source, R R 3 uint8: once for any number of frames."""
        ...

    def describe(self, source: Source) -> Coefficients:
        """Return the descriptors of an encoded source."""
        ...

    def motion(self, frames: np.ndarray) -> np.ndarray:
        """Read the motion coefficients, B M float32, of frames B R R 3 uint8."""
        ...

    def render(self, source: Source, motion: np.ndarray) -> np.ndarray:
        """Render one source, or B, under motion coefficients B M: B R R 3 uint8."""
        ...

    def change_identity(self, source: Source, identity: np.ndarray) -> Source:
        """Return B sources that look as identity coefficients B N say.

        Raises:
            ConfigError: This model, or this runner, cannot.
        """
        ...

    def morph(self, source: Source, other: Source, share: np.ndarray) -> Source:
        """Return B sources on the way from one person to another, by B shares from 0 to 1.

        Raises:
            ConfigError: This model, or this runner, cannot.
        """
        ...
