from __future__ import annotations

import torch
from torch import Tensor

from sfdkit.losses.portrait import PortraitLoss
from sfdkit.points import FACE31


def faces(rows: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Flat faces: a code of 8 numbers of which the first three are the colour, motion B 3 4, and B*2 3 48 48."""
    draw = torch.Generator().manual_seed(seed)
    identity, motion = torch.rand(rows, 8, generator=draw), torch.randn(rows, 3, 4, generator=draw)
    pictures = identity[:, :3, None, None].expand(-1, -1, 48, 48).repeat_interleave(2, 0)
    return identity, motion, pictures


def learned(told: bool) -> float:
    """The error on new faces after 150 steps of the head, where the code tells the colour or says nothing."""
    torch.manual_seed(0)
    term = PortraitLoss(FACE31, 12)
    optimizer = torch.optim.Adam(term.parameters(), lr=3e-3)
    for seed in range(150):
        identity, motion, pictures = faces(16, seed)
        optimizer.zero_grad()
        term(identity if told else torch.zeros_like(identity), motion, pictures).backward()
        optimizer.step()
    identity, motion, pictures = faces(64, 1000)
    with torch.no_grad():
        return float(term(identity if told else torch.zeros_like(identity), motion, pictures))


def test_what_the_identity_code_tells_lowers_the_error() -> None:
    assert learned(told=True) < 0.4 * learned(told=False)


def test_it_shapes_the_identity_code_and_not_the_motion_code() -> None:
    identity, motion, pictures = faces(4, 0)
    identity.requires_grad_()
    motion.requires_grad_()
    PortraitLoss(FACE31, 12)(identity, motion, pictures).backward()
    assert identity.grad is not None and identity.grad.abs().sum() > 0 and motion.grad is None


def test_errors_in_the_boxes_of_known_points_count_once_more() -> None:
    torch.manual_seed(0)
    term, (identity, motion, pictures) = PortraitLoss(FACE31, 12), faces(4, 0)
    points = torch.rand(8, len(FACE31.names), 2) - 0.5
    with torch.no_grad():
        plain, unknown = term(identity, motion, pictures), term(identity, motion, pictures, points * float("nan"))
        assert torch.equal(plain, unknown)
        assert term(identity, motion, pictures, points) > 1.5 * plain
