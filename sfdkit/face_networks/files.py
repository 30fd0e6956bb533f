"""Networks of other makers as local files, ONNX or TorchScript, and what is known of how they want their pictures.

Legend: ``F`` pictures, ``S`` side of a network's input in pixels, ``H W`` of the pictures given.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, Self

import torch
import yaml
from torch import Tensor, nn

from sfdkit.errors import ConfigError, did_you_mean
from sfdkit.model.blocks import resize

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_BATCH = 64


@dataclass(frozen=True)
class Convention:
    """How a network wants its pictures and what its numbers mean; a YAML file beside the network may say otherwise.

    The YAML has the network's name with ``.yaml`` behind it (``arcface.onnx.yaml``) and holds any of these names.

    Args:
        size: S; the pictures are resized to it. An ONNX file with fixed input says it itself.
        mean: Of red, green and blue on [0, 1]: subtracted.
        std: Of red, green and blue on [0, 1]: divided by afterwards.
        channels: Order in which the network wants them.
        crop: Left, top, right and bottom of what the network sees, as shares of the picture.
        result: Number of the output that is meant, of a network with several.
        unit: Of landmarks: ``share`` (0 to 1 across the input) or ``pixels`` (of the input, whole numbers at the middle
            of pixels). Of a head pose: ``degrees``, ``radians``, or ``matrix`` (3 x 3 rotation).
        order: Of the angles of a head pose.
        signs: Factors on yaw, pitch and roll, to make a network's angles mean what others' do.
    """

    size: int
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    channels: Literal["rgb", "bgr"] = "rgb"
    crop: tuple[float, ...] = (0.0, 0.0, 1.0, 1.0)
    result: int = 0
    unit: str = ""
    order: tuple[str, ...] = ("yaw", "pitch", "roll")
    signs: tuple[float, ...] = (1.0, 1.0, 1.0)

    def read_beside(self, path: Path) -> Self:
        """Return the convention with what the YAML beside a network changes.

        Raises:
            ConfigError: The YAML holds something that this is not.
        """
        beside = path.with_name(path.name + ".yaml")
        if not beside.is_file():
            return self
        try:
            changes = yaml.safe_load(beside.read_text(encoding="utf-8")) or {}
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise ConfigError(f"{beside} cannot be read: {error}; mend it or remove it") from error
        known = [field.name for field in fields(self)]
        if not isinstance(changes, dict):
            raise ConfigError(f"{beside} must hold names and values; the names are {', '.join(known)}")
        for name, value in changes.items():
            if name not in known:
                raise ConfigError(
                    f"{beside}: there is no {name!r}.{did_you_mean(str(name), known)} The names are {', '.join(known)}"
                )
            changes[name] = tuple(value) if isinstance(value, list) else value
        changed = replace(self, **changes)
        reason = changed._wrong(self)
        if reason is not None:
            raise ConfigError(f"{beside}: {reason}")
        return changed

    def _wrong(self, before: Self) -> str | None:
        """Return what is wrong with values that a person wrote, or None."""

        def numbers(name: str, count: int) -> bool:
            value = getattr(self, name)
            good = isinstance(value, tuple) and len(value) == count
            return good and all(isinstance(v, int | float) and not isinstance(v, bool) for v in value)

        for name in ("mean", "std", "signs", "crop"):
            count = len(getattr(before, name))
            if not numbers(name, count):
                return f"{name}={getattr(self, name)!r}: give a list of {count} numbers"
        if not isinstance(self.size, int) or self.size < 1:
            return f"size={self.size!r}: give a number of pixels"
        if not isinstance(self.result, int) or self.result < 0:
            return f"result={self.result!r}: give the number of an output, 0 for the first"
        if not all(self.std):
            return f"std={self.std}: 0 cannot be divided by"
        if self.channels not in ("rgb", "bgr"):
            return f"channels={self.channels!r}: give rgb or bgr"
        left, top, right, bottom = self.crop
        if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
            return f"crop={self.crop}: give left, top, right and bottom as shares of the picture"
        if not isinstance(self.order, tuple) or sorted(map(str, self.order)) != ["pitch", "roll", "yaw"]:
            return f"order={self.order!r}: give yaw, pitch and roll in the network's order"
        units = next((group for group in _UNITS if before.unit in group), ("",))
        if self.unit not in units:
            return f"unit={self.unit!r}: give {' or '.join(units)}" if units[0] else "unit: an embedding has none"
        return None

    def window(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Return left, top, right and bottom of what the network sees of H W pixels."""
        left, top, right, bottom = self.crop
        return (round(left * width), round(top * height), round(right * width), round(bottom * height))

    def prepare(self, images: Tensor) -> Tensor:
        """Turn pictures F 3 H W in [0, 1] into the network's input F 3 S S; with gradients."""
        left, top, right, bottom = self.window(*images.shape[2:])
        x = resize(images[:, :, top:bottom, left:right].float(), self.size)
        mean, std = (x.new_tensor(values).view(1, 3, 1, 1) for values in (self.mean, self.std))
        x = (x - mean) / std
        return x.flip(1) if self.channels == "bgr" else x


_UNITS = (("share", "pixels"), ("degrees", "radians", "matrix"))

ARCFACE = Convention(112, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
"""Of ArcFace networks: 112 x 112, RGB, (255 x - 127.5) / 127.5 (https://arxiv.org/abs/1801.07698,
https://github.com/deepinsight/insightface). They were trained on faces aligned by five points; the pictures here are
resized whole, so that figures compare with each other, not with those of aligned faces."""
LANDMARK_NET = Convention(112, unit="share")
"""Of landmark networks such as PFLD: 112 x 112, RGB on [0, 1], and x, y of each point as shares of the input
(https://arxiv.org/abs/1902.10859)."""
HEAD_POSE_NET = Convention(224, *IMAGENET, unit="degrees")
"""Of head pose networks such as Hopenet and 6DRepNet: 224 x 224, RGB, ImageNet's mean and deviation
(https://arxiv.org/abs/1710.00925, https://arxiv.org/abs/2202.12555; the latter gives a ``matrix``)."""


class NetworkFile:
    """A network in a local file, ready to run without gradients.

    Args:
        key: Name of the setting that named the file, for messages.
        path: A .onnx file, which runs in onnxruntime, or a .pt file of TorchScript.
        convention: Of networks of its kind; the file itself and the YAML beside it go before.

    Raises:
        ConfigError: The file is missing, damaged, of another kind, or onnxruntime is not installed.
    """

    def __init__(self, key: str, path: str | Path, convention: Convention) -> None:
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
                shape = tuple(part.shape) if isinstance(part, Tensor) else type(part).__name__
                raise ConfigError(
                    f"{self.key}: {self.path} gave {shape} for {len(chunk)} pictures, where a row for each is needed; "
                    f"set result in {self.path.name}.yaml beside it to the output that is meant"
                )
            parts.append(part.float())
        return torch.cat(parts).to(images.device)


def require_file(key: str, path: Path, suffixes: Sequence[str]) -> None:
    """Refuse a file that is not there or cannot be what is wanted.

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
