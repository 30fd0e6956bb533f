"""The commands ``sfdkit measure train`` and ``sfdkit puppets train-perceptual``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TypeAlias

from jsonargparse.typing import PositiveInt, restricted_number_type

from sfdkit.device import choose_device
from sfdkit.face_networks.feature_network import save_features
from sfdkit.face_networks.feature_training import fit_features
from sfdkit.face_networks.puppet_accuracy import SOFT, accuracy, accuracy_table
from sfdkit.face_networks.puppet_examples import draw_examples
from sfdkit.face_networks.puppet_measurer import SCHEMA, Regressor, regressor_path, save_regressor
from sfdkit.face_networks.puppet_network import SIDE
from sfdkit.face_networks.puppet_training import BATCH_IDENTITIES, fit
from sfdkit.tensor_file import check_suffix

PICTURES_EACH = 4
_HELD_OUT_IDENTITIES, _HELD_OUT_EACH = 64, 8

Resolution: TypeAlias = restricted_number_type("RegressorResolution", int, (">=", 16))  # type: ignore[valid-type]
Identities: TypeAlias = restricted_number_type("RegressorIdentities", int, (">=", BATCH_IDENTITIES))  # type: ignore[valid-type]


def train(
    resolution: Resolution = 64,
    steps: PositiveInt = 1400,
    output: str | None = None,
    identities: Identities = 3072,
    seed: int = 90001,
    device: str = "auto",
) -> dict[str, float]:
    """Train the network that reads puppets, and measure its accuracy on puppets that it has not seen.

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
        The accuracy that the table shows; its keys are those of
        :func:`sfdkit.face_networks.puppet_accuracy.accuracy`.

    Raises:
        ConfigError: An output of another kind, or no such device.
        DataError: The output cannot be written.
    """
    place = choose_device(device)
    path = check_suffix(regressor_path(resolution) if output is None else Path(output), "output")
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


def train_perceptual(
    output: str,
    steps: PositiveInt = 1000,
    identities: PositiveInt = 960,
    seed: int = 90001,
    device: str = "auto",
) -> None:
    """Train the small network by whose features the loss term perceptual compares pictures.

    It learns from puppets of 64 and 128 pixels to read colour, fine detail, landmarks, and the blur and double edges
    that are put into them, and to overlook noise, small shifts and light.

    Args:
        output: The .safetensors file to write, for --model.networks.perceptual of sfdkit fit.
        steps: Batches of 48 windows to train on.
        identities: Puppets to train on, four pictures of each.
        seed: Of the puppets, the weights, the batches and the distortions; data sets use 0 unless told otherwise.
        device: auto, cpu, cuda, cuda:1, mps.

    Raises:
        ConfigError: An output of another kind, or no such device.
        DataError: The output cannot be written.
    """
    place = choose_device(device)
    path = check_suffix(output, "output")
    began = time.perf_counter()
    examples = draw_examples(identities, PICTURES_EACH, 2 * SIDE, seed, supersample=1, device=place, side=2 * SIDE)
    tensors = fit_features(examples, steps, seed, device=place)
    about = {
        "made_by": f"sfdkit puppets train-perceptual --steps {steps} --identities {identities} --seed {seed}",
        "licence": "Apache-2.0",
    }
    save_features(path, tensors, "blur", about)
    print(f"trained in {time.perf_counter() - began:.0f} s; wrote {path}")
