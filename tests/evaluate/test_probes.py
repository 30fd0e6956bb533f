from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from sfdkit.data.shards.decode import decode_frames
from sfdkit.data.shards.index import load_index
from sfdkit.evaluate.probes import (
    Codes,
    Truth,
    encode_samples,
    group_means,
    known_factors,
    make_axes,
    orthonormality,
    run_probes,
)
from sfdkit.evaluate.samples import read_samples
from sfdkit.puppets.factor_groups import IDENTITY_GROUPS, VISIBLE_64
from sfdkit.puppets.factors import IdentityFactors
from tests.written import lively_animator, write_puppets

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def puppets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_puppets(tmp_path_factory.mktemp("files") / "puppets")


def test_directions_are_the_slopes_of_the_coefficients() -> None:
    animator, people = lively_animator(), [f"p{k}" for k in range(20) for _ in range(10)]
    motion = {"yaw": 20 * torch.randn(200), "smile": torch.rand(200), "still": torch.ones(200)}
    identity = {"age": torch.rand(20).repeat_interleave(10)}
    slopes = torch.tensor([[0.1, 0.0, -0.05, 0.0], [0.0, 3.0, 2.0, 0.0]])
    noise = 0.01 * torch.randn(200, 4)
    codes = Codes(
        torch.randn(200, 12), torch.stack([motion["yaw"], motion["smile"]], 1) @ slopes + noise, noise, people
    )
    truth = Truth(motion, identity)
    axes = make_axes(animator, codes, truth, run_probes(codes, truth))
    assert set(axes.motion.directions) == {"yaw", "smile"} and set(axes.identity.directions) == {"age"}
    for name, row in zip(("yaw", "smile"), slopes, strict=True):
        assert np.allclose(axes.motion.directions[name].vector, row, atol=0.01)
    assert [v.factor for v in axes.motion.vectors[:2]] == ["yaw", "smile"]
    assert min(v.explains for v in axes.motion.vectors[:2]) > 0.99


@pytest.mark.parametrize(("noise", "longer"), [(1.0, 2.0), (3.0, 4.0)])
def test_directions_are_longer_where_the_code_tells_a_part_of_the_factor(noise: float, longer: float) -> None:
    people = [f"p{k}" for k in range(2000)]
    age = torch.randn(2000)
    codes = Codes(torch.stack([age + noise * torch.randn(2000)] * 12, 1), torch.randn(2000, 4), torch.zeros(0), people)
    truth = Truth({"yaw": torch.randn(2000)}, {"age": age})
    (direction,) = make_axes(lively_animator(), codes, truth, None).identity.directions.values()
    assert np.allclose(direction.vector, longer, rtol=0.15)


def test_silent_coefficients_are_no_vectors_of_any_factor() -> None:
    people = [f"p{k}" for k in range(20) for _ in range(10)]
    yaw, smile = torch.randn(200), torch.randn(200)
    motion = torch.stack([yaw, 0.05 * smile, smile], 1)
    noise = torch.tensor([0.3, 0.95, 0.3])
    loud, quiet = (Codes(torch.randn(200, 4), motion, motion, people, n) for n in (None, noise))
    assert loud.active().tolist() == [True] * 3 and quiet.active().tolist() == [True, False, True]
    truth = Truth({"yaw": yaw, "smile": smile}, {"age": torch.rand(20).repeat_interleave(10)})
    for codes, active in ((loud, 3), (quiet, 2)):
        found = run_probes(codes, truth)
        assert found.metrics["dci/active_vectors"] == active and found.metrics["dci/own_vectors"] == 2
    assert [v.factor for v in found.motion] == ["yaw", None, "smile"]


def test_each_identity_factor_is_in_one_group() -> None:
    assert sorted(name for names in IDENTITY_GROUPS.values() for name in names) == sorted(IdentityFactors.names())
    assert set(VISIBLE_64) <= set(IdentityFactors.names()) and len(set(VISIBLE_64)) == len(VISIBLE_64)


def test_groups_of_identity_factors_are_means_of_what_was_probed() -> None:
    people = [f"p{k}" for k in range(30) for _ in range(4)]
    names = ("skin_tone", "skin_warmth", "age", "ear_size")
    known = {name: torch.rand(30).repeat_interleave(4) for name in names}
    codes = Codes(torch.stack([known["skin_tone"], known["age"]], 1), torch.randn(120, 3), torch.randn(120, 5), people)
    metrics = run_probes(codes, Truth({"yaw": torch.randn(120)}, known | {"jaw": torch.ones(120)})).metrics
    r2 = {name: metrics[f"probe/identity_from_identity/{name}"] for name in names}
    found = {
        key.rpartition("/")[2]: value for key, value in metrics.items() if "/identity_groups_from_identity/" in key
    }
    assert found.keys() == {"visible", "skin", "age", "face_shape"}
    assert found["skin"] == pytest.approx((r2["skin_tone"] + r2["skin_warmth"]) / 2) == found["visible"]
    assert found["age"] == r2["age"] > 0.99 and found["face_shape"] == r2["ear_size"] < 0.5
    assert group_means({"age": 0.5, "back_hue": 0.1}) == {"age": 0.5, "background": 0.1}


def test_codes_are_those_of_the_frames(puppets: Path) -> None:
    animator = lively_animator()
    samples = read_samples(puppets, load_index(puppets), 2, 2)
    codes = encode_samples(animator, samples, 2)
    frames = torch.cat([decode_frames(s.clip, range(3)) for s in samples]).float() / 255
    with torch.no_grad():
        wanted, maps = animator.describe(frames), animator.encoder(frames)
    assert torch.allclose(codes.identity, wanted.identity, atol=1e-4)
    assert torch.allclose(codes.motion, wanted.motion, atol=1e-4)
    assert torch.allclose(codes.backbone, maps[-1].mean((2, 3)), atol=1e-4)
    assert codes.people == ["puppet-test-0"] * 3 + ["puppet-test-1"] * 3
    truth = known_factors(samples)
    assert truth.motion["yaw"].tolist()[:3] == pytest.approx(
        [samples[0].clip["meta"]["puppet"]["motion"]["yaw"][k] for k in samples[0].chosen]
    )
    assert truth.identity["age"].tolist() == pytest.approx(
        [s.clip["meta"]["puppet"]["identity"]["age"] for s in samples for _ in range(3)]
    )


def test_a_skewed_basis_is_called_that(puppets: Path) -> None:
    animator = lively_animator()
    assert orthonormality(animator) < 1e-5
    animator.descriptors.orthogonal = False
    with torch.no_grad():
        animator.descriptors.weight[:, 1] = animator.descriptors.weight[:, 0]
    assert orthonormality(animator) == pytest.approx(1, abs=1e-5)
