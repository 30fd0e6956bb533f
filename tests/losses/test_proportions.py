from __future__ import annotations

import torch
from torch import Tensor

from sfdkit.losses.proportions import Proportions
from sfdkit.points import FACE31

SHAPE = torch.rand(len(FACE31.names), 2, generator=torch.Generator().manual_seed(2)) - 0.5


def faces(rows: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Points of 3 frames of each clip, B 3 L 2, with the logarithms of the person's size B and of the motion's B 3."""
    draw = torch.Generator().manual_seed(seed)
    person, motion = 0.2 * torch.randn(rows, generator=draw), 0.2 * torch.randn(rows, 3, generator=draw)
    scale = (person[:, None] + motion).exp()
    return SHAPE * scale[..., None, None], person, motion


def followed(read: str) -> float:
    """The value after 60 batches for two coefficients: one that reads a size, and one that is noise."""
    term = Proportions(FACE31, 2).train()
    for seed in range(60):
        points, person, motion = faces(16, seed)
        noise = torch.randn(16, 3, generator=torch.Generator().manual_seed(1000 + seed))
        sizes = {"motion": motion, "apparent": person[:, None] + motion}[read]
        value = term(torch.stack([5 * sizes, noise], 2), points)
    return float(value)


def test_the_size_of_the_person_costs_and_that_of_the_motion_does_not() -> None:
    assert followed("apparent") > 0.1 > 5 * abs(followed("motion"))


def test_its_gradient_takes_the_size_of_the_person_out_of_a_coefficient() -> None:
    term, share = Proportions(FACE31, 1).train(), torch.ones((), requires_grad=True)
    optimizer = torch.optim.SGD([share], lr=0.5)
    for seed in range(100):
        points, person, motion = faces(32, seed)
        optimizer.zero_grad()
        term(5 * (share * person[:, None] + motion)[..., None], points).backward()
        optimizer.step()
    assert abs(float(share)) < 0.3


def test_frames_without_points_count_for_nothing_and_leave_the_statistics() -> None:
    term = Proportions(FACE31, 1).train()
    points, person, motion = faces(8, 0)
    term((person[:, None] + motion)[..., None], points)
    kept = term.mean.clone(), term.square.clone()
    value = term(torch.randn(8, 3, 1, requires_grad=True), torch.full_like(points, float("nan")))
    value.backward()
    assert torch.isfinite(value) and torch.equal(term.mean, kept[0]) and torch.equal(term.square, kept[1])


def test_a_batch_that_is_no_number_leaves_the_statistics() -> None:
    term = Proportions(FACE31, 1).train()
    points, person, motion = faces(8, 0)
    term((person[:, None] + motion)[..., None], points)
    kept = term.covariance.clone()
    assert kept.abs().sum() > 0
    term(torch.full((8, 3, 1), float("nan")), points)
    assert torch.equal(term.covariance, kept)
