from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from sfdkit.data.shards.index import load_index
from sfdkit.evaluate.pictures import draw_traversal, order_vectors
from sfdkit.evaluate.samples import read_samples
from sfdkit.evaluate.vector_effects import Effect
from tests.written import lively_animator, write_puppets

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def puppets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_puppets(tmp_path_factory.mktemp("files") / "puppets")


def test_a_traversal_moves_one_coefficient(puppets: Path) -> None:
    animator = lively_animator()
    sample = read_samples(puppets, load_index(puppets), 1, 1)[0]
    std = torch.tensor([0.0, 1.0, 0.5, 2.0])
    strip = draw_traversal(animator, sample, std, [])
    assert order_vectors([], std) == [3, 1, 2], "a coefficient that keeps still is left out"
    cells = [strip[-(3 - row) * 84 :][: 84 - 4, 88:] for row in range(3)]
    faces = [[cell[:, c * 84 : c * 84 + 80].astype(int) for c in range(7)] for cell in cells]
    moved = [np.abs(row[0] - row[6]).mean() for row in faces]
    assert min(moved) > 0
    assert all(np.abs(row[3] - faces[0][3]).max() == 0 for row in faces)  # in the middle all are the face as it is
    effects = [
        Effect(k, n, e, 0, 0, o)
        for k, n, e, o in [(0, None, 0, False), (1, "yaw", 0.6, True), (2, "yaw", 0.9, False), (3, "roll", 0.7, True)]
    ]
    assert order_vectors(effects, std) == [3, 1, 2] and order_vectors(effects, std.new_ones(4)) == [3, 1, 2, 0]
    assert order_vectors(effects, std.new_zeros(4)) == [3]
    assert not np.array_equal(draw_traversal(animator, sample, std, effects), strip)
