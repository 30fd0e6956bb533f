"""Options that the commands of a trained animator share."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
from jsonargparse.typing import NonNegativeFloat, PositiveFloat, restricted_number_type

from sfdkit.apply.axes import Axes, find_axes
from sfdkit.apply.runner import Precision, Runner
from sfdkit.apply.steering import MotionMode, OneEuroFilter, Steering, make_gain
from sfdkit.config.command import Command
from sfdkit.errors import ConfigError
from sfdkit.files import require_apart
from sfdkit.media.crop import CropMethod, CropRule
from sfdkit.media.detect import OPENCV
from sfdkit.weights.shipped import find_weights

_NUMBER = re.compile(r"\d+(\.\d+)?")
_CUTOFF, _BETA = 1.5, 0.5
"""Usual constants of smoothing."""

Height: TypeAlias = restricted_number_type("Height", int, [(">=", 1), ("<=", 4096)])  # type: ignore[valid-type]


Crf: TypeAlias = restricted_number_type("Crf", int, [(">=", 1), ("<=", 63)])  # type: ignore[valid-type]
Time: TypeAlias = NonNegativeFloat | str
"""Seconds, or a text such as 1:05 or 0:01:05.5."""


def seconds(time: Time) -> float:
    """Return a time in seconds.

    Raises:
        ConfigError: It is none.
    """
    if not isinstance(time, str):
        return float(time)
    parts = time.split(":")
    if not all(_NUMBER.fullmatch(part) for part in parts) or len(parts) > 3:
        raise ConfigError(f"{time!r} is no time; give seconds, or minutes and seconds such as 1:05, or 0:01:05.5")
    return sum(float(part) * 60**power for power, part in enumerate(reversed(parts)))


class Loaded(NamedTuple):
    """An animator that is ready to run."""

    runner: Runner
    file: Path
    """The checkpoint, or the folder of the exported model."""
    axes: str | None
    """The content of the ``axes.json`` that it holds itself, if any."""

    def find_axes(self, given: str | None) -> Axes | None:
        """Return the axes that go with it; ``given`` as in :func:`sfdkit.apply.axes.find_axes`.

        Raises:
            CheckpointError: They were measured on another model.
            DataError: They cannot be read.
        """
        found = find_axes(given, self.file, self.axes)
        return None if found is None else Axes.parse(*found, self.runner.basis)


@dataclass(kw_only=True)
class AnimatorOptions(Command):
    """Which animator, and how faces are cut out for it.

    Args:
        checkpoint: A checkpoint that sfdkit fit wrote, a weights file of sfdkit model pack, a folder of sfdkit model
            save, a name such as puppets64 that sfdkit model list shows, hf://user/name[@revision][/folder] on the
            Hugging Face hub, or the https address of a weights file.
        model: In place of a checkpoint: a folder that sfdkit export wrote; ONNX Runtime runs it, without torch.
        crop: How to cut faces out, as in the training data: face, union or aligned (detected), centre (largest square)
            or none (the whole picture).
        margin: Share of the detected face's size to add on each side, as in the training data; by default what suits
            --crop.
        detector: What finds faces, as in the training data: opencv, or the ONNX file of YuNet.
        device: auto, cpu, cuda, cuda:1, mps.
        precision: float32, bfloat16 or float16: what a checkpoint's networks compute in. An exported model has its own.
        compile: Compile a checkpoint's networks (torch.compile): faster, after a minute or more.
        trust: Packages besides sfdkit whose classes the checkpoint may name: --trust [mypackage].
    """

    checkpoint: str | None = None
    model: str | None = None
    crop: CropMethod = "face"
    margin: float | None = None
    detector: str = OPENCV
    device: str = "auto"
    precision: Precision = "float32"
    compile: bool = False
    trust: list[str] | None = None

    def animator_file(self) -> Path:
        """Return the file that the checkpoint is, or the folder of the exported model.

        Raises:
            CheckpointError: There are no weights of this name.
            ConfigError: Both a checkpoint and a model are given, or neither, or an empty name.
        """
        if (self.checkpoint is None) == (self.model is None):
            given = "neither" if self.model is None else "both"
            raise ConfigError(f"give either --checkpoint or --model (a folder of sfdkit export); {given} is given")
        if self.model == "":
            raise ConfigError("model: the name is empty; is the variable that holds it set?")
        return self._weights if self.checkpoint is not None else Path(str(self.model))

    @cached_property
    def _weights(self) -> Path:
        """Those of the checkpoint, looked for once."""
        return find_weights(str(self.checkpoint))

    def check_apart(self, output: str, **inputs: str | None) -> None:
        """Refuse an output that would replace the animator or one of the ``inputs``, see :func:`require_apart`.

        Raises:
            CheckpointError: There are no weights of this name.
            ConfigError: It would, or as for :meth:`animator_file`.
        """
        require_apart(output, **{"model" if self.checkpoint is None else "checkpoint": self.animator_file()}, **inputs)

    def load(self) -> Loaded:
        """Load the animator; a checkpoint in eval mode onto the device.

        Raises:
            CheckpointError: The checkpoint is missing, damaged or of another model.
            ConfigError: There is no such device, onnxruntime is not installed, or as for :meth:`animator_file`.
            DataError: The exported model is missing, damaged or of another version.
        """
        file = self.animator_file()
        if self.model is not None:
            return self._load_exported(file)
        from sfdkit.apply.torch_runner import TorchRunner
        from sfdkit.checkpoint import load_animator
        from sfdkit.device import choose_device

        loaded = load_animator(file, choose_device(self.device), self.trust or ())
        return Loaded(TorchRunner(loaded.animator, self.precision, self.compile), file, loaded.axes)

    def _load_exported(self, folder: Path) -> Loaded:
        from sfdkit.export.runtime import Animator, providers_of

        if self.trust:
            raise ConfigError("trust: an exported model names no classes; leave it out, or give --checkpoint")
        if self.precision != "float32" or self.compile:
            option = "compile: true" if self.compile else f"precision: {self.precision}"
            raise ConfigError(f"{option} is for --checkpoint; an exported model is as sfdkit export made it (--half)")
        animator = Animator(folder, providers=providers_of(self.device))
        return Loaded(animator, folder, animator.axes)

    def crop_rule(self, method: CropMethod | None = None) -> CropRule:
        """Return how faces are cut out; ``method`` goes before ``crop``."""
        return CropRule.of_user(method or self.crop, self.margin, self.detector)


@dataclass(kw_only=True)
class SteeringOptions(AnimatorOptions):
    """How the driver's motion becomes the source's.

    Args:
        mode: absolute takes the driver's pose and expression; relative adds their change since the first driving frame
            to the source's own.
        regions: Only these parts move as the driver's: --regions [pose,eyes,brows,mouth]; all there is by default.
        strength: A factor on the motion, such as 1.2, or one for each region: --strength '{mouth: 1.5}'; rest stands
            for what is not named: --strength '{mouth: 1.5, rest: 0.8}'.
        axes: The axes.json of the model, for regions; by default the one it brings along, or of the checkpoint's run.
        smooth: Smooth the motion over time: a still head keeps still.
        smooth_cutoff: Hz, of what is still; lower is smoother, and later.
        smooth_beta: Hz by which the cutoff rises for a coefficient that changes by one in a second.
    """

    mode: MotionMode = "absolute"
    regions: list[str] | None = None
    strength: float | dict[str, float] = 1.0
    axes: str | None = None
    smooth: bool = False
    smooth_cutoff: PositiveFloat = _CUTOFF
    smooth_beta: NonNegativeFloat = _BETA

    def steering(self, loaded: Loaded, fps: float, first: np.ndarray | None = None) -> Steering:
        """Return how the motion of a driver of ``fps`` frames per second is taken over.

        Args:
            loaded: The animator.
            fps: Of the driver.
            first: M: what relative motion is relative to; the first frame's coefficients by default.

        Raises:
            CheckpointError: The axes are of another model.
            ConfigError: A region that does not exist or that the model has no axis for, or constants of smoothing
                without it.
            DataError: The axes cannot be read.
        """
        if not self.smooth and (self.smooth_cutoff, self.smooth_beta) != (_CUTOFF, _BETA):
            raise ConfigError("smooth_cutoff and smooth_beta are for --smooth true; give it, or leave them out")
        named = self.regions is not None or isinstance(self.strength, dict)
        axes = loaded.find_axes(self.axes) if named or self.axes else None
        gain = make_gain(axes, loaded.runner.motion_size, self.regions, self.strength)
        smoothing = partial(OneEuroFilter, fps, self.smooth_cutoff, self.smooth_beta) if self.smooth else None
        return Steering(self.mode, first, gain, smoothing)
