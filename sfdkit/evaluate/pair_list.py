"""Lists of pairs in csv files, such as those of DaGAN (https://github.com/harlanhong/CVPR2022-DaGAN)."""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TypeAlias

from sfdkit.errors import DataError
from sfdkit.evaluate.samples import Pair, Video

_FRAME = re.compile(r"(\d+)\.(?:png|jpg|jpeg)", re.IGNORECASE)
_Known: TypeAlias = Mapping[str, Sequence[Video]]


def spread(frames: int, most: int | None) -> list[int]:
    """Return the numbers of all frames, or of ``most`` of them, the first and the last among them."""
    if most is None or most >= frames:
        return list(range(frames))
    if most == 1:
        return [frames - 1]
    return [round(k * (frames - 1) / (most - 1)) for k in range(most)]


def read_pairs(path: Path, videos: Sequence[Video], most: int | None) -> tuple[list[Pair], list[Pair]]:
    """Read a list of pairs.

    The csv has the columns ``source`` and ``driving``, and may have ``best_frame``. A value names a video, by its file
    name or path (then frame 0 is the source, and all frames drive), or a frame of it, ``VIDEO/0000075.png``. Of a path
    as many folders count as it takes to tell videos apart. A pair of one video is self-reenactment.

    Args:
        path: The csv.
        videos: All there are.
        most: The most driving frames of a pair that names whole videos.

    Returns:
        The pairs of self- and of cross-reenactment.

    Raises:
        DataError: The csv cannot be read, lacks a column, names none of the videos, or one that may be several.
    """
    known = _by_name(videos)
    found = [_pair_of(row, known, most) for row in _read_rows(path)]
    pairs = [pair for pair in found if isinstance(pair, Pair)]
    missed = [name for name in found if isinstance(name, str)]
    if not pairs:
        raise DataError(
            f"--pairs: none of the {len(missed)} pairs in {path} is in these shards, for example {missed[0]}"
            if missed
            else f"--pairs: {path} holds no pair"
        )
    if missed:
        print(f"{len(missed)} of {len(found)} pairs are not in these shards, such as {missed[0]}")
    return [pair for pair in pairs if pair.is_self], [pair for pair in pairs if not pair.is_self]


def _read_rows(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            for column in ("source", "driving"):
                if column not in (reader.fieldnames or ()):
                    raise DataError(
                        f"--pairs: {path} has no column {column!r}; its columns are {reader.fieldnames}, "
                        "and source and driving are needed"
                    )
            return list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"--pairs: cannot read {path} ({error}); give a csv with the columns source,driving") from error


def _by_name(videos: Sequence[Video]) -> _Known:
    """Return the videos by each end of their paths, with and without the suffix of the last part."""
    known: dict[str, list[Video]] = defaultdict(list)
    for video in videos:
        parts = PurePosixPath(video.name).parts
        for depth in range(1, len(parts) + 1):
            whole = "/".join(parts[-depth:])
            for name in {whole, whole.removesuffix(PurePosixPath(whole).suffix)}:
                known[name].append(video)
    return known


def _pair_of(row: Mapping[str, str], known: _Known, most: int | None) -> Pair | str:
    """Return the pair of a line, or the name in it that is not there."""
    places = {}
    for column in ("source", "driving", "best_frame"):
        if value := row.get(column):
            found = _find(value, known)
            if found is None:
                return value
            places[column] = found
    if not {"source", "driving"} <= set(places):
        return str(dict(row))
    (source, source_frame), (driver, driving_frame) = places["source"], places["driving"]
    driving = spread(len(driver.times), most) if driving_frame is None else [driving_frame]
    best = places.get("best_frame")
    if source is driver and best is None:
        sample = source.sample([source_frame or 0, *driving])
        return Pair(sample, sample)
    start = None if best is None else best[0].sample([best[1] or 0] * 2)
    return Pair(source.sample([source_frame or 0] * 2), driver.sample([driving[0], *driving]), start)


def _find(value: str, known: _Known) -> tuple[Video, int | None] | None:
    """Return the video that a value names, and its frame if it names one; None where the shards lack it."""
    path = PurePosixPath(value)
    frame = _FRAME.fullmatch(path.name)
    parts = (path.parent if frame else path).parts
    ends = ["/".join(parts[-depth:]) for depth in range(len(parts), 0, -1)]
    fitting = next((known[end] for end in ends if end in known), [])
    if len(fitting) > 1:
        raise DataError(f"--pairs: {value} may be {fitting[0].name} or {fitting[1].name}; name it by more of its path")
    if not fitting or frame is None:
        return (fitting[0], None) if fitting else None
    number = fitting[0].number(int(frame[1]))
    return None if number is None else (fitting[0], number)
