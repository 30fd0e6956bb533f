"""Choosing what reads the faces of a data set."""

from __future__ import annotations

from sfdkit.face_networks.external import ExternalMeasurer
from sfdkit.face_networks.network import EXPRESSION
from sfdkit.face_networks.puppets import PuppetMeasurer, regressor_path, train_command
from sfdkit.face_networks.types import FaceMeasurer, Measured, MeasureSettings


class NoMeasurer:
    """Reads nothing, and says how that can be changed.

    Args:
        remedy: How.
    """

    expression_names = EXPRESSION

    def __init__(self, remedy: str) -> None:
        self.about: dict[str, float | int | str | None] = {}
        self.missing = dict.fromkeys(("landmarks", "pose", "expression", "identity"), remedy)

    def measure(self, images: object) -> Measured:
        """Return nothing measured."""
        return Measured()


def open_measurer(settings: MeasureSettings, resolution: int, puppets: bool) -> FaceMeasurer:
    """Open what reads the faces of a data set.

    Args:
        settings: Which networks.
        resolution: Of the pictures.
        puppets: Whether they show puppets: the kit's regressor reads them. Others are read by networks of other makers.

    Returns:
        The measurer. What it cannot read for want of a network is in its ``missing``.

    Raises:
        CheckpointError: The regressor that was named, or the one in the cache, cannot be used.
        ConfigError: Another network that was named cannot be used.
    """
    if not puppets:
        return ExternalMeasurer(settings.embedder, settings.landmarks, settings.head_pose)
    if settings.regressor == "none":
        return NoMeasurer("the regressor is switched off")
    if settings.regressor != "auto":
        return PuppetMeasurer(settings.regressor, resolution)
    path = regressor_path(resolution)
    if not path.is_file():
        return NoMeasurer(
            f"no regressor for {resolution} pixels in {path.parent}; make it with {train_command(resolution)}"
        )
    return PuppetMeasurer(path, resolution)
