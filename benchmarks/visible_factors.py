"""How much each identity factor changes the picture of a puppet's head, which decides what is counted as visible.

``python -m benchmarks.visible_factors`` prints the table that ``VISIBLE_64`` of ``sfdkit/puppets/factor_groups.py`` is
made of: the mean absolute change, on [0, 1], of the pixels of the head with hair and neck when the factor goes from the
10th to the 90th percentile of what is drawn, while all others stay as drawn; mean over people.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from jsonargparse import auto_cli
from torch import Tensor

from sfdkit.puppets.factor_groups import LEAST_VISIBLE
from sfdkit.puppets.factors import IdentityFactors, MotionFactors, sample_identity, sample_motion
from sfdkit.puppets.render import render

DRAWN = 2000
"""People of which percentiles are taken."""


def head_mask(identity: IdentityFactors, motion: MotionFactors, resolution: int) -> Tensor:
    """Return where neither background nor clothes are seen, B 1 H W: 0 or 1."""
    ends = []
    for end in (0.0, 1.0):
        names = ("back_light", "clothes_light")
        changed = replace(identity, **{name: torch.full_like(identity.skin_tone, end) for name in names})
        ends.append(render(changed, motion, resolution).image)
    return ((ends[0] - ends[1]).abs().amax(1, keepdim=True) < 0.5 / 255).float()


def main(people: int = 96, resolution: int = 64) -> None:
    """Print the factors, those that change most first.

    Args:
        people: Whose heads are drawn.
        resolution: Of the pictures.
    """
    drawn = IdentityFactors.concat([sample_identity(k, "train", 0) for k in range(DRAWN)])
    identity = IdentityFactors.concat([sample_identity(k, "test", 0) for k in range(people)])
    motion = MotionFactors.concat([sample_motion(k, "test", 0, 1) for k in range(people)])
    found: dict[str, float] = {}
    for name in IdentityFactors.names():
        pictures, masks = [], []
        for share in (0.1, 0.9):
            value = getattr(drawn, name).quantile(share)
            changed = replace(identity, **{name: value.expand(people)})
            pictures.append(render(changed, motion, resolution).image)
            masks.append(head_mask(changed, motion, resolution))
        head = torch.maximum(*masks)
        change = (pictures[0] - pictures[1]).abs().mean(1, keepdim=True)
        found[name] = float(((change * head).sum((1, 2, 3)) / head.sum((1, 2, 3))).mean())
    print(f"{people} people, {resolution} pixels; visible from {LEAST_VISIBLE} on")
    for name, value in sorted(found.items(), key=lambda item: -item[1]):
        print(f"{value:8.4f}  {name}{'' if value < LEAST_VISIBLE else '  *'}")


if __name__ == "__main__":
    auto_cli(main)
