"""The command that trains the network which reads puppets."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path

from sfdkit.device import choose_device
from sfdkit.errors import ConfigError, DataError
from sfdkit.face_networks.examples import draw_examples
from sfdkit.face_networks.network import EXPRESSION, SIDE
from sfdkit.face_networks.puppets import SCHEMA, Regressor, regressor_path, save_regressor
from sfdkit.face_networks.training import BATCH_IDENTITIES, SOFT, accuracy, fit

PICTURES_EACH = 4
_HELD_OUT_IDENTITIES, _HELD_OUT_EACH = 64, 8


def train(
    resolution: int = 64,
    steps: int = 1400,
    output: str | None = None,
    identities: int = 3072,
    seed: int = 90001,
    device: str = "auto",
) -> dict[str, float]:
    """Train the network that reads puppets and tell how well it reads puppets it has not seen.

    Args:
        resolution: Of the pictures it will read, in pixels.
        steps: Batches of 64 pictures to train on.
        output: The .safetensors file to write; by default regressor-RESOLUTION.safetensors in the cache folder
            ($SFDKIT_CACHE, or sfdkit in the user's cache), where evaluation looks for it.
        identities: Puppets to train on, four pictures of each.
        seed: Of the puppets, the weights and the batches; data sets use 0 unless told otherwise. Held-out puppets have
            the next seed.
        device: auto, cpu, cuda, cuda:1, mps.

    Returns:
        The accuracy that the table shows; its keys are those of :func:`sfdkit.face_networks.training.accuracy`.

    Raises:
        ConfigError: A number that cannot work, an output of another kind, or no such device.
        DataError: The output cannot be written.
    """
    for name, value, least in (
        ("resolution", resolution, 16),
        ("steps", steps, 1),
        ("identities", identities, BATCH_IDENTITIES),
    ):
        if value < least:
            raise ConfigError(f"{name}={value}: give at least {least}")
    place = choose_device(device)
    path = _output(regressor_path(resolution) if output is None else Path(output))
    began = time.perf_counter()
    # the trunk sees pictures of 64 pixels: larger ones need no more than one sample in each of their pixels
    examples = draw_examples(identities, PICTURES_EACH, min(resolution, 2 * SIDE), seed, supersample=1, device=place)
    network = fit(examples, steps, seed, device=place)
    held_out = draw_examples(
        _HELD_OUT_IDENTITIES, _HELD_OUT_EACH, resolution, seed + 1, words="rendering held-out puppets", device=place
    )
    sharp, soft = (accuracy(network, held_out, sigma, place) for sigma in (0.0, SOFT))
    about = {
        "schema": SCHEMA,
        "resolution": resolution,
        "seed": seed,
        "held_out_seed": seed + 1,
        "identities": identities,
        "steps": steps,
        "accuracy": sharp,
        "accuracy_soft": soft,
    }
    save_regressor(path, Regressor(network.cpu(), about))
    print(accuracy_table(sharp, soft, resolution))
    print(f"trained in {time.perf_counter() - began:.0f} s; wrote {path}")
    return sharp


def _output(path: Path) -> Path:
    if path.suffix != ".safetensors":
        raise ConfigError(f"output: {path} ends in {path.suffix!r}; name a .safetensors file")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"cannot create the folder {path.parent}: {error.strerror}; name another --output") from error
    if path.is_dir() or not os.access(path.parent, os.W_OK | os.X_OK):
        raise DataError(f"cannot write {path}; name another --output")
    return path


def accuracy_table(sharp: Mapping[str, float], soft: Mapping[str, float], resolution: int) -> str:
    """Lay out the accuracy on held-out puppets, of pictures as they are and of soft ones.

    Args:
        sharp: Of :func:`sfdkit.face_networks.training.accuracy`.
        soft: The same under blur.
        resolution: Of the pictures.
    """
    scale = resolution / SIDE
    heading = (f"held-out puppets, {resolution} pixels", "", "as they are", f"blurred, {SOFT:g} px at {SIDE}")
    rows = [heading, ("landmarks", "error, px", *(f"{each['landmarks'] * scale:.2f}" for each in (sharp, soft)))]
    rows.append(("", f"error, px at {SIDE}", *(f"{each['landmarks']:.2f}" for each in (sharp, soft))))
    for name in ("yaw", "pitch", "roll"):
        rows.append((name, "error, degrees", *(f"{each[name]:.2f}" for each in (sharp, soft))))
    for name in EXPRESSION:
        rows.append((name, "R2 (error)", *(f"{each[f'r2_{name}']:.3f} ({each[name]:.3f})" for each in (sharp, soft))))
    for name, words in (("equal_error", "equal error rate"), ("auc", "AUC"), ("top1", "top-1 of 64")):
        rows.append(("identity", words, *(f"{each[f'identity_{name}']:.3f}" for each in (sharp, soft))))
    widths = [max(len(row[k]) for row in rows) for k in range(4)]
    return "\n".join(
        f"{row[0]:<{widths[0]}}  {row[1]:<{widths[1]}}  {row[2]:>{widths[2]}}  {row[3]:>{widths[3]}}" for row in rows
    )
