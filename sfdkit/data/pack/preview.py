"""``sfdkit crop preview``: one picture that shows what the cropper sees and cuts, before hours are spent on packing."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from jsonargparse.typing import PositiveInt
from tqdm import tqdm

from sfdkit.config.command import Command
from sfdkit.data.pack.face_points import PointTracker
from sfdkit.data.pack.find import find_picture_folders, find_videos
from sfdkit.data.pack.options import CutOptions
from sfdkit.data.pack.people import video_sources
from sfdkit.data.pack.sources import ClipSettings
from sfdkit.data.pack.video_source import FaceLooks, VideoSource
from sfdkit.errors import DataError
from sfdkit.files import require_apart, write_picture
from sfdkit.media.box import Box
from sfdkit.media.crop import CropMethod, Place, Refusal, crop_resize
from sfdkit.media.detect import Face
from sfdkit.media.picture import natural_key

_FOUND, _CUT, _LOST, _POINT = (255, 200, 0), (0, 220, 90), (230, 40, 40), (0, 200, 255)
_LABEL = 15
"""Pixels of the words above each picture."""


class Looked(NamedTuple):
    """What was seen at the start of one video."""

    name: str
    image: np.ndarray | None
    """The frame in the middle of the first clip; None where nothing can be read."""
    faces: list[Face]
    """What was found in the frames looked at."""
    place: Place | Refusal
    points: np.ndarray | None = None
    """L 2, points of the face in that frame as shares of the square; None where none are wanted or found."""


@dataclass(frozen=True)
class Preview(CutOptions, Command):
    """Show on one sheet what would be cut from the first clip of each video.

    Yellow are the faces found in the frames looked at, green is the square; each picture has the result beside it, with
    blue points of the face where they are wanted. A video that would be left out has a red frame and the reason above
    it.

    Args:
        root: Folder that is searched for videos, or for folders of pictures where it holds no video.
        output: The picture to write, .png or .jpg.
        crop: As of sfdkit prepare clips.
        videos: The most videos to show, spread over all there are.
        columns: Pictures beside each other.
        cell: Pixels of a picture's height.
    """

    root: str
    output: str
    _: KW_ONLY
    crop: CropMethod = "face"
    videos: PositiveInt = 48
    columns: PositiveInt = 8
    cell: PositiveInt = 160

    def run(self) -> None:
        """Draw the sheet and write it."""
        require_apart(self.output, root=self.root)
        sources = _sources(Path(self.root), self.clip_settings(self.crop))
        step = max(1, -(-len(sources) // self.videos))
        looked = [look(source) for source in tqdm(sources[::step], desc="look", unit="video")]
        try:
            write_picture(Path(self.output), draw(looked, self.columns, self.cell))
        except (OSError, ValueError) as error:
            raise DataError(f"cannot write {self.output} ({error}); give a .png in a folder that exists") from error
        lost = [(one.name, one.place) for one in looked if isinstance(one.place, Refusal)]
        print(
            f"{len(looked)} of {len(sources)} videos looked at, {len(lost)} would be left out at their start; see "
            f"{self.output}"
        )
        for name, refusal in lost:
            print(f"  {name}: {refusal.reason}, {refusal.detail}")


def _sources(root: Path, settings: ClipSettings) -> list[VideoSource]:
    try:
        paths = find_videos(root)
    except DataError:
        paths = find_picture_folders(root)
    sources, _ = video_sources(root, paths, settings, "file", None, "clips", "unknown")
    return sorted(sources, key=lambda source: natural_key(Path(source.video)))


def look(source: VideoSource) -> Looked:
    """Look at the first clip of a video as packing would."""
    settings = source.settings
    looks = FaceLooks(settings, source.track)
    images: list[np.ndarray] = []
    problem = "it holds no frame"
    try:
        for index, frame in enumerate(source.frames()):
            if index > settings.frames_per_clip:
                break
            looks.look(index, frame)
            images.append(frame.image)
    except DataError as error:
        problem = str(error)
    if not images:
        return Looked(source.video, None, [], Refusal("unreadable", problem))
    stop = min(settings.rule.stop(looks.found, 0, settings.frames_per_clip), len(images))
    image, last = images[stop // 2], settings.rule.last(stop)
    place = source.place(looks, 0, stop, image)
    if stop < settings.min_frames:
        place = Refusal("short", f"{stop} frames, at least {settings.min_frames} are wanted")
    faces = [face for number, face in looks.found.items() if face is not None and number <= last]
    return Looked(source.video, image, faces, place, _points(image, place, settings))


def _points(image: np.ndarray, place: Place | Refusal, settings: ClipSettings) -> np.ndarray | None:
    if settings.points is None or isinstance(place, Refusal):
        return None
    tracker = PointTracker(settings.points, place, settings.resolution)
    tracker.see(image, 0.0)
    (found,) = tracker.finish()["frames"]
    return None if found is None else (np.array(found) + 0.5) / settings.resolution


def draw(looked: list[Looked], columns: int, cell: int) -> np.ndarray:
    """Return the sheet, H W 3 uint8.

    Args:
        looked: The videos.
        columns: Of the sheet.
        cell: Pixels of a picture's height.
    """
    width = 3 * cell  # a frame of up to 2 : 1, and the result beside it
    rows = -(-len(looked) // columns)
    sheet = np.full((rows * (cell + _LABEL + 4), columns * (width + 4), 3), 255, np.uint8)
    for number, one in enumerate(looked):
        top, left = number // columns * (cell + _LABEL + 4), number % columns * (width + 4)
        lost = isinstance(one.place, Refusal)
        words = f"{one.name[-28:]}: {one.place.reason}" if isinstance(one.place, Refusal) else one.name[-40:]
        ascii_words = words.encode("ascii", "replace").decode()
        colour = _LOST if lost else (30, 30, 30)
        cv2.putText(sheet, ascii_words, (left, top + 11), cv2.FONT_HERSHEY_SIMPLEX, 0.38, colour, 1, cv2.LINE_AA)
        if one.image is not None:
            sheet[top + _LABEL : top + _LABEL + cell, left : left + width] = _cell(one, width, cell)
    return sheet


def _cell(one: Looked, width: int, height: int) -> np.ndarray:
    assert one.image is not None
    tall, wide = one.image.shape[:2]
    scale = min(height / tall, 2 * height / wide)
    size = (max(1, round(wide * scale)), max(1, round(tall * scale)))
    shown = cv2.resize(one.image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    for face in one.faces:
        _outline(shown, face.box, 0.0, scale, _FOUND, 1)
        for x, y in face.eyes or ():
            cv2.circle(shown, (round(x * scale), round(y * scale)), 2, _FOUND, -1)
    cell = np.full((height, width, 3), 235, np.uint8)
    if isinstance(one.place, Place):
        _outline(shown, one.place.box, one.place.turn, scale, _CUT, 2)
        result = crop_resize(one.image, one.place, height)
        for x, y in () if one.points is None else one.points * height - 0.5:
            cv2.circle(result, (round(x), round(y)), 1, _POINT, -1, cv2.LINE_AA)
        cell[:, 2 * height :] = result
    else:
        cv2.rectangle(shown, (0, 0), (shown.shape[1] - 1, shown.shape[0] - 1), _LOST, 3)
    cell[: shown.shape[0], : shown.shape[1]] = shown
    return cell


def _outline(
    image: np.ndarray, box: Box, turn: float, scale: float, colour: tuple[int, int, int], thickness: int
) -> None:
    middle = ((box.x0 + box.x1) / 2 * scale, (box.y0 + box.y1) / 2 * scale)
    sides = ((box.x1 - box.x0) * scale, (box.y1 - box.y0) * scale)
    corners = np.round(cv2.boxPoints((middle, sides, turn))).astype(np.int32)
    cv2.polylines(image, [corners], True, colour, thickness, cv2.LINE_AA)
