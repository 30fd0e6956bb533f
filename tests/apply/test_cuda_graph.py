"""When work for a GPU is recorded; that it gives what plain work gives is for tests/test_gpu.py."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from sfdkit.apply.cuda_graph import CudaGraph, Recorded
from sfdkit.errors import SfdkitWarning


@pytest.fixture
def graph(monkeypatch: pytest.MonkeyPatch) -> CudaGraph:
    """One that doubles, on a processor: to replay is to compute from what the recorded work reads."""
    made = CudaGraph(lambda x, y: 2 * x + y)
    calls: list[str] = []

    def record(given: tuple[Tensor, ...]) -> Recorded:
        read, result = [tensor.clone() for tensor in given], torch.empty_like(given[0])

        def replay() -> None:
            calls.append("replay")
            result.copy_(2 * read[0] + read[1])

        return Recorded(SimpleNamespace(replay=replay), read, list(given), result)  # type: ignore[arg-type]

    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    monkeypatch.setattr(made, "_record", record)
    made.calls = calls  # type: ignore[attr-defined]
    return made


def test_the_second_call_of_a_kind_records_and_others_stay_plain(graph: CudaGraph) -> None:
    y = torch.ones(2)
    for number, rows in enumerate((2, 2, 2, 1, 2)):
        x = torch.full((rows,), float(number))
        assert torch.equal(graph(x, y[:rows]), 2 * x + y[:rows])
    assert graph.calls == ["replay"] * 3  # type: ignore[attr-defined]
    assert graph.recorded is not None and len(graph.recorded.read[0]) == 2
    first = graph(torch.zeros(2), y)
    graph(torch.ones(2), y)
    assert torch.equal(first, y), "results are copies"


def test_what_cannot_be_recorded_is_called_as_it_is(graph: CudaGraph, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = torch.rand(2, 3)
    graph(x, y)

    def refuse(given: tuple[Tensor, ...]) -> Recorded:
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(graph, "_record", refuse)
    with pytest.warns(SfdkitWarning, match="without a CUDA graph, which is slower: operation not permitted"):
        assert torch.equal(graph(x, y), 2 * x + y)
    assert torch.equal(graph(y, x), 2 * y + x) and graph.recorded is None
