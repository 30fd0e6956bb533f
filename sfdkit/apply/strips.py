"""Strips of faces with other descriptors, or videos that play them: shared by ``sfdkit edit`` and ``interpolate``.

Legend: ``S`` steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from jsonargparse.typing import restricted_number_type
from torch import Tensor

from sfdkit.apply.face import render
from sfdkit.apply.frame_source import read_source
from sfdkit.apply.frame_writer import check_output, open_frame_writer
from sfdkit.apply.options import AnimatorOptions, Height
from sfdkit.apply.reenactment import as_float
from sfdkit.files import require_apart
from sfdkit.media.frame_rate import Fps
from sfdkit.model.animator import FaceAnimator, SourceState
from sfdkit.types import Descriptors

Steps: TypeAlias = restricted_number_type("Steps", int, (">=", 2))  # type: ignore[valid-type]

LEAST_CELL = 128
"""Pixels below which pictures are enlarged by a whole factor, so that a person can see them."""
STRIP_STEPS = 7
VIDEO_STEPS = 50


@dataclass(kw_only=True)
class StripOptions(AnimatorOptions):
    """The face to begin with, and how to show its way.

    Args:
        source: The face: a picture, or a video or folder of pictures whose first frame is taken.
        output: A strip of pictures in a .png; or .mp4, .gif or a folder of PNG frames (a name without suffix), which go
            from one end to the other and back again.
        steps: Pictures from one end to the other; 7 in a strip, 50 in a video by default.
        size: Height of each face in pixels; by default the model's resolution, enlarged to at least 128.
        fps: Frames per second of a video.
    """

    source: str
    output: str
    steps: Steps | None = None
    size: Height | None = None
    fps: Fps = 25.0

    def check_output(self, **inputs: str | None) -> Path:
        """Check that the output can be written and is none of the files that are read; ``inputs`` as options.

        Raises:
            ConfigError: It replaces an input, or is of an unknown kind.
            DataError: It cannot be written.
        """
        require_apart(self.output, checkpoint=self.checkpoint, source=self.source, **inputs)
        return check_output(self.output, None)

    @property
    def is_strip(self) -> bool:
        """Whether the output is one picture."""
        return Path(self.output).suffix.lower() == ".png"

    @property
    def step_count(self) -> int:
        """S."""
        return self.steps or (STRIP_STEPS if self.is_strip else VIDEO_STEPS)

    def cell(self, animator: FaceAnimator) -> int:
        """Return the height of each face in pixels."""
        return self.size or animator.resolution * -(-LEAST_CELL // animator.resolution)

    def read_state(self, animator: FaceAnimator, path: str) -> SourceState:
        """Read a face and encode it as a source.

        Raises:
            DataError: It cannot be read, or no face was found.
        """
        picture = as_float(read_source(path, animator.resolution, self.crop_rule()), animator.descriptors.weight.device)
        with torch.no_grad():
            return animator.source_state(picture[None])

    def write_there_and_back(self, path: Path, frames: Sequence[np.ndarray]) -> None:
        """Write frames H W 3 uint8 as a video that goes to the last one and back to the second."""
        with open_frame_writer(path, self.fps, None) as write_frame:
            for frame in (*frames, *frames[-2:0:-1]):
                write_frame(frame)


def render_all(animator: FaceAnimator, state: SourceState, faces: Descriptors, batch_size: int = 16) -> list[Tensor]:
    """Render a source with S rows of descriptors.

    Returns:
        S pictures, 3 R R in [0, 1].
    """
    with torch.no_grad():
        parts = [
            render(animator, state, Descriptors(identity, motion)).image
            for identity, motion in zip(*(part.split(batch_size) for part in faces), strict=True)
        ]
    return list(torch.cat(parts).float().clamp(0.0, 1.0))
