"""Reading still pictures, and animated ones frame by frame."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from sfdkit.errors import DataError, SfdkitWarning

PICTURE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".avif", ".bmp", ".tif", ".tiff"),
    *(".jp2", ".j2k", ".jpx", ".ppm", ".pgm", ".pnm"),
)
"""File endings that are taken for pictures when a folder is searched; a file that is named is known by its content."""

MOST_MEGAPIXELS = 400
"""Larger pictures are not read, unless their format can be read at a part of the size."""

_LARGE = 100e6  # pixels above which a picture is read, or made, smaller
_ANIMATED = ("GIF", "PNG", "WEBP", "AVIF")
_TOLD = (*_ANIMATED, "JPEG", "BMP", "DIB", "TIFF", "JPEG2000", "PPM", "PSD", "ICO", "QOI")  # by their first bytes
_SRGB_GAMMA = 0.45455  # as PNG writes it, https://www.w3.org/TR/png-3/#11gAMA
_NO_DURATION = 0.1  # seconds; what browsers show a frame that declares (nearly) none
_TIFF = (b"II*\0", b"MM\0*")  # how such a file begins, in either order of bytes
_FLOAT_RANGES = (1.0, 255.0, 65535.0)


@cache
def _formats() -> list[str]:
    """Return what this Pillow opens of the formats that are told by their first bytes."""
    Image.init()
    return [name for name in _TOLD if name in Image.OPEN]


@contextmanager
def _named(path: str | Path) -> Iterator[None]:
    """Turn what Pillow raises into an error that names the file."""
    try:
        yield
    except FileNotFoundError as error:
        raise DataError(f"there is no picture {path}: check the path") from error
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise DataError(
            f"cannot read {path} as a picture ({error}): give a whole file of type {', '.join(PICTURE_SUFFIXES)}"
        ) from error


@contextmanager
def _any_size() -> Iterator[None]:
    """Lift Pillow's own limit, which is made for servers and refuses what a phone takes."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def _opened(path: str | Path, formats: list[str] | None = None) -> Image.Image:
    """Open a picture with Pillow, or with OpenCV a TIFF of coloured floats, which Pillow does not know."""
    try:
        return Image.open(path, formats=formats)
    except UnidentifiedImageError:
        with open(path, "rb") as file:
            if file.read(4) not in _TIFF:
                raise
        values = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
        if values is None or values.ndim != 3 or values.shape[2] not in (3, 4):
            raise
        return Image.fromarray(_eight_bits(values[..., 2::-1]))


def picture_kind(path: Path) -> Literal["still", "animated"] | None:
    """Tell from its first bytes whether a file is a picture, and whether it has several frames; None for neither."""
    try:
        with _named(path), _any_size(), _opened(path, _formats()) as picture:
            moves = picture.format in _ANIMATED and getattr(picture, "is_animated", False)
            return "animated" if moves else "still"
    except DataError:
        return None


def read_picture(path: str | Path) -> np.ndarray:
    """Read a picture as a viewer shows it.

    The rotation in its EXIF data is applied, transparency is laid over white, its ICC profile is converted to sRGB, and
    more than 8 bits a channel are scaled down; floats are taken to go up to 1, or where most are above 2 up to 255 or
    65,535. Above 100 megapixels it becomes smaller by a whole factor.

    Args:
        path: A picture file; of an animation the first frame is taken.

    Returns:
        H W 3 uint8 RGB.

    Raises:
        DataError: The file is missing, is no picture, is damaged, or too large.
    """
    with _named(path), _any_size(), _opened(path) as opened:
        return _as_shown(_limited_size(opened, path), path)


def read_animation(path: Path) -> Iterator[tuple[np.ndarray, float, float]]:
    """Read an animated GIF, PNG, WebP or AVIF frame by frame.

    Yields:
        The picture, H W 3 uint8 RGB; when it begins, and how long it lasts, in seconds.

    Raises:
        DataError: As of :func:`read_picture`, after the frames before the damage were yielded.
    """
    time = 0.0
    with _named(path), Image.open(path, formats=_formats()) as opened:
        number = int(bool(getattr(opened, "default_image", False)))  # a PNG's picture for those who cannot animate
        while True:
            try:
                opened.seek(number)
            except EOFError:
                return
            opened.load()  # only now WebP and AVIF know how long this frame lasts
            duration = float(opened.info.get("duration") or 0) / 1000
            duration = duration if duration > 0.01 else _NO_DURATION
            yield _as_shown(_limited_size(opened.copy(), path), path), time, duration
            number, time = number + 1, time + duration


def _limited_size(picture: Image.Image, path: str | Path) -> Image.Image:
    """Return the picture upright, made smaller by a whole factor where it is large."""
    width, height = picture.size
    if width * height > _LARGE:
        picture.draft(None, (width // 2, height // 2))  # JPEG: decodes at 1/2, 1/4 or 1/8, and no less than that
    if picture.size[0] * picture.size[1] > MOST_MEGAPIXELS * 1e6:
        raise DataError(
            f"{path} has {width}x{height} pixels, {width * height / 1e6:.0f} megapixels: make it smaller than "
            f"{MOST_MEGAPIXELS} megapixels, or save it as JPEG"
        )
    picture.load()
    profile = picture.info.get("icc_profile")
    upright = ImageOps.exif_transpose(picture)
    factor = 1
    while upright.size[0] * upright.size[1] > _LARGE * factor**2:
        factor += 1
    if factor > 1:
        smooth = upright.mode in ("L", "LA", "RGB", "RGBA", "CMYK", "YCbCr", "F")
        size = upright.size[0] // factor, upright.size[1] // factor
        upright = upright.reduce(factor) if smooth else upright.resize(size, Image.Resampling.NEAREST)
    upright.info["icc_profile"] = profile
    return upright


def _as_shown(picture: Image.Image, path: str | Path) -> np.ndarray:
    """Return H W 3 uint8 sRGB."""
    profile, gamma = picture.info.get("icc_profile"), _gamma(picture)
    if picture.mode.startswith(("I", "F")):  # a transparent level of 65,536 would cut holes into noise
        picture = Image.fromarray(_eight_bits(np.asarray(picture)))
    elif picture.mode in ("P", "PA", "1", "La", "RGBa"):
        picture = picture.convert("RGBA" if picture.has_transparency_data or "a" in picture.mode else "RGB")
    elif picture.has_transparency_data and picture.mode != "LA":
        picture = picture.convert("RGBA")
    alpha = picture.getchannel("A") if picture.mode in ("LA", "RGBA") else None
    if alpha is not None:
        picture = picture.convert(picture.mode[:-1])
    shown = _to_srgb(picture, profile, path)
    if gamma is not None:
        shown = shown.point([round(255 * (level / 255) ** (_SRGB_GAMMA / gamma)) for level in range(256)] * 3)
    if alpha is not None:
        shown = Image.composite(shown, Image.new("RGB", shown.size, "white"), alpha)
    return np.asarray(shown)


def _gamma(picture: Image.Image) -> float | None:
    """Return the exponent that a PNG alone declares, without a profile that goes before it; None where it is sRGB's."""
    gamma = float(picture.info.get("gamma") or _SRGB_GAMMA)
    if picture.info.get("icc_profile") or "srgb" in picture.info or not 0.1 <= gamma <= 10:
        return None
    return None if abs(gamma / _SRGB_GAMMA - 1) < 0.05 else gamma


def _to_srgb(picture: Image.Image, profile: bytes | None, path: str | Path) -> Image.Image:
    """Convert from a colour profile; one that is damaged, or made for another kind of picture, is passed over."""
    if picture.mode == "LAB":
        return _transform(None, "LAB").apply(picture)
    if profile:
        if picture.mode not in ("L", "RGB", "CMYK"):
            picture = picture.convert("RGB")
        try:
            return _transform(profile, picture.mode).apply(picture)
        except (ImageCms.PyCMSError, OSError, ValueError) as error:
            what = str(error).splitlines()[0] if str(error) else "it is damaged"
            warnings.warn(
                f"the colour profile of {path} cannot be used ({what}): its colours are taken as sRGB",
                SfdkitWarning,
                stacklevel=4,
            )
    return picture.convert("RGB")


@lru_cache(maxsize=16)
def _transform(profile: bytes | None, mode: str) -> Any:
    source: Any = ImageCms.createProfile("LAB") if profile is None else io.BytesIO(profile)
    intent = ImageCms.Intent.RELATIVE_COLORIMETRIC
    return ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB", intent)


def _eight_bits(values: np.ndarray) -> np.ndarray:
    """Bring whole numbers of 16 or 32 bits, or floats, down to 8 bits."""
    if values.dtype.kind == "f":
        values = np.nan_to_num(values.astype(np.float32), neginf=0.0)
        most = float(np.percentile(values, 99))
        top = next((top for top in _FLOAT_RANGES if most <= 2 * top), most)
        return np.rint(values.clip(0, top) * (255 / top)).astype(np.uint8)
    if values.dtype.itemsize == 4:
        if values.max(initial=0) < 256:
            return values.clip(0, None).astype(np.uint8)
        if values.min(initial=0) < -(2**15):  # 32 bits without a sign
            return (values.view(np.uint32) >> 24).astype(np.uint8)
    wide = values.clip(0, None).astype(np.int64)
    return (wide >> (8 if wide.max(initial=0) < 2**16 else 23)).astype(np.uint8)


def natural_key(path: Path) -> list[tuple[int, int, str]]:
    """Return a sort key under which ``frame2`` comes before ``frame10``."""
    parts = re.split(r"(\d+)", path.name.lower())
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts]


def list_pictures(folder: str | Path) -> list[Path]:
    """Return the pictures directly in ``folder`` in natural order; hidden files are left out.

    They are told by their suffix; where no file has one of those, by their content.

    Raises:
        DataError: The folder does not exist.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}: check the path")
    shown = [p for p in folder.iterdir() if not p.name.startswith(".")]
    found = [p for p in shown if p.suffix.lower() in PICTURE_SUFFIXES]
    found = found or [p for p in shown if p.is_file() and picture_kind(p) == "still"]
    return sorted(found, key=natural_key)
