"""Step 1 of an evaluation: which frame is the source, and which frames drive it.

Without a protocol each clip drives itself, and pairs of clips of different people are drawn by seed. The protocols of
the field (``docs/evaluate.md``) work on whole videos: clips that packing cut from one video are joined by their times.

Legend: ``K`` driving frames of a pair.
"""

from __future__ import annotations

import random
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from sfdkit.data.shards.format import frame_bytes, pack_frames
from sfdkit.errors import ConfigError
from sfdkit.evaluate.frames import load_frames
from sfdkit.evaluate.pair_list import read_pairs, spread
from sfdkit.evaluate.samples import Pair, Sample, Video
from sfdkit.face_networks.types import FaceMeasurer
from sfdkit.metrics.faces import rotation_distance
from sfdkit.model.animator import FaceAnimator
from sfdkit.ranks import ranks
from sfdkit.types import Clip

ProtocolName = Literal["reconstruction", "cross", "cross_best", "pairs"]


class Plan(NamedTuple):
    """The pairs of an evaluation."""

    self_pairs: list[Pair]
    """Self-reenactment."""
    cross_pairs: list[Pair]
    """Cross-reenactment."""
    best: bool = False
    """Whether :func:`add_best_frames` has to add what motion is relative to."""

    @property
    def with_truth(self) -> list[Pair]:
        """The pairs of cross-reenactment whose true result can be rendered."""
        return [pair for pair in self.cross_pairs if pair.has_truth]

    @property
    def frames(self) -> int:
        """Driven frames of all pairs."""
        return sum(pair.driver.driving_count for pair in [*self.self_pairs, *self.cross_pairs])

    def first(self, count: int) -> Plan:
        """Return the first pairs of each kind."""
        return Plan(self.self_pairs[:count], self.cross_pairs[:count])


def plan_clips(samples: Sequence[Sample], count: int, seed: int) -> Plan:
    """Pair each clip with itself, and draw ``count`` pairs of clips of different people by the seed."""
    drawn = draw_pairs([sample.identity for sample in samples], count, seed)
    return Plan([Pair(sample, sample) for sample in samples], [Pair(samples[i], samples[j]) for i, j in drawn])


def plan_protocol(
    name: ProtocolName | None, videos: Sequence[Video], count: int, seed: int, most: int | None, file: str | None
) -> Plan:
    """Return the pairs of a protocol.

    Args:
        name: The protocol.
        videos: All there are.
        count: Pairs of different people.
        seed: Draws these pairs.
        most: The most driving frames of a pair, evenly spread; None for all.
        file: The csv, for ``pairs``.

    Raises:
        ConfigError: A csv without the protocol that reads it, or the other way round.
        DataError: The csv cannot be used.
    """
    if (file is not None) != (name == "pairs"):
        raise ConfigError("--pairs FILE belongs to --protocol pairs: give both, or neither")
    if file is not None:
        return Plan(*read_pairs(Path(file), videos, most))
    frames = [spread(len(video.times), most) for video in videos]
    if name == "reconstruction":
        return Plan([Pair(s, s) for s in (video.sample([0, *frames[k]]) for k, video in enumerate(videos))], [])
    drawn = draw_pairs([video.identity for video in videos], count, seed)
    pairs = [Pair(videos[a].sample([0, 0]), videos[b].sample([0, *frames[b]])) for a, b in drawn]
    return Plan([], pairs, name == "cross_best")


def draw_pairs(identities: Sequence[str], count: int, seed: int) -> list[tuple[int, int]]:
    """Draw pairs (source clip, driving clip) of different people, uniformly over all ordered pairs, none twice.

    Clips are numbered as their ``identities``. There are fewer than ``count`` pairs when there are no more.
    """
    clips = len(identities)
    order = sorted(range(clips), key=lambda clip: (identities[clip], clip))  # clips of one person stand side by side
    names = [identities[clip] for clip in order]
    people = [(bisect_left(names, name), bisect_right(names, name)) for name in names]
    offsets = [0]
    for first, after in people:
        offsets.append(offsets[-1] + clips - (after - first))
    pairs = []
    for number in random.Random(seed).sample(range(offsets[-1]), min(count, offsets[-1])):
        source = bisect_right(offsets, number) - 1
        first, after = people[source]
        driving = number - offsets[source]
        pairs.append((order[source], order[driving if driving < first else driving + after - first]))
    return pairs


def add_best_frames(animator: FaceAnimator, plan: Plan, measurer: FaceMeasurer | None, batch_size: int) -> Plan:
    """Make motion relative to the driving frame whose pose is nearest to the source's, where the protocol asks for it.

    Poses are compared as rotations where a network reads them, else by the model's own motion coefficients.
    """
    if not plan.best:
        return plan
    where = ranks()
    bests: dict[int, int] = {}
    for number, pair in enumerate(tqdm(plan.cross_pairs, desc="best frame", unit="pair", disable=not where.leads)):
        if where.mine(number):
            frames = range(pair.driver.driving_count)
            parts = [frames[at : at + batch_size] for at in range(0, len(frames), batch_size)]
            away = torch.cat([_pose_distance(animator, pair.part(part), measurer) for part in parts], 1)
            turned, moved = away[0].nan_to_num(torch.inf), away[1]
            bests[number] = int((turned if turned.isfinite().any() else moved).argmin())
    pairs = []
    for pair, frame in zip(plan.cross_pairs, where.gather(bests), strict=True):
        best = pair.driver.part([frame])
        picture = frame_bytes(best.clip["frames"], 1)
        clip = Clip(key=best.clip["key"], meta=best.clip["meta"], frames=pack_frames([picture, picture]))
        pairs.append(pair._replace(start=Sample(clip, [best.chosen[1]] * 2)))
    return Plan(plan.self_pairs, pairs)


def _pose_distance(animator: FaceAnimator, pair: Pair, measurer: FaceMeasurer | None) -> Tensor:
    """Return how far each driving frame is from the source, 2 K: degrees (NaN where not read), motion coefficients."""
    frames = load_frames([pair], next(animator.parameters()).device)
    with torch.no_grad():
        moved = (animator.motion(frames.driving[0]) - animator.motion(frames.source)).norm(dim=1)
        turned = torch.full_like(moved, torch.nan)
        if measurer is not None:
            source, driving = (measurer.measure(p).pose for p in (frames.source, frames.driving[0]))
            if source is not None and driving is not None:
                turned = rotation_distance(source.expand_as(driving), driving).to(moved)
    return torch.stack([turned, moved]).cpu()


def measurable(plan: Plan, protocol: str | None, without_truth: bool) -> Plan:
    """Return the pairs that can be measured: those with truth; if there are none and ``without_truth``, all.

    Raises:
        ConfigError: There are none.
    """
    chosen = Plan(plan.self_pairs, plan.with_truth or (plan.cross_pairs if without_truth else []))
    if not chosen.self_pairs and not chosen.cross_pairs:
        raise ConfigError(
            f"protocol: {protocol} drives one real face by another, so there is no truth, and nothing is to be kept "
            "or measured; give --keep, --measure.features or another network of --measure"
        )
    return chosen


def choose_groups(asked: Sequence[str] | None, samples: Sequence[Sample]) -> list[str]:
    """Return the groups to report by: those that a user asked for, or all there are.

    Raises:
        ConfigError: No clip says anything about a group that was asked for.
    """
    known = sorted({name for sample in samples for name in sample.groups})
    for name in asked or ():
        if name not in known:
            have = f"the groups there are {', '.join(known)}" if known else "they name no groups at all"
            raise ConfigError(
                f"groups: no clip of these shards belongs to a group {name!r}; {have}. Groups of your own stand in the "
                "json of each clip, under groups"
            )
    return known if asked is None else list(asked)
