"""The commands ``sfdkit model save`` and ``push``: models as folders that others can load."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any

import yaml

from sfdkit import __version__
from sfdkit.checkpoint import LoadedAnimator, load_animator
from sfdkit.config.command import Command
from sfdkit.errors import DataError
from sfdkit.files import new_folder, sha256_of, write_errors
from sfdkit.tensor_file import SUFFIX
from sfdkit.weights.commands import Pack, read_card
from sfdkit.weights.file import StoredAnimator, facts_of, write_weights
from sfdkit.weights.folder import ABOUT, AXES, CARD, LOADED, SCHEMA, WEIGHTS, folder_of, read_about, weights_of
from sfdkit.weights.hub import HubAddress, push
from sfdkit.weights.model_card import main_figures, model_card
from sfdkit.weights.shipped import card_of

METRICS = "metrics.json"
TOLD = "card"
"""Key of ``model.json``: what the model card tells."""


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _are_texts(value: object) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _are_figures(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(figure, dict) and "is" in figure for figure in value.values())


_CARD_KEYS: dict[str, tuple[Callable[[object], bool], str]] = {
    "summary": (_is_text, "a line of text"),
    "licence": (_is_text, "an identifier such as apache-2.0"),
    "data": (_is_text, "a line of text"),
    "limits": (_are_texts, "a list of texts"),
    "figures": (_are_figures, "keys of metrics.json, each with {is: VALUE}"),
}


@dataclass(kw_only=True)
class Save(Pack):
    """Write a model as a folder to share: weights, what they are, axes, and a model card. Every --checkpoint takes it.

    Args:
        output: The folder, a new or an empty one; its name is that of the model.
        metrics: The metrics.json that sfdkit evaluate wrote for this checkpoint, for the model card. By default the one
            in the folder of the run, above checkpoints/, if it is there. none: without.
        licence: Of the weights, an identifier such as apache-2.0, cc-by-nc-4.0 or other, for the model card.
        data: What the model was trained on, in words, for the model card; by default what the run's config.yaml or the
            card of a weights file says.
    """

    metrics: str | None = None
    licence: str | None = None
    data: str | None = None

    def run(self) -> Path:
        """Write the folder and return its path.

        Raises:
            CheckpointError: The checkpoint is missing, damaged, of another model or not finite, or the axes are of
                another model.
            ConfigError: Something is in the way of the output, or the licence is no identifier.
            DataError: The axes, the metrics or a card cannot be read, or the output cannot be written.
        """
        folder = Path(self.output)
        self.require_apart(metrics=self.metrics)
        loaded, stored = self.packed()
        run = None if self.source.suffix.lower() == SUFFIX else self.source.resolve().parent.parent
        metrics = self._figures(run)
        about = known_of(self.source)
        told = {
            **about,
            "licence": self.licence or about.get("licence"),
            "data": self.data or (None if run is None else _data_of(run / "config.yaml")) or about.get("data"),
            "figures": main_figures(metrics),
        }
        if metrics is None and self.metrics != "none":
            told["figures"] = about.get("figures", {})
        text = model_card(folder.resolve().name, loaded, told)
        write_folder(folder, loaded, stored, text, told)
        files = sorted(path.name for path in folder.iterdir())
        print(f"wrote {folder}: {', '.join(files)}; sha256 of {WEIGHTS} {sha256_of(folder / WEIGHTS)}")
        return folder

    def _figures(self, run: Path | None) -> dict[str, Any] | None:
        """Return the content of ``metrics.json``; None where it is not wanted, or is neither given nor there."""
        own = None if run is None or not (run / METRICS).is_file() else run / METRICS
        path = own if self.metrics is None else Path(self.metrics)
        if path is None or self.metrics == "none":
            return None
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(f"metrics {path} cannot be read ({error}); give what sfdkit evaluate wrote") from error
        if not isinstance(content, dict):
            raise DataError(f"metrics {path} holds no figures by name; give what sfdkit evaluate wrote")
        return content


def known_of(weights: Path) -> dict[str, Any]:
    """Return what is told of weights beside them: of a weights file in its card, of a model folder in model.json.

    Returns:
        ``summary licence data limits figures``, as far as they are there.

    Raises:
        DataError: A card that cannot be read, or one of these of another kind.
    """
    path, folder = card_of(weights), folder_of(weights)
    if folder is not None:
        path, told = folder / ABOUT, read_about(folder).get(TOLD)
    elif not path.is_file():
        return {}
    else:
        try:
            told = yaml.safe_load(read_card(path))
        except yaml.YAMLError as error:
            raise DataError(f"card {path} cannot be read: {' '.join(str(error).split())}; mend or rename it") from error
    told = told if isinstance(told, dict) else {}
    for key, (fits, what) in _CARD_KEYS.items():
        if told.get(key) is not None and not fits(told[key]):
            raise DataError(f"card {path}: {key} is {told[key]!r}; give {what}, or leave it out")
    return {key: told[key] for key in _CARD_KEYS if told.get(key) is not None}


def write_folder(
    folder: Path, loaded: LoadedAnimator, stored: StoredAnimator, card: str, told: Mapping[str, Any] | None = None
) -> None:
    """Write a model folder; it appears whole or not at all.

    Args:
        folder: A new or an empty folder.
        loaded: The animator.
        stored: What the weights file is to hold of it; its axes become ``axes.json`` as well.
        card: The model card.
        told: What it tells, see :func:`known_of`, for a folder that is made of this one.

    Raises:
        CheckpointError: A weight is not finite.
        ConfigError: Something is in the way.
        DataError: The folder cannot be written.
    """
    with new_folder(folder) as part, write_errors(folder):
        write_weights(part / WEIGHTS, stored)
        if stored.axes is not None:
            (part / AXES).write_text(stored.axes + "\n", encoding="utf-8")
        about = {
            "schema": SCHEMA,
            "sfdkit": __version__,
            "animator": stored.config,
            **facts_of(loaded.animator),
            "training": stored.train,
            TOLD: dict(told or {}),
            "sha256": {name: sha256_of(part / name) for name in LOADED if (part / name).is_file()},
        }
        (part / ABOUT).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
        (part / CARD).write_text(card, encoding="utf-8")


@dataclass
class Push(Command):
    """Upload a folder of sfdkit model save to the Hugging Face hub, where --checkpoint hf://user/name finds it.

    The token is that of hf auth login, or of HF_TOKEN in the environment. Other files in the folder are left out.

    Args:
        folder: The folder.
        address: hf://user/name; the repository is created unless it exists.
        private: Only you, or the members of the organisation, may see the repository.
        revision: A branch to upload to, which is created unless it exists; the main one by default.
        trust: Packages besides sfdkit whose classes the model may name: --trust [mypackage].
    """

    positional = True

    folder: str
    address: str
    _: KW_ONLY
    private: bool = False
    revision: str | None = None
    trust: list[str] | None = None

    def run(self) -> None:
        """Check the folder, upload it, and print the address and the commit.

        Raises:
            CheckpointError: It is no model folder, or its files disagree.
            ConfigError: The address has another form.
            StorageError: The hub refuses, or cannot be reached.
        """
        address = HubAddress.parse(self.address)
        load_animator(weights_of(Path(self.folder)), trust=self.trust or ())
        print(f"{address}: {push(Path(self.folder), address, self.private, self.revision)}")


def _data_of(config: Path) -> str | None:
    """Return what the configuration of a run says of its data: the data module, and names of shards without paths."""
    try:
        content = yaml.safe_load(config.read_text(encoding="utf-8"))["data"]
        root = content["init_args"]["root"]
        names = [Path(part.partition("://")[2] or part).name for part in ([root] if isinstance(root, str) else root)]
        return f"Shards {', '.join(names)} of {content['class_path']}."
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError, AttributeError):
        return None
