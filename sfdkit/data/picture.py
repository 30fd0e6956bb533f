"""Reading still pictures."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from sfdkit.errors import DataError

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
"""File endings that are taken for pictures when a folder is searched."""


def read_picture(path: str | Path) -> np.ndarray:
    """Read a picture upright: the rotation in its EXIF data is applied, transparency is laid over white.

    Args:
        path: A picture file; of an animation the first frame is taken.

    Returns:
        H W 3 uint8 RGB.

    Raises:
        DataError: The file is missing, is no picture, or is damaged.
    """
    try:
        with Image.open(path) as opened:
            picture = ImageOps.exif_transpose(opened)
            if picture.has_transparency_data:
                layer = picture.convert("RGBA")
                picture = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
            return np.asarray(_eight_bits(picture).convert("RGB"))
    except FileNotFoundError as error:
        raise DataError(f"there is no picture {path}: check the path") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(
            f"cannot read {path} as a picture ({error}): give a whole file of type {', '.join(PICTURE_SUFFIXES)}"
        ) from error


def _eight_bits(picture: Image.Image) -> Image.Image:
    """Bring 16-bit greys down to 8 bits; Pillow's own conversion clips them."""
    if not picture.mode.startswith("I"):
        return picture
    return Image.fromarray((np.asarray(picture).astype(np.uint32) >> 8).clip(0, 255).astype(np.uint8))


def natural_key(path: Path) -> list[tuple[int, int, str]]:
    """Return a sort key under which ``frame2`` comes before ``frame10``."""
    parts = re.split(r"(\d+)", path.name.lower())
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts]


def list_pictures(folder: str | Path) -> list[Path]:
    """Return the pictures directly in ``folder`` in natural order; hidden files are left out.

    Raises:
        DataError: The folder does not exist.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}: check the path")
    found = (p for p in folder.iterdir() if p.suffix.lower() in PICTURE_SUFFIXES and not p.name.startswith("."))
    return sorted(found, key=natural_key)
