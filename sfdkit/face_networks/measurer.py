"""Opening the networks that measure the faces of a data set."""

from __future__ import annotations

from pathlib import Path

from sfdkit.errors import ConfigError
from sfdkit.face_networks.detected_measurer import DetectedFaceMeasurer, FaceFiles
from sfdkit.face_networks.known import networks_in
from sfdkit.face_networks.puppet_measurer import PuppetMeasurer, regressor_path, train_command
from sfdkit.face_networks.puppet_network import EXPRESSION
from sfdkit.face_networks.third_party_measurer import ThirdPartyMeasurer
from sfdkit.face_networks.types import FaceMeasurer, Measured, MeasureSettings

_FILES = ("detector", "embedder", "landmarks", "blendshapes", "canonical_face", "head_pose")


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
        return _open_real(settings)
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


def _open_real(settings: MeasureSettings) -> FaceMeasurer:
    """Open the networks for real faces: those named one by one, and for the rest those of the folder."""
    named = {key: Path(value) for key in _FILES if (value := getattr(settings, key)) is not None}
    if {"canonical_face", "head_pose"} <= set(named):
        raise ConfigError("canonical_face, head_pose: both give the pose; name one of them")
    there = {} if settings.networks is None else networks_in(Path(settings.networks))
    if "head_pose" in named:
        there.pop("canonical_face", None)
    chosen = {key: [named[key]] if key in named else there.get(key, []) for key in _FILES}
    for key, paths in chosen.items():
        if len(paths) > 1 and key != "head_pose":
            raise ConfigError(
                f"networks: {settings.networks} holds {paths[0].name} and {paths[1].name}, both for {key}; name one of "
                f"them with --measure.{key} FILE"
            )
    one = {key: paths[0] for key, paths in chosen.items() if paths}
    if "detector" in one:
        others = {key: one.get(key) for key in ("embedder", "landmarks", "blendshapes", "canonical_face")}
        poses = () if "canonical_face" in one else tuple(chosen["head_pose"])
        return DetectedFaceMeasurer(FaceFiles(one["detector"], **others, head_pose=poses))
    for key in ("networks", "blendshapes", "canonical_face"):
        if (given := getattr(settings, key)) is not None:
            raise ConfigError(f"{key}: {given} needs a detector, and there is none; give --measure.detector FILE")
    return ThirdPartyMeasurer(*(one.get(key) for key in ("embedder", "landmarks", "head_pose")))
