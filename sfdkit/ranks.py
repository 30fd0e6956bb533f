"""Sharing work between the processes of ``torchrun`` or DDP, and gathering the results in all of them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor
from torch import distributed as dist

Value = TypeVar("Value")


class Ranks(NamedTuple):
    """Rank of this process, and number of processes."""

    rank: int = 0
    world: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process is rank 0, which writes files."""
        return self.rank == 0

    def mine(self, number: int) -> bool:
        """Whether this process does piece ``number`` of the work."""
        return number % self.world == self.rank

    def gather(self, own: Mapping[int, Value]) -> list[Value]:
        """Return the results of all processes, in order of the pieces' numbers; all must call it."""
        found = [dict(own)]
        if self.world > 1:
            everybody: list[dict[int, Value] | None] = [None] * self.world
            dist.all_gather_object(everybody, dict(own))
            found = [one for one in everybody if one is not None]
        merged = {number: value for one in found for number, value in one.items()}
        return [merged[number] for number in sorted(merged)]


def join_ranks() -> Ranks:
    """Join the process group of ``torchrun``, with one GPU per process if there are as many; else there is one rank."""
    if dist.is_torchelastic_launched() and not dist.is_initialized():
        backend, local = "gloo", int(os.environ["LOCAL_RANK"])
        if local < torch.cuda.device_count():
            torch.cuda.set_device(local)
            backend = "cpu:gloo,cuda:nccl"
        dist.init_process_group(backend)
    return ranks()


def ranks() -> Ranks:
    """Return the rank and world size of the current process group."""
    return Ranks(dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else Ranks()


def mean_over_ranks(value: Tensor) -> Tensor:
    """Return the mean over all processes of a tensor of the same shape on each; all must call it."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return value
    value = value / dist.get_world_size()
    dist.all_reduce(value)
    return value


def mean_of_known(values: Tensor, known: Tensor, otherwise: Tensor) -> Tensor:
    """Return the mean over rows, frames and all processes of what is known; all must call it.

    Args:
        values: B S C, finite also where nothing is known.
        known: B S C booleans.
        otherwise: C, the result where no process knows anything.
    """
    total, count = mean_over_ranks(torch.stack([(values * known).sum((0, 1)), known.sum((0, 1)).float()]))
    return torch.where(count > 0, total / count.clamp(min=1e-6), otherwise)
