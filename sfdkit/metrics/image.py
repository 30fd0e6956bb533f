"""Image distances per frame: L1, PSNR, SSIM and MS-SSIM on [0, 1], over the whole picture or inside a mask.

Legend: ``F`` frames, ``C H W`` image. ``prediction`` and ``target`` are F C H W in [0, 1]; ``mask``, F 1 H W, weighs
pixels, None for the whole picture. Each function returns F values; a frame whose mask is empty gives NaN.

Figures of different papers do not compare: they differ in crop, resolution and definition. Here a value belongs to one
frame; means are taken over the frames of a video and then over videos, see :mod:`sfdkit.evaluate.summarise`.
"""

from __future__ import annotations

from torch import Tensor
from torchmetrics.functional.image import (
    multiscale_structural_similarity_index_measure,
    structural_similarity_index_measure,
)

from sfdkit.errors import ConfigError
from sfdkit.model.blocks import in_float32

PSNR_LIMIT = 100.0
"""Decibel given to (nearly) equal pictures, whose PSNR would be infinite and spoil every mean."""


@in_float32
def frame_l1(prediction: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return the mean absolute error of each frame; 0 is best."""
    return _mean((prediction - target).abs(), mask)


@in_float32
def frame_psnr(prediction: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return the peak signal-to-noise ratio of each frame in decibels, from the error of that frame alone.

    The error of the frame, or of its masked part, is averaged before the logarithm, as in torchmetrics'
    ``PeakSignalNoiseRatio`` with ``dim=(1, 2, 3)``; equal pictures give :data:`PSNR_LIMIT`.
    """
    error = _mean((prediction - target).square(), mask)
    return -10.0 * error.clamp(min=10.0 ** (-PSNR_LIMIT / 10.0)).log10()


@in_float32
def frame_end_point_error(flow: Tensor, truth: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return the mean distance in pixels between where flows F 2 H W, in halves of the picture, lead; 0 is best.

    Baker et al. 2011, https://doi.org/10.1007/s11263-010-0390-2.
    """
    pixels = truth.new_tensor([flow.shape[3] / 2, flow.shape[2] / 2])[:, None, None]
    return _mean(((flow - truth) * pixels).square().sum(1, keepdim=True).sqrt(), mask)


@in_float32
def frame_ssim(prediction: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return the structural similarity of each frame, at least 6 pixels high and wide; 1 is best.

    The definition is that of torchmetrics 1.9: a Gaussian window of sigma 1.5, and the mean over the *whole* frame,
    whose border is filled by reflection. Implementations that average over the valid region only (scikit-image with its
    ``gaussian_weights``, older torchmetrics) give other figures, by up to about 0.01. With a mask the map of local
    similarities is averaged inside it; windows at its edge see a little of what lies outside.
    Wang et al. 2004, https://doi.org/10.1109/TIP.2003.819861.
    """
    _, local = structural_similarity_index_measure(
        prediction, target, data_range=1.0, reduction="none", return_full_image=True
    )
    return _mean(local, mask)


LEAST_MS_SSIM = 161
"""Pixels of a side below which the window of MS-SSIM does not fit into its fifth scale."""


@in_float32
def frame_ms_ssim(prediction: Tensor, target: Tensor) -> Tensor:
    """Return the structural similarity of each frame over five scales; 1 is best.

    Weights and window as published (Wang et al. 2003, https://doi.org/10.1109/ACSSC.2003.1292216), computed by
    torchmetrics; negative contrasts are clamped at 0.

    Raises:
        ConfigError: The frames are too small.
    """
    if min(prediction.shape[2:]) < LEAST_MS_SSIM:
        raise ConfigError(
            f"MS-SSIM needs frames of at least {LEAST_MS_SSIM} pixels a side, these have "
            f"{prediction.shape[3]} x {prediction.shape[2]}; leave it out, or evaluate at 256"
        )
    return multiscale_structural_similarity_index_measure(
        prediction, target, data_range=1.0, reduction="none", normalize="relu"
    )


def _mean(values: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        return values.mean(dim=(1, 2, 3))
    return (values * mask).sum(dim=(1, 2, 3)) / (mask.sum(dim=(1, 2, 3)) * values.shape[1])
