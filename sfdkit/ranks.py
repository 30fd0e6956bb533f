"""One evaluation on several processes, as ``torchrun`` starts them: each takes a share, and all get every result."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor
from torch import distributed as dist

Value = TypeVar("Value")


class Ranks(NamedTuple):
    """Where this process stands among all."""

    rank: int = 0
    world: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes what is written once."""
        return self.rank == 0

    def mine(self, number: int) -> bool:
        """Whether piece ``number`` of the work is this process's."""
        return number % self.world == self.rank

    def gather(self, own: Mapping[int, Value]) -> list[Value]:
        """Return what all processes made of their pieces, in order of the pieces' numbers; all have to call it."""
        found = [dict(own)]
        if self.world > 1:
            everybody: list[dict[int, Value] | None] = [None] * self.world
            dist.all_gather_object(everybody, dict(own))
            found = [one for one in everybody if one is not None]
        merged = {number: value for one in found for number, value in one.items()}
        return [merged[number] for number in sorted(merged)]


def join_ranks() -> Ranks:
    """Meet the other processes that ``torchrun`` started, each on the GPU of its own number; alone, there is one."""
    if dist.is_torchelastic_launched() and not dist.is_initialized():
        backend, local = "gloo", int(os.environ["LOCAL_RANK"])
        if local < torch.cuda.device_count():
            torch.cuda.set_device(local)
            backend = "cpu:gloo,cuda:nccl"
        dist.init_process_group(backend)
    return ranks()


def ranks() -> Ranks:
    """Return where this process stands among those that it has met."""
    return Ranks(dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else Ranks()


def mean_over_ranks(value: Tensor) -> Tensor:
    """Return the mean over all processes of a tensor of the same shape on each; all have to call it."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return value
    value = value / dist.get_world_size()
    dist.all_reduce(value)
    return value
