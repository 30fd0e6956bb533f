"""The commands ``sfdkit shards ...``: packing clips into shards, listing, copying and checking them."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import KW_ONLY, dataclass, replace
from pathlib import Path

from jsonargparse.typing import ClosedUnitInterval, NonNegativeInt, PositiveInt
from tqdm import tqdm

from sfdkit.config.command import Command
from sfdkit.data.pack.check import FolderCheck, listing, shard_folders, verify
from sfdkit.data.pack.copy import copy_shards
from sfdkit.data.pack.find import find_picture_folders, find_videos, other_files
from sfdkit.data.pack.fingerprints import input_fingerprint
from sfdkit.data.pack.options import Fps, FrameCount, Resolution, ShardOptions
from sfdkit.data.pack.pack_files import PackFiles, tell
from sfdkit.data.pack.packed import SPLITS
from sfdkit.data.pack.people import IdentityRule, split_identities, video_sources
from sfdkit.data.pack.puppet_source import PuppetSource
from sfdkit.data.pack.sources import Skip
from sfdkit.data.pack.video_source import VideoSource
from sfdkit.data.pack.writer import pack
from sfdkit.data.shards.index import load_index
from sfdkit.errors import ShardError
from sfdkit.files import require_apart
from sfdkit.media.crop import CropMethod
from sfdkit.points import FACE31
from sfdkit.storage import Storage

_PUPPETS_PER_SOURCE = 8


@dataclass(frozen=True)
class PackFolder(PackFiles):
    """Pack what lies below a folder, split by identity.

    Args:
        crop: face cuts a square around the head, union the square of the First Order Motion Model, aligned a tight
            square turned with the eyes, centre the largest square in the middle, none keeps the whole picture and pads
            it to a square by repeating its edge.
        identity: file takes each video (or folder of pictures) for another person, folder the first folder below ROOT
            for the person, prefix the name up to its first '#'.
        identities: A csv with the columns file and identity, which overrules --identity; the columns licence and
            group_NAME are kept with the clips. What it does not list is left out.
        dataset: Name of the data set.
        licence: Licence of the pictures, kept with each clip.
    """

    _: KW_ONLY
    crop: CropMethod = "face"
    identity: IdentityRule = "file"
    identities: str | None = None
    dataset: str = "clips"
    licence: str = "unknown"

    @abstractmethod
    def find(self, root: Path) -> tuple[list[Path], list[Skip]]:
        """Return what is to be packed below a folder, and what is left out."""

    def run(self) -> None:
        """Pack, or say what would be done."""
        clips, root = self.clip_settings(self.crop), Path(self.root)
        paths, others = self.find(root)
        sources, skips = video_sources(root, paths, clips, self.identity, self.identities, self.dataset, self.licence)
        skips += others
        shares = self.validation_share, self.test_share
        splits = split_identities((source.identity for source in sources), *shares, self.seed)
        members: dict[str, list[VideoSource]] = {split: [] for split in SPLITS}
        for source in sources:  # absolute paths: a worker may have another current folder
            members[splits[source.identity]].append(replace(source, path=source.path.absolute()))
        if self.dry_run:
            print("\n".join([f"found     {len(sources)} videos", *self.outline(members, skips, clips)]))
            return
        settings = {"source": "files", "dataset": self.dataset, **self.settings(clips)}
        settings |= {"files": len(sources), "input": input_fingerprint(sources)}
        tell(pack(members, self.output, self.dataset, clips.resolution, settings, self, skips))


class PackVideos(PackFolder):
    """Pack a folder of videos into shards, split by identity.

    Videos are cut into clips, each with one square crop of its own. What is left out (no face, too short, damaged) is
    listed with its reason, also in OUTPUT/skipped.csv. A second call with the same videos and settings does nothing;
    after an interruption it resumes.
    """

    def find(self, root: Path) -> tuple[list[Path], list[Skip]]:
        """Return all videos; other files are left out."""
        videos = find_videos(root)
        return videos, other_files(root, videos, self.identities, self.output)


class PackImages(PackFolder):
    """Pack folders of pictures into shards, split by identity; each folder holds the frames of one video.

    Pictures are taken in natural order of their names (2 before 10). What is left out is listed with its reason, also
    in OUTPUT/skipped.csv. A second call with the same pictures and settings does nothing; after an interruption it
    resumes.

    Args:
        root: Folder below which each folder with pictures is one video.
        identities: A csv with the columns file (the folder) and identity, which overrules --identity; the columns
            licence and group_NAME are kept with the clips. Folders that it does not list are left out.
    """

    def find(self, root: Path) -> tuple[list[Path], list[Skip]]:
        """Return all folders of pictures."""
        return find_picture_folders(root), []


@dataclass(frozen=True)
class PackPuppets(ShardOptions, Command):
    """Render puppets and pack them into shards.

    A second call with the same settings does nothing; after an interruption it resumes.

    Args:
        output: Folder to fill with train, validation and test: a local path, or an address such as s3://bucket/faces.
        identities: Number of identities to train on.
        validation_identities: Number of identities for validation.
        test_identities: Number of identities for the test.
        clips_per_identity: Clips of each identity, each with another motion.
        resolution: Pixels of a side, 32 to 1024.
        frames_per_clip: Frames of each clip.
        fps: Frames per second; few of them make frames that differ much.
        pose: Factor on the reach of head turns, shifts and size, from 0 to 1; expressions stay as they are.
        seed: Of all identities, motions and the order of the clips.
        overwrite: Replace what was packed into OUTPUT before.
    """

    output: str
    _: KW_ONLY
    identities: PositiveInt = 2000
    validation_identities: NonNegativeInt = 100
    test_identities: NonNegativeInt = 100
    clips_per_identity: PositiveInt = 1
    resolution: Resolution = 128
    frames_per_clip: FrameCount = 32
    fps: Fps = 12.5
    pose: ClosedUnitInterval = 1.0

    def run(self) -> None:
        """Render and pack."""
        counts = dict(zip(SPLITS, (self.identities, self.validation_identities, self.test_identities), strict=True))
        settings = {
            "source": "puppets",
            "identities": counts,
            "clips_per_identity": self.clips_per_identity,
            "resolution": self.resolution,
            "frames_per_clip": self.frames_per_clip,
            "fps": self.fps,
            "pose": self.pose,
            "points": FACE31.name,
            "clips_per_shard": self.clips_per_shard,
            "seed": self.seed,
        }
        sources = {
            split: [
                PuppetSource(
                    split=split,
                    start=start,
                    stop=min(start + _PUPPETS_PER_SOURCE, count),
                    clips_per_identity=self.clips_per_identity,
                    seed=self.seed,
                    frames=self.frames_per_clip,
                    resolution=self.resolution,
                    fps=self.fps,
                    pose=self.pose,
                )
                for start in range(0, count, _PUPPETS_PER_SOURCE)
            ]
            for split, count in counts.items()
        }
        tell(pack(sources, self.output, "puppets", self.resolution, settings, self))


def check(folder: str, decode: bool = False) -> None:
    """Check shards against their index: sizes, checksums, members, json, packing, counts, and optionally each picture.

    Args:
        folder: A folder with an index.json, or one with train, validation and test in it: a local path or an address.
        decode: Decode each picture too.
    """
    problems: list[str] = []
    for storage in shard_folders(Storage(folder)):
        report = FolderCheck(storage, load_index(storage))
        total = len(report.index["shards"])
        for _ in tqdm(verify(report, decode), total=total, desc=report.index["split"], unit="shard"):
            pass
        print(report.table())
        problems += report.problems
    if problems:
        more = f" ({len(problems) - 1} more shards are damaged)" if len(problems) > 1 else ""
        raise ShardError(problems[0] + more)


def ls(folder: str, shards: bool = False) -> None:
    """List the splits of a folder, as their indexes describe them.

    Args:
        folder: A folder with an index.json, or one with train, validation and test in it: a local path or an address.
        shards: List each shard too.
    """
    print(listing([load_index(storage) for storage in shard_folders(Storage(folder))], shards))


def copy(source: str, target: str, workers: PositiveInt = 4, verify: bool = True, overwrite: bool = False) -> None:
    """Copy packed shards between storages of any kind, each verified by the checksum in its index.

    What the target has already is kept, so a call that was interrupted is resumed by the next one. An index is
    written when all shards are there.

    Args:
        source: A folder with an index.json, or one with train, validation and test in it: a local path or an address.
        target: Folder to fill: a local path or an address that can be written.
        workers: Shards that are copied at the same time.
        verify: Read each shard back from the target and compare.
        overwrite: Replace other shards that the target holds.
    """
    require_apart(target, "--target", source=source)
    report = copy_shards(Storage(source), Storage(target), workers, verify, overwrite)
    print(
        f"{report.copied} shards copied ({report.bytes / 1e6:.1f} MB), {report.kept} kept in {Storage(target).show()}"
    )
