"""Third-party networks in local files: ONNX or TorchScript.

Legend: ``F`` pictures, ``S`` side of a network's input in pixels, ``H W`` of the pictures given.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from sfdkit.errors import ConfigError
from sfdkit.face_networks.conventions import Convention, LandmarkConvention
from sfdkit.face_networks.known import read_convention, remedy_of
from sfdkit.face_networks.onnx_file import OnnxSession, convert_onnx

NETWORK_SUFFIXES = (".onnx", ".pt", ".pth", ".ts")
_BATCH = 64
C = TypeVar("C", bound=Convention)


class NetworkFile(nn.Module, Generic[C]):
    """A third-party network in a local file, in eval mode.

    Args:
        key: Name of the setting that gave the file, for messages.
        path: A .onnx file, which runs in onnxruntime, or a .pt file of TorchScript.
        convention: The usual one for networks of its kind; the file itself, what is known of it
            (:mod:`sfdkit.face_networks.known`) and the YAML beside it go before it.
        differentiable: Give gradients to the pictures; an ONNX file is converted by onnx2torch for that.

        threads: For each run of an ONNX file; torch's number by default.
        cut: Whether it gets pictures that are cut out already, as its ``region`` says.

    Raises:
        ConfigError: The file is missing, damaged, of another kind, or a package that it needs is not installed.
    """

    def __init__(
        self,
        key: str,
        path: str | Path,
        convention: C,
        differentiable: bool = False,
        threads: int | None = None,
        cut: bool = False,
    ) -> None:
        super().__init__()
        self.key, self.path, self.cut = key, Path(path), cut
        require_file(key, self.path, NETWORK_SUFFIXES)
        convention = read_convention(key, self.path, convention)
        self.network: Callable[[Tensor], Any]
        size = None
        if self.path.suffix != ".onnx":
            self.network = _load_script(key, self.path)
        elif differentiable:
            self.network, size = convert_onnx(key, self.path)
        else:
            self.network, size = _open_onnx(key, self.path, convention.kind, convention.layout, threads)
        self.convention = convention if size is None else replace(convention, size=size)

    def forward(self, images: Tensor) -> Tensor:
        """Run the network.

        Args:
            images: F 3 H W in [0, 1].

        Returns:
            The output that the convention names, F first, float32, on the device of the pictures.

        Raises:
            ConfigError: The network cannot take them, or its output is not one row for each picture.
        """
        return self.outputs(images, (self.convention.result,))[0]

    def outputs(self, images: Tensor, results: Sequence[int]) -> list[Tensor]:
        """Run the network.

        Args:
            images: F 3 H W in [0, 1].
            results: Indices of the outputs that are wanted.

        Returns:
            Those outputs, F first, float32, on the device of the pictures.

        Raises:
            ConfigError: The network cannot take them, or an output is not one row for each picture.
        """
        if isinstance(self.network, nn.Module):
            self.network.to(images.device)
        parts: list[list[Tensor]] = []
        for chunk in images.split(_BATCH):
            try:
                found = self.network(self.convention.prepare(chunk, self.cut))
                picked = [_pick(found, result) for result in results]
            except Exception as error:
                raise ConfigError(
                    f"{self.key}: {self.path} failed on pictures of {self.convention.size} pixels "
                    f"({str(error).strip().splitlines()[-1]}); set size, or result, in {self.path.name}.yaml beside it"
                ) from error
            for part in picked:
                if not isinstance(part, Tensor) or part.dim() < 2 or len(part) != len(chunk):
                    raise self.wrong_output(part, f"a row for each of {len(chunk)} pictures")
            parts.append([part.float() for part in picked])
        return [torch.cat(column).to(images.device) for column in zip(*parts, strict=True)]

    def embed(self, images: Tensor) -> Tensor:
        """Return the output as embeddings F Z of length 1.

        Raises:
            ConfigError: The network cannot take the pictures, or gives something else.
        """
        values = self(images).flatten(1)
        if values.shape[1] < 2:
            raise self.wrong_output(values, "F Z, an embedding of each picture")
        return functional.normalize(values, dim=1)

    def wrong_output(self, value: Any, wanted: str) -> ConfigError:
        """Return the error for an output that is not ``wanted``."""
        shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        return ConfigError(
            f"{self.key}: {self.path} gave {shape}, where {wanted}, is needed; is it a network of this kind? "
            f"{self.path.name}.yaml beside it can name another of its outputs (result) or another unit"
        )


def require_file(key: str, path: Path, suffixes: Sequence[str]) -> None:
    """Check that a file exists and has one of some suffixes.

    Raises:
        ConfigError: It is missing, or its suffix is another.
    """
    if not path.is_file():
        raise ConfigError(f"{key}: {path} is no file; give the path of a local network, or leave {key} out")
    if path.suffix not in suffixes:
        raise ConfigError(f"{key}: {path} ends in {path.suffix!r}; give a file that ends in {', '.join(suffixes)}")


def _pick(outputs: Any, result: int) -> Tensor:
    if isinstance(outputs, Tensor):
        outputs = [outputs]
    if isinstance(outputs, dict):
        outputs = list(outputs.values())
    if result >= len(outputs):
        raise ValueError(f"it has {len(outputs)} outputs and result is {result}")
    return outputs[result]


def _load_script(key: str, path: Path) -> nn.Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", (DeprecationWarning, FutureWarning))  # it names no way to read such a file
            module = torch.jit.load(path, map_location="cpu").eval()
    except (RuntimeError, ValueError) as error:
        raise ConfigError(
            f"{key}: {path} is damaged or no TorchScript file; write it with torch.jit.trace(network.eval(), "
            "example).save(path): a state dict alone is no network"
        ) from error
    for parameter in module.parameters():  # requires_grad_ is not supported on ScriptModules
        parameter.requires_grad = False
    return module


def _open_onnx(key: str, path: Path, kind: str, layout: str, threads: int | None) -> tuple[OnnxSession, int | None]:
    """Return what runs the network, and the side of its input where that is fixed."""
    session = OnnxSession(key, path, threads)
    shape = next(iter(session.inputs.values()), ())
    channels = shape[-1 if layout == "nhwc" else 1] if len(shape) == 4 else None
    if len(session.inputs) != 1 or len(shape) != 4 or (isinstance(channels, int) and channels != 3):
        wanted = "F S S 3" if layout == "nhwc" else "F 3 S S"
        raise ConfigError(
            f"{key}: {path} takes {session.takes}; give a network of one input, pictures {wanted}, or "
            f"{remedy_of(kind, path)}"
        )
    return session, shape[2] if isinstance(shape[2], int) else None


def landmarks_in_pixels(network: NetworkFile[LandmarkConvention], values: Tensor) -> Tensor:
    """Return a network's output as points F P 2 or F P 3 in pixels of its input.

    Args:
        network: The network.
        values: Its output, F first.

    Raises:
        ConfigError: It is no list of points, or has fewer than are named.
    """
    convention = network.convention
    last = values[0].numel() // convention.values if values[0].numel() % convention.values == 0 else 0
    named = [k for place in convention.face31.values() for k in (place if isinstance(place, list) else [place])]
    if last <= max(named, default=0):
        wanted = f"at least {max(named) + 1} points" if named else "x and y of each point"
        raise network.wrong_output(values, f"{convention.values} numbers of each point, {wanted}")
    points = values.reshape(len(values), last, convention.values)
    if convention.unit == "share":
        return points * convention.size - points.new_tensor([0.5, 0.5, 0.0][: convention.values])
    return points - points.new_tensor([0.5, 0.5, 0.0][: convention.values]) if convention.unit == "edges" else points
