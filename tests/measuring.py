"""A small real measurer: it reads brightness, so that each of its figures can be worked out by hand."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from sfdkit.face_networks.types import Measured


class BrightnessMeasurer:
    """Reads where the light and where the dark is, how it leans, and the mean colour of the four quarters."""

    expression_names = ("mouth_open", "brows")

    def __init__(self) -> None:
        self.about: dict[str, float | int | str | None] = {"regressor/file": "brightness"}
        self.missing: dict[str, str] = {}

    def measure(self, images: Tensor) -> Measured:
        """Read faces F 3 R R in [0, 1]."""
        grey = images.mean(1)
        points = torch.stack([centroid(grey), centroid(1.0 - grey)], 1)
        half = grey.shape[-1] // 2
        yaw = 90.0 * (grey[:, :, half:].mean((1, 2)) - grey[:, :, :half].mean((1, 2)))
        pitch = 90.0 * (grey[:, :half].mean((1, 2)) - grey[:, half:].mean((1, 2)))
        pose = torch.stack([yaw, pitch, yaw + pitch], 1)
        expression = torch.stack([grey[:, half:].mean((1, 2)), grey[:, :half].mean((1, 2))], 1)
        colours = functional.adaptive_avg_pool2d(images, 2).flatten(1) - 0.4
        return Measured(points, pose, expression, functional.normalize(colours, dim=1))


def centroid(weights: Tensor) -> Tensor:
    """Return the centre of F H W weights, F 2 (x, y), in pixels."""
    places = torch.arange(weights.shape[-1], dtype=weights.dtype)
    total = weights.sum((1, 2))
    return torch.stack([(weights.sum(1) * places).sum(1) / total, (weights.sum(2) * places).sum(1) / total], 1)
