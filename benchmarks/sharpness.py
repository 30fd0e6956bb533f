"""What the figures of fine detail say of known damage: puppets' true pictures, blurred, noisy, doubled or moved.

``python -m benchmarks.sharpness`` prints the scale of ``docs/evaluate.md``: PSNR and detail inside the face, and last
the sharpness in the central ellipse.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jsonargparse import auto_cli
from kornia.filters import gaussian_blur2d
from torch import Tensor

from sfdkit.metrics.detail import central_ellipse, frame_detail
from sfdkit.metrics.image import frame_psnr
from sfdkit.puppets.factors import sample_identity, sample_motion
from sfdkit.puppets.render import render

PEOPLE, FRAMES, FPS = 24, 6, 3.0
COLUMNS = (*(f"detail_energy_{k}" for k in (1, 2, 3)), *(f"detail_agreement_{k}" for k in (1, 2, 3)))


def blur(image: Tensor, sigma: float) -> Tensor:
    """Return pictures F 3 H W blurred by a Gaussian of ``sigma`` pixels."""
    reach = 2 * int(4 * sigma + 0.5) + 1
    return gaussian_blur2d(image, (reach, reach), (sigma, sigma))


def noisy(image: Tensor, deviation: float) -> Tensor:
    """Return pictures with white noise."""
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(0)).to(image)
    return (image + deviation * noise).clamp(0, 1)


def checkered(image: Tensor, size: float) -> Tensor:
    """Return pictures with a checkerboard of single pixels."""
    y, x = (torch.arange(side, device=image.device) for side in image.shape[2:])
    return (image + size * (1.0 - 2.0 * ((y[:, None] + x) % 2))).clamp(0, 1)


DAMAGE: dict[str, Callable[[Tensor], Tensor]] = {
    "nothing": lambda t: t,
    "blur, sigma 0.5 px": lambda t: blur(t, 0.5),
    "blur, sigma 0.8 px": lambda t: blur(t, 0.8),
    "blur, sigma 1.2 px": lambda t: blur(t, 1.2),
    "blur, sigma 2 px": lambda t: blur(t, 2.0),
    "noise 0.02": lambda t: noisy(t, 0.02),
    "noise 0.05": lambda t: noisy(t, 0.05),
    "blur 0.8 px, checkerboard 0.03": lambda t: checkered(blur(t, 0.8), 0.03),
    "double edges, 2 px apart": lambda t: (t + t.roll(2, 3)) / 2,
    "double edges, 4 px apart": lambda t: (t + t.roll(4, 3)) / 2,
    "moved by 1 px": lambda t: t.roll(1, 3),
    "moved by 2 px": lambda t: t.roll(2, 3),
}


def main(resolution: int = 64) -> None:
    """Print the table.

    Args:
        resolution: Of the pictures.
    """
    parts = []
    for k in range(PEOPLE):
        motion = sample_motion(k, "test", 0, FRAMES, FPS)
        parts.append(render(sample_identity(k, "test", 0), motion, resolution))
    truth, mask = (torch.cat([getattr(part, name) for part in parts]) for name in ("image", "mask"))
    middle = central_ellipse(truth)
    print(f"{PEOPLE} people, {FRAMES} frames each, {resolution} pixels")
    print(f"{'':32}{'PSNR':>7}{'energy':>9}{'agreement':>24}{'ellipse':>18}")
    for name, damage in DAMAGE.items():
        made = damage(truth)
        found = frame_detail(made, truth, mask)
        figures = [float(found[column].mean()) for column in COLUMNS]
        figures.append(float(frame_detail(made, truth, middle)["sharpness"].mean()))
        print(f"{name:32}{float(frame_psnr(made, truth, mask).mean()):7.2f}" + "".join(f"{v:8.2f}" for v in figures))


if __name__ == "__main__":
    auto_cli(main)
