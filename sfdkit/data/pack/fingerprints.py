"""Hashes over what clips depend on, to notice that an input changed and to know a source again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import cv2

from sfdkit import __version__
from sfdkit.data.pack.encode import QUALITY
from sfdkit.data.pack.sources import ClipSource
from sfdkit.data.pack.video_source import VideoSource
from sfdkit.media.picture import list_pictures


def input_fingerprint(sources: Sequence[VideoSource]) -> str:
    """Return a hash over names, sizes, people and segments of the input, to notice when it changed."""
    digest = hashlib.sha256()
    for source in sources:
        files = list_pictures(source.path) if source.path.is_dir() else [source.path]
        sizes = [(file.name, file.stat().st_size) for file in files]
        line: list[Any] = [source.video, source.identity, source.licence, source.groups, sizes]
        segment = (source.start, source.stop, source.square, source.track)
        if any(segment):
            line.append(segment)
        digest.update(json.dumps(line, ensure_ascii=False).encode() + b"\n")
    return digest.hexdigest()


def source_fingerprint(source: ClipSource) -> str | None:
    """Return a hash over all that the clips of a source depend on; None if it is no video or its files cannot be read.

    These are name, size and modification time of its files and of the detector's, the settings, and the versions of the
    libraries.
    """
    if not isinstance(source, VideoSource):
        return None
    try:
        files = list_pictures(source.path) if source.path.is_dir() else [source.path]
        detector = Path(source.settings.rule.face.detector)
        if detector.is_file():
            files = [*files, detector]
        times = [file.stat().st_mtime_ns for file in files]
        what = [source.key, source.dataset, source.settings.as_json(), input_fingerprint([source]), times]
    except OSError:
        return None
    about = [__version__, cv2.__version__, av.__version__, QUALITY, *what]
    return hashlib.sha256(json.dumps(about).encode()).hexdigest()[:24]
