"""Names that a parser knows: commands, options and keys, and those near a name that it does not know."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ActionSubCommands, ArgumentParser

from sfdkit.config.compose import config_files


def command_name(prog: str) -> str:
    """Return how a command is called, without the places of options before its last word."""
    return prog.replace(" [options]", "")


def subcommands(parser: ArgumentParser) -> list[str]:
    """Return the names of a parser's subcommands."""
    return [name for a in parser._actions if isinstance(a, ActionSubCommands) for name in a.choices or ()]


def inner_parser(key: str, parser: ArgumentParser) -> tuple[ArgumentParser, str]:
    """Return the parser of the subcommand that a key begins with, and the rest of the key."""
    head, dot, rest = key.partition(".")
    for action in parser._actions:
        if dot and isinstance(action, ActionSubCommands) and head in (action.choices or ()):
            return inner_parser(rest, action.choices[head])  # type: ignore[index]
    return parser, key


def hint_at(name: str, known: Iterable[str]) -> str:
    """Return a hint at known names: those that end in the same word, or else those that are spelt alike."""
    known = [k for k in dict.fromkeys(known) if k != name and not k.endswith("help")]
    last = name.lstrip("-").rsplit(".", 1)[-1]
    same = [k for k in known if k.lstrip("-").rsplit(".", 1)[-1] == last]
    near = same[:3] or get_close_matches(name, known, 1, 0.7)
    return f" Did you mean {' or '.join(near)}?" if near else ""


def config_keys(parser: ArgumentParser) -> Iterator[tuple[str, str]]:
    """Yield the keys in the files that follow ``--config``, each with its file, the last file first."""
    for file in reversed(config_files(getattr(parser, "args", None) or [])):
        try:
            content = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError):
            continue
        yield from ((file, key) for key in _flat(content))


def _flat(content: Any, above: str = "") -> Iterator[str]:
    if isinstance(content, dict):
        for key, value in content.items():
            yield f"{above}{key}"
            yield from _flat(value, f"{above}{key}.")
