"""Drawing contact sheets with captions. This module needs no torch.

Legend: ``H W`` image. Only Pillow's own font is used, so that a sheet looks the same everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

GAP = 4
"""Pixels between two cells."""
_LINE = 16
_INK, _PAPER = (20, 20, 20), (255, 255, 255)


def enlarge(picture: np.ndarray, height: int) -> np.ndarray:
    """Resize a picture to ``height``, keeping its shape; bicubic.

    Args:
        picture: H W 3 uint8.
        height: The wanted height in pixels.

    Returns:
        ``height`` W' 3 uint8.
    """
    if picture.shape[0] == height:
        return picture
    width = max(1, round(picture.shape[1] * height / picture.shape[0]))
    return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC))


def make_sheet(
    rows: Sequence[Sequence[np.ndarray]], captions: Sequence[str], cell: int | None = None, title: str | None = None
) -> np.ndarray:
    """Lay pictures out in rows, with a caption over each column.

    Args:
        rows: Pictures, H W 3 uint8; every row has as many as there are captions.
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
    side = cell or rows[0][0].shape[0]
    head = _LINE * (2 if title else 1) + GAP
    size = (len(captions) * (side + GAP) + GAP, head + len(rows) * (side + GAP))
    sheet = Image.new("RGB", size, _PAPER)
    for r, row in enumerate(rows):
        for c, picture in enumerate(row):
            pixels = Image.fromarray(enlarge(picture, side))
            sheet.paste(pixels, (GAP + c * (side + GAP), head + r * (side + GAP)))
    pen = ImageDraw.Draw(sheet)
    font = ImageFont.load_default()
    if title:
        pen.text((GAP, 2), title, fill=_INK, font=font)
    for c, caption in enumerate(captions):
        pen.text((GAP + c * (side + GAP), head - GAP - _LINE + 2), _fit(caption, side, font), fill=_INK, font=font)
    return np.asarray(sheet)


def write_cell(lines: Sequence[str], side: int) -> np.ndarray:
    """Return a cell with lines of words, ``side`` ``side`` 3 uint8; long ones are written smaller."""
    cell = Image.new("RGB", (side, side), _PAPER)
    pen = ImageDraw.Draw(cell)
    for number, line in enumerate(lines):
        size = 14.0
        while size > 9 and ImageFont.load_default(size).getlength(line) > side - 2:
            size -= 1
        pen.text((1, 12 + 19 * number), line, fill=_INK, font=ImageFont.load_default(size))
    return np.asarray(cell)


def stack_sheets(sheets: Sequence[np.ndarray]) -> np.ndarray:
    """Put sheets (H W 3 uint8) one under the other, left-aligned on white."""
    width = max(sheet.shape[1] for sheet in sheets)
    return np.concatenate([np.pad(s, ((0, GAP), (0, width - s.shape[1]), (0, 0)), constant_values=255) for s in sheets])


def _fit(text: str, width: int, font: ImageFont.ImageFont | ImageFont.FreeTypeFont) -> str:
    while text and font.getlength(text) > width:
        text = text[:-1]
    return text
