"""Writing frames to a video, a folder of PNG frames, or one picture."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from typing import TypeAlias

import numpy as np
from PIL import Image

from sfdkit.apply.clip import kind_of
from sfdkit.errors import ConfigError, DataError
from sfdkit.files import make_folder, new_folder, require_new_folder, write_errors, write_picture
from sfdkit.media.video_writer import USUAL, WRITE_SUFFIXES, Encoding, Sound, VideoWriter

FrameWriter: TypeAlias = Callable[[np.ndarray], None]
"""Appends a frame, H W 3 uint8."""


def check_output(output: str | Path, driving: str | Path | None) -> Path:
    """Check that ``output`` can be written, before any work is done, and create the folder it lies in.

    Args:
        output: The file or folder that a user named.
        driving: The driving clip or track; one picture may go to a .png file. None: what a .png gets is one picture.

    Returns:
        The path.

    Raises:
        ConfigError: The suffix is unknown, or a file is to be written where a folder is, or the other way round.
        DataError: The folder above cannot be created or written to.
    """
    path = Path(output)
    suffix = path.suffix.lower()
    if suffix not in ("", ".png", *WRITE_SUFFIXES):
        raise ConfigError(
            f"output: {path} has the suffix {path.suffix!r}; use {', '.join(WRITE_SUFFIXES)}, .png for one picture, "
            "or a name without suffix for a folder of PNG frames"
        )
    if suffix == ".png" and driving is not None and kind_of(Path(driving)) != "picture":
        raise ConfigError(
            f"output: {path} holds one picture and {driving} is a clip; use {' or '.join(WRITE_SUFFIXES)}, "
            "or a name without suffix for a folder of PNG frames"
        )
    if suffix and path.is_dir():
        raise ConfigError(f"output: {path} is a folder; name a file in it, or a folder without a suffix")
    if not suffix:
        require_new_folder(path)
    make_folder(path.parent)
    return path


@contextmanager
def open_frame_writer(
    path: Path, fps: float, sound: Sound | None = None, encoding: Encoding = USUAL
) -> Iterator[FrameWriter]:
    """Open an output that :func:`check_output` accepted; it appears when complete, and not after an error.

    Args:
        path: A video, a picture (which takes one frame), or a folder that gets ``000000.png``, ``000001.png``, ...
        fps: Frames per second of a video.
        sound: What an mp4 gets.
        encoding: Of an mp4.

    Raises:
        DataError: The output cannot be written, or no frame was.
    """
    suffix = path.suffix.lower()
    if suffix == ".png":
        yield partial(write_picture, path)
    elif suffix:
        with VideoWriter(path, fps, sound if suffix == ".mp4" else None, encoding) as writer:
            yield writer.write
    else:
        with new_folder(path) as part:
            numbers = count()

            def write(frame: np.ndarray) -> None:
                with write_errors(path):
                    Image.fromarray(frame).save(part / f"{next(numbers):06d}.png")

            yield write
            if not next(numbers):
                raise DataError(f"no frame was written to {path}: the driving clip is empty")
