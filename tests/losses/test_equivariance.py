"""Key points of a bent picture lie where bending moved them."""

from __future__ import annotations

import pytest
import torch

from sfdkit.errors import ConfigError
from sfdkit.losses import Objective
from sfdkit.losses.equivariance import Bend, Equivariance
from sfdkit.model.blocks import identity_grid
from sfdkit.model.key_points import KeyPoints


@pytest.fixture
def bend() -> Bend:
    drawn = Bend.draw(3, torch.device("cpu"), torch.Generator().manual_seed(1))
    return drawn._replace(weights=10 * drawn.weights)


def test_a_bent_picture_shows_what_lies_at_the_places_of_the_bend(bend: Bend) -> None:
    ramp = identity_grid(64, 64, bend.affine).expand(3, -1, -1, -1)
    shown = bend.apply(torch.cat([ramp, ramp[:, :1]], 1))[:, :2]
    wanted = bend.at(ramp.flatten(2).transpose(1, 2)).transpose(1, 2).unflatten(2, (64, 64))
    inside = wanted.abs().amax(1, keepdim=True) < 0.95
    torch.testing.assert_close(shown * inside, wanted * inside, atol=1e-3, rtol=0)
    assert (wanted - ramp).abs().amax((1, 2, 3)).min() > 0.05


def test_jacobians_are_derivatives(bend: Bend) -> None:
    points = 2 * torch.rand(3, 4, 2) - 1
    wanted = torch.autograd.functional.jacobian(lambda given: bend.at(given).sum((0, 1)), points)
    torch.testing.assert_close(bend.jacobians(points), wanted.permute(1, 2, 0, 3), atol=1e-4, rtol=1e-4)


def test_key_points_that_follow_cost_nothing(bend: Bend) -> None:
    other = KeyPoints(torch.rand(3, 4, 2) - 0.5, torch.eye(2) + 0.2 * torch.randn(3, 4, 2, 2))
    own = KeyPoints(bend.at(other.places), bend.jacobians(other.places) @ other.jacobians)
    term = Equivariance(24)
    assert term(own.write(), other.write(), *bend) < 1e-4
    assert term(own.write(), own.write(), *bend) > 0.05
    moved = own._replace(places=own.places + 0.1)
    assert term(moved.write(), other.write(), *bend) == pytest.approx(0.1, abs=1e-3)


def test_coefficients_that_cannot_be_key_points_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"equivariance is for key points.*motion_size is 32.*fomm\.yaml"):
        Objective({"equivariance": 1.0})
