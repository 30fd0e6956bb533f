"""Options that all commands for packing share: checked, and turned into settings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from sfdkit.data.pack.engines import EngineName
from sfdkit.data.pack.packed import PackReport
from sfdkit.data.pack.sources import Cut, FrameSource, Skip
from sfdkit.data.pack.writer import ShardOptions
from sfdkit.errors import ConfigError
from sfdkit.media.crop import LOOKING, CropRule, FaceSettings
from sfdkit.media.frame_rate import FPS_RANGE

_EXAMPLES = 3


def require(option: str, value: int, least: int) -> None:
    """Refuse a number that is too small.

    Raises:
        ConfigError: It is out of its range.
    """
    if value < least:
        raise ConfigError(f"{option} is {value}: give at least {least}")


def require_resolution(resolution: int) -> None:
    """Refuse a resolution that cannot be packed.

    Raises:
        ConfigError: It is out of its range.
    """
    if not 32 <= resolution <= 1024:
        raise ConfigError(f"--resolution is {resolution}: give 32 to 1024 pixels")


def require_fps(fps: float) -> None:
    """Refuse a rate at which nothing can be shown.

    Raises:
        ConfigError: It is out of its range, or no number.
    """
    least, most = FPS_RANGE
    if not least <= fps <= most:
        raise ConfigError(f"--fps is {fps}: give {least:g} to {most:g} frames per second")


def make_rule(rule: CropRule) -> CropRule:
    """Return a rule whose numbers can be used.

    Raises:
        ConfigError: One is out of its range, or the detector cannot be had.
    """
    if rule.margin is not None and not 0 <= rule.margin <= 2:
        raise ConfigError(f"--margin is {rule.margin}: give 0 to 2, a share of the face's size")
    require("--face.every", rule.face.every, 1)
    require("--face.least", rule.face.least, 0)
    if rule.face.border is not None and rule.face.border < 0:
        raise ConfigError(f"--face.border is {rule.face.border}: give a share of the face's size from 0")
    if rule.looks:
        rule.watcher()
    elif rule.face != FaceSettings():
        raise ConfigError(f"--face.* belongs to crops that look for faces ({', '.join(LOOKING)}), not to {rule.method}")
    return rule


def make_cut(resolution: int, rule: CropRule, frames_per_clip: int, min_frames: int, fps: float) -> Cut:
    """Return how videos become clips.

    Raises:
        ConfigError: A number is out of its range.
    """
    require_resolution(resolution)
    require_fps(fps)
    require("--min_frames", min_frames, 2)
    require("--frames_per_clip", frames_per_clip, min_frames)
    return Cut(resolution, make_rule(rule), frames_per_clip, min_frames, fps)


def make_options(
    dataset: str, resolution: int, clips_per_shard: int, seed: int, workers: int, engine: EngineName
) -> ShardOptions:
    """Return how clips become shards.

    Raises:
        ConfigError: It is out of its range.
    """
    require("--clips_per_shard", clips_per_shard, 1)
    require("--workers", workers, 0)
    return ShardOptions(dataset, resolution, clips_per_shard, seed, workers, engine)


def make_shares(validation: float, test: float) -> tuple[float, float]:
    """Return the shares of validation and test.

    Raises:
        ConfigError: It is out of its range.
    """
    if validation < 0 or test < 0 or validation + test >= 1:
        raise ConfigError(
            f"--validation_share is {validation} and --test_share {test}: give shares from 0 whose sum is below 1"
        )
    return validation, test


def outline(members: Mapping[str, Sequence[FrameSource]], skips: Sequence[Skip], cut: Cut, output: str) -> list[str]:
    """Return what packing would do, line by line: what ``--dry_run`` prints."""
    lines = [
        f"to do     clips of {cut.min_frames} to {cut.frames_per_clip} frames, {cut.fps:g} a second, "
        f"{cut.resolution} x {cut.resolution} pixels, crop {cut.rule.method}, into {output}"
    ]
    for split, sources in members.items():
        people = {source.identity for source in sources}
        lines.append(f"  {split:12}{len(sources):7} stretches, {len(people)} people")
    for reason, count in Counter(skip.reason for skip in skips).most_common():
        some = [f"{skip.file} ({skip.detail})" for skip in skips if skip.reason == reason][:_EXAMPLES]
        lines.append(f"left out  {reason}: {count}, such as {', '.join(some)}")
    return lines


def tell(report: PackReport) -> None:
    """Print what was packed."""
    if report.found:
        print(f"{report.output} is complete with these settings already: nothing was done")
    if report.reused:
        print(f"{report.reused} sources did not change since they were packed: their clips were taken over")
    print(report.table())
    for name, split in report.splits.items():
        if not split.clips:
            print(f"the split {name} is empty, no folder was made for it: raise its share, or give more videos")
