"""The model card of a model folder: its README.md, with the front matter that the Hugging Face hub reads.

https://huggingface.co/docs/hub/model-cards
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from sfdkit import __version__
from sfdkit.checkpoint import LoadedAnimator
from sfdkit.errors import ConfigError
from sfdkit.model.summary import parameters

UNKNOWN = "unknown"
_LICENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]*")
_ROWS = (
    ("self-reenactment", "self/", "self/"),
    ("the source unchanged", "self/copy_", "self/copy_"),
    ("cross-reenactment", "cross/", "cross/"),
    ("the source unchanged", "copy/", "cross/"),
)
"""Words, the prefix of keys, and the prefix of keys without which the row is left out."""
_COLUMNS = {"l1": "L1", "psnr": "PSNR, dB", "ssim": "SSIM", "sharpness": "sharpness"}
_FACTS = ("dataset", "split", "protocol", "clips", "pairs", "resolution")
_CARD = """\
---
license: {licence}
library_name: sfdkit
tags:
- sfdkit
- face-animation
- face-reenactment
---

# {name}

An animator of sfdkit: it moves the face of a picture as the face of a video moves.

{summary}- Pictures: {resolution} x {resolution} pixels
- Parameters: {parameters:,}; encoder {encoder}, generator {generator}
- Descriptors: {identity} of identity, {motion} of motion
- Training: {training}
- Written by sfdkit {version}

## Training data

{data}

## Figures

{figures}

## Intended use

Research on face animation, and animating faces of people who have agreed to it.

## Misuse and limits

- Not for impersonation: move nobody's face without the consent of that person, and let nobody seem to do or say what
  they did not.
- Label animated pictures and videos as such wherever they are shown.
- Results are only as good, and as fair, as the data above: people, poses and pictures unlike them come out worse.
{limits}
## Licence

{licence_words}

## Loading

```python
from sfdkit.checkpoint import load_animator
animator = load_animator("hf://USER/{name}").animator  # or the path of this folder
```
"""


def model_card(name: str, loaded: LoadedAnimator, about: Mapping[str, Any]) -> str:
    """Return the text of a model card.

    Args:
        name: What the model is called.
        loaded: The animator.
        about: What is known of it, as in the card of a weights file: ``summary licence data figures limits``.

    Raises:
        ConfigError: The licence is no identifier.
    """
    licence = str(about.get("licence") or UNKNOWN)
    if not _LICENCE.fullmatch(licence):
        raise ConfigError(f"licence: {licence!r} is no identifier; give one such as apache-2.0, cc-by-nc-4.0 or other")
    animator, train = loaded.animator, loaded.train
    parts = loaded.experiment["init_args"]
    people = f" on {train['identities']:,} identities" if train.get("identities") else ""
    return _CARD.format(
        name=name,
        licence=licence.lower(),
        licence_words="It was not named: ask who made the model." if licence == UNKNOWN else licence,
        summary=f"{about['summary']}\n\n" if "summary" in about else "",
        resolution=animator.resolution,
        parameters=parameters(animator),
        encoder=parts["encoder"]["init_args"].get("name") or parts["encoder"]["class_path"],
        generator=parts["generator"]["class_path"].rpartition(".")[2],
        identity=animator.descriptors.identity_size,
        motion=animator.descriptors.motion_size,
        training=f"{train['steps']:,} steps in {train['seconds'] / 60:.1f} minutes{people}, seed {train['seed']}",
        version=__version__,
        data=about.get("data") or "It was not recorded: ask who made the model.",
        figures=figures({key: figure["is"] for key, figure in about.get("figures", {}).items()}),
        limits="".join(f"- {limit}\n" for limit in about.get("limits", ())),
    )


def main_figures(metrics: Mapping[str, Any] | None) -> dict[str, dict[str, Any]]:
    """Return what a model card shows of the content of a ``metrics.json``, as ``figures`` of a weights file's card."""
    shown = [f"{prefix}{key}" for _, prefix, _ in _ROWS for key in _COLUMNS] + [f"evaluation/{key}" for key in _FACTS]
    return {key: {"is": metrics[key]} for key in shown if metrics and key in metrics}


def figures(metrics: Mapping[str, Any] | None) -> str:
    """Return the main figures of an evaluation as a table of Markdown.

    Args:
        metrics: The content of its ``metrics.json``, if there was one.
    """
    if not metrics:
        return "There are none: no evaluation came along. `sfdkit evaluate` measures the model."
    table = [f"| | {' | '.join(_COLUMNS.values())} |", f"|---|{'---|' * len(_COLUMNS)}"]
    for words, prefix, needed in _ROWS:
        values = [metrics.get(f"{prefix}{key}") for key in _COLUMNS]
        if any(f"{needed}{key}" in metrics for key in _COLUMNS):
            cells = [f"{value:.4g}" if isinstance(value, int | float) else "" for value in values]
            table.append(f"| {words} | {' | '.join(cells)} |")
    facts = [f"{key} {metrics[f'evaluation/{key}']}" for key in _FACTS if f"evaluation/{key}" in metrics]
    return "\n".join([f"By `sfdkit evaluate`: {', '.join(facts) or 'on data that it does not name'}.", "", *table])
