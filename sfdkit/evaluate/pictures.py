"""Pictures of an evaluation: a sheet of pairs, and what each motion vector does to a face."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from sfdkit.evaluate.frames import Frames, load_frames, render_truth
from sfdkit.evaluate.run import drive
from sfdkit.evaluate.samples import Pair, Sample
from sfdkit.evaluate.vector_effects import Effect
from sfdkit.media.draw import make_sheet, stack_sheets, write_cell
from sfdkit.media.tensors import flow_to_rgb, to_uint8
from sfdkit.model.animator import FaceAnimator

LEAST_CELL = 128
"""Pixels below which pictures are enlarged by a whole factor."""
ERROR_GAIN = 4.0
STEPS = (-3, -2, -1, 0, 1, 2, 3)
"""Standard deviations of a coefficient, one column of a traversal each."""
TRAVERSED = 32
"""The most rows of a traversal."""
_TRAVERSAL_CELL = 80
_ROWS_BESIDE = 12
"""With more rows than these a traversal has two columns of them."""


def draw_sheet(animator: FaceAnimator, self_pairs: Sequence[Pair], cross_pairs: Sequence[Pair]) -> np.ndarray:
    """Draw self- above cross-reenactment, one row per pair, by the middle one of its driving frames: H W 3 uint8."""
    return stack_sheets([_draw_pairs(animator, pairs) for pairs in (self_pairs, cross_pairs) if pairs])


def _draw_pairs(animator: FaceAnimator, pairs: Sequence[Pair]) -> np.ndarray:
    device = next(animator.parameters()).device
    frames = load_frames(pairs, device)
    middle = frames.driving.shape[1] // 2
    driving = frames.driving[:, middle]
    made = drive(animator, Frames(frames.source, driving[:, None]), batch_size=len(pairs))
    columns = {"source": frames.source, "driving": driving, "result": made.image}
    truth: Tensor | None = None
    if all(pair.is_self for pair in pairs):
        title, truth = "Self-reenactment: driven by another frame of the same clip, which is the truth", driving
    elif all(pair.has_truth for pair in pairs):
        title = "Cross-reenactment: driven by another face, truth rendered"
        truth = columns["truth"] = render_truth(pairs, device)[0][:, middle]
    else:
        title = "Cross-reenactment: driven by another face; there is no truth"
    if truth is not None:
        columns[f"error x {ERROR_GAIN:g}"] = ((made.image - truth).abs() * ERROR_GAIN).clamp(max=1.0)
    columns |= {"flow": flow_to_rgb(made.flow), "mask (white: warped)": made.mask}
    rows = list(zip(*(map(to_uint8, pictures) for pictures in columns.values()), strict=True))
    return make_sheet(rows, list(columns), animator.resolution * -(-LEAST_CELL // animator.resolution), title)


def order_vectors(effects: Sequence[Effect], std: Tensor) -> list[int]:
    """Return the coefficients of a traversal: first vectors that are a factor's own, then by how much they move.

    Args:
        effects: What each moves; empty where that is not known: then those that vary most come first.
        std: M, the standard deviation of each coefficient, 0 for those to leave out.

    Returns:
        At most :data:`TRAVERSED` numbers, at least one.
    """
    ordered = std.argsort(descending=True).tolist()
    if effects:
        ordered = [e.coefficient for e in sorted(effects, key=lambda e: (not e.exclusive, e.factor is None, -e.moves))]
    return [index for index in ordered if std[index] > 0][:TRAVERSED] or ordered[:1]


def draw_traversal(animator: FaceAnimator, sample: Sample, std: Tensor, effects: Sequence[Effect]) -> np.ndarray:
    """Draw a face with each motion coefficient, one per row, changed by -3 to +3 standard deviations.

    The face is the source frame of ``sample``, and all rows change its own motion. Many vectors stand in two columns,
    to be read down the left one first. See :func:`order_vectors` for ``std`` and ``effects``.

    Returns:
        H W 3 uint8.
    """
    device = next(animator.parameters()).device
    source = load_frames([Pair(sample, sample)], device).source
    rows = []
    with torch.no_grad():
        state = animator.source_state(source)
        steps = torch.tensor(STEPS, dtype=torch.float32, device=device)
        for index in order_vectors(effects, std):
            motion = state.descriptors.motion.repeat(len(STEPS), 1)
            motion[:, index] += steps * float(std[index])
            made = animator.generate(state.expand(len(STEPS)), motion).image
            rows.append([_label(index, effects, float(std[index])), *map(to_uint8, made)])
    captions = ["motion vector", *(f"{step:+d} sigma" if step else "as it is" for step in STEPS)]
    if len(rows) <= _ROWS_BESIDE:
        return make_sheet(rows, captions, _TRAVERSAL_CELL)
    half = -(-len(rows) // 2)
    left, right = (make_sheet(part, captions, _TRAVERSAL_CELL) for part in (rows[:half], rows[half:]))
    right = np.pad(right, ((0, len(left) - len(right)), (0, 0), (0, 0)), constant_values=255)
    return np.concatenate([left, right], 1)


def _label(index: int, effects: Sequence[Effect], std: float) -> np.ndarray:
    """Return a cell that says what a vector does, H W 3 uint8."""
    lines = [f"{index}", f"sigma {std:.2g}"]
    if effects and effects[index].factor is not None:
        effect = effects[index]
        lines = [f"{index}{', own' if effect.exclusive else ''}", str(effect.factor), f"by {effect.moves:.2f} sd"]
    return write_cell(lines, _TRAVERSAL_CELL)
