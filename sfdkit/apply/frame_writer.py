"""Where animated frames go: a video, a folder of PNG frames, or one picture."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import numpy as np
from PIL import Image

from sfdkit.apply.frame_source import kind_of
from sfdkit.errors import ConfigError, DataError
from sfdkit.files import make_folder, write_picture
from sfdkit.media.video_writer import WRITE_SUFFIXES, VideoWriter


class FrameWriter(Protocol):
    """Takes frames one after the other."""

    def write(self, frame: np.ndarray) -> None:
        """Append a frame, H W 3 uint8."""


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
    if not suffix and path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise ConfigError(f"output: {path} exists and is no empty folder; name a new one")
    make_folder(path.parent)
    return path


def open_output(path: Path, fps: float, audio: Path | None) -> AbstractContextManager[FrameWriter]:
    """Open what :func:`check_output` let pass.

    Args:
        path: The output.
        fps: Frames per second of a video.
        audio: The file whose sound goes into an mp4.
    """
    if not path.suffix:
        return FrameFolder(path)
    if path.suffix.lower() == ".png":
        return PictureFile(path)
    return VideoWriter(path, fps, audio if path.suffix.lower() == ".mp4" else None)


class FrameFolder:
    """Writes ``000000.png``, ``000001.png``, ... into a folder that appears when complete, and not after an error.

    Args:
        path: The folder; it does not exist or is empty.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.count = 0

    def write(self, frame: np.ndarray) -> None:
        """Append a frame, H W 3 uint8."""
        Image.fromarray(frame).save(self._part / f"{self.count:06d}.png")
        self.count += 1

    def __enter__(self) -> Self:
        """Create a temporary folder beside the final one."""
        self._part = Path(tempfile.mkdtemp(prefix=f".{self.path.name}.", dir=self.path.parent))
        self._part.chmod(0o755)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the folder its name; after an exception remove it."""
        if kind is None and self.count:
            os.replace(self._part, self.path)
            return
        shutil.rmtree(self._part)
        if kind is None:
            raise DataError(f"no frame was written to {self.path}: the driving clip is empty")


class PictureFile:
    """Writes the one frame that it is given.

    Args:
        path: The picture; its suffix names the format.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, frame: np.ndarray) -> None:
        """Write the frame, H W 3 uint8."""
        write_picture(self.path, frame)

    def __enter__(self) -> Self:
        """Return the writer."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Do nothing: the picture is complete as soon as it is written."""
