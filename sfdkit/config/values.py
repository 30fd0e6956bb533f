"""Errors about values in one line: of a parser's nested message the deepest reason, and the key that it is about."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from jsonargparse import ArgumentParser

from sfdkit.config.names import hint_at, inner_parser


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

_BOUNDED = {
    "PositiveInt": "a whole number above 0",
    "NonNegativeInt": "a whole number, 0 or more",
    "PositiveFloat": "a number above 0",
    "NonNegativeFloat": "a number, 0 or more",
    "ClosedUnitInterval": "a number from 0 to 1",
    "OpenUnitInterval": "a number between 0 and 1",
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


def explain_value(message: str, parser: ArgumentParser) -> str:
    """Return what a message about a value says: the deepest reason in it, and the key that it is about."""
    reasons = list(_reasons(message))
    if not reasons:
        return " ".join(message.split())
    deepest = max(reasons, key=lambda reason: len(reason.levels))
    together = [reason for reason in reasons if reason.levels == deepest.levels]
    key = ".".join(part for level in deepest.levels for part in level.keys)
    owner = deepest.levels[-1].owner if deepest.levels else None
    about = f"{inner_parser(key, parser)[1]}: " if key else ""
    if owner is not None and (found := re.match(r"Option '([^']+)' is not accepted", deepest.text)):
        return f"{about}{owner} has no argument {found[1]!r}.{hint_at(found[1], _arguments(owner))}"
    if owner is not None and (found := re.match(r"the following arguments are required: (.+)", deepest.text)):
        return f"{about}{owner} needs {found[1]}"
    of_class = f"{about.removesuffix('.init_args: ')}: " if owner else about
    if found := re.match(r"No module named '([^']+)'", deepest.text):
        return (
            f"{of_class}there is no module {found[1]!r} for {owner or deepest.value}; install its package, or run this "
            f"where {found[1].split('.')[0]}.py lies (here is {Path.cwd()})"
        )
    if found := re.match(r"module '([^']+)' has no attribute '([^']+)'", deepest.text):
        return f"{of_class}the module {found[1]} has no {found[2]!r}.{hint_at(found[2], _names(found[1]))}"
    dotted = [r.text.rpartition(": ")[2] for r in together if r.text.startswith("Expected a dot import path")]
    wanted = [kind for r in together for kind in _wanted(r.text)]
    value = next((r.value for r in together if r.value is not None), dotted[0] if dotted else None)
    for reason in together:
        if found := re.match(r"Not of type \w+: (?:(\S+) )?does not conform to restriction (.+)", reason.text):
            others = "".join(f", or {kind}" for kind in dict.fromkeys(wanted))
            return f"{about}{found[1] or value} is out of range; give {_bounds(found[2])}{others}"
    if wanted:  # a number within bounds, or something else such as null
        named = [found[1] for r in together if (found := re.match(r"Not of type (\w+):", r.text))]
        wanted = [_BOUNDED.get(name, name) for name in named] + wanted
    if not wanted:
        text = re.sub(r"^Not of type \w+: ", "", deepest.text)
        text = re.sub(r"^invalid literal for int\(\) with base 10: (.*)", r"\1 is no whole number", text)
        return about + re.sub(r"^could not convert string to float: (.*)", r"\1 is no number", " ".join(text.split()))
    near = hint_at(str(value), _classes() if wanted[0] == _CLASS else [kind.strip("'") for kind in wanted])
    return f"{about}{value!r} will not do; it takes {', '.join(dict.fromkeys(wanted))}.{near}"


def _bounds(restriction: str) -> str:
    """Return a restriction such as ``v>=0 and v<=1`` in words."""
    words = re.sub(r"(\d)\.0\b", r"\1", restriction)
    words = re.sub(r"v>=(\S+) and v<=(\S+)", r"\1 to \2", words)
    words = re.sub(r"v>=(\S+)$", r"\1 or more", words)
    words = re.sub(r"v<=(\S+)$", r"\1 or less", words)
    return words.replace("v>", "more than ").replace("v<", "less than ")


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
