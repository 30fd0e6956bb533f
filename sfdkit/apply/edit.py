"""The command ``sfdkit edit``: a face moved along axes of its descriptors.

Legend: ``S`` steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from sfdkit.apply.axes import FILE_NAME, Axes, raw_step
from sfdkit.apply.face import edit
from sfdkit.apply.strips import StripOptions, render_all
from sfdkit.errors import ConfigError
from sfdkit.files import write_picture
from sfdkit.media.draw import make_sheet, stack_sheets
from sfdkit.model.animator import FaceAnimator
from sfdkit.types import Descriptors


@dataclass(kw_only=True)
class Edit(StripOptions):
    """Move a face along axes of its descriptors and show it: a strip of pictures or a video.

    The amounts --from and --to are added to the source's own coefficients, so 0 is the source as the model renders it.
    A strip has a row per axis; a video goes along all axes at once, side by side.

    Args:
        axis: A factor such as yaw, or one basis vector such as motion:3 or identity:7; several as [yaw,mouth_open].
        from_: The amount at the one end: in the factor's unit, or in standard deviations for a basis vector.
        to: The amount at the other end.
        sigma: Take the amounts of factors in standard deviations of the coefficients, not in the factor's unit.
        axes: The axes.json that sfdkit evaluate wrote for this checkpoint. By default the one in the folder of the run,
            above checkpoints/, if it is there. none, or no such file: basis vectors alone, in raw coefficients.
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
            ConfigError: There is no such axis, or an output of an unknown kind.
            DataError: The source or the axes cannot be read, no face was found, or the output cannot be written.
        """
        target = self.check_output(axes=self.axes)
        names = [self.axis] if isinstance(self.axis, str) else self.axis
        if not names:
            raise ConfigError("axis: the list is empty; give a factor such as yaw, or a basis vector such as motion:0")
        animator = self.load_animator()
        known = find_axes(animator, self.checkpoint, self.axes)
        ends = torch.linspace(self.from_, self.to, self.step_count, dtype=torch.float64)
        amounts = [round(float(amount), 9) for amount in ends]
        moves = [_steps(animator, known, name, amounts, self.sigma) for name in names]
        state = self.read_state(animator, self.source)
        rows = [render_all(animator, state, edit(state.descriptors, move)) for move in moves]
        titles = [f"{name} ({known.unit(name, self.sigma) if known else 'raw'})" for name in names]
        cell, picture = self.cell(animator), state.image[0]
        if self.is_strip:
            captions = ["source", *(f"{amount:+.3g}" for amount in amounts)]
            strips = [make_sheet([[picture, *row]], captions, cell, t) for t, row in zip(titles, rows, strict=True)]
            write_picture(target, stack_sheets(strips))
        else:
            frames = [
                make_sheet([[picture, *faces]], ["source", *(f"{name} {amount:+.3g}" for name in names)], cell)
                for amount, faces in zip(amounts, zip(*rows, strict=True), strict=True)
            ]
            self.write_there_and_back(target, frames)
        print(f"wrote {target}: {', '.join(titles)} from {amounts[0]:g} to {amounts[-1]:g}")
        return target


def find_axes(animator: FaceAnimator, checkpoint: str | Path, axes: str | None) -> Axes | None:
    """Read the axes that belong to a checkpoint.

    Args:
        animator: The checkpoint's.
        checkpoint: Its file.
        axes: An ``axes.json``; None takes the one in the folder above ``checkpoints/``, if there is one; ``none`` none.

    Returns:
        The axes, or None.

    Raises:
        CheckpointError: They were measured on another model.
        DataError: The file named is missing, or a file is not an ``axes.json``.
    """
    if axes == "none":
        return None
    path = Path(axes) if axes else Path(checkpoint).resolve().parent.parent / FILE_NAME
    if axes is None and not path.is_file():
        return None
    return Axes.load(path, animator.descriptors)


def _steps(animator: FaceAnimator, axes: Axes | None, name: str, amounts: Sequence[float], sigma: bool) -> Descriptors:
    """Return S steps along one axis."""
    if axes is None and sigma:
        raise ConfigError(f"sigma: standard deviations are in an {FILE_NAME}, and there is none; give --axes FILE")
    steps = [axes.step(name, a, sigma) if axes else raw_step(animator.descriptors, name, a) for a in amounts]
    return Descriptors(*(torch.stack(parts) for parts in zip(*steps, strict=True)))
