"""Writing an animated GIF frame by frame (https://www.w3.org/Graphics/GIF/spec-gif89a.txt)."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
from PIL import GifImagePlugin, Image

_LOOP_FOR_EVER = b"\x21\xff\x0bNETSCAPE2.0\x03\x01\x00\x00\x00"
_TRAILER = b"\x3b"
_SHORTEST = 2  # hundredths of a second; viewers play anything below at a tenth of a second


def _with_palette(picture: Image.Image) -> Image.Image:
    """Reduce to 256 colours that cover the whole gamut, dithered: small things keep their colour, such as an iris."""
    palette = picture.quantize(256, method=Image.Quantize.MAXCOVERAGE)
    return picture.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)


class GifFile:
    """An animated GIF that is written while it is rendered; only the last frame is held.

    Each frame has a palette of its own, so that late colours are as good as early ones.

    Args:
        path: The file to write.
        fps: Frames per second; frames that would be shown for less than two hundredths of a second are left out.
        width: Pixels.
        height: Pixels.
    """

    def __init__(self, path: Path, fps: float, width: int, height: int) -> None:
        self._fps = fps
        self._count = 0
        self._shown_from = 0
        self._pending: Image.Image | None = None
        self._stream = path.open("wb")
        self._stream.write(b"GIF89a" + struct.pack("<HHBBB", width, height, 0x70, 0, 0) + _LOOP_FOR_EVER)

    def _tick(self) -> int:
        """Return the time of the next frame in hundredths of a second."""
        return round(100 * self._count / self._fps)

    def _flush(self, until: int) -> None:
        if self._pending is None:
            return
        duration = 10 * (until - self._shown_from)
        for block in GifImagePlugin.getdata(self._pending, duration=duration, include_color_table=True):
            self._stream.write(block)

    def write(self, frame: np.ndarray) -> None:
        """Append a frame, H W 3 uint8 RGB."""
        tick = self._tick()
        self._count += 1
        if self._pending is not None and tick - self._shown_from < _SHORTEST:
            return
        self._flush(tick)
        self._pending = _with_palette(Image.fromarray(frame))
        self._shown_from = tick

    def close(self) -> None:
        """Write the last frame and the end of the file."""
        self._flush(max(self._tick(), self._shown_from + _SHORTEST))
        self._stream.write(_TRAILER)
        self._stream.close()

    def abort(self) -> None:
        """Let go of the file as it is."""
        self._stream.close()
