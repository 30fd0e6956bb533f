"""Drawing contact sheets with captions, and flow fields.

Legend: ``B`` pictures, ``H W`` image. Only Pillow's own font is used, so that a sheet looks the same everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional
from torchvision.utils import flow_to_image

GAP = 4
"""Pixels between two cells."""
_LINE = 16
_INK, _PAPER = (20, 20, 20), (255, 255, 255)


def flow_to_rgb(flow: Tensor) -> Tensor:
    """Paint a flow field with the Middlebury colour wheel (https://vision.middlebury.edu/flow/flowEval-iccv07.pdf).

    Hue is the direction, saturation the length relative to the longest of the picture; white is no motion.

    Args:
        flow: B 2 H W offsets (x, y), in any unit.

    Returns:
        B 3 H W in [0, 1].
    """
    return torch.stack([flow_to_image(each) for each in flow.float()]).float() / 255


def enlarge(image: Tensor, height: int) -> Tensor:
    """Resize pictures to ``height``, keeping their shape; bicubic, clamped to [0, 1].

    Args:
        image: B C H W in [0, 1].
        height: The wanted height in pixels.

    Returns:
        B C ``height`` W' in [0, 1].
    """
    if image.shape[-2] == height:
        return image
    width = max(1, round(image.shape[-1] * height / image.shape[-2]))
    resized = functional.interpolate(image, (height, width), mode="bicubic", antialias=height < image.shape[-2])
    return resized.clamp(0.0, 1.0)


def to_uint8(image: Tensor) -> np.ndarray:
    """Turn one picture, 1 or 3 H W in [0, 1], into H W 3 uint8."""
    pixels = (image.detach().float().clamp(0.0, 1.0) * 255.0).round().to(torch.uint8).cpu()
    return np.ascontiguousarray(pixels.expand(3, -1, -1).permute(1, 2, 0).numpy())


def make_sheet(
    rows: Sequence[Sequence[Tensor]], captions: Sequence[str], cell: int | None = None, title: str | None = None
) -> np.ndarray:
    """Lay pictures out in rows, with a caption over each column.

    Args:
        rows: Pictures of 1 or 3 H W in [0, 1]; every row has as many as there are captions.
        captions: One per column; cut where it is wider than its column.
        cell: Height and width of each picture on the sheet; None keeps the height of the first one. Pictures are
            enlarged bicubically.
        title: A line over the captions.

    Returns:
        H W 3 uint8.

    Raises:
        ValueError: There is no row, or a row has another number of pictures than there are captions.
    """
    if not rows or any(len(row) != len(captions) for row in rows):
        raise ValueError(f"{len(captions)} captions need rows of as many pictures, not {[len(row) for row in rows]}")
    side = cell or rows[0][0].shape[-2]
    head = _LINE * (2 if title else 1) + GAP
    size = (len(captions) * (side + GAP) + GAP, head + len(rows) * (side + GAP))
    sheet = Image.new("RGB", size, _PAPER)
    for r, row in enumerate(rows):
        for c, picture in enumerate(row):
            pixels = to_uint8(enlarge(picture.detach().float()[None], side)[0])
            sheet.paste(Image.fromarray(pixels), (GAP + c * (side + GAP), head + r * (side + GAP)))
    pen = ImageDraw.Draw(sheet)
    font = ImageFont.load_default()
    if title:
        pen.text((GAP, 2), title, fill=_INK, font=font)
    for c, caption in enumerate(captions):
        pen.text((GAP + c * (side + GAP), head - GAP - _LINE + 2), _fit(caption, side, font), fill=_INK, font=font)
    return np.asarray(sheet)


def stack_sheets(sheets: Sequence[np.ndarray]) -> np.ndarray:
    """Put sheets (H W 3 uint8) one under the other, left-aligned on white."""
    width = max(sheet.shape[1] for sheet in sheets)
    return np.concatenate([np.pad(s, ((0, GAP), (0, width - s.shape[1]), (0, 0)), constant_values=255) for s in sheets])


def image_grid(columns: Mapping[str, Tensor], cell: int | None = None) -> Tensor:
    """Lay columns of pictures out beside each other, for a logger such as TensorBoard's ``add_image``.

    Args:
        columns: Caption to pictures, B 1 or 3 H W in [0, 1]; B is the same for all.
        cell: Height and width of each picture; None keeps the pictures' height.

    Returns:
        3 H' W' float in [0, 1].
    """
    rows = list(zip(*(pictures.unbind(0) for pictures in columns.values()), strict=True))
    sheet = make_sheet(rows, list(columns), cell)
    return torch.from_numpy(sheet.copy()).permute(2, 0, 1).float() / 255.0


def _fit(text: str, width: int, font: ImageFont.ImageFont | ImageFont.FreeTypeFont) -> str:
    while text and font.getlength(text) > width:
        text = text[:-1]
    return text
