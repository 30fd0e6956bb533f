"""Writes the reference of the command line from the parsers: ``python -m sfdkit.cli_docs docs/cli.md``."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

from jsonargparse import ActionSubCommands, ArgumentParser

from sfdkit.cli import COMMANDS, TRAINER_COMMANDS, main
from sfdkit.config.help import documented, plain
from sfdkit.config.names import command_name
from sfdkit.config.parser import OneLineParser

HEAD = """\
# Command line

`make docs` writes this file from the parsers; `sfdkit COMMAND --help` says the same. Each command also takes
`--config FILE`, a YAML file with its options as keys, and `--print_config`, which prints them; what comes later on the
command line has the last word.
"""
OF_EVERY_COMMAND = ("help", "config", "print_config")


class _Built(Exception):
    """Brings a parser that is about to parse out of the command that built it."""

    def __init__(self, parser: ArgumentParser) -> None:
        self.parser = parser


def parser_of(command: str) -> ArgumentParser:
    """Return the parser of a command, built as the command builds it; nothing is parsed or run."""

    def stop(parser: ArgumentParser, *_: object, **__: object) -> None:
        raise _Built(parser)

    with patch.object(OneLineParser, "parse_args", stop):
        try:
            main([command, "--help"])
        except _Built as built:
            return built.parser
    raise AssertionError(f"sfdkit {command} parses no arguments")


def inner_commands(parser: ArgumentParser) -> Iterator[ArgumentParser]:
    """Yield the parsers of the commands inside a parser that have no further commands inside."""
    groups = [action for action in parser._actions if isinstance(action, ActionSubCommands)]
    if not groups:
        yield parser
    for group in groups:
        for inner in dict(group.choices or {}).values():
            yield from inner_commands(inner)


def section(parser: ArgumentParser) -> str:
    """Return what a command does and its options, one a line, with type and default."""
    formatter = parser._get_formatter()
    lines = [f"## {command_name(parser.prog)}", "", plain(parser.description or "").strip(), ""]
    positional = [(a.dest.upper(), a) for a in parser._actions if not a.option_strings and a.help]
    for option, action in [*positional, *documented(parser)]:
        if action.dest not in OF_EVERY_COMMAND:
            lines.append(f"- `{option}`: {' '.join(formatter._expand_help(action).split())}")
    return "\n".join(lines).rstrip() + "\n"


def trainer_sections() -> Iterator[str]:
    """Yield the sections of the commands of the trainer, whose keys are listed once."""
    (parser,) = (p for p in inner_commands(parser_of("fit")) if command_name(p.prog) == "sfdkit fit")
    for command, about in TRAINER_COMMANDS.items():
        keys = (
            f"```text\n{parser.format_help().strip()}\n```"
            if command == "fit"
            else "It takes the keys of `sfdkit fit`."
        )
        yield f"## sfdkit {command}\n\n{about[0].upper()}{about[1:]}.\n\n{keys}\n"


def reference() -> str:
    """Return the whole of docs/cli.md."""
    sections = [HEAD, *trainer_sections()]
    for command in (name for name in COMMANDS if name not in TRAINER_COMMANDS):
        sections += map(section, inner_commands(parser_of(command)))
    return re.sub(r"[ \t]+\n", "\n", "\n".join(sections))


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(reference(), encoding="utf-8")
