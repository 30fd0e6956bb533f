"""Errors of the command line in one line: what the parser says over several, and the names near a wrong one."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from jsonargparse import ArgumentParser

from sfdkit.config.names import command_name, config_keys, hint_at, inner_parser, subcommands
from sfdkit.config.values import explain_value


def explain(message: str, parser: ArgumentParser) -> str:
    """Return in one line what a parser's message says, with the nearest names that the parser knows.

    Args:
        message: As jsonargparse puts it, over several lines.
        parser: The one that complains.
    """
    name = command_name(parser.prog)
    if found := re.match(r"unrecognized arguments: (\S+)", message):
        return _unknown_word(found[1], parser, name)
    if found := re.search(r"(?:Subcommand|Group) '([^']+)' does not accept option '([^']+)'", message):
        group = "" if message.startswith("Subcommand") else f"{found[1]}."
        return _unknown_key(f"{group}{found[2]}", parser)
    if found := re.match(r"Option '([^']+)' is not accepted", message):
        return _unknown_key(found[1], parser)
    if found := re.match(r"the following arguments are required: (.+)", message):
        return _missing([word.strip() for word in found[1].split(",")], parser)
    if found := re.match(r'expected "([^"]+)" to be one of', message):
        inner, _ = inner_parser(found[1], parser)
        return f"{command_name(inner.prog)} needs one of {', '.join(subcommands(inner))}"
    if (found := re.match(r"argument \S+: invalid choice: '([^']*)'", message)) and (commands := subcommands(parser)):
        return f"there is no {name} {found[1]!r}.{hint_at(found[1], commands)} There are {', '.join(commands)}"
    if found := re.match(r"argument (\S+): expected (.+)", message):
        return f"{found[1].split('/')[-1]} needs a value ({found[2].replace('argument', 'value')} expected)"
    return explain_value(message, parser)


def _missing(keys: list[str], parser: ArgumentParser) -> str:
    names = []
    for key in keys:
        inner, rest = inner_parser(key, parser)
        action = next((a for a in inner._actions if a.dest == rest), None)
        names.append(action.option_strings[0] if action is not None and action.option_strings else rest.upper())
    name = command_name(inner.prog)
    return f"{name} needs {' and '.join(filter(None, [', '.join(names[:-1]), names[-1]]))}; see {name} --help"


def _unknown_word(word: str, parser: ArgumentParser, name: str) -> str:
    option = word.partition("=")[0]
    if option.startswith("-"):
        known = [o for a in parser._actions for o in a.option_strings if o.startswith("--")]
        known += [f"--{key}" for _, key in config_keys(parser)]
        return f"{name} has no option {option}.{hint_at(option, known)} See {name} --help"
    hint = f" Did you mean --config {word}?" if Path(word).suffix in (".yaml", ".yml", ".json") else ""
    return f"{name} can do nothing with {word!r}.{hint} Options begin with --, see {name} --help"


def _unknown_key(key: str, parser: ArgumentParser) -> str:
    keys = list(config_keys(parser))
    where = next((f"config file {file}: " for file, given in keys if given == key), "")
    known = [a.dest for a in parser._actions if a.dest != argparse.SUPPRESS]
    return f"{where}there is no key {key!r}.{hint_at(key, known)}"
