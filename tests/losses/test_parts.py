from __future__ import annotations

import pytest
import torch

from sfdkit.losses import RAMP, RAMP_SHARE, Objective
from sfdkit.losses.field import PointFlow
from sfdkit.losses.parts import PartsLoss, PointsLoss
from sfdkit.points import FACE5, FACE31, from_pixels, part_boxes
from tests.losses.test_losses import made

SIDE = 64


def faces(count: int = 4) -> torch.Tensor:
    """Points of faces of several sizes in the middle of pictures, face5."""
    place = torch.tensor([[-12.0, -8.0], [12.0, -8.0], [0.0, 2.0], [-7.0, 14.0], [7.0, 14.0]])
    sizes = torch.linspace(0.5, 1.5, count)[:, None, None]
    return from_pixels(31.5 + sizes * place, SIDE)


def test_an_error_costs_the_same_in_small_and_large_boxes() -> None:
    term, points = PartsLoss(FACE5), faces()
    target = torch.rand(4, 3, SIDE, SIDE)
    one_each = [term(target + 0.2, target, points[[row]].expand(4, -1, -1)) for row in range(4)]
    assert all(float(value) == pytest.approx(0.2, rel=1e-4) for value in one_each)
    boxes = part_boxes(points, FACE5, SIDE)
    assert boxes[3].sum() > 5 * boxes[0].sum()
    for row in range(4):
        for part in range(3):
            wrong = target.clone()
            wrong[row] += 0.3 * (boxes[row, part] > 0)
            overlap = (boxes[row] * (boxes[row, part] > 0)).sum((1, 2)) / boxes[row].sum((1, 2))
            assert float(term(wrong, target, points)) == pytest.approx(0.3 * float(overlap.sum()) / 12, rel=1e-4)


def test_gradients_are_inside_boxes_alone() -> None:
    points, image = faces(), torch.rand(4, 3, SIDE, SIDE, requires_grad=True)
    PartsLoss(FACE5)(image, torch.rand(4, 3, SIDE, SIDE), points).backward()
    inside = part_boxes(points, FACE5, SIDE).sum(1, keepdim=True).expand(-1, 3, -1, -1) > 0
    assert image.grad is not None and (image.grad[~inside] == 0).all() and (image.grad[inside] != 0).all()


def test_unknown_points_are_left_out_of_the_mean() -> None:
    term, points, target = PartsLoss(FACE5), faces(), torch.rand(4, 3, SIDE, SIDE)
    wrong = target + torch.tensor([0.1, 0.2, 0.4, 0.8])[:, None, None, None]
    points[2] = torch.nan
    assert float(term(wrong, target, points)) == pytest.approx((0.1 + 0.2 + 0.8) / 3, rel=1e-4)
    points[3, 0] = torch.nan  # without an eye no box has a size
    assert float(term(wrong, target, points)) == pytest.approx((0.1 + 0.2) / 2, rel=1e-4)
    image = wrong.requires_grad_()
    nothing = term(image, target, torch.full_like(points, torch.nan))
    nothing.backward()
    assert nothing == 0 and image.grad is not None and (image.grad == 0).all()


def moving(rows: int, frames: int = 3) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Codes of people and motions, N 6 and M 4, and points that follow from them, face31."""
    identity, motion = torch.randn(rows, 6), torch.randn(rows, frames, 4)
    draws = torch.Generator().manual_seed(0)
    of_people, of_motion = (0.1 * torch.randn(size, 31 * 2, generator=draws) for size in (6, 4))
    points = ((identity @ of_people)[:, None] + 0.3 * motion @ of_motion).unflatten(2, (31, 2))
    places = torch.rand(31, 2, generator=draws) - 0.5
    places[list(FACE31.parts[0])] -= torch.tensor([0.3, 0.3])  # eyes apart, and above the mouth
    places[list(FACE31.parts[1])] -= torch.tensor([-0.3, 0.3])
    return identity, motion, points * 0.3 + places


def test_points_that_follow_from_the_codes_are_learned_quickly() -> None:
    torch.manual_seed(0)
    term = PointsLoss(FACE31, 10)
    optimizer = torch.optim.Adam(term.parameters(), 5e-3)
    values = []
    for _ in range(150):
        identity, motion, points = moving(24)
        points[::8] = torch.nan
        loss = term(identity, motion, points)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        values.append(float(loss.detach()))
    assert values[-1] < 0.3 * values[0]
    values = [float(term.eval()(identity, motion[order], points)) for order in (range(24), range(23, -1, -1))]
    assert values[1] > 2 * values[0], "it is read from the codes"


def test_errors_count_in_deviations_over_faces_and_of_changes() -> None:
    torch.manual_seed(0)
    identity, motion, points = moving(64)
    term = PointsLoss(FACE31, 10)
    for parameter in term.parameters():
        parameter.data.zero_()
    assert float(term(identity, motion, points)) == pytest.approx(0.5, rel=0.1)  # half a mean square of 1
    of_people, of_changes = (v.sqrt() for v in term.variance)
    assert (of_people > 2 * of_changes).float().mean() > 0.9
    statistics = {name: value.clone() for name, value in term.state_dict().items() if "head" not in name}
    term.eval()(identity, motion, points + 1)
    assert all(torch.equal(term.state_dict()[name], value) for name, value in statistics.items())


def test_points_that_are_not_known_teach_nothing() -> None:
    torch.manual_seed(0)
    identity, motion, points = moving(4)
    term = PointsLoss(FACE31, 10)
    term(identity, motion, points)
    term.eval()
    motion.requires_grad_()
    points[1] = torch.nan
    loss = term(identity, motion, points)
    loss.backward()
    assert motion.grad is not None and (motion.grad[1] == 0).all() and (motion.grad[[0, 2, 3]] != 0).any(2).all()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.abs().sum() > 0 for p in term.parameters())
    torch.testing.assert_close(loss, term(identity[[0, 2, 3]], motion[[0, 2, 3]], points[[0, 2, 3]]))
    points[2, 1] = torch.nan  # one frame: the change of the others to it is not known
    motion.grad = None
    term(identity, motion, points).backward()
    assert (motion.grad[2, 1] == 0).all() and (motion.grad[2, [0, 2]] != 0).any(1).all()
    statistics = term.mean.clone(), term.variance.clone()
    unknown = term.train()(identity, motion, torch.full_like(points, torch.nan))
    assert unknown == 0 and torch.autograd.grad(unknown, motion)[0].abs().sum() == 0
    assert torch.equal(term.mean, statistics[0]) and torch.equal(term.variance, statistics[1])


def test_the_objective_gives_the_head_its_gradient() -> None:
    objective = Objective({"points": 0.5, "parts": 1.0}, points=FACE5, code_sizes=(12, 4))
    image, rows = torch.rand(4, 3, SIDE, SIDE, requires_grad=True), torch.stack([faces(), faces() + 0.1], 1)
    step = made(image, torch.rand(4, 3, SIDE, SIDE), motion=torch.randn(4, 2, 4), points=rows[:, 1], row_points=rows)
    total, values = objective(step)
    assert set(values) == {"points", "parts"}
    torch.testing.assert_close(total, 0.5 * values["points"] + values["parts"])
    total.backward()
    assert image.grad is not None and image.grad.abs().sum() > 0
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in objective.parameters())


def test_starts_may_be_shares_of_the_training() -> None:
    objective = Objective({"l1": 1.0, "parts": 2.0, "points": 1.0}, {"parts": 0.5, "points": 100})
    objective.progress = 0.49
    assert objective.active(99) == ["l1"] and objective.active(100) == ["l1", "points"]
    assert not objective.needs("points", 99) and objective.share("parts", 10**6) == 0
    objective.progress = 0.5
    assert objective.started("parts", 0) and objective.share("parts", 0) == 0
    objective.progress = 0.5 + RAMP_SHARE / 4
    assert objective.share("parts", 0) == pytest.approx(0.25) and objective.share("points", 99 + RAMP // 2) == 0.5
    image = torch.rand(4, 3, SIDE, SIDE)
    step = made(image, image + 0.1, points=torch.zeros(4, 31, 2))
    total, values = objective(step, 0)
    torch.testing.assert_close(total, values["l1"] + 2 * 0.25 * values["parts"])
    objective.progress = 1.0
    assert objective.share("parts", 0) == 1


def test_a_flow_that_leads_points_home_costs_nothing() -> None:
    points = torch.rand(2, 3, 5, 2) - 0.5
    points[:, 1:] = points[:, :1] + torch.tensor([0.1, -0.2])
    flow = torch.tensor([-0.1, 0.2]).view(1, 2, 1, 1).expand(4, 2, 16, 16)
    points[0, 1, 2] = torch.nan
    points[1, 0, 3] = torch.nan
    targets, sources = points[:, 1:].flatten(0, 1), points[:, :1].expand(-1, 2, -1, -1).flatten(0, 1)
    assert PointFlow()(flow, targets, sources) < 2e-4
    assert PointFlow()(torch.zeros_like(flow), targets, sources) == pytest.approx(0.05**0.5, rel=1e-3)
    assert PointFlow()(flow, targets, torch.full_like(sources, torch.nan)) == 0
