"""Composition of experiments: a YAML file may name the files it is laid over.

    compose: [base.yaml, encoder/resnet18.yaml, data/puppets.yaml]

Paths are relative to the file that names them. ``--config quickstart.yaml`` then means ``--config base.yaml --config
encoder/resnet18.yaml ... --config quickstart.yaml``, in this order, so that the file itself has the last word.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml

from sfdkit.errors import ConfigError

KEY = "compose"


def expand_arguments(arguments: Sequence[str]) -> list[str]:
    """Return command-line arguments with each ``--config FILE`` preceded by the files that FILE is composed of.

    Raises:
        ConfigError: A file that does not exist, is no YAML, or composes itself.
    """
    expanded: list[str] = []
    position = 0
    while position < len(arguments):
        argument = arguments[position]
        position += 1
        name, _, value = argument.partition("=")
        if name not in ("--config", "-c"):
            expanded.append(argument)
            continue
        if not value and position < len(arguments):
            value = arguments[position]
            position += 1
        for path in composed_files(Path(value)):
            expanded += ["--config", str(path)]
    return expanded


def composed_files(path: Path, above: tuple[Path, ...] = ()) -> list[Path]:
    """Return the files that ``path`` is composed of, itself last; a file that is named twice counts at its first place.

    Raises:
        ConfigError: A file that does not exist, is no YAML, or composes itself.
    """
    if path.resolve() in [p.resolve() for p in above]:
        raise ConfigError(f"{path}: {KEY} goes round in a circle: {' -> '.join(p.name for p in (*above, path))}")
    named_by = f", which {above[-1]} composes," if above else ""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"config file {path}{named_by} cannot be read: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"config file {path} is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"config file {path} must hold a mapping, it holds {type(content).__name__}")
    parts = content.get(KEY) or []
    if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts):
        raise ConfigError(f"config file {path}: {KEY} must be a list of files, got {parts!r}")
    files: dict[Path, Path] = {}
    for part in parts:
        for file in composed_files(path.parent / part, (*above, path)):
            files.setdefault(file.resolve(), file)
    return [*files.values(), path]
