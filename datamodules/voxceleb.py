"""VoxCeleb: interviews of celebrities, in all forms in which it is found on disks."""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from sfdkit.data.module import FramesDataModule
from sfdkit.data.pack.layout import (
    DataSet,
    Found,
    Split,
    VideoSegment,
    no_layout,
    read_lines,
    require_one,
    require_root,
)
from sfdkit.data.pack.sources import Skip
from sfdkit.errors import DataError
from sfdkit.media.box import Box, Square, Track
from sfdkit.media.container import VIDEO_SUFFIXES
from sfdkit.media.picture import PICTURE_SUFFIXES

LAYOUTS = (
    "{train,test}/<person>#<video>#<start>#<end>.mp4, or a folder of pictures of that name: cropped by the scripts of "
    "the first order motion model, https://github.com/AliaksandrSiarohin/video-preprocessing",
    "vox-metadata.csv and videos/<video>.mp4: the boxes of those scripts, and the videos they were made from",
    "txt/<person>/<video>/<utterance>.txt and videos/<video>.mp4: the boxes that VoxCeleb is published with",
    "mp4/<person>/<video>/<utterance>.mp4 (or dev/mp4 and test/mp4): the videos of VoxCeleb2",
)

_BOX_FPS = 25.0
_BOX_HEIGHT = 360
"""Pixels of the height that boxes of VoxCeleb1 refer to; those of VoxCeleb2 are shares."""
_COLUMNS = ("video_id", "start", "end", "bbox", "fps", "width", "height", "partition")
_TEST_1 = frozenset(f"id{number}" for number in range(10270, 10310))
_TEST_2 = frozenset(
    f"id0{number}"
    for number in """
    0017 0061 0081 0154 0419 0562 0812 0817 0866 0926 1000 1041 1066 1106 1224 1228 1298 1333 1437 1460 1509 1541 1567
    1593 1618 1822 1892 1989 2019 2057 2086 2181 2286 2317 2445 2465 2542 2548 2576 2577 2685 2725 2745 3030 3041 3127
    3178 3347 3382 3524 3677 3789 3839 3862 3969 3978 3980 3981 4006 4030 4094 4119 4232 4253 4276 4295 4366 4478 4536
    4570 4627 4656 4657 4862 4950 5015 5055 5124 5176 5202 5459 5594 5654 5714 5816 5850 5999 6104 6209 6310 6484 6692
    6811 6816 6913 7312 7354 7396 7414 7426 7494 7620 7621 7663 7802 7868 7874 7961 8149 8374 8392 8456 8548 8552 8696
    8701 8911 9017
    """.split()  # noqa: SIM905
)
_CROPPED = re.compile(r"[^#]+#[^#]+#.+")


def official_split(person: str) -> Split:
    """Return the official split of a person: test are id10270 to id10309 of VoxCeleb1 and the 118 of VoxCeleb2."""
    return "test" if person in _TEST_1 or person in _TEST_2 else "train"


def find(root: Path) -> Found:
    """Find VoxCeleb in any of its forms.

    Raises:
        DataError: The root holds none of them, several, or an annotation that cannot be read.
    """
    require_root(root)
    kinds = {}
    if any(_cropped(root)):
        kinds["cropped clips"] = _find_cropped
    if (root / "vox-metadata.csv").is_file() and (root / "videos").is_dir() and not kinds:
        kinds["vox-metadata.csv with videos/"] = _find_metadata
    if (root / "txt").is_dir() and (root / "videos").is_dir():
        kinds["txt/ with videos/"] = _find_boxes
    if any(folder.is_dir() for folder in _mp4_folders(root)):
        kinds["mp4/ of VoxCeleb2"] = _find_mp4
    if not kinds:
        raise no_layout(root, "VoxCeleb", LAYOUTS)
    require_one(root, "VoxCeleb", kinds)
    (search,) = kinds.values()
    found = search(root)
    if not found.segments:
        first = f", for example {found.skips[0].file}: {found.skips[0].detail}" if found.skips else ""
        raise DataError(f"--root {root}: of {found.layout} nothing can be used{first}")
    return found


def _cropped(root: Path) -> Iterator[tuple[str, Path]]:
    for part in ("train", "test"):
        if (root / part).is_dir():
            for path in sorted((root / part).iterdir()):
                if _CROPPED.fullmatch(path.name) and (path.is_dir() or path.suffix.lower() in VIDEO_SUFFIXES):
                    yield part, path


def _find_cropped(root: Path) -> Found:
    segments, skips = [], []
    seen: dict[str, str] = {}
    for part, path in _cropped(root):
        name, stem = f"{part}/{path.name}", path.name.removesuffix(path.suffix) if path.is_file() else path.name
        if stem in seen:
            skips.append(Skip(name, "twice", f"{seen[stem]} is the same clip"))
            continue
        if path.is_dir() and not any(p.suffix.lower() in PICTURE_SUFFIXES for p in path.iterdir()):
            skips.append(Skip(name, "unreadable", "the folder holds no picture"))
            continue
        seen[stem] = name
        segments.append(VideoSegment(path, name, stem.split("#", 1)[0], "test" if part == "test" else "train"))
    return Found("clips cropped by video-preprocessing", *_by_person(segments, skips), "none")


def _by_person(segments: list[VideoSegment], skips: list[Skip]) -> tuple[list[VideoSegment], list[Skip]]:
    """Leave out of the training who is in the test: the published list has id10282 and id10306 in both."""
    tested = {segment.identity for segment in segments if segment.split == "test"}
    kept = [segment for segment in segments if segment.split == "test" or segment.identity not in tested]
    left = [segment for segment in segments if segment.split != "test" and segment.identity in tested]
    return kept, skips + [Skip(s.name, "in the test split", f"{s.identity} is tested on") for s in left]


def _find_metadata(root: Path) -> Found:
    """Follow vox-metadata.csv: times and boxes in the videos that it was made from."""
    path = root / "vox-metadata.csv"
    segments, skips = [], []
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        missing = [name for name in _COLUMNS if name not in (reader.fieldnames or ())]
        if missing:
            raise DataError(f"{path} has no column {missing[0]!r}; its columns are {reader.fieldnames}")
        seen: set[str] = set()
        for line, row in enumerate(reader, 2):
            try:
                video, _, marked = row["video_id"].partition("#")
                person = row.get("person_id") or marked or video
                left, top, right, bottom = (float(edge) for edge in row["bbox"].split("-"))
                start, stop = float(row["start"]) / float(row["fps"]), float(row["end"]) / float(row["fps"])
                size = int(row["width"]), int(row["height"])
                split: Split = "test" if row["partition"] == "test" else "train"
                name = f"{person}#{video}#{row['start'].zfill(6)}#{row['end'].zfill(6)}.mp4"
            except (TypeError, AttributeError, ValueError, ZeroDivisionError) as error:
                raise DataError(f"{path}, line {line}: {error}; download the file again") from error
            file_path = root / "videos" / f"{video}.mp4"
            if name in seen:
                skips.append(Skip(name, "twice", f"line {line} repeats an earlier one"))
            elif not file_path.is_file():
                skips.append(Skip(name, "missing", f"there is no videos/{video}.mp4"))
            else:
                square = Square(Box(left, top, right, bottom), *size)
                segments.append(VideoSegment(file_path, name, person, split, start, stop, square))
            seen.add(name)
    return Found("boxes of vox-metadata.csv", *_by_person(segments, skips), "given")


def _find_boxes(root: Path) -> Found:
    """Follow the text files of boxes: one per utterance, 25 lines a second."""
    segments, skips = [], []
    for path in sorted((root / "txt").glob("*/*/*.txt")):
        person, video = path.parts[-3:-1]
        name = f"{person}/{video}/{path.stem}"
        file_path = root / "videos" / f"{video}.mp4"
        if not file_path.is_file():
            skips.append(Skip(name, "missing", f"there is no videos/{video}.mp4"))
            continue
        track = read_boxes(path)
        stop = track.times[-1] + 0.5 / _BOX_FPS
        segments.append(
            VideoSegment(file_path, name, person, official_split(person), track.times[0], stop, track=track)
        )
    return Found("boxes of VoxCeleb with whole videos", segments, skips, "face")


def read_boxes(path: Path) -> Track:
    """Read the boxes of an utterance.

    The table begins after a line FRAME, X, Y, W, H. Whole numbers are pixels of a picture 360 high (VoxCeleb1), numbers
    from 0 to 1 are shares of the picture (VoxCeleb2); frames are counted at 25 per second.

    Raises:
        DataError: It is no such file.
    """
    lines = read_lines(path)
    heads = [number for number, line in enumerate(lines) if line.split()[:5] == ["FRAME", "X", "Y", "W", "H"]]
    if not heads:
        raise DataError(f"{path} has no line 'FRAME X Y W H', so it holds no boxes of VoxCeleb; download it again")
    times, boxes = [], []
    for line in lines[heads[0] + 1 :]:
        try:
            frame, x, y, width, height = (float(value) for value in line.split()[:5])
        except ValueError as error:
            raise DataError(f"{path}: the line {line!r} is no box ({error}); download it again") from error
        times.append(frame / _BOX_FPS)
        boxes.append(Box(x, y, x + width, y + height))
    if not boxes:
        raise DataError(f"{path} holds no box after its head; download it again")
    pixels = max(max(box) for box in boxes) > 2
    return Track(tuple(times), tuple(boxes), _BOX_HEIGHT if pixels else None)


def _mp4_folders(root: Path) -> list[Path]:
    return [root / "mp4", root / "dev/mp4", root / "test/mp4"]


def _find_mp4(root: Path) -> Found:
    segments: list[VideoSegment] = []
    splits: dict[str, set[Split]] = defaultdict(set)
    for folder in _mp4_folders(root):
        split: Split | None = (
            "test" if folder.parent.name == "test" else "train" if folder.parent.name == "dev" else None
        )
        for path in sorted(folder.glob("*/*/*.mp4")):
            person = path.parts[-3]
            chosen = split or official_split(person)
            splits[person].add(chosen)
            segments.append(VideoSegment(path, path.relative_to(root).as_posix(), person, chosen))
    if both := sorted(person for person, found in splits.items() if len(found) > 1):
        raise DataError(f"--root {root}: {both[0]} is in dev/ and in test/; a person belongs to one split")
    return Found("videos of VoxCeleb2", segments, [], "none")


DATASET = DataSet(
    name="voxceleb",
    title="VoxCeleb1 and VoxCeleb2",
    address="https://www.robots.ox.ac.uk/~vgg/data/voxceleb/",
    licence="CC BY 4.0 (annotations; the videos belong to their owners)",
    citation="Nagrani, Chung, Xie, Zisserman: VoxCeleb: Large-scale speaker verification in the wild. 2020",
    resolution=256,
    fps=25.0,
    layouts=LAYOUTS,
    find=find,
)


class VoxCelebDataModule(FramesDataModule):
    """Shards of ``sfdkit prepare voxceleb``; shards of other data sets are refused."""

    dataset: ClassVar[str | None] = DATASET.name
