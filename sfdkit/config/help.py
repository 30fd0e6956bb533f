"""Help texts of the command line: plain words instead of a docstring's markup, and a short list of keys."""

from __future__ import annotations

import argparse
import re
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

from jsonargparse import ArgumentParser, DefaultHelpFormatter

from sfdkit.config.names import command_name

_ROLE = re.compile(r":[\w:.-]+:`~?(?:[\w.]*\.)?([^`<>]+?)(?:\s*<[^`]*>)?`")
_LINK = re.compile(r"`([^`<]+?)\s*<[^`>]+>`_{0,2}")
_CODE = re.compile(r"``?([^`]+)``?")
_ARGS = re.compile(r"\s*\n\s*(Args|Arguments|Raises|Returns|Example|Examples|Note|Warning)s?::?\s*\n.*", re.DOTALL)


def plain(text: str) -> str:
    """Return a docstring's text without roles, links, backticks and the sections after it."""
    for pattern in (_ROLE, _LINK, _CODE):
        text = pattern.sub(r"\1", text)
    return _ARGS.sub("", text).replace("::", ":")


class PlainHelp(DefaultHelpFormatter):
    """The parser's help without markup."""

    def __init__(self, prog: str, *args: Any, **kwargs: Any) -> None:
        super().__init__(command_name(prog), *args, **kwargs)

    def _format_text(self, text: str) -> str:
        return super()._format_text(plain(text))

    def _expand_help(self, action: argparse.Action) -> str:
        return plain(super()._expand_help(action))

    def start_section(self, heading: str | None) -> None:
        """Begin a group of options."""
        super().start_section(heading if heading is None else plain(heading))


class HelpAll(argparse._HelpAction):
    """Prints the whole help of a parser whose ``--help`` shows a part."""

    def __call__(self, parser: Any, *args: Any, **kwargs: Any) -> None:
        """Print it and leave."""
        print(ArgumentParser.format_help(parser))
        parser.exit()


def documented(parser: ArgumentParser) -> Iterator[tuple[str, argparse.Action]]:
    """Yield a parser's options that stand for one value and about which something is said, with their actions."""
    for action in parser._actions:
        option = next((o for o in action.option_strings if o.startswith("--")), "")
        if option and action.help and not option.endswith(".help") and action.dest not in (parser.groups or {}):
            yield option, action


def key_lines(parser: ArgumentParser, chosen: Callable[[str], bool]) -> Iterator[str]:
    """Yield two lines at most for each of a parser's keys: its name, what it is, its default; grouped by first part.

    Args:
        parser: Whose keys.
        chosen: Says of a key whether it is wanted; one that nothing is said about is left out.
    """
    group: str | None = None
    for option, action in documented(parser):
        key, about = action.dest, str(action.help)
        if not chosen(key):
            continue
        first = key.partition(".")[0] if "." in key else ""
        if first != group:
            group = first
            yield ""
        about = re.split(r"(?<=[^.])\.(?=\s|[A-Z])|\n\s*\n|\s+Default: ", plain(about))[0].rstrip(".")
        default = "" if action.default in (None, argparse.SUPPRESS) else f" ({action.default})"
        text = f"{option:31} {' '.join(about.split())}{default if len(default) < 30 else ''}"
        yield textwrap.fill(
            text,
            118,
            initial_indent="  ",
            subsequent_indent=" " * 34,
            max_lines=2,
            placeholder=" …",
            break_on_hyphens=False,
        )
