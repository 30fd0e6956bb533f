"""What stands between a backward pass and the optimiser's step: gradients are limited, and bad steps left out."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sfdkit.model.blocks import RunningNorm
from sfdkit.ranks import mean_over_ranks

USUAL_SHARE = 0.02
"""Share of a step in the running mean of the gradient's norm."""


class GradientGuard(nn.Module):
    """Limits the norm of a network's gradient, and leaves out steps whose gradient is not finite.

    Nothing here waits for a GPU, but for optimisers without a fused implementation, which cannot leave out a step by
    themselves.

    Args:
        clip: Largest norm; 0 for no limit.
        surge: Largest norm as a multiple of its running mean; 0 for no limit.
    """

    usual: Tensor
    """Running mean of the norm; 0 before the first step."""
    skipped: Tensor
    """Steps left out so far."""
    in_a_row: Tensor
    """Steps left out since the last good one."""

    def __init__(self, clip: float, surge: float) -> None:
        super().__init__()
        self.clip = clip
        self.surge = surge
        self.register_buffer("usual", torch.zeros(()))
        self.register_buffer("skipped", torch.zeros((), dtype=torch.long))
        self.register_buffer("in_a_row", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def limit(self, network: nn.Module, batches: int = 1) -> tuple[Tensor, Tensor]:
        """Turn the sum of the gradients of some batches into their limited mean.

        Args:
            network: Its parameters' gradients are changed in place.
            batches: How many batches were summed up.

        Returns:
            The norm before it was limited, and whether it is finite.
        """
        gradients = [p.grad for p in network.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients) / batches
        finite = norm.isfinite()
        limit = torch.full_like(norm, self.clip or float("inf"))
        if self.surge:
            known = torch.where(self.usual > 0, self.usual, norm)
            limit = torch.minimum(limit, self.surge * known)
            usual = torch.lerp(known, torch.minimum(norm, limit), USUAL_SHARE)
            self.usual.copy_(torch.where(finite, usual, self.usual))
        torch._foreach_mul_(gradients, (limit / (norm + 1e-6)).clamp(max=1.0) / batches)
        self.skipped += ~finite
        self.in_a_row.copy_(torch.where(finite, 0, self.in_a_row + 1))
        return norm, finite


def prepare_step(optimizer: torch.optim.Optimizer, finite: Tensor) -> None:
    """Make the optimiser's next step change nothing unless the gradient is finite.

    Fused optimisers (``fused: true``) look at ``found_inf`` themselves, as they do for loss scaling. From others the
    gradients are taken away, for which a GPU has to be asked and waited for at every step.

    Args:
        optimizer: The bare optimiser.
        finite: Whether its gradient is.
    """
    if all(group.get("fused") for group in optimizer.param_groups):
        optimizer.found_inf = (~finite).float()  # type: ignore[attr-defined]
    elif not finite:
        optimizer.zero_grad(set_to_none=True)


class BatchStatistics:
    """The running statistics of a network's normalisation layers, which a bad step must not reach either.

    Each process sees its own share of the batch. What is saved is the mean over all, not what the first one saw.

    Args:
        network: The network.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self.buffers: list[Tensor] = []
        self.before: Tensor | None = None

    @torch.no_grad()
    def keep(self) -> None:
        """Note the statistics before the first batch of a step."""
        norms = [m for m in self.network.modules() if isinstance(m, (nn.modules.batchnorm._BatchNorm, RunningNorm))]
        self.buffers = [b for norm in norms for b in norm.buffers() if b.is_floating_point()]
        self.before = torch.cat([b.flatten() for b in self.buffers]) if self.buffers else None

    @torch.no_grad()
    def settle(self, finite: Tensor | None = None) -> None:
        """Take the mean over all processes, or go back to what was noted.

        Args:
            finite: Whether the step was good; None after a batch that is no step of its own.
        """
        if self.before is None:
            return
        now = torch.cat([b.flatten() for b in self.buffers])
        now = now if finite is None else torch.where(finite, now, self.before)
        parts = mean_over_ranks(now).split([b.numel() for b in self.buffers])
        torch._foreach_copy_(self.buffers, [part.view_as(b) for part, b in zip(parts, self.buffers, strict=True)])
