"""Opening video and sound files with PyAV (https://pyav.org/docs/stable/)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
from av.container import InputContainer
from av.format import Flags
from av.stream import Disposition

from sfdkit.errors import DataError
from sfdkit.media.picture import picture_kind

VIDEO_SUFFIXES = (
    *(".mp4", ".mov", ".mkv", ".avi", ".webm", ".m4v", ".3gp", ".3g2", ".divx", ".wmv", ".asf", ".flv", ".f4v"),
    *(".mpg", ".mpeg", ".m2v", ".vob", ".ts", ".mts", ".m2ts", ".ogv", ".ogg", ".ogm", ".rm", ".rmvb", ".mxf", ".gif"),
)
"""Suffixes by which videos are found in a folder; a file that the user names is recognised by its content."""

LONGEST_PAUSE = 10.0
"""Seconds of a jump in time stamps above which :func:`may_start_over` files count as joined, as in FFmpeg."""

_STILL_BRANDS = ("heic", "heix", "heim", "heis", "mif1", "msf1")  # of HEIF, ISO/IEC 23008-12


def file_url(path: Path) -> str:
    """Return a path for FFmpeg, safe for names with a colon.

    ``12:30 call.mp4`` alone is read as a protocol ``12`` (https://ffmpeg.org/ffmpeg-protocols.html#file).
    """
    return f"file:{path}"


def open_media(path: Path) -> InputContainer:
    """Open a file for reading.

    Raises:
        FFmpegError: The format is unknown.
        OSError: The file cannot be read.
    """
    return av.open(file_url(path))


def open_video(path: Path) -> InputContainer:
    """Open a video for reading.

    Raises:
        DataError: The file is missing or not a video.
    """
    if not path.exists():
        raise DataError(f"there is no video {path}: check the path")
    try:
        container = open_media(path)
    except (av.FFmpegError, OSError) as error:
        raise DataError(
            f"cannot read {path} as a video ({error.strerror}): give a file that a video player opens, "
            f"for example {', '.join(VIDEO_SUFFIXES)}"
        ) from error
    kind = container.format.name
    if container.metadata.get("major_brand", "").strip() in _STILL_BRANDS:
        container.close()
        raise DataError(f"{path} is a HEIC picture, which cannot be read: save it as JPEG or PNG")
    if picture_stream(container) is None or kind in ("tty", "image2") or kind.endswith("_pipe"):
        container.close()
        raise DataError(f"{path} is no video (it was recognised as {kind!r}): give a video file")
    return container


def is_video(path: Path) -> bool:
    """Tell by its content whether a file is a video; an animated picture counts, a still one does not."""
    kind = picture_kind(path)
    if kind is not None:
        return kind == "animated"
    try:
        open_video(path).close()
    except DataError:
        return False
    return True


def picture_stream(container: InputContainer) -> Any:
    """Return the first video stream that is not the cover of a piece of music; None where there is none."""
    moving = (s for s in container.streams.video if not s.disposition & Disposition.attached_pic)
    return next((s for s in moving if s.codec_context is not None), None)


def may_start_over(container: InputContainer) -> bool:
    """Tell whether time stamps may jump, as in a transport stream that was joined of two."""
    flags: Any = container.format.flags  # an int, whatever its stub says
    return bool(flags & Flags.ts_discont.value)
