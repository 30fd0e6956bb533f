"""Perceptual loss over features of a network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sfdkit.face_networks.feature_network import load_features
from sfdkit.losses.relative import relative_difference
from sfdkit.losses.term import LossTerm
from sfdkit.losses.vgg19 import Vgg19Features

VGG19 = "vgg19"
_SCALES = 4


class PerceptualLoss(LossTerm):
    """L1 between the features of two pictures at several depths (https://arxiv.org/abs/1603.08155) and scales.

    With VGG19, as in FOMM and LIA: the mean difference at five depths on up to four scales, the smallest of 32 pixels
    or more. With a small network: the mean difference at four depths, each divided by the mean feature of the target,
    so that all depths count alike; the smallest scale has 64 pixels or more.

    The network is frozen and not saved in checkpoints.

    Args:
        network: ``vgg19`` (see :class:`sfdkit.losses.vgg19.Vgg19Features`), or a small network by name or file (see
            :func:`sfdkit.face_networks.feature_network.load_features`).

    Raises:
        ConfigError: The network cannot be loaded.
    """

    def __init__(self, network: str = VGG19) -> None:
        super().__init__()
        whole = network == VGG19
        self.relative, self.smallest = not whole, 32 if whole else 64
        self._kept: list[nn.Module] = [Vgg19Features() if whole else load_features(network)]  # so it is no submodule

    @property
    def network(self) -> nn.Module:
        """Maps B 3 H W in [0, 1] to a list of feature maps."""
        return self._kept[0]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self.network._apply(fn)
        return super()._apply(fn, recurse)

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Return the mean over scales and depths for B 3 H W in [0, 1]; gradients go to the prediction alone."""
        values = []
        for _ in range(_SCALES):
            with torch.no_grad():
                wanted = self.network(target)
            for found, want in zip(self.network(prediction), wanted, strict=True):
                values.append(relative_difference(found, want) if self.relative else (found - want).abs().mean())
            if min(prediction.shape[2:]) < 2 * self.smallest:
                break
            prediction, target = F.avg_pool2d(prediction, 2), F.avg_pool2d(target, 2)
        return torch.stack(values).mean()
