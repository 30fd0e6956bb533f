"""Evaluation protocols of the field, as data: which frame is the source, and which frames drive it.

A protocol works on whole videos: clips that packing cut from one video are put together again by their times.

``reconstruction``
    Frame 0 of each video is driven by all its frames (First Order Motion Model, https://arxiv.org/abs/2003.00196;
    PIRenderer's same-identity reenactment is the same on its own list of videos).
``cross``
    Frame 0 of a video is driven by all frames of another person's, in pairs drawn by seed.
``cross_best``
    The same, but motion is taken relative to the best frame of the driver, the one whose pose is nearest to the
    source's: ``motion = source + driving - best``, as for HDTF in MCNet's evaluation, https://arxiv.org/abs/2307.09906.
``pairs``
    Single frames or whole videos from a csv, see :func:`read_pairs`.

Legend: ``K`` driving frames of a pair.
"""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from sfdkit.data.shards.access import read_good_clips
from sfdkit.data.shards.format import ShardIndex, frame_bytes, pack_frames
from sfdkit.data.shards.index import as_storage, require_shards
from sfdkit.errors import ConfigError, DataError
from sfdkit.evaluate.samples import Pair, Sample, load_frames
from sfdkit.face_networks.types import FaceMeasurer
from sfdkit.metrics.faces import rotation_distance
from sfdkit.metrics.protocol import cross_pairs
from sfdkit.model.animator import FaceAnimator
from sfdkit.ranks import ranks
from sfdkit.storage import Storage
from sfdkit.types import Clip

ProtocolName = Literal["reconstruction", "cross", "cross_best", "pairs"]

_FRAME = re.compile(r"(\d+)\.(?:png|jpg|jpeg)", re.IGNORECASE)


class Video(NamedTuple):
    """All clips of one video."""

    name: str
    identity: str
    clips: list[Clip]
    """In order of time."""

    @property
    def places(self) -> list[tuple[int, int]]:
        """Clip and frame of each frame of the video."""
        return [(c, f) for c, clip in enumerate(self.clips) for f in range(len(clip["meta"]["times"]))]

    @property
    def times(self) -> list[float]:
        """Seconds of each frame."""
        return [time for clip in self.clips for time in clip["meta"]["times"]]

    def sample(self, frames: Sequence[int]) -> Sample:
        """Return some of the frames, the source first, as an evaluation takes them.

        The json is the first clip's, with times and, of puppets, motion of the whole video.
        """
        places = self.places
        picked = [frame_bytes(self.clips[c]["frames"], f) for c, f in (places[number] for number in frames)]
        meta: dict[str, Any] = {**self.clips[0]["meta"], "times": self.times}
        if "puppet" in meta and len(self.clips) > 1:
            motions = [clip["meta"]["puppet"]["motion"] for clip in self.clips]
            joined = {name: [value for motion in motions for value in motion[name]] for name in motions[0]}
            meta["puppet"] = {**meta["puppet"], "motion": joined}
        return Sample(Clip(key=self.name, meta=meta, frames=pack_frames(picked)), list(frames))

    def number(self, frame: int) -> int | None:
        """Return which of these frames is number ``frame`` of the original video; None where that one was not kept.

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


def read_videos(folder: str | Path | Storage, index: ShardIndex, most: int | None = None) -> list[Video]:
    """Read the clips of a folder of shards and put those of one video together; no frame is decoded.

    Memory holds their JPEG files.

    Args:
        folder: The folder.
        index: Its index.
        most: How many videos, by name; None for all.

    Raises:
        ShardError: A shard is missing, damaged, or not what the index says.
    """
    storage = as_storage(folder)
    require_shards(storage, index)
    found: dict[tuple[str, str], list[Clip]] = defaultdict(list)
    total = sum(entry["clips"] for entry in index["shards"])
    with tqdm(total=total, desc="read", unit="clip", disable=not ranks().leads) as bar:
        for entry in index["shards"]:
            for clip in read_good_clips(storage, entry, 0, entry["clips"]):
                found[clip["meta"]["identity"], clip["meta"]["video"]].append(clip)
                bar.update()
    videos = []
    for (identity, name), clips in sorted(found.items())[:most]:
        videos.append(Video(name, identity, sorted(clips, key=lambda clip: clip["meta"]["times"][0])))
    return videos


def with_best_frames(
    animator: FaceAnimator, pairs: Sequence[Pair], measurer: FaceMeasurer | None, batch_size: int
) -> list[Pair]:
    """Add to each pair the driving frame whose pose is nearest to the source's.

    Poses are compared as rotations where a network reads them, else by the model's own motion coefficients.

    Args:
        animator: In eval mode.
        pairs: Of different people.
        measurer: Reads faces.
        batch_size: Driving frames per step.
    """
    where = ranks()
    bests: dict[int, int] = {}
    for number, pair in enumerate(tqdm(pairs, desc="best frame", unit="pair", disable=not where.leads)):
        if not where.mine(number):
            continue
        frames = range(len(pair.driver.chosen) - 1)
        parts = [frames[at : at + batch_size] for at in range(0, len(frames), batch_size)]
        away = torch.cat([_away(animator, pair.part(part), measurer) for part in parts], 1)
        turned, moved = away[0].nan_to_num(torch.inf), away[1]
        bests[number] = int((turned if turned.isfinite().any() else moved).argmin())
    found = []
    for pair, frame in zip(pairs, where.gather(bests), strict=True):
        best = pair.driver.part([frame])
        start = frame_bytes(best.clip["frames"], 1)
        clip = Clip(key=best.clip["key"], meta=best.clip["meta"], frames=pack_frames([start, start]))
        found.append(pair._replace(start=Sample(clip, [best.chosen[1]] * 2)))
    return found


def _away(animator: FaceAnimator, pair: Pair, measurer: FaceMeasurer | None) -> Tensor:
    """Return how far each driving frame is from the source: degrees (NaN where not read), and in coefficients; 2 K."""
    frames = load_frames([pair], next(animator.parameters()).device)
    with torch.no_grad():
        moved = (animator.motion(frames.driving[0]) - animator.motion(frames.source)).norm(dim=1)
        turned = torch.full_like(moved, torch.nan)
        if measurer is not None:
            source, driving = (measurer.measure(p).pose for p in (frames.source, frames.driving[0]))
            if source is not None and driving is not None:
                turned = rotation_distance(source.expand_as(driving), driving).to(moved)
    return torch.stack([turned, moved]).cpu()


class Plan(NamedTuple):
    """What a protocol asks for."""

    own: list[Pair]
    """Self-reenactment."""
    cross: list[Pair]
    best: bool
    """Whether motion is taken relative to the best frame of the driver, which is looked for."""


def plan_protocol(
    name: ProtocolName | None, videos: Sequence[Video], count: int, seed: int, most: int | None, file: str | None
) -> Plan:
    """Return the pairs of a protocol.

    Args:
        name: Of the protocol.
        videos: All there are.
        count: Pairs of different people.
        seed: Of their drawing.
        most: The most driving frames of a pair, evenly spread; None for all.
        file: The csv, for ``pairs``.

    Raises:
        ConfigError: A csv without the protocol that reads it, or the other way round.
        DataError: The csv cannot be used.
    """
    if (file is not None) != (name == "pairs"):
        raise ConfigError("--pairs FILE belongs to --protocol pairs: give both, or neither")
    if file is not None:
        return read_pairs(Path(file), videos, most)
    frames = [_spread(len(video.times), most) for video in videos]
    if name == "reconstruction":
        own = [video.sample([0, *frames[k]]) for k, video in enumerate(videos)]
        return Plan([Pair(sample, sample) for sample in own], [], False)
    drawn = cross_pairs([video.identity for video in videos], count, seed)
    pairs = [Pair(videos[a].sample([0, 0]), videos[b].sample([0, *frames[b]])) for a, b in drawn]
    return Plan([], pairs, name == "cross_best")


def _spread(frames: int, most: int | None) -> list[int]:
    """Return all frames, or so many of them, the first and the last among them."""
    if most is None or most >= frames:
        return list(range(frames))
    if most == 1:
        return [frames - 1]
    return [round(k * (frames - 1) / (most - 1)) for k in range(most)]


def read_pairs(path: Path, videos: Sequence[Video], most: int | None) -> Plan:
    """Read a list of pairs.

    The csv has the columns ``source`` and ``driving``, and may have ``best_frame``. A value names a video, by its file
    name or path (then frame 0 is the source, and all frames drive), or a frame of it, ``VIDEO/0000075.png``, as in the
    lists of DaGAN (https://github.com/harlanhong/CVPR2022-DaGAN). Of a path as many folders count as it takes to tell
    videos apart. A pair of one video is self-reenactment.

    Args:
        path: The csv.
        videos: All there are.
        most: The most driving frames of a pair that names whole videos.

    Raises:
        DataError: The csv cannot be read, lacks a column, names none of the videos, or one that may be several.
    """
    known = _by_name(videos)
    own: list[Pair] = []
    cross: list[Pair] = []
    missed: list[str] = []
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            for column in ("source", "driving"):
                if column not in (reader.fieldnames or ()):
                    raise DataError(
                        f"--pairs: {path} has no column {column!r}; its columns are {reader.fieldnames}, "
                        "and source and driving are needed"
                    )
            for row in reader:
                pair = _pair_of(row, known, most)
                if isinstance(pair, str):
                    missed.append(pair)
                else:
                    (own if pair.source is pair.driver else cross).append(pair)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"--pairs: cannot read {path} ({error}); give a csv with the columns source,driving") from error
    if not own and not cross:
        raise DataError(
            f"--pairs: none of the {len(missed)} pairs in {path} is in these shards, for example {missed[0]}"
            if missed
            else f"--pairs: {path} holds no pair"
        )
    if missed:
        total = len(missed) + len(own) + len(cross)
        print(f"{len(missed)} of {total} pairs are not in these shards, such as {missed[0]}")
    return Plan(own, cross, False)


def _by_name(videos: Sequence[Video]) -> dict[str, list[Video]]:
    """Return the videos by each end of their paths, with and without the suffix of the last part."""
    known: dict[str, list[Video]] = defaultdict(list)
    for video in videos:
        parts = PurePosixPath(video.name).parts
        for depth in range(1, len(parts) + 1):
            whole = "/".join(parts[-depth:])
            for name in {whole, whole.removesuffix(PurePosixPath(whole).suffix)}:
                known[name].append(video)
    return known


def _pair_of(row: Mapping[str, str], known: Mapping[str, list[Video]], most: int | None) -> Pair | str:
    """Return the pair of a line, or what it names that is not there."""
    places = {}
    for column in ("source", "driving", "best_frame"):
        value = row.get(column)
        if value:
            found = _place(value, known)
            if found is None:
                return value
            places[column] = found
    source, driving, best = (places.get(column) for column in ("source", "driving", "best_frame"))
    if source is None or driving is None:
        return str(dict(row))
    first = source[0].sample([source[1] or 0] * 2)
    numbers = _spread(len(driving[0].times), most) if driving[1] is None else [driving[1]]
    start = None if best is None else best[0].sample([best[1] or 0] * 2)
    if source[0] is driving[0] and start is None:
        sample = source[0].sample([source[1] or 0, *numbers])
        return Pair(sample, sample)
    return Pair(first, driving[0].sample([numbers[0], *numbers]), start)


def _place(value: str, known: Mapping[str, list[Video]]) -> tuple[Video, int | None] | None:
    path = PurePosixPath(value)
    frame = _FRAME.fullmatch(path.name)
    parts = (path.parent if frame else path).parts
    ends = ["/".join(parts[-depth:]) for depth in range(len(parts), 0, -1)]
    fitting = next((known[end] for end in ends if end in known), [])
    if len(fitting) > 1:
        raise DataError(f"--pairs: {value} may be {fitting[0].name} or {fitting[1].name}; name it by more of its path")
    if not fitting:
        return None
    if frame is None:
        return fitting[0], None
    number = fitting[0].number(int(frame[1]))
    return None if number is None else (fitting[0], number)
