"""The picture of an evaluation: what was asked, what came out, and what should have."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from sfdkit.draw import flow_to_rgb, make_sheet, stack_sheets
from sfdkit.model.animator import FaceAnimator
from sfdkit.reenact import drive
from sfdkit.samples import Frames, Pair, load_frames, render_truth

LEAST_CELL = 128
"""Pixels below which pictures are enlarged by a whole factor, so that a person can see them."""
ERROR_GAIN = 4.0


def draw_sheet(animator: FaceAnimator, own: Sequence[Pair], pairs: Sequence[Pair]) -> np.ndarray:
    """Draw self-reenactment above cross-reenactment, one row per clip or pair, by the middle one of its driving frames.

    Args:
        animator: In eval mode.
        own: Clips, each paired with itself; at least one.
        pairs: Pairs of different people; may be empty.

    Returns:
        H W 3 uint8.
    """
    cell = animator.resolution * -(-LEAST_CELL // animator.resolution)
    sheets = [_block(animator, own, cell)]
    if pairs:
        sheets.append(_block(animator, pairs, cell))
    return stack_sheets(sheets)


def _block(animator: FaceAnimator, pairs: Sequence[Pair], cell: int) -> np.ndarray:
    device = next(animator.parameters()).device
    frames = load_frames(pairs, device)
    middle = frames.driving.shape[1] // 2
    driving = frames.driving[:, middle]
    made = drive(animator, Frames(frames.source, driving[:, None]), batch_size=len(pairs))
    columns = {"source": frames.source, "driving": driving, "result": made.image}
    truth: Tensor | None = None
    if all(pair.source is pair.driver for pair in pairs):
        title, truth = "Self-reenactment: driven by another frame of the same clip, which is the truth", driving
    elif all(pair.has_truth for pair in pairs):
        title = "Cross-reenactment: driven by another face, truth rendered"
        truth = columns["truth"] = render_truth(pairs, device)[0][:, middle]
    else:
        title = "Cross-reenactment: driven by another face; there is no truth"
    if truth is not None:
        columns[f"error x {ERROR_GAIN:g}"] = ((made.image - truth).abs() * ERROR_GAIN).clamp(max=1.0)
    columns |= {"flow": flow_to_rgb(made.flow), "warped (white)": made.mask}
    rows = list(zip(*(pictures.unbind(0) for pictures in columns.values()), strict=True))
    return make_sheet(rows, list(columns), cell, title)
