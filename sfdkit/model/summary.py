"""Counts parameters and multiply-accumulates of an animator."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from sfdkit.model.animator import FaceAnimator


def parameters(module: nn.Module) -> int:
    """Return the number of parameters of a module."""
    return sum(p.numel() for p in module.parameters())


def gmac(function: Callable[[], object]) -> float:
    """Return the billions of multiply-accumulates of convolutions and matrix products that ``function`` runs.

    Half of what torch's operation counter gives; sampling, resizing and pointwise work are not counted.
    """
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        function()
    return counter.get_total_flops() / 2e9


class _MovedBytes(TorchDispatchMode):
    """Counts the bytes that operations read and write; views move nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if not func.is_view:
            tensors = [value for value in tree_leaves((args, kwargs, out)) if isinstance(value, Tensor)]
            self.total += sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        return out


class Cost(NamedTuple):
    """What a call computes and moves."""

    gmac: float
    """Billions of multiply-accumulates, see :func:`gmac`."""
    moved: float
    """Bytes that its operations, one by one, read and write."""


def cost_per_driven_frame(animator: FaceAnimator) -> Cost:
    """Return the cost of one driven frame with the source cached: motion encoder, descriptor layer and generator."""
    was_training = animator.training
    animator.eval()
    device = next(animator.parameters()).device
    picture = torch.zeros(1, 3, animator.resolution, animator.resolution, device=device)
    with torch.no_grad(), animator.descriptors.kept():
        state = animator.source_state(picture)

        def drive() -> object:
            return animator.generate(state, animator.motion(picture))

        with _MovedBytes() as moved:
            drive()
        cost = Cost(gmac(drive), moved.total)
    animator.train(was_training)
    return cost


def gmac_per_driven_frame(animator: FaceAnimator) -> float:
    """Return the GMAC of :func:`cost_per_driven_frame`."""
    return cost_per_driven_frame(animator).gmac


def summary_table(animator: FaceAnimator) -> str:
    """Return a table of the animator's parts: parameters, and GMAC for one picture."""
    animator.eval()
    device = next(animator.parameters()).device
    picture = torch.zeros(1, 3, animator.resolution, animator.resolution, device=device)
    with torch.no_grad():
        state = animator.source_state(picture)
        motion = animator.motion(picture)
    rows = [
        ("source: encoder, heads, adapter", parameters_of(animator, "encoder", "adapter", "identity_head")),
        ("driving: encoder, motion head", parameters_of(animator, "driving_encoder", "motion_head")),
        ("descriptor layer", parameters(animator.descriptors)),
        ("generator", parameters(animator.generator)),
    ]
    costs = [
        gmac(lambda: animator.source_state(picture)),
        gmac(lambda: animator.motion(picture)),
        gmac(lambda: animator.recombine(state.descriptors.identity, motion)),
        gmac(lambda: animator.generate(state, motion)),
    ]
    lines = [f"{'part':34}{'parameters':>12}{'GMAC':>10}"]
    lines += [f"{name:34}{count:>12,}{cost:>10.3f}" for (name, count), cost in zip(rows, costs, strict=True)]
    driven = gmac_per_driven_frame(animator)
    lines.append(
        f"{f'driven frame at {animator.resolution}, source cached':34}{parameters(animator):>12,}{driven:>10.3f}"
    )
    return "\n".join(lines)


def parameters_of(animator: FaceAnimator, *names: str) -> int:
    """Return the number of parameters of the named parts; an absent part counts 0."""
    parts = [getattr(animator, name) for name in names]
    return sum(parameters(part) for part in parts if part is not None)
