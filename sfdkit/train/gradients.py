"""Gradient clipping, and skipping steps whose gradient is not finite."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sfdkit.model.blocks import RunningNorm
from sfdkit.ranks import mean_over_ranks

MOMENTUM = 0.02
"""Weight of a step in the running mean of the gradient's norm."""


class GradientClipping(nn.Module):
    """Clips the norm of a network's gradient, and counts the steps whose gradient is not finite.

    Nothing here makes the host wait for the GPU.

    Args:
        clip_norm: Largest norm; 0 for no limit.
        clip_factor: Largest norm as a multiple of its running mean; 0 for no limit.
    """

    running_mean: Tensor
    """Running mean of the norm; 0 before the first step."""
    skipped: Tensor
    """Steps with a gradient that is not finite, so far."""
    skipped_in_a_row: Tensor
    """Such steps since the last good one."""

    def __init__(self, clip_norm: float, clip_factor: float) -> None:
        super().__init__()
        self.clip_norm = clip_norm
        self.clip_factor = clip_factor
        self.register_buffer("running_mean", torch.zeros(()))
        self.register_buffer("skipped", torch.zeros((), dtype=torch.long))
        self.register_buffer("skipped_in_a_row", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def clip(self, network: nn.Module, batches: int = 1) -> tuple[Tensor, Tensor]:
        """Divide gradients that were summed over batches by their number, and clip the mean.

        Args:
            network: Its parameters' gradients are changed in place.
            batches: How many batches were summed.

        Returns:
            The norm before clipping, and whether it is finite.
        """
        parameters = (p for part in network.modules() for p in part._parameters.values() if p is not None)
        gradients = [p.grad for p in parameters if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients) / batches
        finite = norm.isfinite()
        limit = torch.full_like(norm, self.clip_norm or float("inf"))
        if self.clip_factor:
            mean = torch.where(self.running_mean > 0, self.running_mean, norm)
            limit = torch.minimum(limit, self.clip_factor * mean)
            mean = torch.lerp(mean, torch.minimum(norm, limit), MOMENTUM)
            self.running_mean.copy_(torch.where(finite, mean, self.running_mean))
        torch._foreach_mul_(gradients, (limit / (norm + 1e-6)).clamp(max=1.0) / batches)
        self.skipped += ~finite
        self.skipped_in_a_row.copy_(torch.where(finite, 0, self.skipped_in_a_row + 1))
        return norm, finite


def skip_unless_finite(optimizer: torch.optim.Optimizer, finite: Tensor) -> None:
    """Make the optimiser's next step change nothing unless the gradient is finite.

    Fused optimisers (``fused: true``) read ``found_inf`` on the device, as they do for loss scaling. From others the
    gradients are removed, for which the host waits for the GPU at every step.

    Args:
        optimizer: The optimiser, not Lightning's wrapper.
        finite: Whether its gradient is finite.
    """
    if all(group.get("fused") for group in optimizer.param_groups):
        optimizer.found_inf = (~finite).float()  # type: ignore[attr-defined]
    elif not finite:
        optimizer.zero_grad(set_to_none=True)


class BatchStatistics:
    """The running statistics of a network's normalisation layers: averaged over processes, restored on skipped steps.

    Each process sees only its share of the batch, and a checkpoint holds the statistics of one process.

    Args:
        network: The network.
    """

    def __init__(self, network: nn.Module) -> None:
        self.norms = [m for m in network.modules() if isinstance(m, (nn.modules.batchnorm._BatchNorm, RunningNorm))]
        self.buffers: list[Tensor] = []
        self.before: Tensor | None = None

    @torch.no_grad()
    def save(self) -> None:
        """Remember the statistics before the first batch of a step."""
        self.buffers = [b for norm in self.norms for b in norm.buffers() if b.is_floating_point()]
        self.before = torch.cat([b.flatten() for b in self.buffers]) if self.buffers else None

    @torch.no_grad()
    def reduce(self, finite: Tensor | None = None) -> None:
        """Set the statistics to their mean over all processes, or back to those before the step.

        Args:
            finite: Whether the step's gradient is finite; None after a batch that only adds to the gradient.
        """
        if self.before is None:
            return
        now = torch.cat([b.flatten() for b in self.buffers])
        now = now if finite is None else torch.where(finite, now, self.before)
        parts = mean_over_ranks(now).split([b.numel() for b in self.buffers])
        torch._foreach_copy_(self.buffers, [part.view_as(b) for part, b in zip(parts, self.buffers, strict=True)])
