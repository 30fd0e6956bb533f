"""Fast augmentation on the device: mild changes of whole rows, and a harder view of the driving frames.

The motion encoder must carry motion and nothing else. It therefore looks at ``driving_view``, in which colours,
proportions and position differ from the target ``driving``: what it reads there about identity is wrong, so it does not
pay to read it. Squeezing key points by up to a quarter removes face shape from pose in the same way (TPSMM,
https://arxiv.org/abs/2203.14367).

Each call draws from a generator of its own on the CPU, so a seed gives the same draws on every device and the global
generators stay as they are. What was drawn, some 200 numbers a frame at most, is sent to the device in one piece; the
grids, which are larger than the pictures, are made there. 32 rows of one driving frame at 64 x 64 take 8 ms on one
core; kornia's classes (:class:`~sfdkit.data.augment.KorniaAugmentation`) take that much for a change of saturation
alone, and 35 ms for a thin-plate spline in place of 2.
"""

from __future__ import annotations

from typing import Literal

import torch
from jsonargparse.typing import ClosedUnitInterval, restricted_number_type

from sfdkit.data.augment.base import Augmentation, row_frames, with_view
from sfdkit.data.augment.draws import Change, apply_change, draw_colour, draw_geometry, move_points, send
from sfdkit.points import POINT_SETS
from sfdkit.types import FrameBatch

# mypy: disable-error-code=valid-type
ShareToHalf = restricted_number_type("ShareToHalf", float, [(">=", 0), ("<=", 0.5)])


class DriverViewAugmentation(Augmentation):
    """Changes rows as a whole a little, and the view of their driving frames a lot.

    The joint part is the same for the source and all driving frames of a row: a horizontal flip, a mild change of
    colours, and other proportions, which make another face of it with the same motion. The driver part is drawn for
    each driving frame and changes ``driving_view`` alone. With all strengths 0 the batch comes back as it was, and
    ``driving_view`` equals ``driving``.

    Args:
        flip: Probability that a row is mirrored.
        joint_colour: Colour change of whole rows, see ``colour``.
        joint_scale: Largest stretch of whole rows, see ``scale``.
        joint_tps: Bending of whole rows, see ``tps``.
        colour: Colour change of the driver's view: brightness, contrast, saturation and the gain of each channel are
            factors between ``1 - colour`` and ``1 + colour``, the gains half as far.
        grayscale: Probability that a frame of the driver's view has no colours.
        scale: Largest stretch of the driver's view, drawn for width and height apart: factors between
            ``1 / (1 + scale)`` and ``1 + scale``.
        shift: Largest shift of the driver's view along each axis, as a share of the side; the jitter of a face crop.
        tps: Bending of the driver's view: standard deviation by which 3 x 3 control points of a thin-plate spline
            move, as a share of the side. 0.02 is visible, 0.05 is a caricature.
        padding: What shows where the view looks past the border of the frame.
    """

    def __init__(
        self,
        flip: ClosedUnitInterval = 0.5,
        joint_colour: ClosedUnitInterval = 0.05,
        joint_scale: ShareToHalf = 0.0,
        joint_tps: ShareToHalf = 0.0,
        colour: ClosedUnitInterval = 0.3,
        grayscale: ClosedUnitInterval = 0.1,
        scale: ShareToHalf = 0.2,
        shift: ShareToHalf = 0.05,
        tps: ShareToHalf = 0.0,
        padding: Literal["reflection", "border", "zeros"] = "reflection",
    ) -> None:
        self.flip = flip
        self.joint_colour = joint_colour
        self.joint_scale = joint_scale
        self.joint_tps = joint_tps
        self.colour = colour
        self.grayscale = grayscale
        self.scale = scale
        self.shift = shift
        self.tps = tps
        self.padding = padding

    @torch.no_grad()
    def __call__(self, batch: FrameBatch, seed: int) -> FrameBatch:
        """Return the batch with its joint changes and with ``driving_view``.

        Args:
            batch: Images float32 in [0, 1], on any device.
            seed: What to draw; equal seeds change equal batches equally.

        Returns:
            A new batch, images float32 in [0, 1].
        """
        generator = torch.Generator().manual_seed(seed)
        rows, driven = batch["driving"].shape[:2]
        device = batch["source"].device
        with torch.autocast(device.type, enabled=False):
            drawn = [self._draw_joint(rows, generator), self._draw_view(rows * driven, generator)]
            joint, own = send(drawn, device)
            frames = apply_change(row_frames(batch), joint, self.padding)
            driving = frames[:, 1:]
            view = apply_change(driving.flatten(0, 1)[:, None], own, self.padding).view_as(driving)
            points = batch.get("points")
            if points is not None:
                points = move_points(points, joint, POINT_SETS[batch["point_set"]].mirrored)
        return with_view(batch, frames, view, points)

    def _draw_joint(self, count: int, generator: torch.Generator) -> Change:
        """Draw what happens to whole rows."""
        nothing = torch.empty(0)
        mirrored = (torch.rand(count, generator=generator) < self.flip).float() if self.flip else nothing
        colour = draw_colour(count, self.joint_colour, 0.0, generator) if self.joint_colour else (nothing, nothing)
        return Change(mirrored, *colour, *draw_geometry(count, self.joint_scale, 0.0, self.joint_tps, generator))

    def _draw_view(self, count: int, generator: torch.Generator) -> Change:
        """Draw what happens to the views of driving frames."""
        nothing = torch.empty(0)
        colour = nothing, nothing
        if self.colour or self.grayscale:
            colour = draw_colour(count, self.colour, self.grayscale, generator)
        return Change(nothing, *colour, *draw_geometry(count, self.scale, self.shift, self.tps, generator))
