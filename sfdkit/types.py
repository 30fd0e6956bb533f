"""Types that several parts of sfdkit share.

Legend: ``B`` sources in a batch, ``K`` driving frames per source, ``C H W`` image, ``D`` latent dimensions,
``N`` identity coefficients, ``M`` motion coefficients.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, NotRequired, TypedDict

if TYPE_CHECKING:  # what runs exported models needs no torch
    from torch import Tensor


class FrameBatch(TypedDict):
    """Frames of one batch; every row holds frames of one clip, thus of one identity.

    From the loader the images are uint8 in 0..255; after the transfer to the device they are float32 in [0, 1].
    """

    source: Tensor
    """B 3 H W: the frames that give appearance and identity."""
    driving: Tensor
    """B K 3 H W: the frames that give the motion; in self-reenactment also the targets."""
    driving_view: NotRequired[Tensor]
    """B K 3 H W: ``driving`` under strong augmentation, the motion branch's input in training; made on the device."""
    points: NotRequired[Tensor]
    """B 1+K L 2: named points of the face in source and driving frames, x and y in [-1, 1], not a number where they are
    not known; where the shards carry some."""
    point_set: NotRequired[str]
    """Their set, see :mod:`sfdkit.points`."""
    key: list[str]
    """B clip keys."""
    identity: list[str]
    """B identity names."""


class SkipCount(NamedTuple):
    """Rows of batches that were skipped for one reason in one shard."""

    shard: str
    """Name or address of the shard."""
    reason: str
    """See :data:`sfdkit.data.shards.reader.SkipReason`."""
    rows: int
    message: str
    """Error of the first of them."""


class DataAccount(TypedDict):
    """What one rank has read in an epoch: ``expected = read + skipped``, in rows of batches."""

    epoch: int
    batches: int
    """Batches delivered so far, including those before a resume."""
    planned_batches: int
    """Batches of the whole epoch."""
    batches_before_resume: int
    """Batches that were delivered before a resume; the counts below leave them out."""
    expected: int
    """Rows of the delivered batches."""
    read: int
    """Rows with the planned clip."""
    skipped: list[SkipCount]
    """Rows whose clip could not be read; in training another clip replaces each."""
    repeated_reads: int
    """Retries."""
    waited: float
    """Seconds that the training waited for batches."""


class Clip(TypedDict):
    """One clip as stored in a shard: packed frames and the json beside them."""

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
    """Results of the generator."""

    image: Tensor
    """B 3 H W in [0, 1]."""
    flow: Tensor
    """B 2 H W: offset (x, y) from each output pixel to its place in the source, in normalised [-1, 1] coordinates."""
    mask: Tensor
    """B 1 H W in [0, 1]: 1 for the warped source, 0 for inpainting."""
    warped: Tensor
    """B 3 H W in [0, 1]: the warped source, without inpainting."""
