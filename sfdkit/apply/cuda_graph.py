"""Recorded GPU work: launching some hundred kernels takes a processor longer than one picture takes a GPU."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from sfdkit.errors import SfdkitWarning


class Recorded(NamedTuple):
    """Recorded work."""

    graph: torch.cuda.CUDAGraph
    read: list[Tensor]
    """What it reads."""
    copied: list[Tensor]
    """What was copied there."""
    result: Tensor
    """Where it writes."""


class CudaGraph:
    """A function of tensors on a GPU that is recorded and then started as one piece.

    The first call is a plain one; the second with arguments of the same shapes and types records. Others in between,
    such as a last batch of fewer frames, are plain and leave what was recorded. Arguments are copied to where the
    recorded work reads them, but for those that are the very tensors of the call before. What cannot be recorded,
    because it waits for the GPU, is called as it is, after a warning; it must not go other ways for other values. See
    https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs.

    Args:
        function: Returns a tensor. It must enter autocast itself, as what autocast keeps between calls is not there
            when the work is started again.
    """

    def __init__(self, function: Callable[..., Tensor]) -> None:
        self._function = function
        self.recorded: Recorded | None = None
        self._last: tuple[Tensor, ...] = ()
        self._failed = False
        self._turn = threading.Lock()

    def __call__(self, *given: Tensor) -> Tensor:
        """Return what the function would; threads take turns, as recorded work reads and writes the same memory."""
        with self._turn:
            return self._call(*given)

    def _call(self, *given: Tensor) -> Tensor:
        if self.recorded is None or not _alike(given, self.recorded.read):
            repeated, self._last = _alike(given, self._last), given
            if self._failed or not repeated or not self._try(given):
                return self._function(*given)
        assert self.recorded is not None
        with torch.cuda.device(given[0].device):
            for read, tensor, last in zip(self.recorded.read, given, self.recorded.copied, strict=True):
                if tensor is not last:
                    read.copy_(tensor)
            self.recorded.copied[:] = given
            self.recorded.graph.replay()
            return self.recorded.result.clone()

    def _try(self, given: tuple[Tensor, ...]) -> bool:
        """Record, and return whether that worked."""
        self.recorded = None
        try:
            with torch.cuda.device(given[0].device):
                self.recorded = self._record(given)
        except RuntimeError as error:
            self._failed, reason = True, str(error).splitlines()[0]
            text = f"frames are driven without a CUDA graph, which is slower: {reason}"
            warnings.warn(text, SfdkitWarning, stacklevel=3)
        return self.recorded is not None

    def _record(self, given: tuple[Tensor, ...]) -> Recorded:
        read = [tensor.clone() for tensor in given]
        beside, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
        beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(beside):  # libraries set themselves up in the first calls, which cannot be recorded
            for _ in range(2):
                self._function(*read)
        torch.cuda.current_stream().wait_stream(beside)
        with torch.cuda.graph(graph, stream=beside):
            result = self._function(*read)
        return Recorded(graph, read, list(given), result)


def _alike(one: Sequence[Tensor], other: Sequence[Tensor]) -> bool:
    return [(t.shape, t.dtype) for t in one] == [(t.shape, t.dtype) for t in other]
