"""The command ``sfdkit motion extract``: the motion of a clip in a file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jsonargparse.typing import PositiveInt
from tqdm import tqdm

from sfdkit.apply.frame_source import open_frame_source
from sfdkit.apply.motion_track import MotionTrack, rate_line
from sfdkit.apply.options import AnimatorOptions
from sfdkit.apply.reenactment import read_motion
from sfdkit.errors import DataError
from sfdkit.media.frame_rate import Fps
from sfdkit.media.picture import list_pictures
from sfdkit.tensor_file import check_suffix


@dataclass(kw_only=True)
class Extract(AnimatorOptions):
    """Read the motion of a clip into a file, from which sfdkit animate --motion moves any face.

    The file holds M numbers per frame; the kilobits per second that they need are printed. Frames are decoded and read
    batch by batch: memory grows with the clip by its coefficients alone. The track is of use to
    this checkpoint, and to what is exported from it, only.

    Args:
        driving: A video, a folder of pictures in the order of their names, or one picture.
        output: The track, a .safetensors file.
        bits: Bits per coefficient: 32 keeps floats, 2 to 8 rounds between each one's smallest and largest value.
        batch_size: Frames per step.
        fps: Frames per second of the track. A video is resampled in time and keeps its length; the pictures of a folder
            are taken to be that far apart. The clip's own rate by default, 25 for a folder.
    """

    driving: str
    output: str
    bits: Literal[2, 3, 4, 5, 6, 7, 8, 32] = 32
    batch_size: PositiveInt = 8
    fps: Fps | None = None

    def run(self) -> MotionTrack:
        """Read the motion, write the track and return it.

        Raises:
            CheckpointError: The checkpoint is missing, damaged or of another model.
            ConfigError: An output with another suffix.
            DataError: The clip cannot be read, no face was found, or the output cannot be written.
        """
        self.check_apart(self.output, driving=self.driving)
        target = check_suffix(self.output, "output")
        runner = self.load().runner
        clip = open_frame_source(self.driving, runner.resolution, self.crop_rule(), self.fps)
        rows = []
        with tqdm(total=clip.frames or None, desc="extract", unit="frame") as bar:
            for _, motion in read_motion(runner, clip, self.batch_size):
                rows.append(motion)
                bar.update(len(motion))
        if not rows:
            raise DataError(f"{self.driving} holds no frame: give another clip")
        track = MotionTrack(np.concatenate(rows), clip.fps, runner.motion_model, clip.clip.path.name).rounded(self.bits)
        track.save(target)
        print(f"wrote {target}: {len(track.motion)} frames, {len(track.motion) / track.fps:.2f} s at {track.fps:g} fps")
        print(rate_line(track, _size(clip.clip.path)))
        return track


def _size(path: Path) -> int:
    files = list_pictures(path) if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files)
