"""Measuring puppets with the kit's own network, and the network's file.

Legend: ``F`` pictures, ``R`` resolution.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from sfdkit.errors import CheckpointError, ConfigError
from sfdkit.face_networks.puppet_network import EXPRESSION, PuppetNetwork
from sfdkit.face_networks.types import Measured
from sfdkit.files import cache_folder
from sfdkit.points import to_pixels
from sfdkit.tensor_file import write_tensors

SCHEMA = 1
_KEY = "sfdkit_regressor"
_BATCH = 64


class Regressor(NamedTuple):
    """A trained network and its description."""

    network: PuppetNetwork
    """In eval mode, without gradients of its own."""
    about: dict[str, Any]
    """``schema resolution seed held_out_seed identities steps accuracy accuracy_soft``."""


def train_command(resolution: int) -> str:
    """Return the command that trains the regressor of a resolution."""
    return f"sfdkit measure train --resolution {resolution}"


def regressor_path(resolution: int) -> Path:
    """Return the file of a resolution's regressor in the cache, see :func:`sfdkit.files.cache_folder`."""
    return cache_folder() / f"regressor-{resolution}.safetensors"


def save_regressor(path: Path, regressor: Regressor) -> None:
    """Write a regressor; the file appears whole or not at all.

    Args:
        path: The file; its folder exists.
        regressor: The network with its description.

    Raises:
        DataError: The file cannot be written.
    """
    write_tensors(path, regressor.network.state_dict(), {_KEY: json.dumps(regressor.about)})


def load_regressor(path: str | Path) -> Regressor:
    """Load a regressor.

    Args:
        path: A file that ``sfdkit measure train`` wrote.

    Raises:
        CheckpointError: No such file, damaged, no regressor, or of another version of the kit.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"regressor {path} does not exist; make it with {train_command(64)} --output {path}")
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(_KEY)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"regressor {path} is damaged or no .safetensors file ({error}); make it again"
        ) from error
    if text is None:
        raise CheckpointError(f"{path} holds no regressor of sfdkit; {train_command(64)} writes one")
    about = json.loads(text)
    if about.get("schema") != SCHEMA:
        raise CheckpointError(
            f"regressor {path} has schema {about.get('schema')}, this sfdkit reads {SCHEMA}; make it again with "
            f"{train_command(about.get('resolution', 64))}"
        )
    network = PuppetNetwork()
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        reason = str(error).splitlines()[1].strip()
        raise CheckpointError(
            f"regressor {path}: its weights do not fit the network of this sfdkit ({reason}); make it again with "
            f"{train_command(about['resolution'])}"
        ) from error
    return Regressor(network.eval().requires_grad_(False), about)


class PuppetMeasurer:
    """Measures puppets: landmarks in the order of ``LANDMARKS``, pose, expression and identity embedding.

    Args:
        path: A file that ``sfdkit measure train`` wrote.
        resolution: Of the pictures that will be measured.

    Raises:
        CheckpointError: The file is missing, damaged, of another version, or of another resolution.
    """

    expression_names = EXPRESSION

    def __init__(self, path: str | Path, resolution: int) -> None:
        self.network, about = load_regressor(path)
        if about["resolution"] != resolution:
            raise CheckpointError(
                f"regressor {path} reads pictures of {about['resolution']} pixels, not {resolution}; make one with "
                f"{train_command(resolution)}"
            )
        self.resolution = resolution
        self.missing: dict[str, str] = {}
        self.about: dict[str, float | int | str | None] = {
            "regressor/file": Path(path).name,
            "regressor/steps": about["steps"],
            "regressor/seed": about["seed"],
            **{f"regressor/{name}": value for name, value in about["accuracy"].items()},
            **{f"regressor/soft_{name}": value for name, value in about["accuracy_soft"].items()},
        }

    @torch.no_grad()
    def measure(self, images: Tensor) -> Measured:
        """Read faces.

        Args:
            images: F 3 R R in [0, 1].

        Returns:
            All of :class:`Measured`, on the device of the pictures.

        Raises:
            ConfigError: The pictures are not of the regressor's resolution.
        """
        if images.shape[1:] != (3, self.resolution, self.resolution):
            raise ConfigError(
                f"the regressor reads pictures F 3 {self.resolution} {self.resolution}, got {tuple(images.shape)}; "
                f"make one with {train_command(images.shape[-1])}"
            )
        network = self.network.to(images.device)
        parts = [network(chunk.float()) for chunk in images.split(_BATCH)]
        landmarks, *others = (torch.cat(column) for column in zip(*parts, strict=True))
        return Measured(to_pixels(landmarks, self.resolution), *others)
