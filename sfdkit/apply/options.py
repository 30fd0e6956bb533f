"""Options that the commands of a trained animator share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from jsonargparse.typing import restricted_number_type

from sfdkit.checkpoint import LoadedAnimator, load_animator
from sfdkit.config.command import Command
from sfdkit.device import choose_device
from sfdkit.media.crop import CropMethod, CropRule
from sfdkit.media.detect import OPENCV
from sfdkit.weights.shipped import find_weights

Height: TypeAlias = restricted_number_type("Height", int, [(">=", 1), ("<=", 4096)])  # type: ignore[valid-type]


@dataclass(kw_only=True)
class AnimatorOptions(Command):
    """Which animator, and how faces are cut out for it.

    Args:
        checkpoint: A checkpoint that sfdkit fit wrote, a weights file that sfdkit model pack wrote, or a name such as
            puppets64 that sfdkit model list shows.
        crop: How to cut faces out, as in the training data: face, union or aligned (detected), centre (largest square)
            or none (the whole picture).
        margin: Share of the detected face's size to add on each side, as in the training data; by default what suits
            --crop.
        detector: What finds faces, as in the training data: opencv, or the ONNX file of YuNet.
        device: auto, cpu, cuda, cuda:1, mps.
        trust: Packages besides sfdkit whose classes the checkpoint may name: --trust [mypackage].
    """

    checkpoint: str
    crop: CropMethod = "face"
    margin: float | None = None
    detector: str = OPENCV
    device: str = "auto"
    trust: list[str] | None = None

    def checkpoint_file(self) -> Path:
        """Return the file that the checkpoint is.

        Raises:
            CheckpointError: There are no weights of this name.
        """
        return find_weights(self.checkpoint)

    def load(self) -> LoadedAnimator:
        """Load the animator in eval mode onto the device.

        Raises:
            CheckpointError: The checkpoint is missing, damaged or of another model.
            ConfigError: There is no such device.
        """
        return load_animator(self.checkpoint, choose_device(self.device), self.trust or ())

    def crop_rule(self, method: CropMethod | None = None) -> CropRule:
        """Return how faces are cut out; ``method`` goes before ``crop``."""
        return CropRule.of_user(method or self.crop, self.margin, self.detector)
