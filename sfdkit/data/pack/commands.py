"""The commands ``sfdkit shards ...``: packing clips into shards, listing, copying and checking them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from tqdm import tqdm

from sfdkit.data.pack.check import FolderCheck, listing, shard_folders, verify
from sfdkit.data.pack.copy import copy_shards
from sfdkit.data.pack.engines import EngineName
from sfdkit.data.pack.identities import IdentityRule, fingerprint, frame_sources, split_identities
from sfdkit.data.pack.options import (
    make_cut,
    make_options,
    make_shares,
    outline,
    require,
    require_fps,
    require_resolution,
    tell,
)
from sfdkit.data.pack.packed import SPLITS
from sfdkit.data.pack.puppet_source import PuppetSource
from sfdkit.data.pack.sources import ClipSource, Cut, FrameSource, Skip, find_picture_folders, find_videos, other_files
from sfdkit.data.pack.writer import ShardOptions, pack
from sfdkit.data.shards.index import load_index
from sfdkit.errors import ShardError
from sfdkit.files import require_apart
from sfdkit.media.crop import CropMethod, CropRule, FaceSettings
from sfdkit.puppets.commands import require_pose
from sfdkit.storage import Storage

_PUPPETS_PER_SOURCE = 8
_FACE = FaceSettings()


def pack_videos(
    root: str,
    output: str,
    resolution: int = 256,
    crop: CropMethod = "face",
    margin: float | None = None,
    face: FaceSettings = _FACE,
    fps: float = 25.0,
    frames_per_clip: int = 32,
    min_frames: int = 8,
    identity: IdentityRule = "file",
    identities: str | None = None,
    validation_share: float = 0.1,
    test_share: float = 0.1,
    dataset: str = "clips",
    licence: str = "unknown",
    clips_per_shard: int = 64,
    seed: int = 0,
    workers: int = 0,
    engine: EngineName = "processes",
    scratch: str | None = None,
    overwrite: bool = False,
    dry_run: bool = False,
) -> None:
    """Pack a folder of videos into shards, split by identity.

    Videos are cut into clips, each with one square crop of its own. What is left out (no face, too short, damaged) is
    listed with its reason, also in OUTPUT/skipped.csv. A second call with the same videos and settings does nothing;
    after an interruption it goes on.

    Args:
        root: Folder that is searched for videos, with all folders below it.
        output: Folder to fill with train, validation and test: a local path, or an address such as s3://bucket/faces.
        resolution: Pixels of a side, 32 to 1024.
        crop: face cuts a square around the head, union the square of the First Order Motion Model, aligned a tight
            square turned with the eyes, centre the largest square in the middle, none keeps the whole picture and pads
            it to a square by repeating its edge.
        margin: Share of the detected face's size that is added on each side; by default 0.4 for face, 0.1 for union.
        face: How faces are looked for, and which of them are cut.
        fps: At most so many frames of a second are kept.
        frames_per_clip: Long videos are cut into clips of so many frames.
        min_frames: Clips with fewer frames are left out.
        identity: file takes each file for another person, folder the first folder below ROOT for the person, prefix
            the name up to its first '#'.
        identities: A csv with the columns file and identity, which overrules --identity; the columns licence and
            group_NAME are kept with the clips. Files that it does not list are left out.
        validation_share: Share of the identities for the validation split.
        test_share: Share of the identities for the test split.
        dataset: Name of the data set.
        licence: Licence of the videos, kept with each clip.
        clips_per_shard: The most clips in a shard.
        seed: Decides the split and the order of the clips.
        workers: How many sources are encoded at the same time. With --engine processes 0 works in this process; with
            --engine ray 0 takes the whole cluster.
        engine: processes works on this machine, ray on the cluster that RAY_ADDRESS names, else on a local one.
        scratch: Folder for what is on its way to an OUTPUT that is not local; by default one in the user's cache.
        overwrite: Replace what was packed into OUTPUT before; a local one gives the clips of unchanged files.
        dry_run: Say what would be done, and do nothing.
    """
    cut = make_cut(
        resolution,
        CropRule(crop, margin, face),
        frames_per_clip,
        min_frames,
        fps,
    )
    options = make_options(dataset, resolution, clips_per_shard, seed, workers, engine)
    shares = make_shares(validation_share, test_share)
    videos = find_videos(Path(root))
    sources, skips = frame_sources(Path(root), videos, cut, identity, identities, dataset, licence)
    skips += other_files(Path(root), videos, identities, output)
    _pack_frames(sources, skips, output, cut, options, shares, overwrite, scratch, dry_run)


def pack_images(
    root: str,
    output: str,
    resolution: int = 256,
    crop: CropMethod = "face",
    margin: float | None = None,
    face: FaceSettings = _FACE,
    fps: float = 25.0,
    frames_per_clip: int = 32,
    min_frames: int = 8,
    identity: IdentityRule = "file",
    identities: str | None = None,
    validation_share: float = 0.1,
    test_share: float = 0.1,
    dataset: str = "clips",
    licence: str = "unknown",
    clips_per_shard: int = 64,
    seed: int = 0,
    workers: int = 0,
    engine: EngineName = "processes",
    scratch: str | None = None,
    overwrite: bool = False,
    dry_run: bool = False,
) -> None:
    """Pack folders of pictures into shards, split by identity; each folder holds the frames of one video.

    Pictures are taken in natural order of their names (2 before 10). What is left out is listed with its reason, also
    in OUTPUT/skipped.csv. A second call with the same pictures and settings does nothing; after an
    interruption it goes on.

    Args:
        root: Folder below which each folder with pictures is one video.
        output: Folder to fill with train, validation and test: a local path, or an address such as s3://bucket/faces.
        resolution: Pixels of a side, 32 to 1024.
        crop: face cuts a square around the head, union the square of the First Order Motion Model, aligned a tight
            square turned with the eyes, centre the largest square in the middle, none keeps the whole picture and pads
            it to a square by repeating its edge.
        margin: Share of the detected face's size that is added on each side; by default 0.4 for face, 0.1 for union.
        face: How faces are looked for, and which of them are cut.
        fps: Frames per second at which the pictures were taken.
        frames_per_clip: Long folders are cut into clips of so many frames.
        min_frames: Clips with fewer frames are left out.
        identity: file takes each folder of pictures for another person, folder the first folder below ROOT for the
            person, prefix the folder's name up to its first '#'.
        identities: A csv with the columns file (the folder) and identity, which overrules --identity; the columns
            licence and group_NAME are kept with the clips. Folders that it does not list are left out.
        validation_share: Share of the identities for the validation split.
        test_share: Share of the identities for the test split.
        dataset: Name of the data set.
        licence: Licence of the pictures, kept with each clip.
        clips_per_shard: The most clips in a shard.
        seed: Decides the split and the order of the clips.
        workers: How many sources are encoded at the same time. With --engine processes 0 works in this process; with
            --engine ray 0 takes the whole cluster.
        engine: processes works on this machine, ray on the cluster that RAY_ADDRESS names, else on a local one.
        scratch: Folder for what is on its way to an OUTPUT that is not local; by default one in the user's cache.
        overwrite: Replace what was packed into OUTPUT before; a local one gives the clips of unchanged files.
        dry_run: Say what would be done, and do nothing.
    """
    cut = make_cut(
        resolution,
        CropRule(crop, margin, face),
        frames_per_clip,
        min_frames,
        fps,
    )
    options = make_options(dataset, resolution, clips_per_shard, seed, workers, engine)
    shares = make_shares(validation_share, test_share)
    folders = find_picture_folders(Path(root))
    sources, skips = frame_sources(Path(root), folders, cut, identity, identities, dataset, licence)
    _pack_frames(sources, skips, output, cut, options, shares, overwrite, scratch, dry_run)


def pack_puppets(
    output: str,
    identities: int = 2000,
    validation_identities: int = 100,
    test_identities: int = 100,
    clips_per_identity: int = 1,
    resolution: int = 128,
    frames_per_clip: int = 32,
    fps: float = 12.5,
    pose: float = 1.0,
    clips_per_shard: int = 64,
    seed: int = 0,
    workers: int = 0,
    engine: EngineName = "processes",
    scratch: str | None = None,
    overwrite: bool = False,
) -> None:
    """Render puppets and pack them into shards.

    A second call with the same settings does nothing; after an interruption it goes on.

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
        clips_per_shard: The most clips in a shard.
        seed: Of all identities, motions and the order of the clips.
        workers: How many sources are rendered at the same time. With --engine processes 0 works in this process; with
            --engine ray 0 takes the whole cluster.
        engine: processes works on this machine, ray on the cluster that RAY_ADDRESS names, else on a local one.
        scratch: Folder for what is on its way to an OUTPUT that is not local; by default one in the user's cache.
        overwrite: Replace what was packed into OUTPUT before.
    """
    require_resolution(resolution)
    require("--frames_per_clip", frames_per_clip, 2)
    require("--clips_per_identity", clips_per_identity, 1)
    require("--identities", identities, 1)
    require("--validation_identities", validation_identities, 0)
    require("--test_identities", test_identities, 0)
    require_fps(fps)
    require_pose(pose)
    counts = dict(zip(SPLITS, (identities, validation_identities, test_identities), strict=True))
    sources: dict[str, Sequence[ClipSource]] = {
        split: [
            PuppetSource(
                split,
                start,
                min(start + _PUPPETS_PER_SOURCE, count),
                clips_per_identity,
                seed,
                frames_per_clip,
                resolution,
                fps,
                pose,
            )
            for start in range(0, count, _PUPPETS_PER_SOURCE)
        ]
        for split, count in counts.items()
    }
    options = make_options("puppets", resolution, clips_per_shard, seed, workers, engine)
    settings = {
        "source": "puppets",
        "identities": counts,
        "clips_per_identity": clips_per_identity,
        "resolution": resolution,
        "frames_per_clip": frames_per_clip,
        "fps": fps,
        "pose": pose,
        "clips_per_shard": clips_per_shard,
        "seed": seed,
    }
    tell(pack(sources, output, settings, options, overwrite, scratch=scratch))


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


def copy(source: str, target: str, workers: int = 4, verify: bool = True, overwrite: bool = False) -> None:
    """Copy packed shards between storages of any kind, each verified by the checksum in its index.

    What the target has already is kept, so a call that was interrupted is continued by the next one. An index is
    written when all shards are there.

    Args:
        source: A folder with an index.json, or one with train, validation and test in it: a local path or an address.
        target: Folder to fill: a local path or an address that can be written.
        workers: Shards that are copied at the same time.
        verify: Read each shard back from the target and compare.
        overwrite: Replace other shards that the target holds.
    """
    require("--workers", workers, 1)
    require_apart(target, "--target", source=source)
    report = copy_shards(Storage(source), Storage(target), workers, verify, overwrite)
    print(
        f"{report.copied} shards copied ({report.bytes / 1e6:.1f} MB), {report.kept} kept in {Storage(target).show()}"
    )


def _pack_frames(
    sources: Sequence[FrameSource],
    skips: Sequence[Skip],
    output: str,
    cut: Cut,
    options: ShardOptions,
    shares: tuple[float, float],
    overwrite: bool,
    scratch: str | None,
    dry_run: bool,
) -> None:
    splits = split_identities((source.identity for source in sources), *shares, options.seed)
    members: dict[str, list[FrameSource]] = {split: [] for split in SPLITS}
    for source in sources:
        members[splits[source.identity]].append(replace(source, path=source.path.absolute()))  # wherever it is opened
    if dry_run:
        print("\n".join([f"found     {len(sources)} videos", *outline(members, skips, cut, output)]))
        return
    settings = {
        "source": "files",
        "dataset": options.dataset,
        **asdict(cut),
        "validation_share": shares[0],
        "test_share": shares[1],
        "clips_per_shard": options.clips_per_shard,
        "seed": options.seed,
        "files": len(sources),
        "input": fingerprint(sources),
    }
    tell(pack(members, output, settings, options, overwrite, skips, scratch))
