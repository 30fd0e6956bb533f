"""Image encoders: their base class, and timm models (https://github.com/huggingface/pytorch-image-models)."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path
from typing import Any, Literal

import timm
import torch
from jsonargparse.typing import PositiveInt
from torch import Tensor, nn

from sfdkit.errors import ConfigError, did_you_mean
from sfdkit.model.blocks import fold_pixels, resize


class Encoder(nn.Module):
    """Base class of encoders: derive from it, set the three attributes, implement ``forward``.

    Attributes:
        resolution: Height and width of its input; the animator resizes other images.
        channels: Channels of each feature map, finest map first.
        sizes: Height (and width) of each feature map at ``resolution``.
    """

    resolution: int
    channels: tuple[int, ...]
    sizes: tuple[int, ...]

    def forward(self, image: Tensor) -> list[Tensor]:
        """Map B 3 R R in [0, 1] to feature maps, each B channels[i] sizes[i] sizes[i]."""
        raise NotImplementedError


class NoWeightsError(ConfigError):
    """The weights of a timm model are not in its cache and cannot be downloaded."""


class TimmEncoder(Encoder):
    """Any timm backbone with feature maps, at any resolution that the backbone supports.

    Args:
        name: timm model name, for example ``resnet18``.
        resolution: Height and width of its input.
        pretrained: Start from timm's weights (a download at the first use). ``auto`` starts from them if they are
            available, and else from random weights with a warning.
        weights: Local weight file (safetensors or a state dict) instead of a download.
        max_stride: Layers whose feature maps have a larger stride are removed.
        output_stride: Layers that would have a larger stride keep this one and are dilated instead (8 or 16; residual
            and most other convolutional networks can): deep features of where things are. None leaves the strides.

    Raises:
        ConfigError: Unknown name, or a resolution that the backbone does not support.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        name: str,
        resolution: int = 256,
        pretrained: bool | Literal["auto"] = False,
        weights: str | None = None,
        max_stride: PositiveInt = 32,
        output_stride: Literal[8, 16] | None = None,
    ) -> None:
        super().__init__()
        if not timm.is_model(name):
            raise ConfigError(f"encoder: timm has no model named {name!r}.{did_you_mean(name, timm.list_models())}")
        if weights is not None and not Path(weights).is_file():
            raise ConfigError(f"encoder: weights file {weights} does not exist; give a file, or leave weights out")
        self.name = name
        self.resolution = resolution
        self.backbone = _create(name, resolution, pretrained if weights is None else False, max_stride, output_stride)
        if weights is not None:
            _load_local(self.backbone, name, weights)
        data = timm.data.resolve_model_data_config(self.backbone)
        self.register_buffer("mean", torch.tensor(data["mean"]).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(data["std"]).view(1, -1, 1, 1), persistent=False)
        maps = self._probe()
        self.channels = tuple(m.shape[1] for m in maps)
        self.sizes = tuple(m.shape[2] for m in maps)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Map B 3 R R in [0, 1] to feature maps, finest first."""
        return list(self.backbone((image - self.mean) / self.std))

    def _probe(self) -> list[Tensor]:
        training = self.backbone.training
        self.backbone.eval()
        weight = next(self.backbone.parameters())
        picture = torch.zeros(1, 3, self.resolution, self.resolution, device=weight.device)
        try:
            with torch.no_grad():
                maps = self.forward(picture)
        except (RuntimeError, AssertionError, ValueError) as error:
            raise ConfigError(
                f"encoder: {self.name} cannot take resolution {self.resolution}: {_first_line(error)}. "
                "Use a multiple of its patch or stride (32 suits most), or another backbone"
            ) from error
        finally:
            self.backbone.train(training)
        if any(m.ndim != 4 or m.shape[2] < 1 for m in maps):
            raise ConfigError(
                f"encoder: {self.name} gives no feature maps at resolution {self.resolution}; raise the resolution"
            )
        return maps


def _create(
    name: str, resolution: int, pretrained: bool | Literal["auto"], max_stride: int, output_stride: int | None
) -> nn.Module:
    """Build the feature extractor; transformers need ``img_size``, most convolutional networks have no such option."""
    if pretrained == "auto":
        try:
            return _create(name, resolution, True, max_stride, output_stride)
        except NoWeightsError as error:
            warnings.warn(f"{error}. The training begins with random weights in that encoder", stacklevel=2)
            return _create(name, resolution, False, max_stride, output_stride)
    arguments: dict[str, Any] = {"pretrained": pretrained, "features_only": True, "feature_cls": "getter"}
    if output_stride is not None:
        arguments["output_stride"] = output_stride
    failure: Exception | None = None
    sized: tuple[dict[str, Any], ...] = ({"img_size": resolution}, {})
    for extra in sized:
        try:
            model: Any = timm.create_model(name, **arguments, **extra)
        except TypeError as error:
            if "output_stride" in str(error):
                raise ConfigError(
                    f"encoder: {name} has no output_stride; leave it out, or take a residual network such as resnet18"
                ) from error
            if "img_size" not in str(error):
                raise
            continue
        except (RuntimeError, AssertionError, ValueError, AttributeError) as error:
            failure = error
            break
        except OSError as error:
            raise NoWeightsError(
                f"encoder: the weights of {name} cannot be had ({_first_line(error)[:120]}); "
                "go online once, give a local file as weights, or set pretrained: false"
            ) from error
        keep = [i for i, stride in enumerate(model.feature_info.reduction()) if stride <= max_stride]
        if not keep:
            raise ConfigError(f"encoder: {name} has no feature map with a stride of at most max_stride={max_stride}")
        if len(keep) == len(model.feature_info):
            return model
        indices = [model.feature_info.out_indices[i] for i in keep]
        return timm.create_model(name, **arguments, **extra, out_indices=indices)
    raise ConfigError(
        f"encoder: {name} cannot be built as a feature extractor at resolution {resolution}: {_first_line(failure)}"
    ) from failure


def _load_local(backbone: nn.Module, name: str, weights: str) -> None:
    """Load a whole timm model's state dict into the part of it that the feature extractor keeps."""
    try:
        stored = timm.models.load_state_dict(weights, weights_only=True)
    except (RuntimeError, OSError, ValueError, KeyError, EOFError, pickle.UnpicklingError) as error:
        raise ConfigError(f"encoder: weights file {weights} cannot be read: {_first_line(error)}") from error
    model = backbone.get_submodule("model")
    wanted = model.state_dict()
    fitting = {k: v for k, v in stored.items() if k in wanted and v.shape == wanted[k].shape}
    missing = [k for k in wanted if k not in fitting]
    if missing:
        raise ConfigError(
            f"encoder: weights file {weights} does not fit {name}: {len(missing)} of {len(wanted)} tensors are missing "
            f"or of another shape, the first is {missing[0]}; give a state dict of timm's {name}"
        )
    model.load_state_dict(fitting)


def _first_line(error: BaseException | None) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


class PooledTimm(nn.Module):
    """A frozen timm model without its classifier, for images of any size.

    Args:
        name: Of the model.
        pretrained: Load its weights, from timm's cache or download.

    Raises:
        ConfigError: timm has no such model, or its weights cannot be had.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, name: str, pretrained: bool = True) -> None:
        super().__init__()
        if not timm.is_model(name):
            raise ConfigError(f"features: timm has no model named {name!r}.{did_you_mean(name, timm.list_models())}")
        try:
            self.network = timm.create_model(name, pretrained=pretrained, num_classes=0).eval().requires_grad_(False)
        except (OSError, RuntimeError) as error:
            raise ConfigError(
                f"features: the weights of {name} cannot be had ({_first_line(error)}); go online once, or give a file"
            ) from error
        data = timm.data.resolve_model_data_config(self.network)
        self.size: int = data["input_size"][1]
        self.register_buffer("mean", torch.tensor(data["mean"]).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(data["std"]).view(1, -1, 1, 1), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """Map B 3 H W in [0, 1] to features B Z."""
        return self.network((resize(image, self.size) - self.mean) / self.std).flatten(1)


class FeatureAdapter(nn.Module):
    """Adapts an encoder's maps to the sizes and channels of a generator.

    For each wanted map it takes the coarsest encoder map that is at least as fine (or else the finest), resizes it and
    applies a 1x1 convolution. Most backbones begin with a stride of 4 and lose single pixels: the finest wanted map
    also gets the image itself, at twice its size.

    Args:
        encoder_sizes: Sizes of the encoder's maps.
        encoder_channels: Channels of the encoder's maps.
        sizes: Sizes wanted.
        channels: Channels wanted.
    """

    def __init__(
        self,
        encoder_sizes: tuple[int, ...],
        encoder_channels: tuple[int, ...],
        sizes: tuple[int, ...],
        channels: tuple[int, ...],
    ) -> None:
        super().__init__()
        self.sizes = sizes
        self.levels = []
        for size in sizes:
            fine = [i for i, have in enumerate(encoder_sizes) if have >= size]
            chosen = min(fine, key=lambda i: encoder_sizes[i]) if fine else int(encoder_sizes.index(max(encoder_sizes)))
            self.levels.append(chosen)
        self.mix = nn.ModuleList(
            nn.Conv2d(encoder_channels[level], out, 1) for level, out in zip(self.levels, channels, strict=True)
        )
        self.picture = nn.Conv2d(4 * 3, channels[-1], 3, padding=1)

    def forward(self, features: list[Tensor], image: Tensor) -> list[Tensor]:
        """Make the wanted maps.

        Args:
            features: The encoder's maps of ``image``.
            image: B 3 H W in [0, 1].

        Returns:
            A list of B channels[i] sizes[i] sizes[i].
        """
        mixed = [conv(features[level]) for conv, level in zip(self.mix, self.levels, strict=True)]
        maps = [resize(m.float(), size) for m, size in zip(mixed, self.sizes, strict=True)]
        return [*maps[:-1], maps[-1] + self.picture(fold_pixels(resize(image, 2 * self.sizes[-1]))).float()]
