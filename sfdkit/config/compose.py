"""Composition of experiments: a YAML file may name the files it is laid over.

    compose: [base.yaml, encoder/resnet18.yaml, data/puppets.yaml]

Paths are relative to the file that names them. ``--config quickstart.yaml`` then means ``--config base.yaml --config
encoder/resnet18.yaml ... --config quickstart.yaml``, in this order, so that the file itself has the last word. A file
that is not there is looked for among the experiments that sfdkit ships, by its name there, with ``experiments/`` before
it or without.
"""

from __future__ import annotations

from collections.abc import Container, Hashable, Sequence
from pathlib import Path
from typing import Any

import yaml

from sfdkit.config.renamed import rename_arguments, rename_config
from sfdkit.config.shipped import find_config
from sfdkit.errors import ConfigError

KEY = "compose"
OPTIONS = ("--config", "-c")
MERGED = ("weights", "starts", "networks")
"""Mappings under ``model`` of which a file may give some entries: the parser itself would drop all others."""


def expand_arguments(arguments: Sequence[str]) -> list[str]:
    """Return command-line arguments with each ``--config FILE`` preceded by the files that FILE is composed of.

    A file with names of the release before (:mod:`sfdkit.config.renamed`) is replaced by its content with new names. A
    text with all entries so far follows one that has some of the entries of :data:`MERGED`.

    Raises:
        ConfigError: A file that does not exist, is no YAML, or composes itself; an option without a file.
    """
    expanded: list[str] = []
    before: dict[str, Any] = {}
    words = iter(rename_arguments(arguments))
    for word in words:
        name, equals, value = word.partition("=")
        if name not in OPTIONS:
            expanded.append(word)
            continue
        file = value if equals else next(words, "")
        if not file or file.startswith("-"):
            raise ConfigError(f"{name} needs a file, for example {name} experiments/quickstart.yaml")
        for path in composed_files(find_config(file)):
            content = read_config(path)
            renamed = rename_config(content, str(path))
            expanded += ["--config", str(path) if renamed == content else yaml.safe_dump(renamed, sort_keys=False)]
            if more := _merged(renamed, before):
                expanded += ["--config", yaml.safe_dump(more, sort_keys=False)]
    return expanded


def _merged(content: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
    """Return entries of a file's mappings with those of earlier files, where these have more; ``before`` keeps them."""
    model, more = content.get("model"), dict[str, Any]()
    if not isinstance(model, dict):
        return {}
    for key in MERGED:
        if isinstance(own := model.get(key), dict):
            before[key] = before.get(key, {}) | own
            more |= {key: before[key]} if before[key] != own else {}
        elif key in model:
            before.pop(key, None)
    return {"model": more} if more else {}


def config_files(arguments: Sequence[str]) -> list[str]:
    """Return the files that ``--config`` names on a command line."""
    pairs = zip(arguments, [*arguments[1:], ""], strict=False)
    named = [(word.partition("="), after) for word, after in pairs]
    return [value if equals else after for (name, equals, value), after in named if name in OPTIONS]


class UniqueKeyLoader(yaml.SafeLoader):
    """Refuses a key that is given twice, where plain YAML drops the first without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Build a dictionary; see :class:`yaml.constructor.SafeConstructor`."""
        seen: list[Any] = []
        for key, _ in node.value:
            name = self.construct_object(key, deep=True)
            if problem := self.problem(name, seen):
                raise yaml.constructor.ConstructorError(None, None, f"{name!r} {problem}", key.start_mark)
            seen.append(name)
        return super().construct_mapping(node, deep)

    def problem(self, name: Any, seen: Container[Any]) -> str | None:
        """Return what is wrong with a key after those ``seen`` before it in the same mapping."""
        return "is there twice, rename or remove one" if name in seen else None


def read_config(path: Path) -> dict[str, Any]:
    """Read a YAML file.

    Raises:
        ConfigError: A file that does not exist, is not in UTF-8, is no YAML with keys, or gives a key twice.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), UniqueKeyLoader)
    except OSError as error:
        raise ConfigError(f"config file {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"config file {path} is no text in UTF-8: byte {error.start} is "
            f"{error.object[error.start]:#04x}; save it in UTF-8"
        ) from error
    except yaml.YAMLError as error:
        raise ConfigError(f"config file {path} is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"config file {path} must hold a mapping, it holds {type(content).__name__}")
    return content


def composed_files(path: Path, above: tuple[Path, ...] = ()) -> list[Path]:
    """Return the files that ``path`` is composed of, itself last; a file that is named twice counts at its first place.

    Raises:
        ConfigError: A file that does not exist, is no YAML, or composes itself.
    """
    if path.resolve() in [p.resolve() for p in above]:
        raise ConfigError(f"{path}: {KEY} goes round in a circle: {' -> '.join(p.name for p in (*above, path))}")
    content = read_config(path)
    parts = content.get(KEY) or []
    if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts):
        raise ConfigError(f"config file {path}: {KEY} must be a list of files, got {parts!r}")
    files: dict[Path, Path] = {}
    for part in parts:
        file_of_part = find_config(part, path.parent, f", which {path} composes,")
        for file in composed_files(file_of_part, (*above, path)):
            files.setdefault(file.resolve(), file)
    return [*files.values(), path]
