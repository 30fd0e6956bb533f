"""``sfdkit prepare``: from a data set as it is published to shards."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sfdkit.data.pack.commands import pack_videos
from sfdkit.data.pack.datasets import CLIPS, data_sets
from sfdkit.data.pack.engines import EngineName
from sfdkit.data.pack.identities import fingerprint, split_identities
from sfdkit.data.pack.layout import DataSet, Found, Stretch
from sfdkit.data.pack.options import make_cut, make_options, make_shares, outline, tell
from sfdkit.data.pack.packed import SPLITS
from sfdkit.data.pack.sources import Cut, FrameSource, clip_keys
from sfdkit.data.pack.writer import pack
from sfdkit.errors import ConfigError, DataError
from sfdkit.media.crop import CropRule, DataCrop, FaceSettings

_FACE = FaceSettings()


def commands(name: str) -> dict[str, Callable[..., None]]:
    """Return what ``sfdkit prepare`` can do by name: pack clips of one's own, and each declared data set.

    Args:
        name: What is called; where that is ``clips``, data sets are not looked for.

    Raises:
        ConfigError: No data set is declared, so that the kit is not installed.
    """
    clips: dict[str, Callable[..., None]] = {CLIPS: pack_videos}
    if name == CLIPS:
        return clips
    found = data_sets()
    if not found:
        raise ConfigError(
            "sfdkit prepare knows no data set, since sfdkit is not installed: run `pip install -e .` in its folder "
            "(`sfdkit prepare clips` works without)"
        )
    return {known: _command(data) for known, data in found.items()} | clips


def _command(data: DataSet) -> Callable[..., None]:
    def prepare_this(
        root: str,
        output: str,
        resolution: int | None = None,
        crop: DataCrop | None = None,
        margin: float | None = None,
        face: FaceSettings = _FACE,
        fps: float | None = None,
        frames_per_clip: int = 32,
        min_frames: int = 8,
        validation_share: float = 0.05,
        test_share: float = 0.1,
        clips_per_shard: int = 64,
        seed: int = 0,
        workers: int = 0,
        engine: EngineName = "processes",
        scratch: str | None = None,
        overwrite: bool = False,
        dry_run: bool = False,
    ) -> None:
        """Pack a data set, as it is published, into shards by its official split.

        What is left out (missing videos, no face, too short, damaged) is listed with its reason, also in
        OUTPUT/skipped.csv. A second call with the same input and settings does nothing; after an interruption it goes
        on.

        Args:
            root: Folder that the data set was unpacked into.
            output: Folder to fill with train, validation and test: a local path, or an address such as s3://bucket/vox.
            resolution: Pixels of a side, 32 to 1024; by default what the data set is usually used at.
            crop: given cuts what the data set says, face a square around the head, union the square of the First Order
                Motion Model, aligned a tight square turned with the eyes, centre the largest square in the middle, none
                keeps the whole picture; by default what suits the form it was found in.
            margin: Share of the detected face's size that is added on each side; by default 0.4 for face, 0.1 for
                union.
            face: How faces are looked for, and which of them are cut.
            fps: At most so many frames of a second are kept, by default 25; of folders of pictures, the rate at which
                they were taken.
            frames_per_clip: Long stretches are cut into clips of so many frames.
            min_frames: Clips with fewer frames are left out.
            validation_share: Share of the identities for training that validation takes.
            test_share: Share of the identities for the test where the data set has no official split.
            clips_per_shard: The most clips in a shard.
            seed: Decides what is drawn, and the order of the clips.
            workers: How many stretches are encoded at the same time. With --engine processes 0 works in this process;
                with --engine ray 0 takes the whole cluster.
            engine: processes works on this machine, ray on the cluster that RAY_ADDRESS names, else on a local one.
            scratch: Folder for what is on its way to an OUTPUT that is not local; by default one in the user's cache.
            overwrite: Replace what was packed into OUTPUT before; a local one gives the clips of unchanged files.
            dry_run: Say what would be done, and do nothing.
        """
        found = data.find(Path(root))
        rule = CropRule(crop or found.crop, margin, face)
        cut = make_cut(resolution or data.resolution, rule, frames_per_clip, min_frames, fps or data.fps)
        options = make_options(data.name, cut.resolution, clips_per_shard, seed, workers, engine)
        shares = make_shares(validation_share, test_share)
        _require_described(found, cut)
        members = plan_sources(data, found, cut, shares, seed)
        if dry_run:
            print(describe(data, found, members, cut, output))
            return
        settings: dict[str, Any] = {
            "source": data.name,
            "layout": found.layout,
            **asdict(cut),
            "validation_share": shares[0],
            "test_share": shares[1],
            "clips_per_shard": clips_per_shard,
            "seed": seed,
            "input": fingerprint([source for sources in members.values() for source in sources]),
        }
        print(f"{data.title}: {found.layout}, {len(found.stretches)} stretches; cite {data.citation}")
        tell(pack(members, output, settings, options, overwrite, found.skips, scratch))

    prepare_this.__name__ = f"prepare_{data.name}"
    return prepare_this


def _require_described(found: Found, cut: Cut) -> None:
    if cut.rule.method == "aligned" and (tracked := [s for s in found.stretches if s.track is not None]):
        raise ConfigError(
            f"--crop aligned: {found.layout} say where the face is and not where its eyes are, for example for "
            f"{tracked[0].name}; take --crop face or union"
        )
    if cut.rule.method == "given" and (without := [s for s in found.stretches if s.square is None]):
        raise ConfigError(
            f"--crop given: {found.layout} say nothing of what to cut, for example for {without[0].name}; "
            "take --crop face, centre or none"
        )


def plan_sources(
    data: DataSet, found: Found, cut: Cut, shares: tuple[float, float], seed: int
) -> dict[str, list[FrameSource]]:
    """Return what is to be packed into each split.

    An official test split stays as it is, and validation is drawn from the people of the training; where there is no
    official split, or only one for training, all people are drawn.

    Args:
        data: The data set.
        found: What was found of it.
        cut: How stretches become clips.
        shares: Of the people, for validation and for the test.
        seed: Of the drawing.

    Raises:
        DataError: A person is in two official splits.
    """
    splits = _assign(found.stretches, shares, seed)
    keys = clip_keys(stretch.name for stretch in found.stretches)
    members: dict[str, list[FrameSource]] = {split: [] for split in SPLITS}
    for stretch in found.stretches:
        source = FrameSource(
            path=stretch.path.absolute(),
            key=keys[stretch.name],
            video=stretch.name,
            identity=stretch.identity,
            dataset=data.name,
            licence=data.licence,
            cut=cut,
            groups=stretch.groups,
            start=stretch.start,
            stop=stretch.stop,
            square=stretch.square if cut.rule.method == "given" else None,
            track=stretch.track if cut.rule.looks else None,
        )
        members[splits[stretch.identity]].append(source)
    return members


def _assign(stretches: Sequence[Stretch], shares: tuple[float, float], seed: int) -> dict[str, str]:
    official: dict[str, set[str]] = defaultdict(set)
    for stretch in stretches:
        official[stretch.identity].add(stretch.split or "")
    for person, found in official.items():
        if len(found) > 1:
            raise DataError(f"{person} is in several splits: {', '.join(sorted(found))}; a person belongs to one")
    fixed = {person: next(iter(found)) for person, found in official.items()}
    drawn = [person for person, split in fixed.items() if split == ""]
    training = [person for person, split in fixed.items() if split == "train"]
    return {
        **fixed,
        **split_identities(drawn, *shares, seed),
        **split_identities(training, shares[0], 0.0, seed),
    }


def describe(data: DataSet, found: Found, members: Mapping[str, Sequence[FrameSource]], cut: Cut, output: str) -> str:
    """Return what would be done, in words."""
    return "\n".join(
        [
            f"{data.title} ({data.address})",
            f"licence   {data.licence}",
            f"cite      {data.citation}",
            f"found     {found.layout}: {len(found.stretches)} stretches",
            *outline(members, found.skips, cut, output),
        ]
    )
