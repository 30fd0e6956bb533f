"""The command ``sfdkit animate``: a face moved by a driving clip or a motion track, from file to file."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from jsonargparse.typing import PositiveInt
from tqdm import tqdm

from sfdkit.apply.frame_source import open_frame_source, read_source
from sfdkit.apply.frame_writer import check_output, open_frame_writer
from sfdkit.apply.motion_track import MotionTrack
from sfdkit.apply.options import Height, Loaded, SteeringOptions
from sfdkit.apply.reenactment import Animated, animate_frames, animate_track, read_motion
from sfdkit.apply.steering import nearest_frame
from sfdkit.errors import ConfigError
from sfdkit.media.crop import CropMethod
from sfdkit.media.draw import enlarge
from sfdkit.media.frame_rate import Fps


class Written(NamedTuple):
    """The file that :class:`Animate` wrote."""

    output: Path
    frames: int
    fps: float
    width: int
    """Pixels, of the whole picture when it shows source and driving as well."""
    height: int
    seconds: float
    """How long it took, from the first driving frame to the finished file."""


class _Motion(NamedTuple):
    """The animated frames to come."""

    parts: Iterator[Animated]
    frames: int
    """How many to expect; 0 where nothing is known."""
    fps: float
    audio: Path | None
    """The file whose sound belongs to them."""


@dataclass(kw_only=True)
class Animate(SteeringOptions):
    """Move the face of a picture as the face of a driving clip moves, or as a motion track says.

    Give either driving or motion. Frames are decoded, animated and written batch by batch: a long clip needs no more
    memory than a short one.

    Args:
        source: The face to move: a picture, or a video or folder of pictures whose first frame is taken.
        output: A file .mp4 or .gif; a name without suffix becomes a folder of PNG frames; .png takes a single driving
            picture.
        driving: The motion: a video, a folder of pictures in the order of their names, or one picture.
        motion: The motion: a track that sfdkit motion extract wrote with this checkpoint. It has no sound.
        reference: What relative motion is relative to: the first driving frame, which then needs about the source's
            pose, or auto: the driving frame whose pose is nearest to the source's. The driver is read twice for that.
        source_crop: The same as crop, for the source alone; as crop by default.
        batch_size: Driving frames per step.
        side_by_side: Show source, driving (unless a track drives) and result beside each other.
        fps: Frames per second of the output. A driving video is resampled in time and keeps its length, and so is a
            track, by linear interpolation; the pictures of a folder are taken to be that far apart. Its own rate by
            default, 25 for a folder.
        audio: Keep the sound of the driving video in an mp4.
        size: Height of the written face in pixels; the model's resolution by default.
    """

    source: str
    output: str
    driving: str | None = None
    motion: str | None = None
    reference: Literal["first", "auto"] = "first"
    source_crop: CropMethod | None = None
    batch_size: PositiveInt = 8
    side_by_side: bool = False
    fps: Fps | None = None
    audio: bool = True
    size: Height | None = None

    def run(self) -> Written:
        """Animate and write the result.

        Raises:
            CheckpointError: The checkpoint is missing, damaged or of another model, or the track is another model's.
            ConfigError: Both driving and motion, or neither, or an output of an unknown kind.
            DataError: Source, driving or motion cannot be read, no face was found, or the output cannot be written.
        """
        if (self.driving is None) == (self.motion is None):
            given = "neither" if self.motion is None else "both"
            raise ConfigError(f"give either --driving (a clip) or --motion (a track); {given} is given")
        inputs = {"source": self.source, "driving": self.driving, "motion": self.motion}
        self.check_apart(self.output, **inputs)
        target = check_output(self.output, self.driving or self.motion)
        if self.reference == "auto" and self.mode == "absolute":
            raise ConfigError("reference: auto is for relative motion; give --mode relative, or leave it out")
        loaded = self.load()
        runner = loaded.runner
        still = read_source(self.source, runner.resolution, self.crop_rule(self.source_crop))
        motion = self._from_track(loaded, still) if self.motion else self._from_clip(loaded, still)
        height, began = self.size or runner.resolution, time.perf_counter()
        written, width = 0, 0
        with (
            open_frame_writer(target, motion.fps, motion.audio) as write_frame,
            tqdm(total=motion.frames or None, desc="animate", unit="frame") as bar,
        ):
            for part in motion.parts:
                for picture in self._pictures(still, part, height):
                    write_frame(picture)
                    width = picture.shape[1]
                written += len(part.image)
                bar.update(len(part.image))
        result = Written(target, written, motion.fps, width, height, time.perf_counter() - began)
        _report(result, runner.device)
        return result

    def _from_track(self, loaded: Loaded, still: np.ndarray) -> _Motion:
        assert self.motion is not None
        track = MotionTrack.load(self.motion, loaded.runner)
        self._require_change(self.motion, len(track.motion))
        track = track if self.fps is None else track.at_rate(self.fps)
        first = self._reference(loaded, still, track.motion) if self.reference == "auto" else None
        how = self.steering(loaded, track.fps, first)
        parts = animate_track(loaded.runner, still, track.motion, how, self.batch_size)
        return _Motion(parts, len(track.motion), track.fps, None)

    def _from_clip(self, loaded: Loaded, still: np.ndarray) -> _Motion:
        assert self.driving is not None
        runner = loaded.runner
        clip = open_frame_source(self.driving, runner.resolution, self.crop_rule(), self.fps)
        self._require_change(self.driving, clip.frames)
        first = None
        if self.reference == "auto":
            every = [motion for _, motion in read_motion(runner, clip, self.batch_size)]
            first = self._reference(loaded, still, np.concatenate(every))
        how = self.steering(loaded, clip.fps, first)
        parts = animate_frames(runner, still, clip, how, self.batch_size)
        return _Motion(parts, clip.frames, clip.fps, clip.audio if self.audio else None)

    def _reference(self, loaded: Loaded, still: np.ndarray, motion: np.ndarray) -> np.ndarray:
        """Return the coefficients, M, of the driving frame whose pose is nearest to the source's, and tell which."""
        own = loaded.runner.describe(loaded.runner.source(still)).motion
        number = nearest_frame(motion, own, loaded.find_axes(self.axes))
        print(f"motion is relative to driving frame {number}, whose pose is nearest to the source's")
        return motion[number]

    def _require_change(self, clip: str, frames: int) -> None:
        if self.mode == "relative" and frames == 1:
            raise ConfigError(
                f"mode: relative adds the change since the first driving frame, and {clip} holds no other; "
                "use --mode absolute, or a clip"
            )

    def _pictures(self, still: np.ndarray, part: Animated, height: int) -> Iterator[np.ndarray]:
        """Yield H W 3 uint8: the results, or source, driving (where there is one) and result beside each other."""
        for number, result in enumerate(part.image):
            beside = [] if part.driving is None else [part.driving[number]]
            shown = np.concatenate([still, *beside, result], axis=1) if self.side_by_side else result
            yield enlarge(shown, height)


def _report(result: Written, device: str) -> None:
    length = result.frames / result.fps
    print(
        f"wrote {result.output}: {result.frames} frames, {length:.2f} s at {result.fps:g} fps, "
        f"{result.width}x{result.height}; {result.frames / result.seconds:.1f} frames per second on {device}"
    )
