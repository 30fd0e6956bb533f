"""Building blocks of the networks: warping, modulated convolution, soft points.

Legend: ``B`` batch, ``C H W`` feature map, ``S`` style dimensions, ``P`` points.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from functools import partial, wraps
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from sfdkit.errors import ConfigError

RESOLUTIONS = (32, 64, 128, 256, 512, 1024)
"""Of the pictures that generators draw."""


def full_precision(tensor: Tensor) -> AbstractContextManager[object]:
    """Return a context without autocast on the tensor's device; the meta device knows no autocast."""
    return nullcontext() if tensor.is_meta else torch.autocast(tensor.device.type, enabled=False)


Result = TypeVar("Result")


def in_float32(function: Callable[..., Result]) -> Callable[..., Result]:
    """Decorator for functions that compute in float32 under any autocast: losses, metrics.

    Autocast would run convolutions and matrix products in bfloat16. The structural similarity of two equal flat
    pictures is then off by up to 2, as the variances in it are small differences of large numbers.

    Returns:
        The function, called without autocast and with floating tensors in float32.
    """

    @wraps(function)
    def run(*arguments: Any, **options: Any) -> Result:
        tensor = next((value for value in (*arguments, *options.values()) if isinstance(value, Tensor)), None)
        with nullcontext() if tensor is None else full_precision(tensor):
            return function(*map(_float, arguments), **{name: _float(value) for name, value in options.items()})

    return run


def _float(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) and value.is_floating_point() else value


def identity_grid(height: int, width: int, like: Tensor) -> Tensor:
    """Return the identity warp's sampling grid, 1 2 H W: x, y of pixel centres in [-1, 1], ``align_corners=False``."""
    y = (torch.arange(height, device=like.device, dtype=torch.float32) * 2 + 1) / height - 1
    x = (torch.arange(width, device=like.device, dtype=torch.float32) * 2 + 1) / width - 1
    return torch.stack([x.expand(height, width), y[:, None].expand(height, width)])[None]


LEAST_GATHERED = 8
"""Channels from which looking up rows is faster than GridSample."""
_FOR_CPU = ContextVar("for_cpu", default=False)


@contextmanager
def for_cpu(on: bool = True) -> Iterator[None]:
    """Trace what is exported inside so that ONNX Runtime computes it fast on a CPU.

    Its GridSample goes pixel by pixel and channel by channel, and its Softmax over channels transposes.
    """
    token = _FOR_CPU.set(on)
    try:
        yield
    finally:
        _FOR_CPU.reset(token)


def shares(logits: Tensor) -> Tensor:
    """Return the softmax of B P H W over P."""
    if not _FOR_CPU.get():
        return logits.softmax(1)
    raised = (logits - logits.amax(1, keepdim=True)).exp()
    return raised / raised.sum(1, keepdim=True)


def warp(image: Tensor, flow: Tensor) -> Tensor:
    """Sample ``image`` at the identity grid plus ``flow``; outside, the border is repeated. Zero flow changes nothing.

    Args:
        image: B C H W.
        flow: B 2 H W, offsets (x, y) in units of half the image (-1..1 is the whole width).

    Returns:
        B C H W in the type of ``image``.
    """
    with full_precision(image):
        grid = identity_grid(flow.shape[2], flow.shape[3], flow) + flow.float()
        if torch.is_grad_enabled():  # on a CPU its backward pass reads out of bounds where a coordinate is no number
            grid = grid.nan_to_num()
        if _FOR_CPU.get() and image.shape[1] >= LEAST_GATHERED:
            sampled = _gather(image.float(), grid)
        else:
            sampled = F.grid_sample(
                image.float(), grid.permute(0, 2, 3, 1), mode="bilinear", padding_mode="border", align_corners=False
            )
    return sampled.to(image.dtype, memory_format=torch.channels_last)  # as networks have it: a copy less in each cat


def _gather(image: Tensor, grid: Tensor) -> Tensor:
    """Sample B C H W at B 2 h w as ``grid_sample`` does there, by rows of C numbers that are looked up."""
    batch, channels, height, width = image.shape
    rows = image.permute(0, 2, 3, 1).reshape(-1, channels)
    x = ((grid[:, 0] + 1) * (width / 2) - 0.5).clamp(0, width - 1)
    y = ((grid[:, 1] + 1) * (height / 2) - 0.5).clamp(0, height - 1)
    left, top = x.floor(), y.floor()
    start = torch.arange(batch, device=image.device)[:, None, None] * (height * width)
    x0, y0 = left.long(), top.long()
    x1, y1 = (x0 + 1).clamp(max=width - 1), start + (y0 + 1).clamp(max=height - 1) * width
    y0 = start + y0 * width
    across, down = (x - left).reshape(-1, 1), (y - top).reshape(-1, 1)
    a, b, c, d = (rows.index_select(0, place.reshape(-1)) for place in (y0 + x0, y0 + x1, y1 + x0, y1 + x1))
    upper, lower = a + across * (b - a), c + across * (d - c)
    return (upper + down * (lower - upper)).view(batch, *grid.shape[2:], channels).permute(0, 3, 1, 2)


def resize(image: Tensor, height: int, width: int | None = None) -> Tensor:
    """Resize B C H W bilinearly, with antialiasing where it shrinks; an image of that size is returned as it is."""
    size = (height, height if width is None else width)
    if tuple(image.shape[2:]) == size:
        return image
    shrinks = size[0] < image.shape[2]
    return F.interpolate(image, size=size, mode="bilinear", align_corners=False, antialias=shrinks)


def level_sizes(resolution: int, first: int, last: int) -> list[int]:
    """Return the sizes of a generator's levels for pictures of ``resolution``, doubling from ``first`` to ``last``.

    Raises:
        ConfigError: A resolution that is no power of two from 32 to 1024.
    """
    if resolution not in RESOLUTIONS:
        wanted = ", ".join(map(str, RESOLUTIONS[:-1]))
        raise ConfigError(f"generator: resolution must be {wanted} or {RESOLUTIONS[-1]}, got {resolution}")
    sizes = [first]
    while sizes[-1] < last:
        sizes.append(2 * sizes[-1])
    return sizes


def call(part: Callable[..., Any], *arguments: Any, checkpointing: bool) -> Any:
    """Call a part; with ``checkpointing`` its maps are not kept, and computed once more in the backward pass.

    Batch normalisation then takes the batch into its running statistics once, not twice.
    """
    if checkpointing and torch.is_grad_enabled():
        contexts = partial(_contexts, part)
        return checkpoint(part, *arguments, use_reentrant=False, preserve_rng_state=False, context_fn=contexts)
    return part(*arguments)


def _contexts(part: Callable[..., Any]) -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
    return nullcontext(), _still_statistics(part)


@contextmanager
def _still_statistics(part: Callable[..., Any]) -> Iterator[None]:
    """Normalise by the batch without following it."""
    every = part.modules() if isinstance(part, nn.Module) else ()
    norms = [norm for norm in every if isinstance(norm, nn.BatchNorm2d)]
    before = [(norm.momentum, norm.num_batches_tracked.clone()) for norm in norms]  # type: ignore[union-attr]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, before, strict=True):
            norm.momentum = momentum
            norm.num_batches_tracked.copy_(count)  # type: ignore[union-attr]


def fold_pixels(image: Tensor) -> Tensor:
    """Return pictures B 3 H W in [0, 1] at half their size, B 12 H/2 W/2 in [-1, 1]: 2 x 2 pixels side by side."""
    return F.pixel_unshuffle(image, 2) * 2 - 1


class ModulatedConv(nn.Module):
    """Convolution whose input channels are scaled by a style and whose output is normalised (StyleGAN2 demodulation).

    The activations are scaled rather than the weights: the two forms are equal, and this one exports with a dynamic
    batch. https://arxiv.org/abs/1912.04958

    Args:
        inputs: Input channels.
        outputs: Output channels.
        style_size: ``S``.
        kernel: Kernel size, odd.
        doubles: Repeat each pixel 2 x 2 before the convolution.
    """

    def __init__(self, inputs: int, outputs: int, style_size: int, kernel: int = 3, doubles: bool = False) -> None:
        super().__init__()
        self.doubles = doubles
        self.conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.style = nn.Linear(style_size, inputs)
        nn.init.normal_(self.style.weight, std=style_size**-0.5)
        nn.init.ones_(self.style.bias)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """Convolve ``x`` (B inputs H W) under ``style`` (B S); returns B outputs H W, or 2H 2W where it doubles."""
        scale = self.style(style)
        energy = self.conv.weight.float().square().sum((2, 3))
        demod = torch.rsqrt(scale.float().square() @ energy.T + 1e-6).to(x.dtype)
        x = x * scale.to(x.dtype)[:, :, None, None]  # before doubling, as there are a quarter of the pixels
        out = self.conv(F.interpolate(x, scale_factor=2, mode="nearest") if self.doubles else x)
        return out * demod[:, :, None, None] + self.bias.to(x.dtype)[:, None, None]


class ModulatedBlock(nn.Module):
    """Two modulated convolutions with a residual path.

    Args:
        channels: Input and output channels.
        style_size: ``S``.
    """

    def __init__(self, channels: int, style_size: int) -> None:
        super().__init__()
        self.first = ModulatedConv(channels, channels, style_size)
        self.second = ModulatedConv(channels, channels, style_size)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """Map B C H W to B C H W under ``style`` (B S)."""
        y = F.leaky_relu(self.first(x, style), 0.2)
        return (x + F.leaky_relu(self.second(y, style), 0.2)) * 0.7071


def sum_of_scales(layers: nn.ModuleList, features: Sequence[Tensor], size: int) -> Tensor:
    """Apply one layer to each map, in float32, and return the sum of what they give, brought to one size."""
    scales = [resize(layer(x.float()), size) for layer, x in zip(layers, features, strict=True)]
    return torch.stack(scales).sum(0)


class SoftPoints(nn.Module):
    """Expected coordinates of ``P`` learned heat maps: a translation-equivariant summary of where things are.

    Each heat map is a sum over feature maps of all scales: fine maps locate a point, coarse maps recognise it.

    Args:
        channels: Channels of the feature maps.
        points: ``P``.
        size: Height and width of the heat maps; the feature maps are brought to it.
    """

    def __init__(self, channels: Sequence[int], points: int, size: int) -> None:
        super().__init__()
        self.size = size
        self.heat = nn.ModuleList(nn.Conv2d(inputs, points, 1) for inputs in channels)
        for layer, inputs in zip(self.heat, channels, strict=True):
            # peaked from the start: the expectation of a flat map is its centre
            nn.init.normal_(layer.weight, std=3 / len(channels) * inputs**-0.5)  # type: ignore[arg-type]

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Map feature maps, each B channels[i] H W, to B P 2: x and y of each point in [-1, 1]."""
        with full_precision(features[0]):
            return self.places(self.heat_maps(features))

    def heat_maps(self, features: Sequence[Tensor]) -> Tensor:
        """Return the heat maps, B P size size, each with the sum 1."""
        return sum_of_scales(self.heat, features, self.size).flatten(2).softmax(-1).unflatten(2, (self.size, self.size))

    def places(self, heat: Tensor) -> Tensor:
        """Return the expected coordinates of heat maps, B P 2."""
        grid = identity_grid(self.size, self.size, heat).flatten(2)
        return torch.einsum("bpk,ck->bpc", heat.flatten(2), grid[0])


class RunningNorm(nn.Module):
    """Subtracts the running mean of each feature and divides by its running standard deviation.

    As batch normalisation in eval mode, but in training too, so that a row does not depend on the rest of its batch and
    a batch may have one row. Features that all faces share are much larger than the differences between faces. With
    layer normalisation, which keeps them, heads learned real faces more slowly and could saturate.

    Args:
        features: ``C``, number of features.
        share: Weight of a batch in the running values.
    """

    mean: Tensor
    """C."""
    square: Tensor
    """C: mean square."""
    known: Tensor
    """0 before the first batch, which initialises the running values, then 1."""

    def __init__(self, features: int, share: float = 0.1) -> None:
        super().__init__()
        self.share = share
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("square", torch.ones(features))
        self.register_buffer("known", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """Map B C to B C float32; in training the batch then joins the running values."""
        with full_precision(x):
            x = x.float()
            scale = torch.rsqrt((self.square - self.mean.square()).clamp(min=0) + 1e-3)
            normed = (x - self.mean.clone()) * scale
            if self.training:
                self._follow(x.detach())
            return normed

    @torch.no_grad()
    def _follow(self, x: Tensor) -> None:
        share = torch.where(self.known > 0, self.share, 1.0)
        self.mean.lerp_(x.mean(0), share)
        self.square.lerp_(x.square().mean(0), share)
        self.known.fill_(1.0)
