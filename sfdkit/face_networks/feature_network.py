"""Feature networks of a perceptual loss: VGG-19's first nine convolutions, of any width, and their files.

Legend: ``B`` pictures, ``H W`` pixels, ``C h w`` a feature map.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sfdkit.errors import ConfigError, DataError, did_you_mean
from sfdkit.model.blocks import full_precision
from sfdkit.tensor_file import SUFFIX, read_all, write_tensors

BLOCKS = (("11", "12"), ("21", "22"), ("31", "32", "33", "34"), ("41",))
"""VGG-19's names of the convolutions between two pools, up to relu4_1."""
LAYERS = tuple(name for block in BLOCKS for name in block)
SMALLEST = 16
"""Least height and width of a picture, in pixels: reflection needs two values at the last depth."""
SHIPPED = {"puppets": Path(__file__).with_name("perceptual_puppets.safetensors")}
"""Name to file of the networks that come with sfdkit."""

_KEY = "networks: perceptual"


class FeatureNetwork(nn.Module):
    """3 x 3 convolutions with ReLU, in four blocks with pools between them, frozen.

    The layout is that of VGG-19 (https://arxiv.org/abs/1409.1556) from the picture to relu4_1; the borders are
    reflected.

    Args:
        tensors: ``conv0.weight`` (3 3 k k, k odd) and ``conv0.bias``, which prepare the picture, and the same of
            ``conv11`` to ``conv41`` (C C' 3 3); others are left out. Any floating type, computed in float32.
        pool: ``max`` takes the maximum of 2 x 2 places as VGG does; ``blur`` averages (see :func:`blur_pool`), so that
            fine patterns are not aliased and gradients reach every place.

    Raises:
        ConfigError: A tensor is missing or of another shape, or ``pool`` is unknown.
    """

    def __init__(self, tensors: Mapping[str, Tensor], pool: str = "max") -> None:
        super().__init__()
        if pool not in ("max", "blur"):
            raise ConfigError(f"{_KEY}: pool is {pool!r}; use max or blur")
        self.pool = pool
        self.layers = nn.ModuleDict()
        inputs = 3
        for name in ("0", *LAYERS):
            inputs = self._add(name, inputs, tensors)
        self.eval().requires_grad_(False).to(memory_format=torch.channels_last)

    def _add(self, name: str, inputs: int, tensors: Mapping[str, Tensor]) -> int:
        """Add a convolution and return the number of its outputs."""
        weight, bias = (tensors.get(f"conv{name}.{part}") for part in ("weight", "bias"))
        if weight is None or bias is None:
            raise ConfigError(f"{_KEY}: conv{name}.weight or conv{name}.bias is missing")
        outputs, side = len(bias.flatten()), 3
        if name == "0":
            side = next((k for k in (1, 3, 5, 7) if tuple(weight.shape[2:]) == (k, k)), 1)
        if tuple(weight.shape) != (outputs, inputs, side, side):
            wanted = f"{outputs} x {inputs} x {side} x {side}"
            raise ConfigError(
                f"{_KEY}: conv{name}.weight is {' x '.join(map(str, weight.shape))}, not {wanted}, as its bias and the "
                "layer before it ask for"
            )
        layer = nn.Conv2d(inputs, outputs, side)
        layer.load_state_dict({"weight": weight.float(), "bias": bias.flatten().float()})
        self.layers[name] = layer
        return outputs

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return relu1_1, relu2_1, relu3_1 and relu4_1, B C h w each, of pictures B 3 H W in [0, 1].

        Raises:
            ConfigError: The pictures are smaller than :data:`SMALLEST`.
        """
        if min(images.shape[2:]) < SMALLEST:
            raise ConfigError(
                f"weights: perceptual sees pictures of {SMALLEST} pixels or more, got {tuple(images.shape[2:])}; "
                "set its weight to 0"
            )
        x, found = _convolve(self.layers["0"], images.contiguous(memory_format=torch.channels_last)), []
        for depth, block in enumerate(BLOCKS):
            x = self._shrink(x) if depth else x
            for name in block:
                x = F.relu(_convolve(self.layers[name], x))
                found += [x] if name == block[0] else []
        return found

    def _shrink(self, x: Tensor) -> Tensor:
        return F.max_pool2d(x, 2) if self.pool == "max" else blur_pool(x)


def _convolve(layer: nn.Module, x: Tensor) -> Tensor:
    assert isinstance(layer, nn.Conv2d)
    reach = layer.kernel_size[0] // 2
    return layer(F.pad(x, (reach, reach, reach, reach), mode="reflect") if reach else x)


def blur_pool(x: Tensor) -> Tensor:
    """Halve B C H W under a binomial filter of 4 x 4, borders reflected (https://arxiv.org/abs/1904.11486)."""
    with full_precision(x):  # a CPU is slow at it in half precision
        place = torch.arange(4, device=x.device)
        line = (1 + 2 * ((place > 0) & (place < 3))) / 8  # 1 3 3 1, made on the device: nothing waits for it
        filters = (line[:, None] * line).to(torch.float64 if x.dtype == torch.float64 else torch.float32)
        padded = F.pad(x.to(filters.dtype), (1, 1, 1, 1), mode="reflect")
        return F.conv2d(padded, filters.expand(x.shape[1], 1, -1, -1), stride=2, groups=x.shape[1])


def save_features(path: Path, tensors: Mapping[str, Tensor], pool: str, about: Mapping[str, str]) -> None:
    """Write a feature network with weights of 16 bits; the file appears whole or not at all.

    Args:
        path: A .safetensors file; its folder exists.
        tensors: As :class:`FeatureNetwork` takes them.
        pool: As :class:`FeatureNetwork` takes it.
        about: How it was made, for the header.

    Raises:
        DataError: The file cannot be written.
    """
    write_tensors(path, {name: tensor.half() for name, tensor in tensors.items()}, {**about, "pool": pool})


def load_features(network: str) -> FeatureNetwork:
    """Load a feature network.

    Args:
        network: A name of :data:`SHIPPED`, or the path of a .npz or .safetensors file that holds the tensors of
            :class:`FeatureNetwork`; a header of the latter may say ``pool``.

    Raises:
        ConfigError: There is no such name or file, or it is damaged or of another network.
    """
    path = SHIPPED.get(network, Path(network))
    if not path.is_file():
        names = (*SHIPPED, "vgg19")
        raise ConfigError(
            f"{_KEY}: {network} is neither a file nor a name.{did_you_mean(network, names)} The names are "
            f"{', '.join(names)}"
        )
    return _from_file(path)


def _from_file(path: Path) -> FeatureNetwork:
    suffix = path.suffix.lower()
    try:
        if suffix == SUFFIX:
            tensors, about = read_all(path)
        elif suffix == ".npz":
            tensors, about = _read_npz(path), {}
        else:
            raise ConfigError(f"{_KEY}: the suffix {path.suffix!r} is unknown; use .npz or {SUFFIX}")
        return FeatureNetwork(tensors, about.get("pool", "max"))
    except (ConfigError, DataError) as error:
        reason = str(error).removeprefix(f"{_KEY}: ")
        raise ConfigError(
            f"{_KEY}: {path} is not a feature network ({reason}); give the names {', '.join(SHIPPED)} or vgg19, or a "
            "file with the convolutions conv0 and conv11 to conv41 of a narrow VGG-19"
        ) from error


def _read_npz(path: Path) -> dict[str, Tensor]:
    names = [f"conv{layer}.{part}" for layer in ("0", *LAYERS) for part in ("weight", "bias")]
    try:
        with np.load(path, allow_pickle=False) as stored:
            return {name: torch.from_numpy(stored[name]) for name in names if name in stored.files}
    except (OSError, ValueError, TypeError, AttributeError, BadZipFile) as error:
        raise DataError(f"it is damaged or no .npz file: {str(error).splitlines()[0]}") from error
