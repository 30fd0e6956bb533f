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

from sfdkit.errors import ConfigError
from sfdkit.face_networks.conventions import Convention

_BATCH = 64
C = TypeVar("C", bound=Convention)


class NetworkFile(Generic[C]):
    """A network in a local file, ready to run without gradients.

    Args:
        key: Name of the setting that gave the file, for messages.
        path: A .onnx file, which runs in onnxruntime, or a .pt file of TorchScript.
        convention: The usual one for networks of its kind; the file itself and the YAML beside it go before it.

    Raises:
        ConfigError: The file is missing, damaged, of another kind, or onnxruntime is not installed.
    """

    def __init__(self, key: str, path: str | Path, convention: C) -> None:
        self.key, self.path = key, Path(path)
        require_file(key, self.path, (".onnx", ".pt", ".pth", ".ts"))
        run, found = (_open_onnx if self.path.suffix == ".onnx" else _open_script)(key, self.path)
        self._run: Callable[[Tensor, int], Tensor] = run
        self.convention = convention.read_beside(self.path)
        if found is not None:
            self.convention = replace(self.convention, size=found)

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Run the network.

        Args:
            images: F 3 H W in [0, 1].

        Returns:
            The output that the convention names, F first, on the device of the pictures.

        Raises:
            ConfigError: The network cannot take them, or its output is not one row for each picture.
        """
        parts = []
        for chunk in images.split(_BATCH):
            try:
                part = self._run(self.convention.prepare(chunk), self.convention.result)
            except Exception as error:
                raise ConfigError(
                    f"{self.key}: {self.path} failed on pictures of {self.convention.size} pixels "
                    f"({str(error).strip().splitlines()[-1]}); set size, or result, in {self.path.name}.yaml beside it"
                ) from error
            if not isinstance(part, Tensor) or part.dim() < 2 or len(part) != len(chunk):
                raise wrong_output(self.key, self.path, part, f"a row for each of {len(chunk)} pictures")
            parts.append(part.float())
        return torch.cat(parts).to(images.device)


def wrong_output(key: str, path: Path, value: Any, wanted: str) -> ConfigError:
    """Return the error for a network whose output is not ``wanted``."""
    shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
    return ConfigError(
        f"{key}: {path} gave {shape}, where {wanted}, is needed; is it a network of this kind? {path.name}.yaml beside "
        "it can name another of its outputs (result) or another unit"
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


def load_script(key: str, path: Path) -> nn.Module:
    """Load a TorchScript file in eval mode, without gradients of its own.

    Raises:
        ConfigError: The file is damaged or no TorchScript.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", (DeprecationWarning, FutureWarning))  # it names no way to read such a file
            module = torch.jit.load(path, map_location="cpu")
    except (RuntimeError, ValueError) as error:
        raise ConfigError(
            f"{key}: {path} is damaged or no TorchScript file; write it with torch.jit.trace(network.eval(), "
            "example).save(path): a state dict alone is no network"
        ) from error
    for parameter in module.parameters():
        parameter.requires_grad = False
    return module.eval()


def _open_script(key: str, path: Path) -> tuple[Callable[[Tensor, int], Tensor], None]:
    module = load_script(key, path)

    def run(x: Tensor, result: int) -> Tensor:
        return _pick(module.to(x.device)(x), result)

    return run, None


def _open_onnx(key: str, path: Path) -> tuple[Callable[[Tensor, int], Tensor], int | None]:
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

    def run(x: Tensor, result: int) -> Tensor:
        values = (x.half() if half else x).cpu()
        rows = []
        for part in values.split(at_once or len(values)):
            outputs = session.run(None, {entry.name: part.contiguous().numpy()})
            rows.append(_pick([torch.from_numpy(output) for output in outputs], result))
        return torch.cat(rows)

    return run, shape[2] if isinstance(shape[2], int) else None


def convert_onnx(key: str, path: Path) -> tuple[nn.Module, int | None]:
    """Turn an ONNX file into a torch module, through which gradients go.

    Args:
        key: Name of the setting that named the file.
        path: The file.

    Returns:
        The module, in eval mode and without gradients of its own, and the side of its input where that is fixed.

    Raises:
        ConfigError: The converter is not installed, or cannot convert the network.
    """
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
