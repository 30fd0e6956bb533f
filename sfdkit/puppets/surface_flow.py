"""How the surface of a puppet's head moves between two pictures of it: the truth of a facial flow.

Legend: ``B`` pairs of pictures, ``R`` resolution.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sfdkit.puppets.face import measure
from sfdkit.puppets.factors import IdentityFactors, MotionFactors
from sfdkit.puppets.geometry import MIDDLE, ZOOM, along, cast_rays, head_pose, project

LEAST_FACING = 0.1
"""The least cosine between a surface's normal and the viewer for which it counts as seen."""


class SurfaceFlow(NamedTuple):
    """A facial flow."""

    flow: Tensor
    """B 3 R R: from each pixel of a picture to the same place of the head in the source, x and y as flows have them (x
    to the right, y down, in halves of the picture) and the depth, in the same unit, larger is nearer."""
    seen: Tensor
    """B 1 R R: 1 where the pixel shows the skull and the source shows the same place."""


@torch.no_grad()
def surface_flow(
    identity: IdentityFactors, source: MotionFactors, motion: MotionFactors, resolution: int
) -> SurfaceFlow:
    """Return the flow from pictures of heads in ``motion`` to pictures of the same heads in ``source``.

    The head is a rigid skull: what stands out of it (nose, ears) and what expressions move on it (lids, lips) is not in
    the flow.

    Args:
        identity: B rows.
        source: B rows.
        motion: B rows.
        resolution: Of both pictures.
    """
    i, m, before = identity.grid(), motion.grid(), source.grid()
    pose, pose_before = head_pose(m), head_pose(before)
    places = (torch.arange(resolution, device=m.yaw.device, dtype=torch.float32) + 0.5) * (2 / resolution) - 1
    x, y = places[None, None, :], -places[None, :, None]
    rays = cast_rays(pose, x / ZOOM, MIDDLE + y / ZOOM, 2 / resolution / ZOOM)
    hit = measure(i, m).skull.meet(rays)
    point = along(rays, hit.depth)
    there, now = project(pose_before, point), project(pose, point)
    flow = [
        ZOOM * there[0] - x,
        y - ZOOM * (there[1] - MIDDLE),
        ZOOM * (pose_before.size * there[2] - pose.size * now[2]),
    ]
    right, up, near = (turn * part for turn, part in zip(pose_before.rotation[2], hit.normal, strict=True))
    seen = (hit.edge > 0) & (right + up + near > LEAST_FACING)
    return SurfaceFlow(torch.stack(torch.broadcast_tensors(*flow), 1), seen[:, None].float())
