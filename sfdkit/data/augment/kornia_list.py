"""Augmentation by any modules of ``kornia.augmentation``, named by their ``class_path`` in YAML."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from kornia.augmentation import AugmentationBase2D, ImageSequential, RandomChannelDropout, VideoSequential
from torch import Tensor

from sfdkit.data.augment.base import Augmentation, row_frames, with_view
from sfdkit.data.augment.kornia_points import moved_points
from sfdkit.errors import ConfigError
from sfdkit.points import POINT_SETS, from_pixels, to_pixels
from sfdkit.types import FrameBatch


class KorniaAugmentation(Augmentation):
    """Applies lists of kornia's augmentation modules (https://kornia.readthedocs.io/en/latest/augmentation.html).

    Modules draw from torch's global generators, which are seeded for each call and put back afterwards. They stay on
    the CPU and draw there, so a seed gives the same draws on every device. Results are clipped to [0, 1].

    Args:
        joint: Modules that change whole rows: the source and all driving frames of a row get the same draw, also of
            whether a module with ``p`` below 1 is applied. Rows differ unless a module has ``same_on_batch``.
        driver: Modules that change ``driving_view`` alone, drawn for each driving frame.

    Raises:
        ConfigError: A module that cannot be drawn once per row.
    """

    def __init__(self, joint: Sequence[AugmentationBase2D] = (), driver: Sequence[AugmentationBase2D] = ()) -> None:
        for place, module in enumerate(joint):
            if isinstance(module, RandomChannelDropout):  # its draw holds places in the batch
                raise ConfigError(
                    f"augmentation.joint[{place}] is RandomChannelDropout, which kornia cannot draw once for several "
                    "frames; name it in augmentation.driver, or leave it out"
                )
        self.joint = _uncached(VideoSequential(*joint, data_format="BTCHW", same_on_frame=True)) if joint else None
        self.driver = _uncached(ImageSequential(*driver)) if driver else None

    @torch.no_grad()
    def __call__(self, batch: FrameBatch, seed: int) -> FrameBatch:
        """Return the batch with its joint changes and with ``driving_view``.

        Args:
            batch: Images float32 in [0, 1], on any device.
            seed: What to draw; equal seeds change equal batches equally.

        Returns:
            A new batch, images float32 in [0, 1].

        Raises:
            ConfigError: The modules change the size of the images.
        """
        device = batch["source"].device
        devices = [device] if device.type == "cuda" else []
        with torch.autocast(device.type, enabled=False), torch.random.fork_rng(devices):
            torch.manual_seed(seed)
            frames = row_frames(batch)
            points = batch.get("points")
            if self.joint is not None:
                frames = _checked(self.joint(frames), frames, "joint")
                if points is not None:
                    points = _moved(points, self.joint, frames.shape[-1], POINT_SETS[batch["point_set"]].mirrored)
            driving = frames[:, 1:]
            view = driving
            if self.driver is not None:
                seen = driving.flatten(0, 1)
                view = _checked(self.driver(seen), seen, "driver").view_as(driving)
        return with_view(batch, frames, view, points)


def _uncached(modules: ImageSequential) -> ImageSequential:
    """Keep kornia's container from holding on to the last batch."""
    modules.disable_features = True
    return modules


def _moved(points: Tensor, joint: ImageSequential, side: int, mirrored: tuple[int, ...]) -> Tensor:
    """Return points B 1+K L 2 in [-1, 1] where they are after the last call of ``joint``."""
    pixels = moved_points(to_pixels(points, side).flatten(0, 1), joint, mirrored)
    return from_pixels(pixels, side).view_as(points)


def _checked(changed: Tensor, images: Tensor, part: str) -> Tensor:
    """Return what a list of modules made of images, clipped to [0, 1].

    Raises:
        ConfigError: The size is another.
    """
    if changed.shape != images.shape:
        size, wanted = ("x".join(map(str, one.shape[-3:])) for one in (changed, images))
        raise ConfigError(
            f"augmentation.{part} makes images of {size} (channels x height x width) from images of {wanted}; "
            "leave out the module that does, or give it the size of data.init_args.resolution"
        )
    return changed.clamp(0, 1)
