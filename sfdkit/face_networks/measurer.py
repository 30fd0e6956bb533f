"""Opening the networks that measure the faces of a data set."""

from __future__ import annotations

from sfdkit.face_networks.puppet_measurer import PuppetMeasurer, regressor_path, train_command
from sfdkit.face_networks.puppet_network import EXPRESSION
from sfdkit.face_networks.third_party_measurer import ThirdPartyMeasurer
from sfdkit.face_networks.types import FaceMeasurer, Measured, MeasureSettings


class NoMeasurer:
    """Measures nothing.

    Args:
        remedy: How to get a network that does.
    """

    expression_names = EXPRESSION

    def __init__(self, remedy: str) -> None:
        self.about: dict[str, float | int | str | None] = {}
        self.missing = dict.fromkeys(("landmarks", "pose", "expression", "identity"), remedy)

    def measure(self, images: object) -> Measured:
        """Return no measurement."""
        return Measured()


def open_measurer(settings: MeasureSettings, resolution: int, puppets: bool) -> FaceMeasurer:
    """Open the networks that measure the faces of a data set.

    Args:
        settings: Which networks.
        resolution: Of the pictures.
        puppets: Whether they show puppets, which the kit's regressor reads; real faces are for third-party networks.

    Returns:
        The measurer. What it has no network for is in its ``missing``.

    Raises:
        CheckpointError: The regressor that was named, or the one in the cache, cannot be used.
        ConfigError: Another network that was named cannot be used.
    """
    if not puppets:
        return ThirdPartyMeasurer(settings.embedder, settings.landmarks, settings.head_pose)
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
