"""How third-party networks want their pictures, and what their outputs mean.

Networks that the kit knows by the sha256 of their file are described in ``known/*.yaml``
(:mod:`sfdkit.face_networks.known`); another is described in a YAML file beside it.

Legend: ``F`` pictures, ``S`` side of a network's input in pixels, ``H W`` of the pictures given, ``P`` points.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal, TypeAlias

from jsonargparse.typing import ClosedUnitInterval, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor

from sfdkit.model.blocks import resize
from sfdkit.points import FACE5, FACE31

Angle: TypeAlias = Literal["yaw", "pitch", "roll"]
Layout: TypeAlias = Literal["nchw", "nhwc"]
Place: TypeAlias = NonNegativeInt | list[NonNegativeInt]
"""Index of a network's point, or several whose mean is meant."""
LEVEL = ("left_eye_outer", "right_eye_outer")
"""The points of ``face31`` by which a face is levelled."""


@dataclass(frozen=True)
class Convention:
    """The input of a network and the place of its output.

    Args:
        size: S; the pictures are resized to it. An ONNX file with an input of fixed size goes before it.
        mean: Of red, green and blue on [0, 1]: subtracted.
        std: Of red, green and blue on [0, 1]: divided by afterwards.
        channels: Order in which the network wants them.
        layout: ``nchw`` or ``nhwc``.
        crop: Left, top, right and bottom of what the network sees, as shares of the picture, where no detector is used.
        region: What it sees where a detector is used: the ``picture``, a square around the face's ``box``, the same
            turned until the eyes are ``level``, or the face moved, turned and scaled until its ``five_points`` lie
            where ArcFace has them.
        margin: Side of the square, as a multiple of the longer side of the face's box.
        result: Index of the output, for a network with several.

    Raises:
        ValueError: The crop is empty.
    """

    kind: ClassVar[str] = "embedder"

    size: PositiveInt
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = (1.0, 1.0, 1.0)
    channels: Literal["rgb", "bgr"] = "rgb"
    layout: Layout = "nchw"
    crop: tuple[ClosedUnitInterval, ClosedUnitInterval, ClosedUnitInterval, ClosedUnitInterval] = (0.0, 0.0, 1.0, 1.0)
    region: Literal["picture", "box", "level", "five_points"] = "picture"
    margin: PositiveFloat = 1.0
    result: NonNegativeInt = 0

    def __post_init__(self) -> None:
        left, top, right, bottom = self.crop
        if not (left < right and top < bottom):
            raise ValueError(f"crop={self.crop}: give left, top, right and bottom as shares of the picture")

    def window(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Return left, top, right and bottom of what the network sees of H W pixels."""
        left, top, right, bottom = self.crop
        return (round(left * width), round(top * height), round(right * width), round(bottom * height))

    def prepare(self, images: Tensor, cut: bool = False) -> Tensor:
        """Turn pictures F 3 H W in [0, 1] into the network's input, F 3 S S or F S S 3; with gradients.

        Args:
            images: The pictures.
            cut: Whether they are cut out by ``region`` already, so that ``crop`` does not count.
        """
        left, top, right, bottom = (0, 0, images.shape[3], images.shape[2]) if cut else self.window(*images.shape[2:])
        x = resize(images[:, :, top:bottom, left:right].float(), self.size)
        mean, std = (x.new_tensor(values).view(1, 3, 1, 1) for values in (self.mean, self.std))
        x = (x - mean) / std
        x = x.flip(1) if self.channels == "bgr" else x
        return x.permute(0, 2, 3, 1) if self.layout == "nhwc" else x


@dataclass(frozen=True)
class LandmarkConvention(Convention):
    """The same for a landmark network.

    Args:
        unit: ``share`` (0 to 1 across the input), ``pixels`` of the input with whole numbers at the middle of pixels,
            or ``edges``: pixels with 0 at the input's edge, half a pixel more.
        values: Numbers of each point: x and y, or z as well.
        presence: Index of the output that says whether there is a face; none by default.
        presence_unit: ``share`` (0 to 1), or ``logit``.
        margin_again: Look a second time, and in the next frame of a video, at a square around the points, whose side is
            this multiple of the longer side of their box; once only, around the detector's box, by default.
        face31: Names of :data:`sfdkit.points.FACE31` to the network's points; left and right are those of a picture
            that is not mirrored. What the network has not is left out.

    Raises:
        ValueError: ``face31`` has a name that is none, or no eyes by which the face can be levelled.
    """

    kind: ClassVar[str] = "landmarks"
    unit: Literal["share", "pixels", "edges"] = "share"
    values: Literal[2, 3] = 2
    presence: NonNegativeInt | None = None
    presence_unit: Literal["share", "logit"] = "share"
    margin_again: PositiveFloat | None = None
    face31: dict[str, Place] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        if unknown := set(self.face31) - set(FACE31.names):
            raise ValueError(f"face31: {min(unknown)!r} is none of its names: {', '.join(FACE31.names)}")
        if self.region == "level" and self.margin_again is not None and not set(LEVEL) <= set(self.face31):
            raise ValueError(f"face31: name {' and '.join(LEVEL)}, by which the face is levelled")


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

    kind: ClassVar[str] = "head_pose"
    unit: Literal["degrees", "radians", "matrix"] = "degrees"
    order: tuple[Angle, Angle, Angle] = ("yaw", "pitch", "roll")
    signs: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(set(self.order)) < len(self.order):
            raise ValueError(f"order={self.order}: give yaw, pitch and roll in the network's order")


@dataclass(frozen=True)
class DetectorConvention:
    """Which of the five points of a YuNet file is which.

    Args:
        face5: Names of :data:`sfdkit.points.FACE5` to the network's points.

    Raises:
        ValueError: A point is missing.
    """

    kind: ClassVar[str] = "detector"
    face5: dict[str, NonNegativeInt] = field(default_factory=lambda: {name: k for k, name in enumerate(FACE5.names)})

    def __post_init__(self) -> None:
        if set(self.face5) != set(FACE5.names):
            raise ValueError(f"face5: give {', '.join(FACE5.names)}")


@dataclass(frozen=True)
class BlendshapeConvention:
    """What a blendshape network reads and gives.

    Args:
        points: The landmarks that it reads, x and y in pixels of the picture: rows of the landmark network.
        names: Of its outputs.
    """

    kind: ClassVar[str] = "blendshapes"
    points: list[NonNegativeInt] = field(default_factory=list)
    names: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class CanonicalConvention:
    """Which vertices of a canonical face a head pose is found by.

    Args:
        points: Rows of the canonical face and of the landmark network.
        weights: Of each; all the same by default.

    Raises:
        ValueError: There are not as many weights as points.
    """

    kind: ClassVar[str] = "canonical_face"
    points: list[NonNegativeInt] = field(default_factory=list)
    weights: list[PositiveFloat] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.weights and len(self.weights) != len(self.points):
            raise ValueError(f"weights: {len(self.weights)} of them, and {len(self.points)} points; give as many")


ARCFACE = Convention(112, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), region="five_points")
"""Of ArcFace networks: 112 x 112, RGB, (255 x - 127.5) / 127.5 (https://arxiv.org/abs/1801.07698,
https://github.com/deepinsight/insightface). They were trained on faces aligned by five points. Without a detector
pictures are resized whole, so that figures compare with each other, not with those of aligned faces."""
LANDMARK_NET = LandmarkConvention(112, region="box", margin=1.1)
"""Of landmark networks such as PFLD: 112 x 112, RGB on [0, 1], and x, y of each point as shares of the input
(https://arxiv.org/abs/1902.10859, https://github.com/polarisZhao/PFLD-pytorch)."""
HEAD_POSE_NET = HeadPoseConvention(224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), region="box", margin=1.4)
"""Of head pose networks such as Hopenet and 6DRepNet: 224 x 224, RGB, ImageNet's mean and deviation
(https://arxiv.org/abs/1710.00925, https://arxiv.org/abs/2202.12555; the latter gives a ``matrix``)."""
