"""The commands ``sfdkit model ...`` about trained animators; that of a configuration is the trainer's."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import yaml

from sfdkit.apply.axes import Axes, find_axes
from sfdkit.checkpoint import LoadedAnimator, load_animator, without_downloads
from sfdkit.config.command import Command
from sfdkit.errors import DataError
from sfdkit.files import require_apart
from sfdkit.model.fingerprints import basis_fingerprint
from sfdkit.model.summary import parameters, summary_table
from sfdkit.tensor_file import check_suffix
from sfdkit.weights.file import StoredAnimator, write_weights
from sfdkit.weights.shipped import card_of, find_weights, shipped_weights


@dataclass(kw_only=True)
class Trained(Command):
    """Options that say which trained animator is meant.

    Args:
        checkpoint: A checkpoint that sfdkit fit wrote, a weights file of sfdkit model pack, a folder of sfdkit model
            save, a name such as puppets64 that sfdkit model list shows, hf://user/name[@revision][/folder] on the
            Hugging Face hub, or the https address of a weights file.
        trust: Packages besides sfdkit whose classes the checkpoint may name: --trust [mypackage].
    """

    checkpoint: str
    trust: list[str] | None = None

    @cached_property
    def source(self) -> Path:
        """The file that the checkpoint is.

        Raises:
            SfdkitError: There are no weights of this name or at this address.
        """
        return find_weights(self.checkpoint)

    def load(self) -> LoadedAnimator:
        """Load the animator.

        Raises:
            CheckpointError: The checkpoint is missing, damaged or of another model.
        """
        return load_animator(self.source, trust=self.trust or ())


class Summary(Trained):
    """Print parameters and multiply-accumulates of a checkpoint, or, given --config instead, of a configuration."""

    def run(self) -> None:
        """Print the table."""
        print(summary_table(self.load().animator))


class Card(Trained):
    """Print what a checkpoint says of itself, and the card beside a weights file: how it was made, what it can do."""

    def run(self) -> None:
        """Print both.

        Raises:
            CheckpointError: The checkpoint is missing, damaged or of another model.
            DataError: The card cannot be read.
        """
        loaded = self.load()
        print(f"{'file:':13}{self.source}, {_megabytes(self.source)}")
        print(describe(loaded, self.source))


def describe(loaded: LoadedAnimator, path: Path) -> str:
    """Return what a trained animator says of itself, and the card beside its weights file.

    Args:
        loaded: The animator.
        path: Its file.

    Raises:
        DataError: The card cannot be read.
    """
    layer, train = loaded.animator.descriptors, loaded.train
    about = {
        "pixels": loaded.animator.resolution,
        "parameters": f"{parameters(loaded.animator):,}",
        "descriptors": f"{layer.identity_size} of identity, {layer.motion_size} of motion",
        "training": f"{train['steps']:,} steps in {train['seconds'] / 60:.1f} minutes, seed {train['seed']}",
    }
    card = card_of(path)
    words = f"\n{read_card(card)}" if card.is_file() else f"{'card:':13}none; it would be {card.name} beside the file"
    return "\n".join([*(f"{name + ':':13}{value}" for name, value in about.items()), words])


@dataclass(kw_only=True)
class Pack(Trained):
    """Write the animator of a checkpoint alone into a small weights file, which every --checkpoint takes.

    The EMA weights in half precision, the configuration of the animator, statistics of the training, and the axes.
    What only a training needs is left out: discriminator, optimisers, place in the data.

    Args:
        output: The .safetensors file.
        axes: The axes.json that sfdkit evaluate wrote for this checkpoint, for sfdkit edit. By default the one in the
            folder of the run, above checkpoints/, if it is there. none: without.
    """

    output: str
    axes: str | None = None

    def run(self) -> Path:
        """Write the file and return its path.

        Raises:
            CheckpointError: The checkpoint is missing, damaged, of another model or not finite, or the axes are of
                another model.
            ConfigError: The output has another suffix, or would replace the checkpoint.
            DataError: The axes cannot be read, or the output cannot be written.
        """
        target = Path(self.output)
        self.require_apart()
        check_suffix(target, "output")
        loaded, stored = self.packed()
        write_weights(target, stored)
        print(
            f"wrote {target}: {parameters(loaded.animator):,} parameters, {_megabytes(target)} "
            f"({self.checkpoint}: {_megabytes(self.source)}), {'with' if stored.axes else 'without'} axes"
        )
        return target

    def require_apart(self, **inputs: str | None) -> None:
        """Refuse an output that would replace what it is made from.

        Raises:
            ConfigError: It would.
        """
        require_apart(self.output, checkpoint=self.source, axes=self.axes, **inputs)

    def packed(self) -> tuple[LoadedAnimator, StoredAnimator]:
        """Load the animator, and return what a weights file holds of it as well.

        Raises:
            CheckpointError: The checkpoint is missing, damaged or of another model, or the axes are of another model.
            DataError: The axes cannot be read.
        """
        loaded = self.load()
        found = find_axes(self.axes, self.source, loaded.axes)
        axes = None
        if found is not None:
            Axes.parse(*found, basis_fingerprint(loaded.animator.descriptors))
            axes = json.dumps(json.loads(found[0]), separators=(",", ":"))
        weights = loaded.animator.state_dict()
        return loaded, StoredAnimator(without_downloads(loaded.experiment), weights, loaded.train, axes)


def list_shipped() -> None:
    """List the weights that come with sfdkit; every --checkpoint takes their names."""
    for name, path in shipped_weights().items():
        print(f"{name:12} {_megabytes(path)}  {yaml.safe_load(read_card(card_of(path)))['summary']}")


def read_card(path: Path) -> str:
    """Read the card of a weights file.

    Raises:
        DataError: It cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"card {path} cannot be read: {error}; it is a text file in UTF-8") from error


def _megabytes(path: Path) -> str:
    return f"{path.stat().st_size / 1e6:.1f} MB"
