"""What the commands share that pack videos or folders of pictures: options, settings, and what they print."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

from sfdkit.config.command import Command
from sfdkit.data.pack.options import CutOptions, ShardOptions, SplitShares
from sfdkit.data.pack.packed import PackReport
from sfdkit.data.pack.sources import ClipSettings, Skip
from sfdkit.data.pack.video_source import VideoSource

_EXAMPLES = 3  # of what is left out, in a dry run


@dataclass(frozen=True)
class PackFiles(ShardOptions, SplitShares, CutOptions, Command):
    """Pack files below a folder.

    Args:
        root: Folder that is searched, with all folders below it.
        output: Folder to fill with train, validation and test: a local path, or an address such as s3://bucket/faces.
        dry_run: Say what would be done, and do nothing.
    """

    root: str
    output: str
    _: KW_ONLY
    dry_run: bool = False

    def settings(self, clips: ClipSettings) -> dict[str, Any]:
        """Return what the result depends on besides the input, as json values."""
        return {
            **clips.as_json(),
            "validation_share": self.validation_share,
            "test_share": self.test_share,
            "clips_per_shard": self.clips_per_shard,
            "seed": self.seed,
        }

    def outline(
        self, members: Mapping[str, Sequence[VideoSource]], skips: Sequence[Skip], clips: ClipSettings
    ) -> list[str]:
        """Return what packing would do, line by line: what ``--dry_run`` prints."""
        lines = [
            f"to do     clips of {clips.min_frames} to {clips.frames_per_clip} frames, {clips.fps:g} a second, "
            f"{clips.resolution} x {clips.resolution} pixels, crop {clips.rule.method}, into {self.output}"
        ]
        if clips.points is not None:
            lines.append(f"points    {clips.points.set}, read in 1 of {clips.points.every} frames")
        for split, sources in members.items():
            people = {source.identity for source in sources}
            lines.append(f"  {split:12}{len(sources):7} segments, {len(people)} people")
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
