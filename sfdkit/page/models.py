"""The models that the page offers: loaded when first used, a few kept."""

from __future__ import annotations

import threading
from argparse import ArgumentError
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import numpy as np

from sfdkit.apply.axes import Axes
from sfdkit.apply.edit import Face, read_face
from sfdkit.apply.options import AnimatorOptions, Loaded
from sfdkit.config.command import Command
from sfdkit.config.messages import explain
from sfdkit.config.parser import OneLineParser
from sfdkit.errors import ConfigError
from sfdkit.media.crop import CropMethod

KEPT_MODELS = 3
KEPT_FACES = 8
"""Encoded pictures of one model, for the sliders."""

C = TypeVar("C", bound=AnimatorOptions)
K = TypeVar("K")
V = TypeVar("V")


@dataclass(kw_only=True)
class _Options(AnimatorOptions):
    """The options of one model, without a command."""

    def run(self) -> None:
        """Do nothing."""


def checked(kind: type[Command], options: dict[str, Any]) -> dict[str, Any]:
    """Return options of a command as the command line checks and converts them.

    Raises:
        ConfigError: One is of a wrong type or out of its range.
    """
    parser = OneLineParser(exit_on_error=False)
    parser.add_class_arguments(kind)
    try:
        return parser.parse_object(options).as_dict()
    except (ArgumentError, TypeError, ValueError) as error:
        raise ConfigError(explain(str(error), parser)) from error


@dataclass(eq=False)
class Model:
    """A model that is loaded."""

    name: str
    options: AnimatorOptions
    """With the file that was found, so that nothing is looked for twice."""
    loaded: Loaded
    _faces: OrderedDict[tuple[str, str], Face] = field(default_factory=OrderedDict)

    def command(self, kind: type[C], **options: Any) -> C:
        """Return a command that runs this model without loading it again.

        Raises:
            ConfigError: An option is of a wrong type or out of its range.
        """
        shared = {name: getattr(self.options, name) for name in AnimatorOptions.__dataclass_fields__}
        values = checked(kind, shared | options)
        return type(kind.__name__, (kind,), {"load": lambda _: self.loaded})(**values)

    @cached_property
    def axes(self) -> Axes | None:
        """Its named directions."""
        return self.loaded.find_axes(None)

    @cached_property
    def changes_people(self) -> bool:
        """Whether identity coefficients can be edited."""
        runner = self.loaded.runner
        grey = runner.source(np.full((runner.resolution, runner.resolution, 3), 128, np.uint8))
        try:
            runner.change_identity(grey, runner.describe(grey).identity[None])
        except ConfigError:
            return False
        return True

    def face(self, picture: str, crop: CropMethod) -> Face:
        """Return the face of a picture, encoded once.

        Raises:
            DataError: The picture cannot be read, or holds no face.
        """
        return _kept(
            self._faces,
            (picture, crop),
            KEPT_FACES,
            lambda: read_face(self.loaded.runner, picture, self.options.crop_rule(crop)),
        )


class Models:
    """The models of a page.

    Args:
        options: Name to options of :class:`AnimatorOptions`.
    """

    def __init__(self, options: Mapping[str, Mapping[str, Any]]) -> None:
        self.names = list(options)
        self._options = options
        self._kept: OrderedDict[str, Model] = OrderedDict()
        self._turn = threading.Lock()

    def __getitem__(self, name: str) -> Model:
        """Return a model, loaded if need be.

        Raises:
            SfdkitError: There is none of this name, or it cannot be loaded.
        """
        if name not in self.names:
            raise ConfigError(f"model: there is no {name!r} on this page")
        with self._turn:
            return _kept(self._kept, name, KEPT_MODELS, lambda: self._load(name))

    def _load(self, name: str) -> Model:
        values = dict(self._options[name])
        loaded = _Options(**values).load()
        values["model" if "model" in values else "checkpoint"] = str(loaded.file)
        return Model(name, _Options(**values), loaded)


def _kept(kept: OrderedDict[K, V], key: K, most: int, make: Any) -> V:
    """Return what is kept under a key, made if need be; what was not used for longest goes first."""
    value = kept[key] if key in kept else make()
    kept[key] = value
    kept.move_to_end(key)
    while len(kept) > most:
        kept.popitem(last=False)
    return value


def is_of_puppets(model: Model) -> bool:
    """Whether what lies beside a model says that it was trained on puppets: its card, or its run's configuration."""
    from sfdkit.weights.shipped import card_of

    file = model.loaded.file
    if file.is_dir():
        return False  # an exported model names no data
    told = {card_of(file): "puppets", file.resolve().parent.parent / "config.yaml": "datamodules.puppets"}
    return any(path.is_file() and word in path.read_text(encoding="utf-8") for path, word in told.items())
