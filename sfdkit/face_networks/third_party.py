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
from sfdkit.face_networks.conventions import Convention

NETWORK_SUFFIXES = (".onnx", ".pt", ".pth", ".ts")
_BATCH = 64
C = TypeVar("C", bound=Convention)


class NetworkFile(nn.Module, Generic[C]):
    """A third-party network in a local file, in eval mode.

    Args:
        key: Name of the setting that gave the file, for messages.
        path: A .onnx file, which runs in onnxruntime, or a .pt file of TorchScript.
        convention: The usual one for networks of its kind; the file itself and the YAML beside it go before it.
        differentiable: Give gradients to the pictures; an ONNX file is converted by onnx2torch for that.

    Raises:
        ConfigError: The file is missing, damaged, of another kind, or a package that it needs is not installed.
    """

    def __init__(self, key: str, path: str | Path, convention: C, differentiable: bool = False) -> None:
        super().__init__()
        self.key, self.path = key, Path(path)
        require_file(key, self.path, NETWORK_SUFFIXES)
        self.network: Callable[[Tensor], Any]
        if self.path.suffix == ".onnx":
            self.network, size = (_convert_onnx if differentiable else _open_onnx)(key, self.path)
        else:
            self.network, size = _load_script(key, self.path), None
        convention = convention.read_beside(self.path)
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
        if isinstance(self.network, nn.Module):
            self.network.to(images.device)
        parts = []
        for chunk in images.split(_BATCH):
            try:
                part = _pick(self.network(self.convention.prepare(chunk)), self.convention.result)
            except Exception as error:
                raise ConfigError(
                    f"{self.key}: {self.path} failed on pictures of {self.convention.size} pixels "
                    f"({str(error).strip().splitlines()[-1]}); set size, or result, in {self.path.name}.yaml beside it"
                ) from error
            if not isinstance(part, Tensor) or part.dim() < 2 or len(part) != len(chunk):
                raise self.wrong_output(part, f"a row for each of {len(chunk)} pictures")
            parts.append(part.float())
        return torch.cat(parts).to(images.device)

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


def _open_onnx(key: str, path: Path) -> tuple[Callable[[Tensor], list[Tensor]], int | None]:
    """Return what runs the network, and the side of its input where that is fixed."""
    try:
        import onnxruntime
    except ImportError as error:
        raise ConfigError(
            f"{key}: {path} needs onnxruntime; install it with pip install 'sfdkit[onnx]', or give a TorchScript file"
        ) from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    wanted = ("CUDAExecutionProvider", "CPUExecutionProvider")
    providers = [name for name in wanted if name in onnxruntime.get_available_providers()]
    try:
        session = onnxruntime.InferenceSession(path, options, providers)
    except Exception as error:
        raise ConfigError(f"{key}: {path} is damaged or no ONNX file ({str(error).splitlines()[0]})") from error
    entry, *more = session.get_inputs()
    shape = list(entry.shape)
    if more or len(shape) != 4 or (isinstance(shape[1], int) and shape[1] != 3):
        given = ", ".join(f"{x.name} {x.shape}" for x in (entry, *more))
        raise ConfigError(f"{key}: {path} takes {given}; give a network of one input, pictures F 3 S S")
    half = entry.type == "tensor(float16)"
    at_once = shape[0] if isinstance(shape[0], int) else None

    def run(x: Tensor) -> list[Tensor]:
        values = (x.half() if half else x).detach().cpu()
        parts = values.split(at_once or len(values))
        rows = [session.run(None, {entry.name: part.contiguous().numpy()}) for part in parts]
        return [torch.cat([torch.from_numpy(part) for part in column]) for column in zip(*rows, strict=True)]

    return run, shape[2] if isinstance(shape[2], int) else None


def _convert_onnx(key: str, path: Path) -> tuple[nn.Module, int | None]:
    """Return the network as a torch module, and the side of its input where that is fixed."""
    remedy = "give it as TorchScript: torch.jit.trace(network.eval(), example).save('network.pt')"
    try:
        import onnx
        import onnx2torch
    except ImportError as error:
        raise ConfigError(
            f"{key}: gradients through {path} need onnx2torch; install it with pip install 'sfdkit[onnx]', or {remedy}"
        ) from error
    try:
        model = onnx.load(path)
        sides = model.graph.input[0].type.tensor_type.shape.dim
        module = onnx2torch.convert(model)
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ConfigError(f"{key}: {path} cannot be turned into a torch network ({reason}); {remedy}") from error
    size = sides[2].dim_value if len(sides) == 4 else 0
    return module.eval().requires_grad_(False), size or None
