"""Faces to begin with: puppets that are drawn when the page starts."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from sfdkit.files import write_picture
from sfdkit.media.video_writer import VideoWriter
from sfdkit.puppets.clips import to_bytes
from sfdkit.puppets.factors import sample_identity, sample_motion
from sfdkit.puppets.render import render

RESOLUTION = 128
FRAMES, FPS, POSE = 50, 25.0, 0.5
_PICTURES, _CLIP = (14, 24), 19


class Examples(NamedTuple):
    """Files; their pictures are cut out already."""

    source: str
    other: str
    """Another picture."""
    clip: str
    """A driving clip."""


def draw_examples(folder: Path) -> Examples:
    """Draw the examples into a folder."""
    pictures = []
    for number in _PICTURES:
        image = render(sample_identity(number, "test", 0), sample_motion(number, "test", 0, 1, FPS, POSE), RESOLUTION)
        pictures.append(folder / f"puppet{number}.png")
        write_picture(pictures[-1], to_bytes(image.image[0]).permute(1, 2, 0).numpy())
    clip, who = folder / f"puppet{_CLIP}.mp4", sample_identity(_CLIP, "test", 0)
    motion = sample_motion(_CLIP, "test", 0, FRAMES, FPS, POSE)
    with VideoWriter(clip, FPS) as writer:
        for number in range(FRAMES):
            frame = render(who, motion[number], RESOLUTION).image[0]
            writer.write(to_bytes(frame).permute(1, 2, 0).numpy())
    return Examples(str(pictures[0]), str(pictures[1]), str(clip))
