"""What is measured: a checkpoint, an exported folder, or a configuration with random weights."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from sfdkit.apply.runner import Precision, Runner
from sfdkit.apply.torch_runner import TorchRunner
from sfdkit.checkpoint import load_animator
from sfdkit.errors import ConfigError
from sfdkit.export.manifest import FILE_NAME
from sfdkit.export.runtime import Animator, providers_of
from sfdkit.media.draw import enlarge
from sfdkit.model.summary import Cost, cost_per_driven_frame
from sfdkit.puppets.clips import make_clip
from sfdkit.weights.folder import WEIGHTS


class Subject(NamedTuple):
    """An animator that is ready to be timed."""

    name: str
    runner: Runner
    cost: Cost
    """Of a driven frame."""
    precision: str
    psnr: float | None
    """dB against the model in float32 by torch, on a puppet; None where nothing differs."""


def open_subject(
    name: str, device: torch.device, precision: Precision, threads: int | None, compiled: bool = False
) -> Subject:
    """Return what a name means.

    Args:
        name: A folder of ``sfdkit export``, a ``.yaml`` of an experiment (random weights), or what ``--checkpoint``
            takes.
        device: Where to compute.
        precision: Of torch; an exported model has its own.
        threads: Of one operation; all cores by default.
        compiled: Compile the networks, see :class:`sfdkit.apply.torch_runner.TorchRunner`.

    Raises:
        CheckpointError, ConfigError, DataError: It cannot be opened or run there.
    """
    if (Path(name) / FILE_NAME).is_file() and not (Path(name) / WEIGHTS).is_file():
        if precision != "float32":
            raise ConfigError(f"precision: {name} has its own; export with --half true for float16")
        if compiled:
            raise ConfigError(f"compile: ONNX Runtime runs {name}; leave it out, or give a checkpoint")
        exported = Animator(name, threads, providers_of(str(device)))
        about = exported.manifest
        return Subject(name, exported, Cost(**about.cost), about.precision, about.checked["psnr"])
    if name.endswith((".yaml", ".yml")):
        from sfdkit.train.command import untrained_animator

        animator = untrained_animator([f"--config={name}"], "sfdkit bench")
    else:
        animator = load_animator(name).animator
    animator = animator.eval().requires_grad_(False).to(device)
    frames = puppet_frames(3, animator.resolution)
    exact, cost = _animate(TorchRunner(animator), frames), cost_per_driven_frame(animator)
    runner = TorchRunner(animator, precision, compiled)
    error = float(np.square(_animate(runner, frames).astype(float) - exact).mean())
    name += ", compiled" if compiled else ""
    return Subject(name, runner, cost, precision, float(10 * np.log10(255**2 / error)) if error else None)


def puppet_frames(count: int, resolution: int) -> np.ndarray:
    """Return frames of a puppet clip, ``count`` R R 3 uint8."""
    return np.ascontiguousarray(make_clip(0, "test", 0, count, resolution)[0].permute(0, 2, 3, 1).numpy())


def large_picture(face: np.ndarray) -> np.ndarray:
    """Return a picture of 1280 x 720, as a camera gives it, with a face of 512 pixels."""
    shades = np.linspace(60, 160, 1280, dtype=np.uint8)
    picture = np.ascontiguousarray(np.broadcast_to(shades[None, :, None], (720, 1280, 3)))
    picture[100:612, 400:912] = enlarge(face, 512)
    return picture


def _animate(runner: Runner, frames: np.ndarray) -> np.ndarray:
    return runner.render(runner.source(frames[0]), runner.motion(frames[1:]))
