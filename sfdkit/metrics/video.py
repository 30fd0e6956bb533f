"""Means as the field takes them, over the frames of a video and then over videos, on any number of processes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric


class VideoMean(Metric):
    """Mean over the frames of each video, then over videos.

    Frames in which something could not be read are NaN: they are left out and counted, as the field's scripts leave out
    frames without a detection. A video without any other frame does not count.

    Example:
        >>> mean = VideoMean()
        >>> mean.update(torch.tensor([1.0, 3.0]))  # one video
        >>> mean.update(torch.tensor([8.0]))  # another one
        >>> float(mean.compute())
        5.0
    """

    full_state_update = False
    total: Tensor
    videos: Tensor
    frames: Tensor
    unread: Tensor

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        for name in ("videos", "frames", "unread"):
            self.add_state(name, torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    def update(self, values: Tensor) -> None:
        """Add one video.

        Args:
            values: F values of its frames; NaN for those that could not be read.
        """
        values = values.detach().flatten().to(self.total)
        good = values.isfinite()
        self.frames += values.numel()
        self.unread += int((~good).sum())
        if good.any():
            self.total += values[good].mean()
            self.videos += 1

    def compute(self) -> Tensor:
        """Return the mean over all videos; NaN where there is none."""
        return self.total / self.videos if self.videos else self.total.new_full((), float("nan"))
