"""The typed objects that travel between the parts of sfdkit.

Legend: ``B`` sources in a batch, ``K`` driving frames per source, ``C H W`` image, ``D`` latent dimensions,
``N`` identity coefficients, ``M`` motion coefficients.
"""

from __future__ import annotations

from typing import Any, NamedTuple, NotRequired, TypedDict

from torch import Tensor


class FrameBatch(TypedDict):
    """Frames of one batch; every row holds frames of one clip, thus of one identity.

    From the loader the images are uint8 in 0..255; after the transfer to the device they are float32 in [0, 1].
    """

    source: Tensor
    """B 3 H W: the frame that gives appearance and identity."""
    driving: Tensor
    """B K 3 H W: the frames whose motion is wanted; in self-reenactment they are the target as well."""
    driving_view: NotRequired[Tensor]
    """B K 3 H W: the harder view of ``driving`` that the motion branch sees in training; added on the device."""
    key: list[str]
    """B clip keys."""
    identity: list[str]
    """B identity names."""


class SkipCount(NamedTuple):
    """Rows of batches that were lost to damage of one kind in one shard."""

    shard: str
    """Name or address of the shard."""
    reason: str
    """See :data:`sfdkit.data.shards.reader.SkipReason`."""
    rows: int
    message: str
    """What was wrong the first time."""


class DataAccount(TypedDict):
    """What one rank has read in an epoch: ``expected = read + skipped``, in rows of batches."""

    epoch: int
    batches: int
    """Batches given so far, those before a resume included."""
    planned_batches: int
    """Batches of the whole epoch."""
    batches_before_resume: int
    """Batches that an earlier process gave; they are in none of the counts below."""
    expected: int
    """Rows of the batches given."""
    read: int
    """Rows that are what was planned."""
    skipped: list[SkipCount]
    """Rows that were lost; in training another clip stands in for each."""
    repeated_reads: int
    """Attempts at reading after the first."""
    waited: float
    """Seconds of waiting for batches."""


class Clip(TypedDict):
    """One clip as it comes from a shard: packed frames and the json beside them."""

    key: str
    """Unique name within the data set: no dots, no ``#``, no slashes."""
    meta: dict[str, Any]
    """The json: see :mod:`sfdkit.data.shards.format`."""
    frames: bytes
    """All JPEG pictures of the clip, packed: see :mod:`sfdkit.data.shards.format`."""


class Descriptors(NamedTuple):
    """Semantic facial descriptors of a batch of faces: coefficients on the orthonormal basis."""

    identity: Tensor
    """B N: coefficients on the identity basis."""
    motion: Tensor
    """B M: coefficients on the motion basis."""


class Generated(NamedTuple):
    """What the generator renders."""

    image: Tensor
    """B 3 H W in [0, 1]."""
    flow: Tensor
    """B 2 H W: where each output pixel looks in the source, as an offset in normalised [-1, 1] units (x, y)."""
    mask: Tensor
    """B 1 H W in [0, 1]: 1 where the warped source shows, 0 where the generator paints."""
    warped: Tensor
    """B 3 H W in [0, 1]: the source under the flow, nothing painted."""
