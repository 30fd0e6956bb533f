"""What a training step passes to the loss terms.

Legend: ``B`` rows (clips), ``K`` driving frames of each, ``S = 1 + K`` frames of a row, ``C`` crossed rows, ``R``
resolution, ``N`` identity and ``M`` motion coefficients.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

if TYPE_CHECKING:
    from sfdkit.losses.equivariance import Bend


class Crossed(NamedTuple):
    """Sources driven by frames of other people, and the descriptors of the results."""

    image: Tensor
    """C 3 R R: identity of the source, motion of the driver."""
    source_identity: Tensor
    """C N: target of ``identity``; without gradient."""
    driver_motion: Tensor
    """C M: target of ``motion``; without gradient."""
    identity: Tensor
    """C N: encoded from the results."""
    motion: Tensor
    """C M: encoded from the results."""
    restored: Tensor | None
    """C 3 R R: the drivers' own sources, driven by the results."""
    driver: Tensor
    """C 3 R R: the drivers' frames, which ``restored`` should equal."""
    source: Tensor
    """C 3 R R: the sources."""


class Bent(NamedTuple):
    """The first driving view of each row, bent, and what was read from it."""

    motion: Tensor
    """B M: read from the bent pictures."""
    bend: Bend
    """How they were bent."""


class Step(NamedTuple):
    """What was rendered and encoded for one batch."""

    image: Tensor
    """B*K 3 R R: the results."""
    target: Tensor
    """B*K 3 R R."""
    source: Tensor
    """B 3 R R."""
    motion: Tensor
    """B S M: motion coefficients of source and driving views, without noise."""
    log_noise: Tensor
    """M: logarithm of the standard deviation of the coefficients' noise."""
    flow: Tensor
    """B*K 2 R R."""
    mask: Tensor
    """B*K 1 R R."""
    warped: Tensor
    """B*K 3 R R: the warped sources, nothing painted."""
    source_identity: Tensor
    """B N: identity coefficients of the sources."""
    points: Tensor | None = None
    """B*K L 2: points of the face in the targets, in [-1, 1]; not a number where they are not known."""
    row_points: Tensor | None = None
    """B S L 2: the same in source and targets."""
    warped_points: Tensor | None = None
    """B*K L 2: the same in what was warped to each result; not known where that was drawn from the code alone."""
    identity: Tensor | None = None
    """B 2 N: identity coefficients of the source and of another frame of its clip."""
    people: Tensor | None = None
    """B numbers: rows of the same person have the same one."""
    bent: Bent | None = None
    """For terms that want what is read to follow a known change of the picture."""
    crossed: Crossed | None = None
    """Of the cross-identity part of the batch; None where it has one person only."""
