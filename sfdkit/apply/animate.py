"""The command ``sfdkit animate``: a face moved by a driving clip or a motion track, from file to file."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from jsonargparse.typing import PositiveInt
from tqdm import tqdm

from sfdkit.apply.clip import kind_of, open_clip
from sfdkit.apply.driver import Driver
from sfdkit.apply.frame_source import open_frame_source, read_source
from sfdkit.apply.frame_writer import check_output, open_frame_writer
from sfdkit.apply.motion_track import MotionTrack
from sfdkit.apply.options import Crf, Height, Loaded, SteeringOptions, Time, seconds
from sfdkit.apply.reenactment import SourceRenderer
from sfdkit.apply.steering import Steering, nearest_frame
from sfdkit.apply.whole_picture import Part, animate_whole
from sfdkit.apply.whole_source import Faces, WholeSource, open_whole_source
from sfdkit.errors import ConfigError
from sfdkit.media.crop import LOOKING, CropMethod
from sfdkit.media.draw import enlarge
from sfdkit.media.frame_rate import Fps
from sfdkit.media.framing import Follow
from sfdkit.media.video_writer import USUAL, Codec, Encoding, Sound

_MOST_CRF = 51


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


class _Film(NamedTuple):
    """The frames to come."""

    pictures: Iterator[np.ndarray]
    """H W 3 uint8 each."""
    frames: int
    """How many to expect; 0 where nothing is known."""
    fps: float
    sound: Sound | None


@dataclass(kw_only=True)
class Animate(SteeringOptions):
    """Move the face of a picture as the face of a driving clip moves, or as a motion track says.

    Give either driving or motion. Frames are decoded, animated and written batch by batch: a long clip needs no more
    memory than a short one. A driver whose face is gone for a second is held there, and a warning says when.

    Args:
        source: The face to move: a picture, or a video or folder of pictures whose first frame is taken; with paste all
            of its frames.
        output: A file .mp4, .webp or .gif; a name without suffix becomes a folder of PNG frames; .png takes a single
            driving picture.
        driving: The motion: a video, a folder of pictures in the order of their names, or one picture; or one for each
            face of the source by its number from the left, with paste: --driving '{1: A.mp4, 2: B.mp4}'. The result has
            rate and sound of the first and ends with the shortest.
        motion: The motion: a track that sfdkit motion extract wrote with this checkpoint. It has no sound.
        paste: Put the result back into the whole picture, or into each frame of a source video, which keeps its own
            frames; it ends with the shorter of the two. What surrounds the face stays bit for bit.
        face: With paste, which faces of the source move: largest, all, or the number of one from the left.
        follow: Where a face is cut out of a video: shot takes one square for all of a shot, head one that goes smoothly
            with the head. Neither turns or changes its size within a shot.
        from_: Begin of the driving clip that is used: seconds, 1:05 or 0:01:05.5.
        to: Its end.
        loop: How often the motion is played; its sound is played once.
        reference: What relative motion is relative to: the first driving frame, which then needs about the source's
            pose, or auto: the driving frame whose pose is nearest to the source's. The driver is read twice for that.
        source_crop: The same as crop, for the source alone; as crop by default.
        batch_size: Driving frames per step.
        side_by_side: Show source, driving (unless a track drives) and result beside each other.
        fps: Frames per second of the output. A driving video is resampled in time and keeps its length, and so is a
            track, by linear interpolation; the pictures of a folder are taken to be that far apart. By default that of
            the source video with paste, else the driver's, 25 for a folder.
        audio: The sound of an mp4: that of the driving video, of the source video, or none.
        size: Height of the written picture in pixels; by default the model's resolution, with paste the source's
            height.
        codec: Of an mp4: h264 plays everywhere, hevc and av1 are smaller.
        crf: Quality of an mp4, from 1, the best, to 51, of av1 to 63.
    """

    source: str
    output: str
    driving: dict[int, str] | str | None = None
    motion: str | None = None
    paste: bool = False
    face: Literal["largest", "all"] | PositiveInt = "largest"
    follow: Follow = "shot"
    from_: Time = 0.0
    to: Time | None = None
    loop: PositiveInt = 1
    reference: Literal["first", "auto"] = "first"
    source_crop: CropMethod | None = None
    batch_size: PositiveInt = 8
    side_by_side: bool = False
    fps: Fps | None = None
    audio: Literal["driving", "source", "none"] = "driving"
    size: Height | None = None
    codec: Codec = "h264"
    crf: Crf = 18

    def run(self) -> Written:
        """Animate and write the result.

        Raises:
            CheckpointError: The checkpoint is missing, damaged or of another model, or the track is another model's.
            ConfigError: Options that contradict each other, or an output of an unknown kind.
            DataError: Source, driving or motion cannot be read, no face was found, or the output cannot be written.
        """
        target = self._check_options()
        loaded = self.load()
        self.steering(loaded, 1.0)  # what is wrong with regions or a driver is told before clips are searched
        for file in self._drivers().values():
            open_clip(file, self.fps, *self._span())
        film = self._paste(loaded) if self.paste else self._cut(loaded)
        began, written, shape = time.perf_counter(), 0, (0, 0, 3)
        with (
            open_frame_writer(target, film.fps, film.sound, Encoding(self.codec, self.crf)) as write_frame,
            tqdm(total=film.frames or None, desc="animate", unit="frame") as bar,
        ):
            for picture in film.pictures:
                write_frame(picture)
                shape = picture.shape
                written += 1
                bar.update()
        height, width, _ = shape
        result = Written(target, written, film.fps, width, height, time.perf_counter() - began)
        _report(result, loaded.runner.device)
        return result

    def _check_options(self) -> Path:
        """Return the path of the output.

        Raises:
            ConfigError: Options contradict each other, or the output is of an unknown kind.
            DataError: The output's folder cannot be made.
        """
        if (not self.driving) == (self.motion is None):
            given = "neither" if self.motion is None else "both"
            raise ConfigError(f"give either --driving (a clip) or --motion (a track); {given} is given")
        drivers = self._drivers()
        names = {"driving" if number is None else f"driving.{number}": file for number, file in drivers.items()}
        self.check_apart(self.output, source=self.source, motion=self.motion, **names)
        pictures = [file for file in drivers.values() if kind_of(Path(file)) == "picture"]
        target = check_output(self.output, next(iter([*pictures, *drivers.values()]), self.motion))
        if self.reference == "auto" and self.mode == "absolute":
            raise ConfigError("reference: auto is for relative motion; give --mode relative, or leave it out")
        if not self.paste:
            for option, value in (("face", self.face), ("driving", self.driving), ("audio", self.audio)):
                if isinstance(value, dict | int) or value in ("all", "source"):
                    raise ConfigError(f"{option}: {value} is for whole pictures; give --paste true")
        if target.suffix.lower() != ".mp4" and Encoding(self.codec, self.crf) != USUAL:
            raise ConfigError(f"codec and crf are for .mp4, and output is {target}; leave them out")
        if self.codec != "av1" and self.crf > _MOST_CRF:
            raise ConfigError(f"crf: {self.crf} is beyond {_MOST_CRF}, the worst that {self.codec} has")
        if self.loop > 1 and target.suffix.lower() == ".png":
            raise ConfigError(f"loop: {self.loop} times one picture is a clip, and {target} holds one picture")
        if isinstance(self.driving, dict) and self.face != "largest":
            raise ConfigError(f"face: {self.face} is said by the numbers in driving already; leave it out")
        if self.motion and (self.from_ or self.to is not None):
            raise ConfigError("from and to are for --driving: a track is played whole")
        methods = {self.crop, self.source_crop if self.paste and self.source_crop else self.crop}
        if self.follow == "head" and not methods & set(LOOKING):
            raise ConfigError(
                f"follow: head needs to see the face, and crop {self.crop} does not look; give --crop face"
            )
        self._span()
        return target

    def _span(self) -> tuple[float, float | None]:
        """Return begin and end of the driving clips in seconds."""
        return seconds(self.from_), None if self.to is None else seconds(self.to)

    def _drivers(self) -> dict[int | None, str]:
        """Return number of a face to its driving clip; None for all faces."""
        if isinstance(self.driving, dict):
            return {number: file for number, file in self.driving.items()}
        if self.driving is not None and self.driving[:1] in ("{", "[") and not Path(self.driving).exists():
            raise ConfigError(f"driving: {self.driving} names no faces by number; write '{{1: A.mp4, 2: B.mp4}}'")
        return {} if self.driving is None else {None: self.driving}

    def _cut(self, loaded: Loaded) -> _Film:
        """Animate the source's face alone."""
        runner = loaded.runner
        still = read_source(self.source, runner.resolution, self.crop_rule(self.source_crop))
        driver = self._open_driver(loaded, next(iter(self._drivers().values()), None), self.fps)
        render = SourceRenderer(runner, still, self._how(loaded, driver, still))
        height = self.size or runner.resolution

        def pictures() -> Iterator[np.ndarray]:
            for driving, motion in driver.batches(self.batch_size):
                for k, result in enumerate(render(motion)):
                    yield self._beside(still, None if driving is None else driving[k], result, height)

        sound = driver.sound if self.audio == "driving" else None
        return _Film(pictures(), driver.frames, driver.fps, sound)

    def _paste(self, loaded: Loaded) -> _Film:
        """Animate faces of the whole source."""
        which: Faces = frozenset({self.face}) if isinstance(self.face, int) else self.face
        which = frozenset(self.driving) if isinstance(self.driving, dict) else which
        rule = self.crop_rule(self.source_crop)
        source = open_whole_source(self.source, rule, which, self.follow, self.fps, self.size)
        rate = self.fps if source.still else source.clip.fps
        drivers = dict[int | None, Driver]()
        for number, file in self._drivers().items():
            drivers[number] = self._open_driver(loaded, file, rate)
            rate = drivers[number].fps
        if not drivers:
            drivers = {None: self._open_driver(loaded, None, rate)}
        parts = self._parts(loaded, source, drivers)
        first = next(iter(drivers.values()))
        frames = [driver.frames for driver in drivers.values()] + ([] if source.still else [source.clip.frames])
        sounds = {"driving": first.sound, "source": source.sound, "none": None}
        if self.audio == "source" and source.sound is None:
            print(f"{self.source} has no sound: the video is silent")
        pasted = animate_whole(loaded.runner, source, parts, self.batch_size)
        pictures = (self._beside(p.before, p.driving, p.image, p.image.shape[0]) for p in pasted)
        return _Film(pictures, min(frames), first.fps, sounds[self.audio])

    def _parts(self, loaded: Loaded, source: WholeSource, drivers: Mapping[int | None, Driver]) -> dict[int, Part]:
        """Return number of a face to what moves it."""
        parts, resolution = {}, loaded.runner.resolution
        for number, framing in source.faces.items():
            if (side := framing.side) < resolution:
                print(
                    f"{self.source}: the square of its face has {side:.0f} pixels, and the model draws {resolution}: "
                    "less detail than it could"
                )
            driver = drivers.get(number) or drivers[None]
            face = source.first_crop(number, resolution) if self.reference == "auto" else None
            parts[number] = Part(driver, self._how(loaded, driver, face))
        return parts

    def _open_driver(self, loaded: Loaded, file: str | None, fps: float | None) -> Driver:
        """Open a driving clip, or the track where no file is given."""
        if file is None:
            assert self.motion is not None
            track = MotionTrack.load(self.motion, loaded.runner)
            driver = Driver(loaded.runner, track if fps is None else track.at_rate(fps), self.loop)
        else:
            resolution = loaded.runner.resolution
            clip = open_frame_source(file, resolution, self.crop_rule(), fps, *self._span(), self.follow)
            driver = Driver(loaded.runner, clip, self.loop)
        if self.mode == "relative" and driver.frames == self.loop:
            raise ConfigError(
                f"mode: relative adds the change since the first driving frame, and {file or self.motion} holds no "
                "other; use --mode absolute, or a clip"
            )
        return driver

    def _how(self, loaded: Loaded, driver: Driver, face: np.ndarray | None) -> Steering:
        """Return how the driver's motion becomes that of a face, R R 3 uint8, which the reference auto needs."""
        if self.reference == "first" or face is None:
            return self.steering(loaded, driver.fps)
        motion, runner = driver.motion, loaded.runner
        number = nearest_frame(motion, runner.describe(runner.source(face)).motion, loaded.find_axes(self.axes))
        print(f"motion is relative to driving frame {number}, whose pose is nearest to the source's")
        return self.steering(loaded, driver.fps, motion[number])

    def _beside(self, source: np.ndarray, driving: np.ndarray | None, result: np.ndarray, height: int) -> np.ndarray:
        """Return H W 3 uint8: the result, or source, driving (where there is one) and result beside each other."""
        if not self.side_by_side:
            return enlarge(result, height)
        row = [source, *([] if driving is None else [driving]), result]
        return np.concatenate([enlarge(picture, height) for picture in row], axis=1)


def _report(result: Written, device: str) -> None:
    length = result.frames / result.fps
    print(
        f"wrote {result.output}: {result.frames} frames, {length:.2f} s at {result.fps:g} fps, "
        f"{result.width}x{result.height}; {result.frames / result.seconds:.1f} frames per second on {device}"
    )
