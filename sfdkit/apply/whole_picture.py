"""Faces moved where they are: in whole pictures and videos. This module needs no torch.

Legend: ``K`` frames of one batch, ``H W`` whole picture, ``R`` resolution of the animator, ``M`` motion coefficients.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import NamedTuple

import numpy as np

from sfdkit.apply.driver import Driver
from sfdkit.apply.reenactment import MovingRenderer, SourceRenderer
from sfdkit.apply.runner import Runner
from sfdkit.apply.steering import Steering
from sfdkit.apply.whole_source import WholeSource
from sfdkit.media.box import overlap
from sfdkit.media.crop import crop_resize
from sfdkit.media.framing import Framing
from sfdkit.media.paste import paste


class Part(NamedTuple):
    """A face to move: by what, and how."""

    driver: Driver
    how: Steering


class Pasted(NamedTuple):
    """One frame."""

    before: np.ndarray
    """H W 3 uint8."""
    driving: np.ndarray | None
    """R R 3 uint8: the frame that drives the first face; None for a track."""
    image: np.ndarray
    """H W 3 uint8: the frame with its faces moved; what surrounds them is the same bit for bit."""


def animate_whole(
    runner: Runner, source: WholeSource, parts: Mapping[int, Part], batch_size: int = 8
) -> Iterator[Pasted]:
    """Move faces of a picture or video and put them back; memory does not grow with the length.

    Args:
        runner: What runs the animator.
        source: Whole frames.
        parts: Number of a face to what moves it. Drivers have the frame rate of the source.
        batch_size: Frames per step.

    Yields:
        Frames, until the source ends, or the driver that ends first.
    """
    faces = {number: _Face(runner, source, number, part.how) for number, part in parts.items()}
    streams = {id(part.driver): part.driver.batches(batch_size) for part in parts.values()}
    frames = iter(source)
    while True:
        driven = {key: next(stream, None) for key, stream in streams.items()}
        batches = {key: batch for key, batch in driven.items() if batch is not None}
        if len(batches) < len(streams):
            return
        count = min(len(motion) for _, motion in batches.values())
        before = list(islice(frames, count))
        moved = {
            number: face([n for n, _ in before], [f for _, f in before], batches[id(parts[number].driver)][1])
            for number, face in faces.items()
        }
        shown = next(iter(batches.values()))[0]
        for k, (number, frame) in enumerate(before):
            image = frame.copy()
            places = {face: source.faces[face].at(number) for face, pictures in moved.items() if k in pictures}
            for face, place in places.items():
                assert place is not None
                others = [other for name, other in places.items() if name != face and other is not None]
                paste(image, *moved[face][k], place, [other for other in others if overlap(place.box, other.box)])
            yield Pasted(frame, None if shown is None else shown[k], image)
        if len(before) < count:
            return


class _Face:
    """Moves one face."""

    def __init__(self, runner: Runner, source: WholeSource, number: int, how: Steering) -> None:
        self.framing: Framing = source.faces[number]
        self.resolution = runner.resolution
        self.still: np.ndarray | None = None
        if source.still:
            self.still = source.first_crop(number, self.resolution)
            self.render_still = SourceRenderer(runner, self.still, how)
        else:
            self.render = MovingRenderer(runner, how)

    def __call__(
        self, numbers: list[int], frames: list[np.ndarray], motion: np.ndarray
    ) -> dict[int, tuple[np.ndarray, np.ndarray]]:
        """Return row of the batch to the face moved and as it was, R R 3 uint8 each; rows without it are left out."""
        motion = motion[: len(frames)]
        if not len(motion):
            return {}
        if self.still is not None:
            return {k: (image, self.still) for k, image in enumerate(self.render_still(motion))}
        places = {k: place for k, n in enumerate(numbers) if (place := self.framing.at(n)) is not None}
        crops = {k: crop_resize(frames[k], place, self.resolution) for k, place in places.items()}
        return {k: (image, crops[k]) for k, image in self.render(crops, motion).items()}
