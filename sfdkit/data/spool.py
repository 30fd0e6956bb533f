"""Encoding clips, source by source, into spool files; here or in other processes.

This file imports little, so that a new process is quick to start.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from sfdkit.data.format import pack_frames
from sfdkit.data.sources import ClipSource, Skip

QUALITY = 92
"""JPEG quality of the frames."""

_FULL_COLOUR_UP_TO = 128  # pixels of a side up to which colour keeps its full resolution (4:4:4)


class SpooledClip(NamedTuple):
    """Where an encoded clip lies in a spool file."""

    spool: Path
    start: int
    json_bytes: int
    frames_bytes: int
    key: str
    identity: str
    frames: int


class Spooled(NamedTuple):
    """All clips of one source."""

    clips: list[SpooledClip]
    skips: list[Skip]
    """What was left out."""


def encode_jpeg(image: np.ndarray, quality: int = QUALITY) -> bytes:
    """Encode a picture; up to 128 pixels a side colour is not subsampled.

    Args:
        image: H W 3 uint8 RGB.
        quality: 1 to 100.
    """
    options = [cv2.IMWRITE_JPEG_QUALITY, quality]
    if max(image.shape[:2]) <= _FULL_COLOUR_UP_TO:
        options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    _, encoded = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)
    return encoded.tobytes()


def spool_clips(job: tuple[int, ClipSource], folder: Path) -> Spooled:
    """Write all clips of a source into one file, encoded; memory holds one clip.

    Args:
        job: Number of the source, which names the file, and the source.
        folder: Where to write the file.

    Returns:
        Where each clip lies, and what was left out.
    """
    number, source = job
    path = folder / f"{number:08d}.clips"
    spooled = Spooled([], [])
    with path.open("wb") as file:
        for frames, meta in source.clips(spooled.skips.append):
            text = json.dumps(meta, ensure_ascii=False, separators=(",", ":")).encode()
            blob = pack_frames([encode_jpeg(frame) for frame in frames])
            spooled.clips.append(
                SpooledClip(path, file.tell(), len(text), len(blob), meta["key"], meta["identity"], len(frames))
            )
            file.write(text)
            file.write(blob)
    return spooled


Mapper = Callable[[Callable[[tuple[int, ClipSource]], Spooled], Iterable[tuple[int, ClipSource]]], Iterator[Spooled]]
"""Applies a function to each source and yields the results in order."""


@contextmanager
def worker_map(workers: int) -> Iterator[Mapper]:
    """Give a ``map`` over sources that works in this process or in others; its results come in order.

    Args:
        workers: Number of processes, each on one core; 0 for none.
    """
    if workers == 0:
        yield map
        return
    with get_context("spawn").Pool(workers, initializer=_use_one_core) as pool:
        yield pool.imap


def _use_one_core() -> None:
    """Keep a worker's libraries to one thread: several per core wait for each other, and take six times as long."""
    cv2.setNumThreads(1)
    os.environ["OMP_NUM_THREADS"] = "1"  # for torch, if it is imported after this
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
