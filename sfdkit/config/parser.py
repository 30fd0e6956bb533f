"""Parsers of the command line that complain in one line, name what is near, and explain themselves without markup."""

from __future__ import annotations

import argparse
import inspect
import re
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import yaml
from jsonargparse import ActionSubCommands as Subcommands
from jsonargparse import ArgumentParser, DefaultHelpFormatter, Namespace

from sfdkit.config.compose import config_files

_ROLE = re.compile(r":[\w:.-]+:`~?(?:[\w.]*\.)?([^`<>]+?)(?:\s*<[^`]*>)?`")
_LINK = re.compile(r"`([^`<]+?)\s*<[^`>]+>`_{0,2}")
_CODE = re.compile(r"``?([^`]+)``?")
_ARGS = re.compile(r"\s*\n\s*(Args|Arguments|Raises|Returns|Example|Examples|Note|Warning)s?::?\s*\n.*", re.DOTALL)


def _bare(prog: str) -> str:
    """Return how a command is called, without the places of options before its last word."""
    return prog.replace(" [options]", "")


def plain(text: str) -> str:
    """Return a docstring's text without roles, links, backticks and the sections after it."""
    for pattern in (_ROLE, _LINK, _CODE):
        text = pattern.sub(r"\1", text)
    return _ARGS.sub("", text).replace("::", ":")


class PlainHelp(DefaultHelpFormatter):
    """The parser's help without markup."""

    def __init__(self, prog: str, *args: Any, **kwargs: Any) -> None:
        super().__init__(_bare(prog), *args, **kwargs)

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


def key_lines(parser: ArgumentParser, chosen: Callable[[str], bool]) -> Iterator[str]:
    """Yield two lines at most for each of a parser's keys: its name, what it is, its default; grouped by first part.

    Args:
        parser: Whose keys.
        chosen: Says of a key whether it is wanted; one that nothing is said about is left out.
    """
    group: str | None = None
    for action in parser._actions:
        option = next((o for o in action.option_strings if o.startswith("--")), "")
        key, about = action.dest, action.help
        if not option or not about or option.endswith(".help") or key in (parser.groups or {}) or not chosen(key):
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


class OneLineParser(ArgumentParser):
    """A parser whose errors are one line, with the nearest names, and that takes no shortened option for another."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("formatter_class", PlainHelp)
        kwargs.setdefault("allow_abbrev", False)
        kwargs.setdefault("prog", "sfdkit")
        super().__init__(*args, **kwargs)

    def parse_args(self, *args: Any, **kwargs: Any) -> Namespace:  # type: ignore[override]
        """Parse a command line."""
        try:
            return super().parse_args(*args, **kwargs)
        except UnicodeDecodeError as error:
            self.error(f"a file of the command line is no text in UTF-8 ({error.reason}, byte {error.start})", error)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Say in one line what is wrong, and leave with status 2."""
        if not self.exit_on_error:
            super().error(message, ex)
        parser = getattr(ex, "subcommand_parser", None) or self
        print(f"sfdkit: error: {explain(message, parser)}", file=sys.stderr)
        sys.exit(2)


def explain(message: str, parser: ArgumentParser) -> str:
    """Return in one line what a parser's message says, with the nearest names that the parser knows.

    Args:
        message: As jsonargparse puts it, over several lines.
        parser: The one that complains.
    """
    name = _bare(parser.prog)
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
        inner, _ = _inner(found[1], parser)
        return f"{_bare(inner.prog)} needs one of {', '.join(_commands(inner))}"
    if (found := re.match(r"argument \S+: invalid choice: '([^']*)'", message)) and (commands := _commands(parser)):
        return f"there is no {name} {found[1]!r}.{_near(found[1], commands)} There are {', '.join(commands)}"
    if found := re.match(r"argument (\S+): expected (.+)", message):
        return f"{found[1].split('/')[-1]} needs a value ({found[2].replace('argument', 'value')} expected)"
    return _explain_value(message, parser)


def _commands(parser: ArgumentParser) -> list[str]:
    return [name for a in parser._actions if isinstance(a, Subcommands) for name in a.choices or ()]


def _inner(key: str, parser: ArgumentParser) -> tuple[ArgumentParser, str]:
    """Return the parser of the subcommand that a key begins with, and the rest of the key."""
    head, dot, rest = key.partition(".")
    for action in parser._actions:
        if dot and isinstance(action, Subcommands) and head in (action.choices or ()):
            return _inner(rest, action.choices[head])  # type: ignore[index]
    return parser, key


def _missing(keys: list[str], parser: ArgumentParser) -> str:
    names = []
    for key in keys:
        inner, rest = _inner(key, parser)
        action = next((a for a in inner._actions if a.dest == rest), None)
        names.append(action.option_strings[0] if action is not None and action.option_strings else rest.upper())
    name = _bare(inner.prog)
    return f"{name} needs {' and '.join(filter(None, [', '.join(names[:-1]), names[-1]]))}; see {name} --help"


def _unknown_word(word: str, parser: ArgumentParser, name: str) -> str:
    option = word.partition("=")[0]
    if option.startswith("-"):
        known = [o for a in parser._actions for o in a.option_strings if o.startswith("--")]
        known += [f"--{key}" for _, key in _config_keys(parser)]
        return f"{name} has no option {option}.{_near(option, known)} See {name} --help"
    hint = f" Did you mean --config {word}?" if Path(word).suffix in (".yaml", ".yml", ".json") else ""
    return f"{name} can do nothing with {word!r}.{hint} Options begin with --, see {name} --help"


def _unknown_key(key: str, parser: ArgumentParser) -> str:
    keys = list(_config_keys(parser))
    where = next((f"config file {file}: " for file, given in keys if given == key), "")
    known = [a.dest for a in parser._actions if a.dest != argparse.SUPPRESS]
    return f"{where}there is no key {key!r}.{_near(key, known)}"


def _near(name: str, known: Iterable[str]) -> str:
    """Return a hint at known names: those that end in the same word, or else those that are spelt alike."""
    known = [k for k in dict.fromkeys(known) if k != name and not k.endswith("help")]
    last = name.lstrip("-").rsplit(".", 1)[-1]
    same = [k for k in known if k.lstrip("-").rsplit(".", 1)[-1] == last]
    near = same[:3] or get_close_matches(name, known, 1, 0.7)
    return f" Did you mean {' or '.join(near)}?" if near else ""


def _config_keys(parser: ArgumentParser) -> Iterator[tuple[str, str]]:
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


class _Level(NamedTuple):
    """A line of a message that says in what the lines below it went wrong."""

    indent: int
    keys: tuple[str, ...]
    owner: str | None
    """The class whose arguments the lines below are about."""


class _Reason(NamedTuple):
    """A line of a message that says what went wrong."""

    text: str
    levels: tuple[_Level, ...]
    value: str | None


_SKIPPED = ("Does not validate", "Subtypes:", "Errors:", "Given value type:", "Expected a path but")
_CLASS = "the class_path of a class"
_KINDS = {
    "<class 'int'>": "a whole number",
    "<class 'float'>": "a number",
    "<class 'bool'>": "true or false",
    "<class 'str'>": "text",
    "<class 'NoneType'>": "null",
    "<class 'collections.abc.Iterable'>": "a list",
    "<class 'list'>": "a list",
    "<class 'collections.abc.Sequence'>": "a list",
    "<class 'dict'>": "a mapping",
    "<class 'collections.abc.Mapping'>": "a mapping",
}


def _reasons(message: str) -> Iterator[_Reason]:
    levels: list[_Level] = []
    reasons: list[list[Any]] = []
    for line in message.splitlines():
        text = line.lstrip(" -")
        indent = len(line) - len(text)
        if not text or text.startswith(_SKIPPED):
            continue
        if text.startswith("Given value: "):
            value = text.removeprefix("Given value: ").partition(". Got value: ")[0]
            value = re.sub(r"^NestedArg\(key='[^']*', val='(.*)'\)$", r"\1", value)
            for reason in reasons:
                if reason[2] is None and reason[3] > indent:
                    reason[2] = value
            continue
        while levels and levels[-1].indent >= indent:
            levels.pop()
        keys = tuple(re.findall(r'Parser key "([^"]+)"', text))
        owner = re.search(r"class_path '([^']+)'", text)
        if text.startswith("Type typing.Callable"):
            keys = ("init_args", *keys)
            owner = re.search(r"Namespace\(class_path='([^']+)'", text)
            text = text.partition("callable class: ")[2] or text
        if keys or owner:
            levels.append(_Level(indent, keys if keys else ("init_args",), owner[1] if owner else None))
        rest = re.split(r'(?:Parser key "[^"]+"(?: [^:]*)?|class_path \'[^\']+\'):\s*', text)[-1]
        if rest:
            text, _, value = rest.partition(". Got value: ")
            reasons.append([text, tuple(levels), value or None, indent])
    yield from (_Reason(text, above, value) for text, above, value, _ in reasons)


def _explain_value(message: str, parser: ArgumentParser) -> str:
    """Return what a message about a value says: the deepest reason in it, and the key that it is about."""
    reasons = list(_reasons(message))
    if not reasons:
        return " ".join(message.split())
    deepest = max(reasons, key=lambda reason: len(reason.levels))
    together = [reason for reason in reasons if reason.levels == deepest.levels]
    key = ".".join(part for level in deepest.levels for part in level.keys)
    owner = deepest.levels[-1].owner if deepest.levels else None
    about = f"{_inner(key, parser)[1]}: " if key else ""
    if owner is not None and (found := re.match(r"Option '([^']+)' is not accepted", deepest.text)):
        return f"{about}{owner} has no argument {found[1]!r}.{_near(found[1], _arguments(owner))}"
    if owner is not None and (found := re.match(r"the following arguments are required: (.+)", deepest.text)):
        return f"{about}{owner} needs {found[1]}"
    of_class = f"{about.removesuffix('.init_args: ')}: " if owner else about
    if found := re.match(r"No module named '([^']+)'", deepest.text):
        return (
            f"{of_class}there is no module {found[1]!r} for {owner or deepest.value}; install its package, or run this "
            f"where {found[1].split('.')[0]}.py lies (here is {Path.cwd()})"
        )
    if found := re.match(r"module '([^']+)' has no attribute '([^']+)'", deepest.text):
        return f"{of_class}the module {found[1]} has no {found[2]!r}.{_near(found[2], _names(found[1]))}"
    dotted = [r.text.rpartition(": ")[2] for r in together if r.text.startswith("Expected a dot import path")]
    wanted = [kind for r in together for kind in _wanted(r.text)]
    value = next((r.value for r in together if r.value is not None), dotted[0] if dotted else None)
    for reason in together:
        if found := re.match(r"Not of type \w+: (?:(\S+) )?(does not conform .+)", reason.text):
            return f"{about}{found[1] or value} {found[2]}"
    if not wanted:
        text = re.sub(r"^Not of type \w+: ", "", deepest.text)
        text = re.sub(r"^invalid literal for int\(\) with base 10: (.*)", r"\1 is no whole number", text)
        return about + re.sub(r"^could not convert string to float: (.*)", r"\1 is no number", " ".join(text.split()))
    near = _near(str(value), _classes() if wanted[0] == _CLASS else [kind.strip("'") for kind in wanted])
    return f"{about}{value!r} will not do; it takes {', '.join(dict.fromkeys(wanted))}.{near}"


def _wanted(text: str) -> list[str]:
    """Return what a reason says that it wanted, in words."""
    if text.startswith("Expected a dot import path"):
        return [_CLASS]
    if not (found := re.match(r"Expected an? (.+)", text)):
        return []
    if literal := re.match(r"typing\.Literal\[(.*)\]", found[1]):
        return [one.strip() for one in literal[1].split(",")]
    return [_KINDS.get(found[1].strip(), found[1].strip())]


def _arguments(class_path: str) -> list[str]:
    """Return the arguments of a class, as far as it can be imported."""
    module, _, name = class_path.rpartition(".")
    try:
        parameters = inspect.signature(getattr(import_module(module), name)).parameters
    except (ImportError, AttributeError, TypeError, ValueError):
        return []
    return [p for p in parameters if p != "self"]


def _names(module: str) -> list[str]:
    return [name for name in dir(sys.modules.get(module)) if not name.startswith("_")]


def _classes() -> list[str]:
    """Return the classes that a configuration may name, of the modules in use."""
    rooms = ("sfdkit.", "datamodules.", "lightning.pytorch.", "torch.optim.")
    return [
        name
        for module, content in list(sys.modules.items())
        if module.startswith(rooms) and content is not None
        for name, value in vars(content).items()
        if inspect.isclass(value) and value.__module__ == module and not name.startswith("_")
    ]
