"""What every augmentation is: a change of a batch on the device that adds ``driving_view``."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from sfdkit.types import FrameBatch


class Augmentation(ABC):
    """Changes batches of a training on the device.

    The joint part changes the source and all driving frames of a row alike, so the row stays a source and its targets.
    The driver part changes ``driving_view`` alone, which only the motion encoder sees.
    """

    @abstractmethod
    def __call__(self, batch: FrameBatch, seed: int) -> FrameBatch:
        """Return the batch with its joint changes and with ``driving_view``.

        Args:
            batch: Images float32 in [0, 1], on any device.
            seed: What to draw; equal seeds change equal batches equally.

        Returns:
            A new batch, images float32 in [0, 1].
        """


def row_frames(batch: FrameBatch) -> Tensor:
    """Return the source and the driving frames of each row, B 1+K 3 H W."""
    return torch.cat([batch["source"][:, None], batch["driving"]], dim=1)


def with_view(batch: FrameBatch, frames: Tensor, view: Tensor, points: Tensor | None = None) -> FrameBatch:
    """Return a batch with other images.

    Args:
        batch: Gives keys and identities.
        frames: B 1+K 3 H W, see :func:`row_frames`.
        view: B K 3 H W, the motion encoder's view of the driving frames.
        points: B 1+K L 2, where the frames' points of the face are now.
    """
    changed = FrameBatch(
        source=frames[:, 0],
        driving=frames[:, 1:],
        driving_view=view,
        key=batch["key"],
        identity=batch["identity"],
    )
    if points is not None:
        changed["points"], changed["point_set"] = points, batch["point_set"]
    return changed
