"""How third-party networks want their pictures, and what their outputs mean.

Legend: ``F`` pictures, ``S`` side of a network's input in pixels, ``H W`` of the pictures given.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal, Self, TypeAlias

from jsonargparse import ArgumentError
from jsonargparse.typing import ClosedUnitInterval, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor

from sfdkit.config.compose import read_config
from sfdkit.config.messages import explain
from sfdkit.config.parser import OneLineParser
from sfdkit.errors import ConfigError
from sfdkit.model.blocks import resize

Angle: TypeAlias = Literal["yaw", "pitch", "roll"]


@dataclass(frozen=True)
class Convention:
    """The input of a network and the place of its output; a YAML file beside the network may say otherwise.

    The YAML has the network's name with ``.yaml`` behind it (``arcface.onnx.yaml``) and holds any of these names.

    Args:
        size: S; the pictures are resized to it. An ONNX file with an input of fixed size goes before it.
        mean: Of red, green and blue on [0, 1]: subtracted.
        std: Of red, green and blue on [0, 1]: divided by afterwards.
        channels: Order in which the network wants them.
        crop: Left, top, right and bottom of what the network sees, as shares of the picture.
        result: Index of the output, for a network with several.

    Raises:
        ValueError: The crop is empty.
    """

    size: PositiveInt
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = (1.0, 1.0, 1.0)
    channels: Literal["rgb", "bgr"] = "rgb"
    crop: tuple[ClosedUnitInterval, ClosedUnitInterval, ClosedUnitInterval, ClosedUnitInterval] = (0.0, 0.0, 1.0, 1.0)
    result: NonNegativeInt = 0

    def __post_init__(self) -> None:
        left, top, right, bottom = self.crop
        if not (left < right and top < bottom):
            raise ValueError(f"crop={self.crop}: give left, top, right and bottom as shares of the picture")

    def read_beside(self, path: Path) -> Self:
        """Return the convention as the YAML beside a network changes it.

        Raises:
            ConfigError: The YAML cannot be read, or a name or value in it is impossible.
        """
        beside = path.with_name(path.name + ".yaml")
        if not beside.is_file():
            return self
        parser = OneLineParser(exit_on_error=False)
        parser.add_class_arguments(type(self), as_group=False)
        parser.set_defaults({field.name: getattr(self, field.name) for field in fields(self)})
        changes = read_config(beside)
        try:
            return type(self)(**parser.parse_object(changes))
        except ArgumentError as error:
            names = ", ".join(field.name for field in fields(self))
            raise ConfigError(f"{beside}: {explain(str(error), parser)} The names are {names}") from error
        except ValueError as error:
            raise ConfigError(f"{beside}: {error}") from error

    def window(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Return left, top, right and bottom of what the network sees of H W pixels."""
        left, top, right, bottom = self.crop
        return (round(left * width), round(top * height), round(right * width), round(bottom * height))

    def prepare(self, images: Tensor) -> Tensor:
        """Turn pictures F 3 H W in [0, 1] into the network's input F 3 S S; with gradients."""
        left, top, right, bottom = self.window(*images.shape[2:])
        x = resize(images[:, :, top:bottom, left:right].float(), self.size)
        mean, std = (x.new_tensor(values).view(1, 3, 1, 1) for values in (self.mean, self.std))
        x = (x - mean) / std
        return x.flip(1) if self.channels == "bgr" else x


@dataclass(frozen=True)
class LandmarkConvention(Convention):
    """The same for a landmark network.

    Args:
        unit: ``share`` (0 to 1 across the input) or ``pixels`` (of the input, whole numbers at the middle of pixels).
    """

    unit: Literal["share", "pixels"] = "share"


@dataclass(frozen=True)
class HeadPoseConvention(Convention):
    """The same for a head pose network.

    Args:
        unit: ``degrees``, ``radians``, or ``matrix`` (3 x 3 rotation).
        order: Of the angles.
        signs: Factors on yaw, pitch and roll, to make a network's angles mean what others' do.

    Raises:
        ValueError: An angle is missing in the order.
    """

    unit: Literal["degrees", "radians", "matrix"] = "degrees"
    order: tuple[Angle, Angle, Angle] = ("yaw", "pitch", "roll")
    signs: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(set(self.order)) < len(self.order):
            raise ValueError(f"order={self.order}: give yaw, pitch and roll in the network's order")


ARCFACE = Convention(112, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
"""Of ArcFace networks: 112 x 112, RGB, (255 x - 127.5) / 127.5 (https://arxiv.org/abs/1801.07698,
https://github.com/deepinsight/insightface). They were trained on faces aligned by five points; the pictures here are
resized whole, so that figures compare with each other, not with those of aligned faces."""
LANDMARK_NET = LandmarkConvention(112)
"""Of landmark networks such as PFLD: 112 x 112, RGB on [0, 1], and x, y of each point as shares of the input
(https://arxiv.org/abs/1902.10859)."""
HEAD_POSE_NET = HeadPoseConvention(224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Of head pose networks such as Hopenet and 6DRepNet: 224 x 224, RGB, ImageNet's mean and deviation
(https://arxiv.org/abs/1710.00925, https://arxiv.org/abs/2202.12555; the latter gives a ``matrix``)."""
