from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sfdkit.data.shards.index import load_index
from sfdkit.evaluate.frames import load_frames, render_truth, true_landmarks
from sfdkit.evaluate.samples import Pair, read_samples
from sfdkit.puppets.render import render
from tests.written import write_puppets

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def puppets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_puppets(tmp_path_factory.mktemp("files") / "puppets")


def test_truth_is_what_the_shards_hold(puppets: Path) -> None:
    samples = read_samples(puppets, load_index(puppets), None, 3)
    own = [Pair(sample, sample) for sample in samples]
    frames = load_frames(own, CPU)
    truth, _ = render_truth(own, CPU)
    assert float((truth - frames.driving).abs().mean()) < 0.02
    crossed, _ = render_truth([Pair(samples[0], samples[1])], CPU)
    assert float((crossed[0] - frames.driving[0]).abs().mean()) > 0.02
    assert float((crossed[0] - frames.driving[1]).abs().mean()) > 0.02
    assert [s.chosen for s in samples] == [[0, 1, 3, 4]] * 5


def test_true_landmarks_are_those_of_the_rendered_truth(puppets: Path) -> None:
    samples = read_samples(puppets, load_index(puppets), None, 3)
    pair = Pair(samples[0], samples[1])
    rendered = render(pair.source.factors()[0], pair.driver.factors()[1], 32).landmarks
    assert torch.allclose(true_landmarks([pair], CPU)[0], rendered, atol=1e-5)
