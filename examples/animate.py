"""Move the face of a picture as the face of a video moves, with weights that come with sfdkit or any others.

python animate.py --source face.png --driving clip.mp4 --output out.mp4 --checkpoint C --crop face

Without a source or a driver a puppet is drawn.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from sfdkit.apply.frame_source import open_frame_source, read_source
from sfdkit.apply.reenactment import animate_frames
from sfdkit.apply.torch_runner import TorchRunner
from sfdkit.checkpoint import load_animator
from sfdkit.files import require_apart
from sfdkit.media.crop import CropRule
from sfdkit.media.detect import OPENCV
from sfdkit.media.video_writer import VideoWriter
from sfdkit.puppets.commands import render_file

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--source", type=Path)
parser.add_argument("--driving", type=Path)
parser.add_argument("--output", type=Path, default=Path("animated.mp4"))
parser.add_argument("--checkpoint", default="puppets64")
parser.add_argument("--crop", default="none", help="none for puppets, face for pictures of people")
given = parser.parse_args()
drawn = tempfile.TemporaryDirectory()
source = given.source or Path(drawn.name) / "source.png"
driving = given.driving or Path(drawn.name) / "driving.mp4"
require_apart(given.output, source=given.source, driving=given.driving)
if given.source is None:
    render_file(str(source), identity=14, motion=14, resolution=64)
if given.driving is None:
    render_file(str(driving), identity=19, motion=19, resolution=64, frames=25, pose=0.5)

runner = TorchRunner(load_animator(given.checkpoint).animator)
rule = CropRule.of_user(given.crop, None, OPENCV)
frames = open_frame_source(driving, runner.resolution, rule)
with VideoWriter(given.output, frames.fps) as writer:
    for made in animate_frames(runner, read_source(source, runner.resolution, rule), frames):
        for frame in made.image:
            writer.write(frame)
print(given.output)
