"""Opening media files: by name alone, whatever characters the name holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
from av.container import InputContainer
from av.format import Flags
from av.stream import Disposition

LONGEST_PAUSE = 10.0
"""Seconds after which a jump in the times of such a file as :func:`may_start_over` tells is no pause (as in FFmpeg)."""


def file_url(path: Path) -> str:
    """Return a file's name as FFmpeg takes it for a file, also where a colon stands in it.

    ``12:30 call.mp4`` alone is read as a protocol ``12`` (https://ffmpeg.org/ffmpeg-protocols.html#file).
    """
    return f"file:{path}"


def open_media(path: Path) -> InputContainer:
    """Open a file for reading.

    Raises:
        FFmpegError: It is of no known kind.
        OSError: It cannot be read.
    """
    return av.open(file_url(path))


def picture_stream(container: InputContainer) -> Any:
    """Return the first video stream that is not the cover of a piece of music; None where there is none."""
    moving = (s for s in container.streams.video if not s.disposition & Disposition.attached_pic)
    return next((s for s in moving if s.codec_context is not None), None)


def may_start_over(container: InputContainer) -> bool:
    """Tell whether the times of a file may jump, as a transport stream's do where two were joined."""
    flags: Any = container.format.flags  # an int, whatever its stub says
    return bool(flags & Flags.ts_discont.value)
