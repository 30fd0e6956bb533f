"""Keeping the results of an evaluation where scripts of the field look for them, and comparing them as sets.

``OUTPUT/results/KIND/generated`` and ``.../truth`` (``.../driving`` where there is no truth) hold files of the same
names: a video per pair, or a folder of ``0000000.png``, ``0000001.png``, ... per pair, which is what
https://github.com/AliaksandrSiarohin/pose-evaluation reads.
"""

from __future__ import annotations

import re
from collections.abc import Container, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from sfdkit.evaluate.reenact import Sink
from sfdkit.evaluate.samples import Pair
from sfdkit.files import make_folder
from sfdkit.media.draw import to_uint8
from sfdkit.media.video_writer import VideoWriter
from sfdkit.metrics.features import SetDistances

Keep = Literal["videos", "frames"]


class Collector:
    """Takes the pictures of all pairs of one kind: keeps them, and compares them as sets.

    Args:
        folder: Of the evaluation.
        form: How to keep them; None keeps nothing.
        kind: ``self`` or ``cross``.
        features: By which they are compared; None compares nothing.
        device: Where they are compared.
        pairs: All that will come, of which other processes may take some.
    """

    def __init__(
        self,
        folder: Path,
        form: Keep | None,
        kind: str,
        features: nn.Module | None,
        device: torch.device,
        pairs: Sequence[Pair],
    ) -> None:
        self._keeper = None if form is None else Keeper(folder, form, kind, pairs)
        self._sets = None if features is None else SetDistances(features, device)

    @property
    def sink(self) -> Sink | None:
        """What :func:`sfdkit.evaluate.reenact.reenact` is to hand the pictures to; None where nobody wants them."""
        return None if self._keeper is None and self._sets is None else self._take

    def _take(self, pair: Pair, result: Tensor, driving: Tensor, truth: Tensor | None) -> None:
        if self._keeper is not None:
            self._keeper(pair, result, driving, truth)
        if self._sets is not None:
            self._sets.add(result, driving if truth is None else truth)

    def distances(self) -> dict[str, float]:
        """Return the distances of the sets, by name, over all processes."""
        return {} if self._sets is None else self._sets.compute()


class Keeper:
    """Writes results pair by pair.

    Args:
        folder: Of the evaluation.
        form: ``videos`` or ``frames``.
        kind: ``self`` or ``cross``.
        pairs: All that will come: their names are told apart, the same way in every process.
    """

    def __init__(self, folder: Path, form: Keep, kind: str, pairs: Sequence[Pair]) -> None:
        self.folder, self.form = folder / "results" / kind, form
        self._names: dict[int, str] = {}
        taken: set[str] = set()
        for pair in pairs:
            name = self._names[id(pair)] = _name(pair, taken)
            taken.add(name)

    def __call__(self, pair: Pair, result: Tensor, driving: Tensor, truth: Tensor | None) -> None:
        """Write one pair.

        Args:
            pair: One of those that were to come.
            result: K 3 R R in [0, 1].
            driving: K 3 R R.
            truth: K 3 R R; None where it is not known.
        """
        name = self._names[id(pair)]
        rate = float(pair.driver.clip["meta"]["fps"])
        sides = {"generated": result, "driving" if truth is None else "truth": driving if truth is None else truth}
        for side, pictures in sides.items():
            folder = make_folder(self.folder / side)
            frames = [to_uint8(picture) for picture in pictures]
            if self.form == "videos":
                _write_video(folder / f"{name}.mp4", frames, rate)
            else:
                place = make_folder(folder / name)
                for number, frame in enumerate(frames):
                    Image.fromarray(frame).save(place / f"{number:07d}.png")


def _name(pair: Pair, taken: Container[str]) -> str:
    parts = [pair.source.clip["key"]] + ([] if pair.source is pair.driver else [pair.driver.clip["key"]])
    plain = "--".join(re.sub(r"\.\w{1,5}$", "", part).replace("/", "_") for part in parts)
    name, number = plain, 1
    while name in taken:
        number += 1
        name = f"{plain}-{number}"
    return name


def _write_video(path: Path, frames: list[np.ndarray], rate: float) -> None:
    with VideoWriter(path, rate) as writer:
        for frame in frames:
            writer.write(frame)
