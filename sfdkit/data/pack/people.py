"""Who is in a file, and which split a person belongs to."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from sfdkit.data.pack.find import clip_keys
from sfdkit.data.pack.sources import ClipSettings, Skip
from sfdkit.data.pack.video_source import VideoSource
from sfdkit.errors import DataError, did_you_mean

IdentityRule = Literal["file", "folder", "prefix"]


class Person(NamedTuple):
    """What a manifest says about a file."""

    identity: str
    licence: str
    """Empty where the manifest has no such column."""
    groups: dict[str, str]


def identity_of(path: Path, root: Path, rule: IdentityRule) -> str:
    """Return the identity that a rule gives to a file or a folder of pictures.

    Args:
        path: The file or folder, below ``root``.
        root: The folder that was searched.
        rule: ``file``: each file is a person of its own, named by its path; ``folder``: the first folder below
            ``root``, as in ``ID/VIDEO/UTTERANCE.mp4``; ``prefix``: the name up to the first ``#``, as in
            ``ID#VIDEO#START#END.mp4``.

    Raises:
        DataError: The rule does not fit the path.
    """
    relative = path.relative_to(root)
    if rule == "folder":
        if len(relative.parts) < 2:
            raise DataError(
                f"--identity folder: {path} lies in {root} itself, not in a folder named by its person; "
                "use --identity file, or --identities with a csv"
            )
        return relative.parts[0]
    if rule == "prefix":
        if "#" not in path.name:
            raise DataError(
                f"--identity prefix: the name of {path} has no '#'; use --identity file, or --identities with a csv"
            )
        return path.name.split("#", 1)[0]
    return relative.with_suffix("").as_posix()


def read_manifest(manifest: Path, root: Path) -> tuple[dict[Path, Person], list[Skip]]:
    """Read a csv that names the person in each file.

    The columns ``file`` and ``identity`` are required; ``licence`` and ``group_NAME`` are kept with each clip; others
    are ignored. A file is looked up from the manifest's own folder and from ``root``.

    Args:
        manifest: The csv, UTF-8, comma separated, with a header.
        root: The folder of the videos.

    Returns:
        Resolved path to person; and what the manifest lists that lies in neither folder.

    Raises:
        DataError: The manifest is missing, is no csv, lacks a column, names nobody in a line, or names a file twice and
            differently.
    """
    people: dict[Path, Person] = {}
    lines: dict[Path, int] = {}
    missing: list[Skip] = []
    try:
        with manifest.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns = list(reader.fieldnames or [])
            for wanted in ("file", "identity"):
                if wanted not in columns:
                    hint = did_you_mean(wanted, columns)
                    raise DataError(
                        f"--identities: {manifest} has no column {wanted!r}, its columns are {columns}.{hint} "
                        "Name the columns file,identity"
                    )
            for line in reader:
                row = {name: (line[name] or "").strip() for name in columns}
                groups = {name.removeprefix("group_"): row[name] for name in columns if name.startswith("group_")}
                if not row["file"] or not row["identity"]:
                    raise DataError(
                        f"--identities: {manifest}, line {reader.line_num}: give each file a path and an identity"
                    )
                person = Person(row["identity"], row.get("licence", ""), groups)
                places = [(base / row["file"]).resolve() for base in (root, manifest.parent)]
                for place in places:
                    if people.setdefault(place, person) != person:
                        raise DataError(
                            f"--identities: {manifest} names {row['file']} twice: {people[place].identity} in line "
                            f"{lines[place]} and {person.identity} in line {reader.line_num} differ; keep one of them"
                        )
                    lines.setdefault(place, reader.line_num)
                if not any(place.exists() for place in places):
                    missing.append(Skip(row["file"], "missing", f"{manifest} lists it, and it is not there"))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"--identities: cannot read {manifest} ({error}): give a csv with the columns file,identity"
        ) from error
    return people, missing


def split_identities(
    identities: Iterable[str], validation_share: float, test_share: float, seed: int
) -> dict[str, str]:
    """Give each identity a split by the rank of its seeded hash.

    So the shares are exact, and do not depend on the order of files.

    Args:
        identities: The names, in any order, repeated or not.
        validation_share: Share of the identities, rounded; at least one where it is above 0 and there are three.
        test_share: The same for the test split.
        seed: Another seed gives another split.

    Returns:
        Identity to ``train``, ``validation`` or ``test``.
    """
    ranked = sorted(set(identities), key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).digest())

    def count(share: float) -> int:
        least = 1 if share > 0 and len(ranked) >= 3 else 0
        return max(least, round(share * len(ranked)))

    test = count(test_share)
    validation = test + count(validation_share)
    return {
        name: "test" if rank < test else "validation" if rank < validation else "train"
        for rank, name in enumerate(ranked)
    }


def video_sources(
    root: Path,
    paths: Sequence[Path],
    settings: ClipSettings,
    rule: IdentityRule,
    manifest: str | None,
    dataset: str,
    licence: str,
) -> tuple[list[VideoSource], list[Skip]]:
    """Describe what is to be packed: who is in each file, and the first part of its clips' keys.

    Args:
        root: The folder that was searched.
        paths: Videos or folders of pictures below it.
        settings: How they become clips.
        rule: See :func:`identity_of`.
        manifest: A csv that overrules ``rule``, see :func:`read_manifest`.
        dataset: Name of the data set.
        licence: Where the manifest names none.

    Returns:
        The sources; and what is left out, as the manifest does not list it or it is not there.

    Raises:
        DataError: The rule does not fit a path, or the manifest cannot be used or lists none of the paths.
    """
    people, skips = read_manifest(Path(manifest), root) if manifest else (None, [])
    names = {path: path.relative_to(root).as_posix() for path in paths}
    keys = clip_keys(names.values())
    sources = []
    for path, name in names.items():
        person = people.get(path.resolve()) if people is not None else Person(identity_of(path, root, rule), "", {})
        if person is None:
            skips.append(Skip(name, "not in the manifest", f"{manifest} has no line for it"))
            continue
        owner = person.licence or licence
        sources.append(VideoSource(path, keys[name], name, person.identity, dataset, owner, settings, person.groups))
    if not sources:
        example = next(iter(names.values()))
        raise DataError(
            f"--identities: {manifest} lists none of the {len(paths)} files in {root}, for example {example}: "
            "its column file must give paths from its own folder or from --root"
        )
    return sources, skips
