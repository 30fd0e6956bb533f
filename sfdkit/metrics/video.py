"""Means over videos of means over frames, as torchmetrics objects that are safe across processes.

Legend: ``F`` frames of one call, of one or more videos; ``C H W`` image.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection

from sfdkit.metrics.image import frame_l1, frame_psnr, frame_ssim


class VideoMean(Metric):
    """The mean over videos of the mean over frames.

    Every video counts the same, whatever its length. Both states are sums, so that the result does not depend on how
    the videos are spread over processes, and a process without data does no harm.

    **All frames of a video arrive in one call of** :meth:`update`: a video that is spread over two calls counts as two.
    """

    full_state_update = False
    is_differentiable = False
    total: Tensor
    videos: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", default=torch.zeros(()), dist_reduce_fx="sum")
        self.add_state("videos", default=torch.zeros(()), dist_reduce_fx="sum")

    def update(self, values: Tensor, video: Tensor | Sequence[int]) -> None:
        """Add the frames of whole videos.

        Args:
            values: F values, one per frame.
            video: F numbers; frames of the same number belong to the same video. The numbers mean nothing beyond this
                call.
        """
        numbers = torch.as_tensor(video, device=values.device)
        if numbers.shape != values.shape:
            raise ValueError(
                f"one video number per frame: {tuple(values.shape)} values, {tuple(numbers.shape)} numbers"
            )
        _, row, frames = numbers.unique(return_inverse=True, return_counts=True)
        sums = values.new_zeros(len(frames)).index_add(0, row, values)
        self.total += (sums / frames).sum()
        self.videos += len(frames)

    def compute(self) -> Tensor:
        """Return the mean over videos; NaN when there was none."""
        return self.total / self.videos


class VideoDistance(VideoMean):
    """The mean over videos of a distance between frames; subclasses name the distance."""

    @staticmethod
    def measure(prediction: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return one value per frame.

        Args:
            prediction: F C H W in [0, 1].
            target: F C H W in [0, 1].
            mask: F 1 H W weights, or None for the whole picture.

        Returns:
            F values.
        """
        raise NotImplementedError

    def update(  # type: ignore[override]
        self, prediction: Tensor, target: Tensor, video: Tensor | Sequence[int], mask: Tensor | None = None
    ) -> None:
        """Add the frames of whole videos.

        Args:
            prediction: F C H W in [0, 1].
            target: F C H W in [0, 1].
            video: F video numbers, see :meth:`VideoMean.update`.
            mask: F 1 H W weights, or None for the whole picture.
        """
        super().update(self.measure(prediction, target, mask), video)


class VideoL1(VideoDistance):
    """Mean absolute error on [0, 1], see :func:`sfdkit.metrics.image.frame_l1`; lower is better."""

    higher_is_better = False
    measure = staticmethod(frame_l1)


class VideoPSNR(VideoDistance):
    """Peak signal-to-noise ratio in decibel, see :func:`sfdkit.metrics.image.frame_psnr`; higher is better."""

    higher_is_better = True
    measure = staticmethod(frame_psnr)


class VideoSSIM(VideoDistance):
    """Structural similarity, see :func:`sfdkit.metrics.image.frame_ssim`; higher is better."""

    higher_is_better = True
    measure = staticmethod(frame_ssim)


def distances(prefix: str) -> MetricCollection:
    """Return L1, PSNR and SSIM under the keys ``l1``, ``psnr`` and ``ssim`` behind a prefix.

    Args:
        prefix: For example ``"cross/"`` or ``"cross/face_"``.
    """
    parts: dict[str, Metric | MetricCollection] = {"l1": VideoL1(), "psnr": VideoPSNR(), "ssim": VideoSSIM()}
    return MetricCollection(
        parts, prefix=prefix, compute_groups=False
    )  # groups would share one state between the three
