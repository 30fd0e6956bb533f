"""The commands ``sfdkit model ...`` about trained animators; that of a configuration is the trainer's."""

from __future__ import annotations

import json
from dataclasses import dataclass
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
        checkpoint: A checkpoint that sfdkit fit wrote, a weights file that sfdkit model pack wrote, or a name such as
            puppets64 that sfdkit model list shows.
        trust: Packages besides sfdkit whose classes the checkpoint may name: --trust [mypackage].
    """

    checkpoint: str
    trust: list[str] | None = None

    def load(self) -> LoadedAnimator:
        """Load the animator.

        Raises:
            CheckpointError: The checkpoint is missing, damaged or of another model.
        """
        return load_animator(self.checkpoint, trust=self.trust or ())


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
        loaded, path = self.load(), find_weights(self.checkpoint)
        print(f"{'file:':13}{path}, {_megabytes(path)}")
        print(describe(loaded, path))


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
    words = f"\n{_read_card(card)}" if card.is_file() else f"{'card:':13}none; it would be {card.name} beside the file"
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
        source = find_weights(self.checkpoint)
        require_apart(self.output, checkpoint=source, axes=self.axes)
        target = check_suffix(self.output, "output")
        loaded = self.load()
        found = find_axes(self.axes, source, loaded.axes)
        axes = None
        if found is not None:
            Axes.parse(*found, basis_fingerprint(loaded.animator.descriptors))
            axes = json.dumps(json.loads(found[0]), separators=(",", ":"))
        weights = loaded.animator.state_dict()
        write_weights(target, StoredAnimator(without_downloads(loaded.experiment), weights, loaded.train, axes))
        print(
            f"wrote {target}: {parameters(loaded.animator):,} parameters, {_megabytes(target)} "
            f"({self.checkpoint}: {_megabytes(source)}), {'with' if axes else 'without'} axes"
        )
        return target


def list_shipped() -> None:
    """List the weights that come with sfdkit; every --checkpoint takes their names."""
    for name, path in shipped_weights().items():
        print(f"{name:12} {_megabytes(path)}  {yaml.safe_load(_read_card(card_of(path)))['summary']}")


def _read_card(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"card {path} cannot be read: {error}; it is a text file in UTF-8") from error


def _megabytes(path: Path) -> str:
    return f"{path.stat().st_size / 1e6:.1f} MB"
