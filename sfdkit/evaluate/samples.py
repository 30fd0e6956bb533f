"""The clips and videos of an evaluation, reduced to the frames that it needs; the frames stay encoded.

Legend: ``K`` driving frames of a pair.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tqdm import tqdm

from sfdkit.data.pairs import spread_frames
from sfdkit.data.shards.access import read_good_clips
from sfdkit.data.shards.format import ShardIndex, frame_bytes, pack_frames
from sfdkit.data.shards.index import as_storage, index_clips, require_shards
from sfdkit.errors import DataError
from sfdkit.puppets.clips import factors_from_meta
from sfdkit.puppets.factors import IdentityFactors, MotionFactors
from sfdkit.ranks import ranks
from sfdkit.storage import Storage
from sfdkit.types import Clip


class Sample(NamedTuple):
    """A source frame and K driving frames of one clip or video."""

    clip: Clip
    """Its ``frames`` are these 1 + K frames; its json is that of the whole clip."""
    chosen: list[int]
    """1 + K: the numbers of these frames in the whole clip."""

    @property
    def identity(self) -> str:
        """Name of the person."""
        return self.clip["meta"]["identity"]

    @property
    def groups(self) -> Mapping[str, str]:
        """Groups that the person belongs to, such as ``{"skin": "dark"}``."""
        return self.clip["meta"]["groups"]

    @property
    def is_puppet(self) -> bool:
        """Whether the clip can be rendered with another identity or motion."""
        return "puppet" in self.clip["meta"]

    @property
    def driving_count(self) -> int:
        """Number of driving frames, K."""
        return len(self.chosen) - 1

    def part(self, frames: Sequence[int]) -> Sample:
        """Return the source with some of the driving frames, by their number among these."""
        kept = [0, *(k + 1 for k in frames)]
        packed = pack_frames([frame_bytes(self.clip["frames"], number) for number in kept])
        clip = Clip(key=self.clip["key"], meta=self.clip["meta"], frames=packed)
        return Sample(clip, [self.chosen[number] for number in kept])

    def factors(self) -> tuple[IdentityFactors, MotionFactors]:
        """Return the puppet's identity, one row, and its motion in the driving frames, K rows."""
        identity, motion = factors_from_meta(self.clip["meta"])
        return identity, motion[torch.tensor(self.chosen[1:])]

    def first_motion(self) -> MotionFactors:
        """Return the puppet's motion in the first frame, the source, one row."""
        return factors_from_meta(self.clip["meta"])[1][torch.tensor(self.chosen[:1])]


class Pair(NamedTuple):
    """Who is driven by whom; in self-reenactment ``source`` and ``driver`` are the same sample."""

    source: Sample
    """Its first frame is the source."""
    driver: Sample
    """Its K driving frames give the motion."""
    start: Sample | None = None
    """For relative motion: its first frame shows the driver in about the source's pose. None for absolute motion."""

    @property
    def is_self(self) -> bool:
        """Whether a clip drives itself."""
        return self.source is self.driver

    @property
    def has_truth(self) -> bool:
        """Whether the true result of cross-reenactment can be rendered: both are puppets."""
        return self.source.is_puppet and self.driver.is_puppet

    def part(self, frames: Sequence[int]) -> Pair:
        """Return the pair with some of its driving frames."""
        driver = self.driver.part(frames)
        return Pair(driver if self.is_self else self.source, driver, self.start)


class Video(NamedTuple):
    """All clips that packing cut from one video."""

    name: str
    identity: str
    clips: list[Clip]
    """In order of time."""

    @property
    def times(self) -> list[float]:
        """Seconds of each frame."""
        return [time for clip in self.clips for time in clip["meta"]["times"]]

    def sample(self, frames: Sequence[int]) -> Sample:
        """Return some of the frames, by their number in the video, the source first.

        The json is the first clip's, with times and, of puppets, motion of the whole video.
        """
        places = [(clip, number) for clip in self.clips for number in range(len(clip["meta"]["times"]))]
        packed = pack_frames([frame_bytes(places[frame][0]["frames"], places[frame][1]) for frame in frames])
        meta: dict[str, Any] = {**self.clips[0]["meta"], "times": self.times}
        if "puppet" in meta and len(self.clips) > 1:
            motions = [clip["meta"]["puppet"]["motion"] for clip in self.clips]
            joined = {name: [value for motion in motions for value in motion[name]] for name in motions[0]}
            meta["puppet"] = {**meta["puppet"], "motion": joined}
        return Sample(Clip(key=self.name, meta=meta, frames=packed), list(frames))

    def number(self, frame: int) -> int | None:
        """Return which frame here is number ``frame`` of the original video; None where that one was not kept.

        Raises:
            DataError: The clips do not say which frames they hold.
        """
        kept: list[int] = []
        for clip in self.clips:
            meta = clip["meta"]
            if "numbers" not in meta and "puppet" not in meta:
                raise DataError(
                    f"clip {clip['key']} does not say which frames of its video it holds, and the list names frames by "
                    "number; pack the data again with this sfdkit"
                )
            kept += meta.get("numbers") or range(len(kept), len(kept) + len(meta["times"]))
        return kept.index(frame) if frame in kept else None


def read_samples(folder: str | Path | Storage, index: ShardIndex, clips: int | None, driving: int) -> list[Sample]:
    """Read clips from a folder of shards. Memory: 1 + ``driving`` JPEG files per clip.

    Args:
        folder: The folder.
        index: Its index.
        clips: How many, from the start of the index; None for all.
        driving: Driving frames per clip, evenly spread after frame 0, which is the source. A shorter clip repeats some,
            a clip of one frame drives itself.

    Raises:
        ShardError: A shard is missing, damaged, or not what the index says.
    """
    alone = (Video(clip["key"], clip["meta"]["identity"], [clip]) for clip in _read_clips(folder, index, clips))
    return [video.sample(spread_frames(len(video.times), driving)) for video in alone]


def read_videos(folder: str | Path | Storage, index: ShardIndex, most: int | None = None) -> list[Video]:
    """Read all clips of a folder of shards and join those of one video. Memory holds their JPEG files.

    Args:
        folder: The folder.
        index: Its index.
        most: How many videos, by name; None for all.

    Raises:
        ShardError: A shard is missing, damaged, or not what the index says.
    """
    found: dict[tuple[str, str], list[Clip]] = defaultdict(list)
    for clip in _read_clips(folder, index):
        found[clip["meta"]["identity"], clip["meta"]["video"]].append(clip)
    return [
        Video(name, identity, sorted(clips, key=lambda clip: clip["meta"]["times"][0]))
        for (identity, name), clips in sorted(found.items())[:most]
    ]


def _read_clips(folder: str | Path | Storage, index: ShardIndex, most: int | None = None) -> Iterator[Clip]:
    storage = as_storage(folder)
    require_shards(storage, index)
    left = min(index_clips(index), most or index_clips(index))
    with tqdm(total=left, desc="read", unit="clip", disable=not ranks().leads) as bar:
        for entry in index["shards"]:
            for clip in read_good_clips(storage, entry, 0, min(entry["clips"], left)):
                left -= 1
                bar.update()
                yield clip
