"""Names of the release before this one: they still work in configurations and checkpoints, with a warning."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import yaml

from sfdkit.errors import SfdkitWarning

KEYS = {
    "average": "ema",
    "model.weights.rate": "model.weights.kl",
    "model.starts.rate": "model.starts.kl",
    "model.basis_rate": "model.basis_lr_factor",
    "model.gradient_clip": "model.gradient_clip_norm",
    "model.gradient_surge": "model.gradient_clip_factor",
    "model.max_skipped": "model.max_skipped_steps",
    "model.accumulate": "model.accumulate_grad_batches",
}
"""Old to new key of ``sfdkit fit``."""

CLASSES = {
    "sfdkit.augment": "sfdkit.data.augment",
    "sfdkit.task": "sfdkit.train.task",
    "sfdkit.callbacks": "sfdkit.train.callbacks",
}
"""Old to new module of the classes and functions that a configuration can name."""

WEIGHTS = {
    "guard": "clipping",
    "discriminator_guard": "discriminator_clipping",
    "in_a_row": "skipped_in_a_row",
    "usual": "running_mean",
}
"""Old to new part of the names in a checkpoint's state dict."""


def rename_weight(name: str) -> str:
    """Return the name that an entry of a training's state dict has now."""
    return ".".join(WEIGHTS.get(part, part) for part in name.split("."))


def rename_config(config: Any, source: str) -> Any:
    """Return a configuration with old keys and class paths replaced by new ones.

    Args:
        config: As read from YAML: keys may be nested or dotted.
        source: Where it comes from, for the warning.
    """
    found: dict[str, str] = {}
    renamed = _rename(config, "", found)
    _warn(found, source)
    return renamed


def rename_arguments(arguments: Sequence[str]) -> list[str]:
    """Return a command line with old options and class paths replaced by new ones."""
    found: dict[str, str] = {}
    renamed, option = [], ""
    for word in arguments:
        name, equals, value = word.partition("=")
        if word.startswith("--"):
            option = _new(name[2:], KEYS, found)
            renamed.append(f"--{option}={_rename_text(value, option, found)}" if equals else f"--{option}")
        else:
            renamed.append(_rename_text(word, option, found))
    _warn(found, "the command line")
    return renamed


def _rename(value: Any, key: str, found: dict[str, str]) -> Any:
    if isinstance(value, dict):
        names = {name: _new(f"{key}{name}", KEYS, found) for name in value}
        return {
            new[len(key) :] if isinstance(name, str) else name: _rename(value[name], f"{new}.", found)
            for name, new in names.items()
        }
    if isinstance(value, list):
        return [_rename(inside, key, found) for inside in value]
    return _new(value, CLASSES, found) if isinstance(value, str) else value


def _rename_text(text: str, option: str, found: dict[str, str]) -> str:
    """Return a value of the command line, which may be a class path or a mapping in YAML, with new names."""
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):
        return text
    renamed = _rename(value, f"{option}.", found)
    if renamed == value:
        return text
    return yaml.safe_dump(renamed, default_flow_style=True, width=10_000).removesuffix("\n").removesuffix("\n...")


def _new(name: str, table: dict[str, str], found: dict[str, str]) -> str:
    """Return a dotted name with the part of it that the table has replaced, and note the replacement."""
    for old, new in table.items():
        if name == old or name.startswith(f"{old}."):
            found[old] = new
            return new + name[len(old) :]
    return name


def _warn(found: dict[str, str], source: str) -> None:
    if found:
        names = "; ".join(f"{old} is now {new}" for old, new in found.items())
        warnings.warn(f"{source}: {names}; the next release knows the new names only", SfdkitWarning, stacklevel=3)
