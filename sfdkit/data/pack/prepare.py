"""``sfdkit prepare``: from a data set as it is published to shards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import ClassVar

from jsonargparse.typing import ClosedUnitInterval

from sfdkit.config.command import Command
from sfdkit.data.pack.commands import PackVideos
from sfdkit.data.pack.datasets import CLIPS, data_sets
from sfdkit.data.pack.find import clip_keys
from sfdkit.data.pack.fingerprints import input_fingerprint
from sfdkit.data.pack.layout import DataSet, Found, VideoSegment
from sfdkit.data.pack.options import Fps, Resolution
from sfdkit.data.pack.pack_files import PackFiles, tell
from sfdkit.data.pack.packed import SPLITS
from sfdkit.data.pack.people import split_identities
from sfdkit.data.pack.sources import ClipSettings
from sfdkit.data.pack.video_source import VideoSource
from sfdkit.data.pack.writer import pack
from sfdkit.errors import ConfigError, DataError
from sfdkit.media.crop import DataCrop


@dataclass(frozen=True)
class Prepare(PackFiles):
    """Pack a data set, as it is published, into shards by its official split.

    What is left out (missing videos, no face, too short, damaged) is listed with its reason, also in
    OUTPUT/skipped.csv. A second call with the same input and settings does nothing; after an interruption it resumes.

    Args:
        root: Folder that the data set was unpacked into.
        crop: given cuts what the data set says, face a square around the head, union the square of the First Order
            Motion Model, aligned a tight square turned with the eyes, centre the largest square in the middle, none
            keeps the whole picture; by default what suits the form it was found in.
        validation_share: Share of the identities for training that validation takes.
        test_share: Share of the identities for the test where the data set has no official split.
    """

    data: ClassVar[DataSet]
    _: KW_ONLY
    crop: DataCrop | None = None
    validation_share: ClosedUnitInterval = 0.05

    def run(self) -> None:
        """Pack, or say what would be done."""
        data, found = self.data, self.data.find(Path(self.root))
        clips = self.clip_settings(self.crop or found.crop)
        _require_described(found, clips)
        members = self.members(found, clips)
        if self.dry_run:
            print(f"{data.title} ({data.address})\nlicence   {data.licence}\ncite      {data.citation}")
            print(f"found     {found.layout}: {len(found.segments)} segments")
            print("\n".join(self.outline(members, found.skips, clips)))
            return
        settings = {"source": data.name, "layout": found.layout, **self.settings(clips)}
        settings["input"] = input_fingerprint([source for sources in members.values() for source in sources])
        print(f"{data.title}: {found.layout}, {len(found.segments)} segments; cite {data.citation}")
        tell(pack(members, self.output, data.name, clips.resolution, settings, self, found.skips))

    def members(self, found: Found, clips: ClipSettings) -> dict[str, list[VideoSource]]:
        """Return what is to be packed into each split.

        An official test split stays as it is, and validation is drawn from the people of the training; where there is
        no official split, or only one for training, all people are drawn.

        Args:
            found: What was found of the data set.
            clips: How segments become clips.

        Raises:
            DataError: A person is in two official splits.
        """
        splits = self._assign(found.segments)
        keys = clip_keys(segment.name for segment in found.segments)
        members: dict[str, list[VideoSource]] = {split: [] for split in SPLITS}
        for segment in found.segments:
            source = VideoSource(
                path=segment.path.absolute(),
                key=keys[segment.name],
                video=segment.name,
                identity=segment.identity,
                dataset=self.data.name,
                licence=self.data.licence,
                settings=clips,
                groups=segment.groups,
                start=segment.start,
                stop=segment.stop,
                square=segment.square if clips.rule.method == "given" else None,
                track=segment.track if clips.rule.looks else None,
            )
            members[splits[segment.identity]].append(source)
        return members

    def _assign(self, segments: Sequence[VideoSegment]) -> dict[str, str]:
        fixed: dict[str, str] = {}
        for segment in segments:
            person, split = segment.identity, segment.split or ""
            if (other := fixed.setdefault(person, split)) != split:
                raise DataError(f"{person} is in several splits: {other}, {split}; a person belongs to one")
        drawn = [person for person, split in fixed.items() if split == ""]
        training = [person for person, split in fixed.items() if split == "train"]
        return {
            **fixed,
            **split_identities(drawn, self.validation_share, self.test_share, self.seed),
            **split_identities(training, self.validation_share, 0.0, self.seed),
        }


def commands(name: str) -> dict[str, type[Command]]:
    """Return what ``sfdkit prepare`` can do by name: pack clips of one's own, and each declared data set.

    Args:
        name: What is called; where that is ``clips``, data sets are not looked for.

    Raises:
        ConfigError: No data set is declared, so that the kit is not installed.
    """
    if name == CLIPS:
        return {CLIPS: PackVideos}
    found = data_sets()
    if not found:
        raise ConfigError(
            "sfdkit prepare knows no data set, since sfdkit is not installed: run `pip install -e .` in its folder "
            "(`sfdkit prepare clips` works without)"
        )
    return {**{known: _command(of) for known, of in found.items()}, CLIPS: PackVideos}


def _command(of: DataSet) -> type[Command]:
    @dataclass(frozen=True, kw_only=True)
    class PrepareIt(Prepare):
        """Pack a data set, as it is published, into shards by its official split."""

        data: ClassVar[DataSet] = of
        resolution: Resolution = of.resolution
        fps: Fps = of.fps

    return PrepareIt


def _require_described(found: Found, clips: ClipSettings) -> None:
    method = clips.rule.method
    if method == "aligned" and (tracked := [s for s in found.segments if s.track is not None]):
        raise ConfigError(
            f"--crop aligned: {found.layout} say where the face is and not where its eyes are, for example for "
            f"{tracked[0].name}; take --crop face or union"
        )
    if method == "given" and (without := [s for s in found.segments if s.square is None]):
        raise ConfigError(
            f"--crop given: {found.layout} say nothing of what to cut, for example for {without[0].name}; "
            "take --crop face, centre or none"
        )
