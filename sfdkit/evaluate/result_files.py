"""Results kept as files, where evaluation scripts of the field look for them.

``OUTPUT/results/KIND/generated`` and ``.../truth`` (``.../driving`` where there is no truth) hold files of the same
names: a video per pair, or a folder of ``0000000.png``, ``0000001.png``, ... per pair, which is what
https://github.com/AliaksandrSiarohin/pose-evaluation reads.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from torch import Tensor

from sfdkit.evaluate.frames import Pictures
from sfdkit.evaluate.samples import Pair
from sfdkit.files import make_folder, write_picture
from sfdkit.media.tensors import to_uint8
from sfdkit.media.video_writer import VideoWriter

Keep = Literal["videos", "frames"]


class ResultFiles:
    """Writes results pair by pair.

    Args:
        folder: Of the evaluation.
        form: ``videos`` or ``frames``.
        kind: ``self`` or ``cross``.
        pairs: All pairs of this kind; from them each gets a name of its own, the same in every process.
    """

    def __init__(self, folder: Path, form: Keep, kind: str, pairs: Sequence[Pair]) -> None:
        self.folder, self.form = folder / "results" / kind, form
        self._names: dict[int, str] = {}
        taken: set[str] = set()
        for pair in pairs:
            self._names[id(pair)] = name = _free_name(pair, taken)
            taken.add(name)

    def write(self, pair: Pair, pictures: Pictures) -> None:
        """Write one of the pairs."""
        name, fps = self._names[id(pair)], float(pair.driver.clip["meta"]["fps"])
        self._write(self.folder / "generated", name, fps, pictures.result)
        side = "driving" if pictures.truth is None else "truth"
        self._write(self.folder / side, name, fps, pictures.wanted)

    def _write(self, folder: Path, name: str, fps: float, frames: Tensor) -> None:
        make_folder(folder)
        if self.form == "videos":
            with VideoWriter(folder / f"{name}.mp4", fps) as writer:
                for frame in frames:
                    writer.write(to_uint8(frame))
        else:
            place = make_folder(folder / name)
            for number, frame in enumerate(frames):
                write_picture(place / f"{number:07d}.png", to_uint8(frame))


def _free_name(pair: Pair, taken: set[str]) -> str:
    keys = [pair.source.clip["key"]] if pair.is_self else [pair.source.clip["key"], pair.driver.clip["key"]]
    plain = "--".join(re.sub(r"\.\w{1,5}$", "", key).replace("/", "_") for key in keys)
    name, number = plain, 1
    while name in taken:
        number += 1
        name = f"{plain}-{number}"
    return name
