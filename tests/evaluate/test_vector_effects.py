"""What motion vectors move in results."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from sfdkit.data.shards.index import load_index
from sfdkit.evaluate.frames import load_frames
from sfdkit.evaluate.probes import Truth, encode_samples
from sfdkit.evaluate.samples import Pair, read_samples
from sfdkit.evaluate.vector_effects import Effect, judge_effects, measure_effects
from sfdkit.face_networks.types import Measured
from tests.written import lively_animator, write_puppets


@pytest.fixture(scope="module")
def puppets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("effects") / "puppets"
    write_puppets(folder)
    return folder


class Colours:
    """Reads the means of red, green and blue as if they were angles."""

    def __init__(self) -> None:
        self.expression_names: tuple[str, ...] = ()
        self.about: dict[str, float | int | str | None] = {}
        self.missing: dict[str, str] = {}

    def measure(self, images: Tensor) -> Measured:
        return Measured(pose=100 * images.mean((2, 3)))


def test_own_vectors_do_most_of_a_factor_and_mostly_that() -> None:
    moved = torch.tensor([[3.0, 1.0, 0.0], [0.0, 2.0, 2.0], [1.0, 0.0, -4.0], [0.0, 0.0, 0.0]])
    effects = judge_effects(moved, ["yaw", "pitch", "roll"])
    assert effects[0] == Effect(0, "yaw", 3.0, pytest.approx(0.9), pytest.approx(0.9), True)
    assert effects[1] == Effect(1, "pitch", 2.0, pytest.approx(0.5), pytest.approx(0.8), False)
    assert effects[2] == Effect(2, "roll", 4.0, pytest.approx(16 / 17), pytest.approx(0.8), True)
    assert effects[3] == Effect(3, None, 0.0, 0.0, 0.0, False)


def test_effects_are_those_of_results_with_one_coefficient_changed(puppets: Path) -> None:
    animator, reader = lively_animator(), Colours()
    torch.nn.init.constant_(animator.motion_head.log_noise, -20.0)  # no coefficient is silent
    samples = read_samples(puppets, load_index(puppets), 4, 2)
    codes = encode_samples(animator, samples, 2)
    found = measure_effects(animator, samples, codes, None, reader, 4)
    assert found is not None and found.factors == {"yaw": 1.0, "pitch": 1.0, "roll": 1.0} and not found.unread
    frames = load_frames([Pair(s, s) for s in samples], torch.device("cpu"))
    pictures = torch.cat([frames.source[:, None], frames.driving], 1).flatten(0, 1)
    spread = reader.measure(pictures).pose.std(0, correction=0)
    with torch.no_grad():
        state = animator.source_state(frames.source)
        step = torch.zeros(codes.motion.shape[1])
        step[1] = codes.motion[:, 1].std(correction=0)
        up, down = (animator.generate(state, state.descriptors.motion + w * step).image for w in (1, -1))
        change = (reader.measure(up.clamp(0, 1)).pose - reader.measure(down.clamp(0, 1)).pose).mean(0) / 2 / spread
    assert found.vectors[1].moves == pytest.approx(float(change.abs().max()), rel=1e-3)
    assert found.vectors[1].factor == ["yaw", "pitch", "roll"][int(change.abs().argmax())]
    assert len(found.vectors) == codes.motion.shape[1]
    assert found.metrics()["effect/factors"] == 3


def test_factors_that_the_network_cannot_read_are_named(puppets: Path) -> None:
    animator, reader = lively_animator(), Colours()
    samples = read_samples(puppets, load_index(puppets), 4, 7)
    codes = encode_samples(animator, samples, 8)
    frames = load_frames([Pair(s, s) for s in samples], torch.device("cpu"))
    pose = reader.measure(torch.cat([frames.source[:, None], frames.driving], 1).flatten(0, 1)).pose
    noise = torch.randn(len(pose), generator=torch.Generator().manual_seed(0))
    truth = Truth({"warmth": 3 * pose[:, 0] - pose[:, 2], "chance": noise, "still": torch.ones(len(pose))}, {})
    found = measure_effects(animator, samples, codes, truth, reader, 8)
    assert found is not None and list(found.factors) == ["warmth"] and found.factors["warmth"] > 0.99
    assert list(found.unread) == ["chance"] and found.unread["chance"] < 0.5
    assert found.metrics()["effect/unread"] == "chance"
    assert {e.factor for e in found.vectors} <= {"warmth", None}
    only = Truth({"chance": noise}, {})
    assert measure_effects(animator, samples, codes, only, reader, 8) is None
