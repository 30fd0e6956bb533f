"""Finding videos and folders of pictures below a folder, and naming the clips that come from them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path

from sfdkit.data.pack.sources import Skip
from sfdkit.errors import DataError
from sfdkit.media.container import VIDEO_SUFFIXES, is_video
from sfdkit.media.picture import PICTURE_SUFFIXES, natural_key

_TO_LOOK_INTO = ("", ".png", ".apng", ".webp", ".avif")  # may be videos by their content


def find_videos(root: Path) -> list[Path]:
    """Return all videos below a folder in natural order; hidden files and folders are left out.

    A video is told by its suffix, an animated picture and a file without suffix by its content.

    Raises:
        DataError: The folder is missing or holds no video.
    """
    found = [path for path in _below(root) if path.is_file() and _holds_video(path)]
    if not found:
        raise DataError(
            f"{root} holds no video; files ending in {', '.join(VIDEO_SUFFIXES)} are looked for, also deeper down"
        )
    return found


def other_files(root: Path, videos: Iterable[Path], *own: str | None) -> list[Skip]:
    """Return the files that :func:`find_videos` passed over, each as left out.

    Args:
        root: The folder that was searched.
        videos: What was found there.
        own: Files and folders of the caller that may lie below the root, and need no mention.
    """
    known = set(videos)
    mine = [Path(path).resolve() for path in own if path]
    others = [path for path in _below(root) if path.is_file() and path not in known]
    detail = f"not a known video suffix ({', '.join(VIDEO_SUFFIXES)})"
    return [
        Skip(path.relative_to(root).as_posix(), "no video", detail)
        for path in others
        if not any(path.resolve().is_relative_to(place) for place in mine)
    ]


def _holds_video(path: Path) -> bool:
    suffix = path.suffix.lower()
    return suffix in VIDEO_SUFFIXES or (suffix in _TO_LOOK_INTO and is_video(path))


def find_picture_folders(root: Path) -> list[Path]:
    """Return all folders below ``root`` that hold pictures, in natural order.

    Raises:
        DataError: The folder is missing, holds no folder of pictures, or pictures lie in ``root`` itself.
    """
    found = {path.parent for path in _below(root) if path.suffix.lower() in PICTURE_SUFFIXES}
    if root in found:
        raise DataError(
            f"{root} holds pictures itself: put the pictures of each clip into a folder of its own below it"
        )
    if not found:
        raise DataError(
            f"no folder below {root} holds pictures; files ending in {', '.join(PICTURE_SUFFIXES)} are looked for"
        )
    return sorted(found, key=lambda path: _natural(path, root))


def _below(root: Path) -> list[Path]:
    if not root.is_dir():
        what = "is no folder" if root.exists() else "does not exist"
        raise DataError(f"--root: {root} {what}; give the folder that holds the videos or pictures")
    shown = (p for p in root.rglob("*") if not any(part.startswith(".") for part in p.relative_to(root).parts))
    return sorted(shown, key=lambda path: _natural(path, root))


def _natural(path: Path, root: Path) -> list[list[tuple[int, int, str]]]:
    return [natural_key(Path(part)) for part in path.relative_to(root).parts]


def clip_keys(videos: Iterable[str]) -> dict[str, str]:
    """Return a key for each video: its path in letters, digits, ``-`` and ``_``, unique and short enough for a tar.

    Args:
        videos: Paths below the searched folder, each once.

    Returns:
        Path to key.
    """
    keys: dict[str, str] = {}
    taken: set[str] = set()
    for video in videos:
        stem = re.sub(r"\.\w{1,5}$", "", video)
        key = re.sub(r"[^A-Za-z0-9_-]+", "_", stem).strip("_")
        if not key or len(key) > 60 or key.lower() in taken:
            key = f"{key[:48]}-{hashlib.sha256(video.encode()).hexdigest()[:10]}"
        taken.add(key.lower())
        keys[video] = key
    return keys
