"""Recorded GPU work: launching some hundred kernels takes a processor longer than one picture takes a GPU."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


class CudaGraph:
    """A function of tensors on a GPU, recorded at its first call and started as one piece afterwards.

    It is recorded anew when shapes or types of its arguments change. Arguments are copied to where the recorded work
    reads them, but for those that are the very tensors of the call before. See
    https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs.

    Args:
        function: Returns a tensor; neither waits for the GPU nor goes other ways for other values. It must enter
            autocast itself, as what autocast keeps between calls is not there when the work is started again.
    """

    def __init__(self, function: Callable[..., Tensor]) -> None:
        self._function = function
        self._graph: torch.cuda.CUDAGraph | None = None
        self._read: list[Tensor] = []
        self._last: list[Tensor] = []
        self._result = torch.empty(0)

    def __call__(self, *given: Tensor) -> Tensor:
        """Return what the function would."""
        if self._graph is None or [_kind(tensor) for tensor in given] != [_kind(tensor) for tensor in self._read]:
            self._graph = self._record(given)
        for read, tensor, last in zip(self._read, given, self._last, strict=True):
            if tensor is not last:
                read.copy_(tensor)
        self._last = list(given)
        self._graph.replay()
        return self._result.clone()

    def _record(self, given: tuple[Tensor, ...]) -> torch.cuda.CUDAGraph:
        self._read, self._last = [tensor.clone() for tensor in given], list(given)
        beside = torch.cuda.Stream()
        beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(beside):  # libraries set themselves up in the first calls, which cannot be recorded
            for _ in range(2):
                self._function(*self._read)
        torch.cuda.current_stream().wait_stream(beside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._result = self._function(*self._read)
        return graph


def _kind(tensor: Tensor) -> tuple[torch.Size, torch.dtype]:
    return tensor.shape, tensor.dtype
