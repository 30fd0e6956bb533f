"""Pictures and flow fields from tensors.

Legend: ``B`` pictures, ``H W`` image.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor
from torchvision.utils import flow_to_image

from sfdkit.media.draw import make_sheet


def to_uint8(image: Tensor) -> np.ndarray:
    """Turn one picture, 1 or 3 H W in [0, 1], into H W 3 uint8."""
    pixels = (image.detach().float().clamp(0.0, 1.0) * 255.0).round().to(torch.uint8).cpu()
    return np.ascontiguousarray(pixels.expand(3, -1, -1).permute(1, 2, 0).numpy())


def flow_to_rgb(flow: Tensor) -> Tensor:
    """Paint a flow field with the Middlebury colour wheel (https://vision.middlebury.edu/flow/flowEval-iccv07.pdf).

    Hue is the direction, saturation the length relative to the longest of the picture; white is no motion.

    Args:
        flow: B 2 H W offsets (x, y), in any unit.

    Returns:
        B 3 H W in [0, 1].
    """
    return torch.stack([flow_to_image(each) for each in flow.float()]).float() / 255


def image_grid(columns: Mapping[str, Tensor], cell: int | None = None) -> Tensor:
    """Lay columns of pictures out beside each other, for a logger such as TensorBoard's ``add_image``.

    Args:
        columns: Caption to pictures, B 1 or 3 H W in [0, 1]; B is the same for all.
        cell: Height and width of each picture; None keeps the pictures' height.

    Returns:
        3 H' W' float in [0, 1].
    """
    rows = list(zip(*(map(to_uint8, pictures) for pictures in columns.values()), strict=True))
    sheet = make_sheet(rows, list(columns), cell)
    return torch.from_numpy(sheet.copy()).permute(2, 0, 1).float() / 255.0
