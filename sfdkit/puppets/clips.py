"""Puppet clips for shards, and reading their factors back from a clip's json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sfdkit.data.shards.format import ClipMeta, ClipPoints
from sfdkit.errors import DataError
from sfdkit.points import FACE31
from sfdkit.puppets.factors import IdentityFactors, MotionFactors, Split, groups, sample_identity, sample_motion
from sfdkit.puppets.render import Rendered, render


def make_clip(
    index: int, split: Split, seed: int, frames: int, resolution: int, fps: float = 12.5, pose: float = 1.0
) -> tuple[Tensor, ClipMeta]:
    """Render clip ``index`` of a split: one identity of its own, one motion of its own.

    Args:
        index: Number of the clip and of its identity within the split.
        split: ``train``, ``validation`` or ``test``.
        seed: Seed of the data set.
        frames: T, number of frames.
        resolution: R, height and width in pixels.
        fps: Frames per second.
        pose: Factor on the reach of head turns, shifts and size.

    Returns:
        The frames, uint8 T 3 R R, and the json of the clip with all its factors.
    """
    identity, motion = sample_identity(index, split, seed), sample_motion(index, split, seed, frames, fps, pose)
    rendered = render(identity, motion, resolution)
    meta = ClipMeta(
        key=f"puppet-{split}-{index:06d}",
        identity=f"puppet-{split}-{index}",
        video=f"puppet-{split}-{index}",
        dataset="puppets",
        licence="Apache-2.0",
        fps=fps,
        times=[round(frame / fps, 6) for frame in range(frames)],
        resolution=resolution,
        crop={"method": "none", "box": [0.0, 0.0, float(resolution), float(resolution)], "margin": 0.0, "detector": ""},
        groups=groups(identity),
        points=clip_points(rendered),
        puppet={"identity": identity.row(0), "motion": motion.columns()},
    )
    return to_bytes(rendered.image), meta


def clip_points(rendered: Rendered) -> ClipPoints:
    """Return the landmarks of rendered frames as a clip's json has them."""
    places: list[list[list[float]] | None] = [
        [[round(value, 2) for value in point] for point in frame] for frame in rendered.landmarks.tolist()
    ]
    return ClipPoints(set=FACE31.name, frames=places)


def to_bytes(image: Tensor) -> Tensor:
    """Turn pictures in [0, 1] into uint8 pictures of the same shape."""
    return (image * 255).round().to(torch.uint8)


def factors_from_meta(meta: ClipMeta | Mapping[str, Any]) -> tuple[IdentityFactors, MotionFactors]:
    """Return the factors of a clip from its json, so that any identity can be rendered under any motion.

    Args:
        meta: Of a puppet clip.

    Returns:
        Identity (one row) and motion (one row per frame).

    Raises:
        DataError: The clip is no puppet, or its factors are not those that this version renders.
    """
    puppet = meta.get("puppet")
    if puppet is None:
        raise DataError(
            f"clip {meta['key']!r} of data set {meta['dataset']!r} holds no puppet factors: "
            "its truth under another motion is unknown; use shards of puppets"
        )
    try:
        return IdentityFactors.from_values(puppet["identity"]), MotionFactors.from_values(puppet["motion"])
    except (KeyError, ValueError) as error:
        raise DataError(
            f"clip {meta['key']!r}: its puppet factors are not those of this version ({error}); make the shards again"
        ) from error
