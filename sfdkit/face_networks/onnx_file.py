"""Networks in ONNX files, run by onnxruntime or turned into torch modules."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from sfdkit.errors import ConfigError


class OnnxSession:
    """An ONNX network of one input, run by onnxruntime.

    Args:
        key: Name of the setting that gave the file, for messages.
        path: The file.
        threads: For each run; torch's number by default.

    Raises:
        ConfigError: The file is damaged or takes several inputs, or onnxruntime is not installed.
    """

    def __init__(self, key: str, path: Path, threads: int | None = None) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise ConfigError(
                f"{key}: {path} needs onnxruntime; install it with pip install 'sfdkit[onnx]', or give a TorchScript "
                "file"
            ) from error
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = threads or torch.get_num_threads()
        wanted = ("CUDAExecutionProvider", "CPUExecutionProvider")
        providers = [name for name in wanted if name in onnxruntime.get_available_providers()]
        try:
            self._session = onnxruntime.InferenceSession(path, options, providers)
        except Exception as error:
            raise ConfigError(f"{key}: {path} is damaged or no ONNX file ({str(error).splitlines()[0]})") from error
        self.inputs = {entry.name: tuple(entry.shape) for entry in self._session.get_inputs()}
        """Shape of each input; a free dimension is a name or None."""
        self._half = self._session.get_inputs()[0].type == "tensor(float16)"

    def __call__(self, x: Tensor) -> list[Tensor]:
        """Return all outputs for an input of any number of rows, each with a row for each, on the CPU."""
        ((name, shape),) = self.inputs.items()
        values = (x.half() if self._half else x).detach().cpu()
        at_once = shape[0] if isinstance(shape[0], int) else None
        rows = []
        for part in values.split(at_once or len(values)):
            outputs = map(torch.from_numpy, self._session.run(None, {name: part.contiguous().numpy()}))
            # a network of one row at a time may leave its dimension out
            rows.append([y[None] if at_once == 1 and y.shape[:1] != (1,) else y for y in outputs])
        return [torch.cat(column) for column in zip(*rows, strict=True)]

    @property
    def takes(self) -> str:
        """The inputs, for a message."""
        return ", ".join(f"{name} {list(shape)}" for name, shape in self.inputs.items())


def convert_onnx(key: str, path: Path) -> tuple[nn.Module, int | None]:
    """Return an ONNX network as a torch module, and the side of its input where that is fixed.

    Raises:
        ConfigError: It cannot be converted, or onnx2torch is not installed.
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
