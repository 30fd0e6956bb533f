"""HDTF: speeches and interviews in high definition."""

from __future__ import annotations

import re
from pathlib import Path
from typing import ClassVar, NamedTuple

from sfdkit.data.module import FramesDataModule
from sfdkit.data.pack.layout import DataSet, Found, VideoSegment, no_layout, read_lines, require_one, require_root
from sfdkit.data.pack.sources import Skip
from sfdkit.errors import DataError
from sfdkit.media.box import Box, Square

PARTS = ("RD", "WDA", "WRA")
"""Radio, and the weekly addresses of Democrats and of Republicans."""

LAYOUTS = (
    "{RD,WDA,WRA}_{video_url,resolution,annotion_time,crop_wh,crop_ratio}.txt (also in HDTF_dataset/) and whole videos "
    "as videos/<video>.mp4, _videos_raw/<part>_<video>.mp4 or <video>.mp4",
    "<video>_<number>.mp4: clips that are cut and cropped already",
)

_LISTS = ("video_url", "annotion_time", "crop_wh")
_CLIP = re.compile(r"(?:(?P<part>RD|WDA|WRA)_)?(?P<video>.+)_(?P<number>\d+)\.mp4", re.IGNORECASE)


class _Lists(NamedTuple):
    """What the text files of one part say."""

    videos: list[str]
    times: dict[str, list[str]]
    crops: dict[str, list[str]]
    heights: dict[str, str]


def person_of(part: str, video: str) -> str:
    """Return who is in a video.

    Videos of weekly addresses are called by the speaker, with a number where there are several; those of the radio are
    numbered alone, and each is taken for another person.
    """
    if part == "RD" or video.startswith("Radio"):
        return video
    return re.sub(r"\d+$", "", video)


def find(root: Path) -> Found:
    """Find HDTF: its text files beside whole videos, or clips that are cropped already.

    Raises:
        DataError: The root holds neither, both, only some of the text files, or text files that cannot be read.
    """
    require_root(root)
    lists = next((folder for folder in (root / "HDTF_dataset", root) if any(folder.glob("*_annotion_time.txt"))), None)
    clips = sorted(path for path in root.glob("*.mp4") if _CLIP.fullmatch(path.name))
    if not clips and lists is None:
        raise no_layout(root, "HDTF", LAYOUTS)
    if clips and _wholes(root):
        require_one(root, "HDTF", ("cropped clips", "whole videos"))
    if clips:
        return Found("cropped clips of HDTF", [_clip(path) for path in clips], [], "none")
    assert lists is not None
    found = _find_whole(root, lists)
    if not found.segments:
        raise DataError(
            f"--root {root}: of {len(found.skips)} clips that the text files name none can be used, for example "
            f"{found.skips[0].file}: {found.skips[0].detail}"
        )
    return found


def _wholes(root: Path) -> bool:
    return (root / "videos").is_dir() or (root / "_videos_raw").is_dir()


def _clip(path: Path) -> VideoSegment:
    match = _CLIP.fullmatch(path.name)
    assert match is not None
    return VideoSegment(path, path.name, person_of(match["part"] or "", match["video"]))


def _find_whole(root: Path, folder: Path) -> Found:
    segments, skips = [], []
    for part in PARTS:
        lists = _read_part(folder, part)
        for video in lists.videos:
            times = lists.times.get(f"{video}.mp4")
            path = _video(root, part, video)
            if path is None:
                skips.append(Skip(video, "missing", f"there is no video {video}.mp4"))
                continue
            if times is None:
                skips.append(Skip(video, "not described", f"{part}_annotion_time.txt has no line for it"))
                continue
            for number, span in enumerate(times):
                name = f"{video}_{number}.mp4"
                crop = lists.crops.get(name)
                if crop is None:
                    skips.append(Skip(name, "not described", f"{part}_crop_wh.txt has no line for it"))
                    continue
                start, stop = _span(span, folder / f"{part}_annotion_time.txt", video)
                if stop <= start:
                    skips.append(Skip(name, "not described", f"{part}_annotion_time.txt says {span}"))
                    continue
                square = _square(crop, folder / f"{part}_crop_wh.txt", name, lists.heights.get(f"{video}.mp4"))
                segments.append(VideoSegment(path, name, person_of(part, video), None, start, stop, square))
    return Found("whole videos of HDTF, cut and cropped by its text files", segments, skips, "given")


def _read_part(folder: Path, part: str) -> _Lists:
    tables: dict[str, dict[str, list[str]]] = {}
    for name in (*_LISTS, "resolution"):
        path = folder / f"{part}_{name}.txt"
        if not path.is_file():
            raise DataError(
                f"HDTF: there is no {path}; its five text files per part lie in HDTF_dataset/ of its repository"
            )
        tables[name] = {words[0]: words[1:] for words in (line.split() for line in read_lines(path))}
    heights = {video: words[0] for video, words in tables["resolution"].items() if len(words) == 1}
    return _Lists(list(tables["video_url"]), tables["annotion_time"], tables["crop_wh"], heights)


def _video(root: Path, part: str, video: str) -> Path | None:
    places = (root / "videos" / f"{video}.mp4", root / "_videos_raw" / f"{part}_{video}.mp4", root / f"{video}.mp4")
    return next((path for path in places if path.is_file()), None)


def _span(span: str, path: Path, video: str) -> tuple[float, float]:
    try:
        start, stop = (_seconds(moment) for moment in span.split("-"))
    except ValueError as error:
        raise DataError(f"{path}: {span!r} of {video} is no time such as 00:30-01:00; download it again") from error
    return start, stop


def _seconds(moment: str) -> float:
    total = 0.0
    for part in moment.split(":"):
        total = 60 * total + float(part)
    return total


def _square(words: list[str], path: Path, name: str, height: str | None) -> Square:
    """Return the box of ``min_width width min_height height``: pixels of the video in its noted resolution."""
    try:
        x, width, y, tall = (float(word) for word in words)
    except ValueError as error:
        raise DataError(f"{path}: {name} has {' '.join(words)!r}, not four numbers; download it again") from error
    return Square(Box(x, y, x + width, y + tall), height=int(height) if height and height.isdecimal() else None)


DATASET = DataSet(
    name="hdtf",
    title="HDTF, high-definition talking faces",
    address="https://github.com/MRzzm/HDTF",
    licence="CC BY 4.0 (annotations; the videos belong to their owners)",
    citation="Zhang, Li, Ding, Fan: Flow-guided one-shot talking face generation with a high-resolution audio-visual "
    "dataset. CVPR 2021",
    resolution=512,
    fps=25.0,
    layouts=LAYOUTS,
    find=find,
)


class HDTFDataModule(FramesDataModule):
    """Shards of ``sfdkit prepare hdtf``; shards of other data sets are refused."""

    dataset: ClassVar[str | None] = DATASET.name
