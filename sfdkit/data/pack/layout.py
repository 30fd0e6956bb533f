"""What a data set on disk looks like to the kit: segments of videos, who is in them, and their official split.

A :class:`DataSet`, declared by an entry point (see :mod:`sfdkit.data.pack.datasets`), finds its segments below a root,
in whatever official layout they lie there, and ``sfdkit prepare`` packs them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from sfdkit.data.pack.sources import Skip
from sfdkit.errors import DataError
from sfdkit.media.box import Square, Track
from sfdkit.media.crop import DataCrop

Split = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class VideoSegment:
    """One person in a part of a video, or in one folder of pictures."""

    path: Path
    """A video file, or a folder whose pictures are frames."""
    name: str
    """Path below the root, with what tells segments of one file apart: unique within the data set."""
    identity: str
    split: Split | None = None
    """The official split; None where there is none, then identities are drawn."""
    start: float = 0.0
    """Seconds after the first frame of the video at which it begins."""
    stop: float | None = None
    """Seconds at which it ends, that moment left out; None for the end of the file."""
    square: Square | None = None
    """What to cut; None leaves that to the cropper."""
    track: Track | None = None
    """Where the face is, if the data set says so; the cropper then looks for none."""
    groups: dict[str, str] = field(default_factory=dict)


class Found(NamedTuple):
    """What a data set found below a root."""

    layout: str
    """Which of its layouts it is, in words."""
    segments: list[VideoSegment]
    skips: list[Skip]
    """What lies or is listed there and cannot be used."""
    crop: DataCrop
    """How pictures of this layout are cut unless a user says otherwise."""


@dataclass(frozen=True)
class DataSet:
    """What is known about a data set: nothing of it comes with the kit."""

    name: str
    """As it stands in every index."""
    title: str
    address: str
    licence: str
    citation: str
    resolution: int
    """Pixels of a side that it is usually used at."""
    fps: float
    layouts: tuple[str, ...]
    """What may lie below the root, one line each."""
    find: Callable[[Path], Found]
    """Finds the segments below a root, or raises :class:`~sfdkit.errors.DataError` that says what was expected."""


def require_root(root: Path) -> None:
    """Refuse a root that is no folder, or an empty one.

    Raises:
        DataError: It is.
    """
    if not root.is_dir():
        raise DataError(f"--root {root}: {'is no folder' if root.exists() else 'does not exist'}")
    if not any(root.iterdir()):
        raise DataError(f"--root {root} is empty; give the folder that the data set was unpacked into")


def no_layout(root: Path, data: str, layouts: Sequence[str]) -> DataError:
    """Return the error for a root that has none of a data set's layouts."""
    here = sorted(path.name + ("/" if path.is_dir() else "") for path in root.iterdir())
    shown = ", ".join(here[:6]) + (f" and {len(here) - 6} more" if len(here) > 6 else "")
    return DataError(
        f"--root {root} is no {data} as it is published; it holds {shown}. Expected is one of:\n  "
        + "\n  ".join(layouts)
    )


def require_one(root: Path, data: str, found: Iterable[str]) -> None:
    """Refuse a root in which layouts of several kinds lie side by side.

    Raises:
        DataError: They do.
    """
    kinds = list(found)
    if len(kinds) > 1:
        raise DataError(
            f"--root {root} holds several forms of {data} at once: {'; '.join(kinds)}. Put each into a folder of its "
            "own and prepare them one by one: the same person could end up in two splits"
        )


def read_lines(path: Path) -> list[str]:
    """Return the lines of a text file that are not blank, without a byte order mark and blanks at their ends.

    Raises:
        DataError: It cannot be read as text.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path} ({error}); download it again") from error
    return [line.strip() for line in text.splitlines() if line.strip()]
