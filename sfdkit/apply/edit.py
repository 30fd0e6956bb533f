"""The commands ``sfdkit edit`` and ``sfdkit interpolate``: a face with other descriptors, as a strip or as a video.

Legend: ``S`` steps, ``N`` identity and ``M`` motion coefficients.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
from jsonargparse.typing import restricted_number_type

from sfdkit.apply.axes import FILE_NAME, Axes, raw_step
from sfdkit.apply.frame_source import read_source
from sfdkit.apply.frame_writer import check_output, open_frame_writer
from sfdkit.apply.options import AnimatorOptions, Height
from sfdkit.apply.runner import Coefficients, Runner, Source, What
from sfdkit.errors import ConfigError
from sfdkit.files import write_picture
from sfdkit.media.crop import CropRule
from sfdkit.media.draw import make_sheet, stack_sheets
from sfdkit.media.frame_rate import Fps

Steps: TypeAlias = restricted_number_type("Steps", int, (">=", 2))  # type: ignore[valid-type]

LEAST_CELL = 128
"""Pixels below which pictures are enlarged by a whole factor, so that a person can see them."""
STRIP_STEPS = 7
VIDEO_STEPS = 50
_BATCH = 16


class Face(NamedTuple):
    """A face that was read."""

    picture: np.ndarray
    """R R 3 uint8."""
    source: Source


def read_face(runner: Runner, path: str, rule: CropRule) -> Face:
    """Read and encode a face.

    Args:
        runner: The animator.
        path: A picture, or a video or folder of pictures whose first frame is taken.
        rule: How to cut the face out.

    Raises:
        DataError: It cannot be read, or no face was found.
    """
    picture = read_source(path, runner.resolution, rule)
    return Face(picture, runner.source(picture))


@dataclass(kw_only=True)
class _Strip(AnimatorOptions):
    """A source face, and a strip or a video of its renderings.

    Args:
        source: The face: a picture, or a video or folder of pictures whose first frame is taken.
        output: A strip of pictures in a .png; or .mp4, .webp, .gif or a folder of PNG frames (a name without suffix),
            which go from one end to the other and back again.
        steps: Pictures from one end to the other; 7 in a strip, 50 in a video by default.
        size: Height of each face in pixels; by default the model's resolution, enlarged to at least 128.
        fps: Frames per second of a video.
    """

    source: str
    output: str
    steps: Steps | None = None
    size: Height | None = None
    fps: Fps = 25.0

    def _check_output(self, **inputs: str | None) -> tuple[Path, bool, int]:
        """Return the output, whether it is a strip, and S."""
        self.check_apart(self.output, source=self.source, **inputs)
        path = check_output(self.output, None)
        is_strip = path.suffix.lower() == ".png"
        return path, is_strip, self.steps or (STRIP_STEPS if is_strip else VIDEO_STEPS)

    def _cell(self, runner: Runner) -> int:
        return self.size or runner.resolution * -(-LEAST_CELL // runner.resolution)

    def _read_face(self, runner: Runner, path: str) -> Face:
        return read_face(runner, path, self.crop_rule())

    def _write_video(
        self, path: Path, rows: Sequence[Sequence[np.ndarray]], captions: list[list[str]], cell: int
    ) -> None:
        """Write rows of pictures beside each other, one row per frame, there and back again."""
        frames = [make_sheet([row], words, cell) for row, words in zip(rows, captions, strict=True)]
        with open_frame_writer(path, self.fps, None) as write_frame:
            for frame in (*frames, *frames[-2:0:-1]):
                write_frame(frame)


def edited(runner: Runner, face: Face, steps: Coefficients) -> list[np.ndarray]:
    """Render a face with S steps added to its descriptors, S N and S M: S pictures, R R 3 uint8."""
    own = runner.describe(face.source)
    made: list[np.ndarray] = []
    for start in range(0, len(steps.motion), _BATCH):
        identity, motion = (part[start : start + _BATCH] for part in steps)
        source = runner.change_identity(face.source, own.identity + identity) if identity.any() else face.source
        made.extend(runner.render(source, own.motion + motion))
    return made


def _between(runner: Runner, face: Face, other: Face, shares: np.ndarray, what: What) -> list[np.ndarray]:
    """Render a face on its way to another one, by S shares: S pictures, R R 3 uint8."""
    start, end = runner.describe(face.source).motion, runner.describe(other.source).motion
    made: list[np.ndarray] = []
    for first in range(0, len(shares), _BATCH):
        some = shares[first : first + _BATCH]
        source = face.source if what == "motion" else runner.morph(face.source, other.source, some)
        weight = np.zeros_like(some) if what == "identity" else some
        made.extend(runner.render(source, start + weight[:, None] * (end - start)))
    return made


@dataclass(kw_only=True)
class Edit(_Strip):
    """Move a face along axes of its descriptors and show it: a strip of pictures or a video.

    The amounts --from and --to are added to the source's own coefficients, so 0 is the source as the model renders it.
    A strip has a row per axis; a video goes along all axes at once, side by side. Identity axes change who is seen, in
    the source's own pose and expression, and need a model that was trained with code_share.

    Args:
        axis: A factor such as yaw or glasses, or one basis vector such as motion:3 or identity:7; several as
            [yaw,mouth_open].
        from_: The amount at the one end: in the factor's unit, or in standard deviations for a basis vector.
        to: The amount at the other end.
        sigma: Take the amounts of factors in standard deviations of the coefficients, not in the factor's unit.
        axes: The axes.json that sfdkit evaluate wrote for this checkpoint. By default those in the weights file, or the
            one in the folder of the run, above checkpoints/, if there are some. none, or no such file: basis vectors
            alone, in raw coefficients.
    """

    axis: list[str] | str
    from_: float
    to: float
    sigma: bool = False
    axes: str | None = None

    def run(self) -> Path:
        """Render the faces and return the file that they were written to.

        Raises:
            CheckpointError: The checkpoint is missing or damaged, or the axes are of another model.
            ConfigError: There is no such axis, an identity axis of a model without code_share or of an exported model,
                or an output of an unknown kind.
            DataError: The source or the axes cannot be read, no face was found, or the output cannot be written.
        """
        target, is_strip, count = self._check_output(axes=self.axes)
        names = [self.axis] if isinstance(self.axis, str) else self.axis
        if not names:
            raise ConfigError("axis: the list is empty; give a factor such as yaw, or a basis vector such as motion:0")
        for option, amount in (("from", self.from_), ("to", self.to)):
            if not np.isfinite(amount):
                raise ConfigError(f"{option}: {amount:g} is no amount; give a number such as -1 or 20")
        loaded = self.load()
        runner, known = loaded.runner, loaded.find_axes(self.axes)
        amounts = [round(float(a), 9) for a in np.linspace(self.from_, self.to, count)]
        steps = [self._steps(runner, known, name, amounts) for name in names]
        face = self._read_face(runner, self.source)
        rows = [edited(runner, face, each) for each in steps]
        titles = [f"{name} ({known.unit(name, self.sigma) if known else 'raw'})" for name in names]
        cell, source = self._cell(runner), face.picture
        words = [f"{amount:+.3g}" for amount in amounts]
        if is_strip:
            sheets = [
                make_sheet([[source, *r]], ["source", *words], cell, t) for t, r in zip(titles, rows, strict=True)
            ]
            write_picture(target, stack_sheets(sheets))
        else:
            faces = [[source, *step] for step in zip(*rows, strict=True)]
            self._write_video(
                target, faces, [["source", *(f"{name} {word}" for name in names)] for word in words], cell
            )
        print(f"wrote {target}: {', '.join(titles)} from {amounts[0]:g} to {amounts[-1]:g}")
        return target

    def _steps(self, runner: Runner, axes: Axes | None, name: str, amounts: Sequence[float]) -> Coefficients:
        """Return what to add to the source's descriptors: S rows along one axis."""
        if axes is None and self.sigma:
            raise ConfigError(f"sigma: standard deviations are in an {FILE_NAME}, and there is none; give --axes FILE")
        steps = [
            axes.step(name, a, self.sigma) if axes else raw_step(name, a, runner.identity_size, runner.motion_size)
            for a in amounts
        ]
        return Coefficients(*(np.stack(parts) for parts in zip(*steps, strict=True)))


@dataclass(kw_only=True)
class Interpolate(_Strip):
    """Go from one face's descriptors to another's and show it: a strip of pictures or a video.

    Motion moves the source's face. Identity makes another person of it, who ends as the target in the source's pose;
    it needs a model that was trained with code_share.

    Args:
        target: The face to end with, likewise.
        what: The coefficients that change: motion, identity or both.
    """

    target: str
    what: What = "motion"

    def run(self) -> Path:
        """Render the faces and return the file that they were written to.

        Raises:
            CheckpointError: The checkpoint is missing, damaged or of another model.
            ConfigError: An output of an unknown kind, or identity of a model without code_share.
            DataError: A face cannot be read or was not found, or the output cannot be written.
        """
        path, is_strip, count = self._check_output(target=self.target)
        runner = self.load().runner
        face, other = (self._read_face(runner, each) for each in (self.source, self.target))
        shares = np.linspace(0.0, 1.0, count, dtype=np.float32)
        row, cell = _between(runner, face, other, shares, self.what), self._cell(runner)
        title = "identity and motion" if self.what == "both" else self.what
        source, target = face.picture, other.picture
        words = [f"{title} {float(share):.2f}" for share in shares]
        if is_strip:
            write_picture(path, make_sheet([[source, *row, target]], ["source", *words, "target"], cell))
        else:
            captions = [["source", word, "target"] for word in words]
            self._write_video(path, [[source, picture, target] for picture in row], captions, cell)
        print(f"wrote {path}: {title} of {self.source} to that of {self.target}, rendered from {self.source}")
        return path
