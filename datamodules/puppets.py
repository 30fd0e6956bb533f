"""Puppets: synthetic faces with known identity and motion, the data set that comes with the kit."""

from __future__ import annotations

from typing import ClassVar

from sfdkit.data.module import FramesDataModule


class PuppetsDataModule(FramesDataModule):
    """Shards of ``sfdkit shards pack puppets``; shards of other data sets are refused.

    The json of each clip holds the factors of its identity and motion, from which evaluation renders the true answer of
    a cross-reenactment. The pictures are drawn by the kit and carry its licence.
    """

    dataset: ClassVar[str | None] = "puppets"
