"""Loading animators: from checkpoints with their EMA weights, and from weights files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, get_args, get_type_hints
from zipfile import is_zipfile

import torch
from jsonargparse import ArgumentParser
from jsonargparse import Namespace as ParsedNamespace
from torch import Tensor, nn

from sfdkit.config.messages import explain
from sfdkit.config.renamed import rename_config
from sfdkit.errors import CheckpointError
from sfdkit.model.animator import FaceAnimator
from sfdkit.tensor_file import SUFFIX
from sfdkit.weights.file import StoredAnimator, facts_of, read_weights
from sfdkit.weights.folder import check_facts, check_files, folder_of
from sfdkit.weights.shipped import find_weights

KEY = "sfdkit"
EMA_KEY = "animator_average"
SCHEMA = 1
NO_NOISE = -20.0
"""Logarithm of the motion coefficients' noise without the loss term ``kl``: no noise."""
NOISE = "motion_head.log_noise"
BASIS, COLUMNS = "descriptors.weight", "generator.reader.columns"


class LoadedAnimator(NamedTuple):
    """An animator from a file."""

    animator: FaceAnimator
    """In eval mode, with the EMA weights."""
    train: dict[str, Any]
    """Statistics of its training: ``steps seconds frames images_per_second identities world_size seed``."""
    experiment: dict[str, Any]
    """The animator's configuration: ``class_path`` and ``init_args`` of each part."""
    axes: str | None = None
    """The content of its ``axes.json``, if a weights file holds it."""


def load_animator(
    checkpoint: str | Path, device: str | torch.device = "cpu", trust: Sequence[str] = ()
) -> LoadedAnimator:
    """Load an animator from a file, a model folder, by the name of weights that come with sfdkit, or from the web.

    A checkpoint is read with ``weights_only=True``, and only classes of sfdkit itself, or of packages named in
    ``trust``, are built.

    Args:
        checkpoint: A checkpoint that ``sfdkit fit`` wrote, a weights file that ``sfdkit model pack`` wrote, a folder
            that ``sfdkit model save`` wrote, a name such as ``puppets64`` that ``sfdkit model list`` shows,
            ``hf://user/name[@revision][/folder]``, or the ``https://`` address of a weights file.
        device: Where to place the animator.
        trust: Packages besides sfdkit whose classes the file may name, for example your own encoder's.

    Raises:
        CheckpointError: No such file or name, no file of sfdkit, the weights do not fit the model, or the files of a
            model folder disagree.
        ConfigError: An address of another form.
        DataError: What is at the address is too large, or no weights file.
        StorageError: Nothing is at the address, or it cannot be reached.
    """
    path = find_weights(checkpoint)
    stored = read_animator(path)
    animator = build_animator(stored.config, path, trust)
    try:
        animator.load_state_dict(stored.weights)
    except RuntimeError as error:
        raise CheckpointError(
            f"{path}: the weights do not fit the model it describes: {str(error).splitlines()[1].strip()}"
        ) from error
    if folder := folder_of(path):
        check_facts(folder, facts_of(animator), stored.config, stored.axes)
    animator.eval().requires_grad_(False)
    return LoadedAnimator(animator.to(device), stored.train, stored.config, stored.axes)


def read_animator(path: Path) -> StoredAnimator:
    """Read what a checkpoint or a weights file holds of an animator.

    Raises:
        CheckpointError: No such file, no file of sfdkit, of another version, or the files of a model folder disagree.
    """
    if path.suffix.lower() == SUFFIX:
        folder = folder_of(path)
        axes = check_files(folder) if folder else None
        weights = read_weights(path)
        return weights if axes is None else weights._replace(axes=axes)
    stored = read_checkpoint(path)
    about = stored[KEY]
    if about.get("schema") != SCHEMA:
        raise CheckpointError(
            f"{path} has schema {about.get('schema')}, this sfdkit reads {SCHEMA}; use the sfdkit that wrote it"
        )
    train = {**about["train"], "seed": about.get("seed")}
    return StoredAnimator(about["animator"], animator_weights(stored), train, None)


def animator_weights(stored: dict[str, Any]) -> dict[str, Tensor]:
    """Return the animator's weights in a checkpoint: the EMA ones, if it was ever updated."""
    if int(stored[EMA_KEY]["n_averaged"]) == 0:
        return {k.removeprefix("animator."): v for k, v in stored["state_dict"].items() if k.startswith("animator.")}
    return {k.removeprefix("module."): v for k, v in stored[EMA_KEY].items() if k.startswith("module.")}


def other_method(config: dict[str, Any], animator: FaceAnimator) -> str | None:
    """Return the class of the generator that a configuration names, if it is not that of an animator."""
    named = str(rename_config(config, "the checkpoint")["init_args"]["generator"]["class_path"])
    own = type(animator.generator)
    return None if named == f"{own.__module__}.{own.__qualname__}" else named


class Adopted(NamedTuple):
    """Which weights a model has loaded from the checkpoint of another one."""

    taken: list[str]
    """Names of the loaded weights."""
    left: list[str]
    """Names of the unchanged weights: the checkpoint has none of that name and shape."""
    method: str | None
    """The class of its generator, if it is another."""


def adopt_weights(animator: FaceAnimator, checkpoint: str | Path) -> Adopted:
    """Load what fits from a similar model, for example one of half the resolution.

    Args:
        animator: Weights of the same name and shape are replaced; the noise of the motion coefficients only if both
            models are trained with the loss term ``kl``, as it is 0 without.
        checkpoint: As for :func:`load_animator`.

    Raises:
        CheckpointError: The checkpoint cannot be read, or nothing in it fits.
    """
    stored, own = read_animator(find_weights(checkpoint)), animator.state_dict()
    weights, method = stored.weights, other_method(stored.config, animator)
    taken = [name for name, value in own.items() if name in weights and weights[name].shape == value.shape]
    if NOISE in taken and min(float(weights[NOISE].max()), float(own[NOISE].max())) <= NO_NOISE:
        taken.remove(NOISE)
    if COLUMNS in own and not {BASIS, COLUMNS} <= set(taken):  # key points are read on the basis they were led by
        taken = [name for name in taken if name not in (BASIS, COLUMNS)]
    learned = {name for name, _ in animator.named_parameters()}
    if not learned & set(taken):
        raise CheckpointError(
            f"model.start_from: no weight in {checkpoint} has the name and shape of one of this model; "
            "take a checkpoint of a model with the same encoders and sizes"
            + (f" and method (its generator is {method})" if method else "")
        )
    animator.load_state_dict({name: weights[name] for name in taken}, strict=False)
    return Adopted(taken, [name for name in own if name not in taken], method)


def read_checkpoint(path: Path, mmap: bool = False) -> dict[str, Any]:
    """Read the checkpoint of a training without running code from it.

    Args:
        path: The file.
        mmap: Read tensors from the disk only when they are used.

    Raises:
        CheckpointError: No such file, or not a checkpoint of sfdkit.
    """
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise CheckpointError(
            f"checkpoint {path} {what}; sfdkit fit writes them to <run>/checkpoints, last.ckpt is the newest"
        )
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap and is_zipfile(path))
    except OSError as error:
        raise CheckpointError(f"checkpoint {path} cannot be read: {error.strerror or error}") from error
    except Exception as error:  # torch has no error of its own for this, and its texts advise to trust the file
        raise CheckpointError(
            f"{path} is no readable checkpoint: {_kind(path)}; give a file that sfdkit fit wrote"
        ) from error
    if not isinstance(stored, dict) or KEY not in stored or EMA_KEY not in stored:
        raise CheckpointError(
            f"{path} is the checkpoint of another program or model: it has no entry {KEY!r}; "
            "give one that sfdkit fit wrote"
        )
    return stored


def _kind(path: Path) -> str:
    """Describe a file that cannot be read as a checkpoint."""
    with path.open("rb") as file:
        head = file.read(4)
    if not head:
        return "it is empty"
    if is_zipfile(path):
        return "it holds objects besides weights, or is another kind of archive"
    if head == b"PK\x03\x04":
        return "it is cut off or damaged"
    return "its content is of another kind"


def build_animator(config: dict[str, Any], path: Path, trust: Sequence[str]) -> FaceAnimator:
    """Build the animator that a checkpoint describes, with random weights.

    Raises:
        CheckpointError: It names a class outside sfdkit and ``trust``, or one that cannot be built.
    """
    config = rename_config(config, str(path))
    allowed = ("sfdkit", *trust)
    for name in _class_paths(config):
        if name.split(".")[0] not in allowed:
            raise CheckpointError(
                f"{path} names the class {name}, which is not sfdkit's; "
                f"if you trust it, pass --trust [{name.split('.')[0]}]"
            )
    _require_spelled_out(config, path)
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(FaceAnimator, "animator")
    try:
        built = parser.instantiate_classes(parser.parse_object({"animator": without_downloads(config)}))
    except Exception as error:
        raise CheckpointError(f"{path}: its model cannot be built: {explain(str(error), parser)}") from error
    assert isinstance(built, ParsedNamespace)
    return built.animator


def _require_spelled_out(part: Any, path: Path) -> None:
    """Check that each part of a model is written as its class_path and init_args, in which foreign classes are seen.

    The parser would also take a part as a text: the name of a class, which it imports, or a file to read on.

    Raises:
        CheckpointError: One is written in another way.
    """
    whole = isinstance(part, dict) and set(part) <= {"class_path", "init_args", "dict_kwargs"}
    if not whole or not isinstance(part.get("class_path"), str) or not isinstance(part.get("init_args", {}), dict):
        raise CheckpointError(
            f"{path} has a part of a model that is not written as class_path and init_args: {str(part)[:80]!r}; "
            "give a file that sfdkit wrote"
        )
    module, _, name = part["class_path"].rpartition(".")
    try:
        built = getattr(import_module(module), name)
        hints = {n: hint for base in reversed(built.__mro__) for n, hint in get_type_hints(base.__init__).items()}
    except (ImportError, AttributeError, NameError, ValueError):
        return  # building it says what is wrong
    for key, value in part.get("init_args", {}).items():
        kinds = [kind for kind in (hints.get(key), *get_args(hints.get(key))) if isinstance(kind, type)]
        if "." in key or (value is not None and any(map(_is_part, kinds))):
            _require_spelled_out(value, path)


def _is_part(kind: type) -> bool:
    """Return whether arguments of a type are parts of a model: modules, or what is like them (a protocol)."""
    return issubclass(kind, nn.Module) or getattr(kind, "_is_protocol", False)


def without_downloads(config: Any) -> Any:
    """Return the configuration without pretrained weights, which the checkpoint replaces."""
    if not isinstance(config, dict):
        return config
    cleaned = {key: without_downloads(value) for key, value in config.items()}
    if "pretrained" in cleaned:
        cleaned["pretrained"] = False
        cleaned["weights"] = None
    return cleaned


def _class_paths(config: Any) -> Iterator[str]:
    if isinstance(config, dict):
        if "class_path" in config:
            yield str(config["class_path"])
        for value in config.values():
            yield from _class_paths(value)
    elif isinstance(config, list):
        for value in config:
            yield from _class_paths(value)
