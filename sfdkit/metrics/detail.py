"""Fine detail of a result against the truth, in octave bands: PSNR prefers blur, these figures see it.

The bands are those of the Laplacian pyramid (Burt and Adelson 1983, https://doi.org/10.1109/TCOM.1983.1095851), kept at
full size: each is what the next blur takes away, by their kernel of five weights (1, 4, 6, 4, 1) / 16 with gaps of 1,
2 and 4 pixels. Band 1 passes at least half of the energy of stripes with periods of 2 to 4.2 pixels, band 2 of 4.8 to
11.6 and band 3 of 10.2 to 24.4 (relative to its best). Red, green and blue count alike, so that coloured specks show.

Energy alone cannot tell detail from noise, a checkerboard or double edges, hence the agreement. True pictures of
puppets, 64 pixels, blurred by a Gaussian of 0.5, 0.8 and 1.2 pixels have a sharpness of 0.51, 0.17 and 0.06;
``docs/evaluate.md`` has the scale for other damage, made by ``python -m benchmarks.sharpness``.

Each frame counts alike, as in all figures of frames: sums over frames would be those of beards and wrinkles, as the
finest band of puppets' faces has up to 14 times the energy in one frame that it has in another.

Legend: ``F`` frames, ``H W`` image.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from sfdkit.model.blocks import in_float32

BANDS = 3
_REACH = 2
"""Pixels that the finest band sees beyond a pixel; the mask shrinks by so many."""
_LEAST_ENERGY = 1 / 255**2 / 12
"""Mean square of rounding to 8 bits: a truth with no more than this in a band has nothing to compare with."""
_ELLIPSE = (1 / 4, 1 / 3)
"""Half axes of the central ellipse, as shares of width and height."""


@in_float32
def frame_detail(prediction: Tensor, target: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """Return energy and agreement of the fine detail of each frame inside a mask.

    Bands are those of the whole pictures, so that the mask makes no edges, and are then weighed by the mask shrunk by 2
    pixels: nothing outside the mask enters band 1; bands 2 and 3 see 4 and 12 pixels past it.

    Args:
        prediction: F 3 H W in [0, 1].
        target: F 3 H W in [0, 1].
        mask: F 1 H W or 1 1 H W in [0, 1].

    Returns:
        F values each: ``detail_energy_1`` to ``_3``, the energy (sum of squares) of each band of the prediction over
        that of the target: 1 for as much detail, less for blur; ``detail_agreement_1`` to ``_3``, the cosine of both
        bands: 1 for the same detail, 0 for unrelated; and ``sharpness``, which is ``detail_energy_1``. NaN where the
        mask is empty, or the target has no detail but the rounding of 8 bits.
    """
    weights = -functional.max_pool2d(-mask, 2 * _REACH + 1, 1, _REACH)
    count = 3 * weights.expand(len(target), -1, -1, -1).sum((1, 2, 3))
    values: dict[str, Tensor] = {}
    for number, (made, true) in enumerate(zip(bands(prediction), bands(target), strict=True), 1):
        energy, wanted, both = ((product * weights).sum((1, 2, 3)) for product in (made**2, true**2, made * true))
        wanted = wanted.where(wanted > _LEAST_ENERGY * count, torch.nan)
        values[f"detail_energy_{number}"] = energy / wanted
        # of a flat prediction nothing agrees: 0
        values[f"detail_agreement_{number}"] = both / (energy.clamp(min=torch.finfo(energy.dtype).tiny) * wanted).sqrt()
    return {"sharpness": values["detail_energy_1"], **values}


def bands(image: Tensor) -> list[Tensor]:
    """Return the bands of pictures F 3 H W, the finest first, :data:`BANDS` of the same shape.

    Their sum is the picture less its last blur. Pictures are continued by their edge.
    """
    found = []
    for number in range(BANDS):
        blurred = _blur(image, 2**number)
        found.append(image - blurred)
        image = blurred
    return found


def _blur(image: Tensor, gap: int) -> Tensor:
    # sums of shifted views: a tenth of the time of a convolution by channel on a CPU
    image = functional.pad(image, (2 * gap,) * 4, mode="replicate")
    for axis in (2, 3):
        length = image.shape[axis] - 4 * gap
        a, b, c, d, e = (image.narrow(axis, at * gap, length) for at in range(5))
        image = (c * 6).add_(b, alpha=4).add_(d, alpha=4).add_(a).add_(e).div_(16)
    return image


def central_ellipse(image: Tensor) -> Tensor:
    """Return the middle of face crops F 3 H W whose mask is not known, as a mask 1 1 H W: 0 or 1.

    The ellipse is half as wide and two thirds as high as the picture. Of puppets at their full range of motion about
    72 % of it is face, and it holds 80 % of the face.
    """
    y, x = ((torch.arange(size, device=image.device) + 0.5) / size - 0.5 for size in image.shape[2:])
    inside = (x / _ELLIPSE[0]).square()[None, :] + (y / _ELLIPSE[1]).square()[:, None] <= 1
    return inside.float()[None, None]
