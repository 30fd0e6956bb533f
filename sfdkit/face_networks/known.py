"""What the kit knows of networks in files: by the sha256 of the file, or by a YAML file beside it.

``known/*.yaml`` holds a file for each network: its kind, title, licence, public address and sha256, and under
``convention`` how it wants its pictures and what its outputs mean (:mod:`sfdkit.face_networks.conventions`). A YAML
file beside a network has the network's name with ``.yaml`` behind it (``arcface.onnx.yaml``) and holds any of the names
of the convention, and ``like``, the name of a known network to begin from.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import yaml
from jsonargparse import ArgumentError

from sfdkit.config.compose import read_config
from sfdkit.config.messages import explain
from sfdkit.config.parser import OneLineParser
from sfdkit.errors import ConfigError, did_you_mean

C = TypeVar("C", bound=Any)
FILE_SUFFIXES = (".onnx", ".pt", ".pth", ".ts", ".npz", ".obj")


@dataclass(frozen=True)
class KnownNetwork:
    """A network that the kit knows.

    Args:
        name: Of its YAML file.
        kind: The kind of its convention.
        title: What it is.
        licence: Of the weights, as their publisher states it.
        address: Where the file, or what it is made from, is to be had.
        sha256: Of its files.
        convention: Names and values of the convention.
    """

    name: str
    kind: str
    title: str
    licence: str
    address: str
    sha256: tuple[str, ...]
    convention: dict[str, Any]


@cache
def known_networks() -> dict[str, KnownNetwork]:
    """Return all, by name."""
    found = {}
    for path in sorted((Path(__file__).parent / "known").glob("*.yaml")):
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        found[path.stem] = KnownNetwork(path.stem, **{**content, "sha256": tuple(content["sha256"])})
    return found


def identify(path: Path) -> KnownNetwork | None:
    """Return the known network that a file holds, by its sha256."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return next((network for network in known_networks().values() if digest in network.sha256), None)


def read_convention(key: str, path: Path, usual: C) -> C:
    """Return the convention of a network in a file.

    Args:
        key: Name of the setting that gave the file, for messages.
        path: The file, which exists.
        usual: The convention of a file that is not known and has no YAML beside it.

    Raises:
        ConfigError: The file is known as a network of another kind, or the YAML beside it cannot be read, or a name or
            value in it is impossible.
    """
    beside = path.with_name(path.name + ".yaml")
    changes = read_config(beside) if beside.is_file() else {}
    known = identify(path)
    if "like" in changes:
        known = _like(beside, changes.pop("like"), usual.kind)
    elif known is not None and known.kind != usual.kind:
        raise ConfigError(f"{key}: {path} is {known.title}; give {_wanted(usual.kind)}")
    return _changed(beside, usual if known is None else _changed(known.name, usual, known.convention), changes)


def known_convention(name: str, usual: C) -> C:
    """Return the convention of a known network, whose kind is that of ``usual``."""
    return _changed(name, usual, known_networks()[name].convention)


def networks_in(folder: Path) -> dict[str, list[Path]]:
    """Return the known networks in a folder and the folders in it: kind to files, by name.

    A file is known by its sha256, or by a YAML beside it that says what it is ``like``.

    Raises:
        ConfigError: There is no such folder, or no known network in it, or a YAML cannot be read.
    """
    if not folder.is_dir():
        raise ConfigError(f"networks: {folder} is no folder; give one that holds network files")
    found: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(path for path in folder.rglob("*") if path.suffix in FILE_SUFFIXES and path.is_file()):
        beside = path.with_name(path.name + ".yaml")
        like = read_config(beside).get("like") if beside.is_file() else None
        known = known_networks().get(like) if isinstance(like, str) else identify(path)
        if known is not None:
            found[known.kind].append(path)
    if not found:
        names = ", ".join(f"{network.title} ({network.address})" for network in known_networks().values())
        raise ConfigError(
            f"networks: {folder} holds no network that is known; known are {names}. Name others one by one, or say in "
            "a YAML beside each what it is like"
        )
    return dict(found)


def remedy_of(kind: str, path: Path) -> str:
    """Return what to do with a network of a kind that is not as expected, as half a sentence."""
    names = " or ".join(f"'like: {network.name}'" for network in known_networks().values() if network.kind == kind)
    return f"say what it wants in {path.name}.yaml beside it" + (f", for instance {names}" if names else "")


def _wanted(kind: str) -> str:
    known = [f"{network.title} ({network.address})" for network in known_networks().values() if network.kind == kind]
    return " or ".join(known) or f"a network of the kind {kind}"


def _like(beside: Path, name: Any, kind: str) -> KnownNetwork:
    names = [network.name for network in known_networks().values() if network.kind == kind]
    if name not in names:
        there = f"There are {', '.join(names)}" if names else f"No network of the kind {kind} is known"
        raise ConfigError(f"{beside}: like: there is no {name!r}.{did_you_mean(str(name), names)} {there}")
    return known_networks()[name]


def _changed(where: Path | str, convention: C, changes: dict[str, Any]) -> C:
    """Return a convention with some of its values changed."""
    if not changes:
        return convention
    parser = OneLineParser(exit_on_error=False)
    parser.add_class_arguments(type(convention), as_group=False)
    parser.set_defaults({field.name: getattr(convention, field.name) for field in fields(convention)})
    try:
        return type(convention)(**parser.parse_object(changes))
    except ArgumentError as error:
        names = ", ".join(field.name for field in fields(convention))
        raise ConfigError(f"{where}: {explain(str(error), parser)} The names are {names}") from error
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from error
