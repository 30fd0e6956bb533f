"""The flow of a head's surface agrees with its pictures and its points."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from sfdkit.model.blocks import warp
from sfdkit.points import FACE31, from_pixels
from sfdkit.puppets.factors import sample_identity, sample_motion
from sfdkit.puppets.render import render
from sfdkit.puppets.surface_flow import surface_flow

ROWS = 6
ON_THE_SKULL = [name for name in FACE31.names if any(part in name for part in ("eye", "iris", "brow", "mouth", "lip"))]


def test_what_the_source_shows_where_the_flow_leads_is_what_the_picture_shows() -> None:
    identity = sample_identity(3, "test", 0).expand(ROWS)
    motions = sample_motion(3, "test", 0, 2 * ROWS, 1.0)
    before, after = motions[torch.arange(ROWS)], motions[torch.arange(ROWS, 2 * ROWS)]
    still = {name: getattr(before, name) for name in ("brows", "blink", "gaze_x", "gaze_y", "smile", "mouth_open")}
    after = type(after)(**{**{name: getattr(after, name) for name in after.names()}, **still})
    source, wanted = render(identity, before, 64), render(identity, after, 64)
    truth = surface_flow(identity, before, after, 64)
    mask = truth.seen * (wanted.mask > 0.99) * (warp(source.mask, truth.flow[:, :2]) > 0.99)
    error = ((warp(source.image, truth.flow[:, :2]) - wanted.image).abs() * mask).sum() / (3 * mask.sum())
    unmoved = ((source.image - wanted.image).abs() * mask).sum() / (3 * mask.sum())
    assert error < 0.4 * unmoved, "what is left is the light, which does not turn with the head"
    points, there = from_pixels(wanted.landmarks, 64), from_pixels(source.landmarks, 64)
    for name in ON_THE_SKULL:
        number = FACE31.names.index(name)
        at = points[:, number, None, None]
        led = F.grid_sample(truth.flow[:, :2], at, align_corners=False)[:, :, 0, 0]
        seen = F.grid_sample(truth.seen, at, align_corners=False)[:, 0, 0, 0] > 0.9
        assert seen.sum() >= 3
        assert ((at[:, 0, 0] + led - there[:, number]).norm(dim=1) * seen).max() < 0.003


def test_no_motion_is_no_flow() -> None:
    identity, motion = sample_identity(1, "test", 0), sample_motion(1, "test", 0, 1, 1.0)
    truth = surface_flow(identity, motion, motion, 32)
    assert (truth.flow * truth.seen).abs().max() < 1e-5 and truth.seen.mean() > 0.1
