"""Distances of results from the truth, frame by frame, in the whole picture, the face and its small parts.

Legend: ``G`` pairs of one batch, ``K`` driving frames of each, ``F`` = G * K frames, ``R`` resolution.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from sfdkit.evaluate.frames import render_truth, true_flow, true_landmarks
from sfdkit.evaluate.samples import Pair
from sfdkit.metrics.detail import central_ellipse, frame_detail
from sfdkit.metrics.image import (
    LEAST_MS_SSIM,
    frame_end_point_error,
    frame_l1,
    frame_ms_ssim,
    frame_psnr,
    frame_ssim,
)
from sfdkit.points import FACE31, from_pixels, part_boxes

_MEASURES = {"l1": frame_l1, "psnr": frame_psnr, "ssim": frame_ssim}


class TrueFrames(NamedTuple):
    """What F results should be."""

    image: Tensor
    """F 3 R R in [0, 1]."""
    mask: Tensor | None = None
    """F 1 R R: of the face; None where it is not known."""
    parts: Tensor | None = None
    """F 3 R R: boxes round both eyes with their brows and round the mouth; None where they are not known."""


def true_frames(pairs: Sequence[Pair], driving: Tensor) -> TrueFrames | None:
    """Return what the results of G pairs should be, or None where nobody knows.

    Of a clip that drives itself that is the driving frame, F 3 R R; of puppets it is rendered, with mask and parts.
    """
    image = driving if pairs[0].is_self else None
    if not pairs[0].has_truth:
        return None if image is None else TrueFrames(image)
    rendered, mask = (t.flatten(0, 1) for t in render_truth(pairs, driving.device))
    points = from_pixels(true_landmarks(pairs, driving.device).flatten(0, 1), driving.shape[3])
    return TrueFrames(rendered if image is None else image, mask, part_boxes(points, FACE31, driving.shape[3]))


def distances(image: Tensor, truth: TrueFrames, lpips: Callable[[Tensor, Tensor], Tensor] | None) -> dict[str, Tensor]:
    """Return all distances of pictures F 3 R R from the truth, F values each; ``docs/evaluate.md`` has the names."""
    values = {name: measure(image, truth.image) for name, measure in _MEASURES.items()}
    if min(image.shape[2:]) >= LEAST_MS_SSIM:
        values["ms_ssim"] = frame_ms_ssim(image, truth.image)
    if truth.mask is not None:
        values |= {f"face_{name}": measure(image, truth.image, truth.mask) for name, measure in _MEASURES.items()}
    if truth.parts is not None:
        eyes, mouth = truth.parts[:, :2].amax(1, keepdim=True), truth.parts[:, 2:]
        values |= {f"l1_{name}": frame_l1(image, truth.image, box) for name, box in (("eyes", eyes), ("mouth", mouth))}
    inside = central_ellipse(image) if truth.mask is None else truth.mask
    values |= frame_detail(image, truth.image, inside)
    if lpips is not None:
        values["lpips"] = lpips(image, truth.image)
    return values


def flow_errors(flow: Tensor, pairs: Sequence[Pair], known: TrueFrames) -> dict[str, Tensor]:
    """Return how far flows F 2 R R of pairs of puppets are from those of the heads' surfaces, F values each.

    Counted is the face outside the boxes of eyes and mouth, whose parts move on it, where the source shows the same
    place of the skull; ``copy_`` is of no flow at all.
    """
    assert known.mask is not None and known.parts is not None
    truth = true_flow(pairs, flow.device)
    seen = truth.seen * known.mask * (1 - known.parts.amax(1, keepdim=True))
    return {
        "flow_error": frame_end_point_error(flow, truth.flow[:, :2], seen),
        "copy_flow_error": frame_end_point_error(torch.zeros_like(flow), truth.flow[:, :2], seen),
    }


def detail_region(pairs: Sequence[Pair]) -> str:
    """Say where fine detail is compared in these pairs."""
    kinds = {pair.has_truth for pair in pairs}
    return " or ".join(words for known, words in ((True, "face mask"), (False, "central ellipse")) if known in kinds)
