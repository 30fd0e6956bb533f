"""Options that the packing commands share: each option, its default, its help and its check exist once.

The commands inherit from these classes, and ``auto_cli`` makes an option of each field.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TypeAlias

from jsonargparse.typing import ClosedUnitInterval, NonNegativeInt, PositiveInt, restricted_number_type

from sfdkit.data.pack.engines import EngineName
from sfdkit.data.pack.face_points import PointSettings
from sfdkit.data.pack.sources import ClipSettings
from sfdkit.errors import ConfigError
from sfdkit.media.crop import LOOKING, CropRule, DataCrop, FaceSettings
from sfdkit.media.frame_rate import Fps

Resolution: TypeAlias = restricted_number_type("Resolution", int, [(">=", 32), ("<=", 1024)])  # type: ignore[valid-type]
Margin: TypeAlias = restricted_number_type("Margin", float, [(">=", 0), ("<=", 2)])  # type: ignore[valid-type]
FrameCount: TypeAlias = restricted_number_type("FrameCount", int, (">", 1))  # type: ignore[valid-type]


@dataclass(frozen=True)
class PlainNumbers:
    """Makes plain numbers of those that jsonargparse restricts: a worker process cannot unpickle their types."""

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            for plain in (int, float):
                if isinstance(value, plain) and not isinstance(value, bool):
                    object.__setattr__(self, each.name, plain(value))


@dataclass(frozen=True, kw_only=True)
class CutOptions(PlainNumbers):
    """How videos become clips.

    Args:
        resolution: Pixels of a side, 32 to 1024.
        margin: Share of the detected face's size that is added on each side, up to 2; by default 0.4 for face, 0.1 for
            union.
        face: How faces are looked for, and which of them are cut.
        points: Points of the face that are kept with the clips, for the loss terms that read them.
        fps: At most so many frames of a second are kept; of folders of pictures, the rate at which they were taken.
        frames_per_clip: Longer videos are cut into clips of so many frames.
        min_frames: Clips with fewer frames are left out.
    """

    resolution: Resolution = 256
    margin: Margin | None = None
    face: FaceSettings = field(default_factory=FaceSettings)
    points: PointSettings = field(default_factory=PointSettings)
    fps: Fps = 25.0
    frames_per_clip: FrameCount = 32
    min_frames: FrameCount = 8

    def clip_settings(self, crop: DataCrop) -> ClipSettings:
        """Return how videos become clips, cut by a method.

        Raises:
            ConfigError: The options do not fit each other, or a network cannot be had.
        """
        if self.frames_per_clip < self.min_frames:
            raise ConfigError(
                f"--frames_per_clip is {self.frames_per_clip}: give at least {self.min_frames}, or a lower --min_frames"
            )
        rule = CropRule(crop, self.margin, self.face)
        if rule.looks:
            rule.watcher()
        elif self.face != FaceSettings():
            raise ConfigError(f"--face.* belongs to crops that look for faces ({', '.join(LOOKING)}), not to {crop}")
        frames = self.frames_per_clip, self.min_frames, self.fps
        return ClipSettings(self.resolution, rule, *frames, self.points.rule())


@dataclass(frozen=True, kw_only=True)
class SplitShares(PlainNumbers):
    """Who is packed into which split.

    Args:
        validation_share: Share of the identities for the validation split.
        test_share: Share of the identities for the test split.

    Raises:
        ConfigError: Nobody is left to train on.
    """

    validation_share: ClosedUnitInterval = 0.1
    test_share: ClosedUnitInterval = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.validation_share + self.test_share >= 1:
            raise ConfigError(
                f"--validation_share is {self.validation_share} and --test_share {self.test_share}: give shares whose "
                "sum is below 1"
            )


@dataclass(frozen=True, kw_only=True)
class ShardOptions(PlainNumbers):
    """How clips become shards.

    Args:
        clips_per_shard: The most clips in a shard.
        seed: Decides the split and the order of the clips.
        workers: How many sources are encoded at the same time. With --engine processes 0 works in this process; with
            --engine ray 0 takes the whole cluster.
        engine: processes works on this machine, ray on the cluster that RAY_ADDRESS names, else on a local one.
        scratch: Folder for what is on its way to an OUTPUT that is not local; by default one in the user's cache.
        overwrite: Replace what was packed into OUTPUT before; a local one gives the clips of unchanged files.
    """

    clips_per_shard: PositiveInt = 64
    seed: int = 0
    workers: NonNegativeInt = 0
    engine: EngineName = "processes"
    scratch: str | None = None
    overwrite: bool = False
