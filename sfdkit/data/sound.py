"""The sound of one file as the sound track of another."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
from av.container import OutputContainer

from sfdkit.errors import DataError

COPIED_CODECS = ("aac", "mp3", "ac3", "eac3", "alac")
"""Codecs that every player takes in an mp4: their packets are copied. Others are encoded again as AAC."""


class SoundTrack:
    """Feeds the sound of a file into an mp4 that is being written, in step with its pictures.

    Time 0 is the first picture of ``path``, or the first sound where it has no pictures. Only encoded packets up to
    the time asked for are read, so memory does not grow with the length.

    Args:
        path: Any file with or without sound.

    Raises:
        DataError: The file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._source = av.open(str(path))
        except (av.FFmpegError, OSError) as error:
            raise DataError(
                f"cannot take the sound of {path} ({error.strerror}): give a video or a sound file"
            ) from error
        self._stream: Any = self._source.streams.audio[0] if self._source.streams.audio else None
        self._container: OutputContainer | None = None
        self._target: Any = None
        self._next: tuple[float, list[av.Packet]] | None = None
        self._feed: Iterator[tuple[float, list[av.Packet]]] = iter(())

    def attach(self, container: OutputContainer) -> None:
        """Add the track to a container before its first packet is written."""
        if self._stream is None:
            return
        self._container = container
        if self._stream.codec_context.name in COPIED_CODECS:
            self._target = container.add_stream_from_template(self._stream)
            self._feed = self._copied()
        else:
            self._target = container.add_stream("aac", rate=self._stream.rate)
            self._target.layout = "mono" if self._stream.channels == 1 else "stereo"
            self._feed = self._encoded()

    def _origin(self) -> float:
        """Return the time in the source that is time 0 of the new file, in seconds."""
        stream: Any = self._source.streams.video[0] if self._source.streams.video else self._stream
        return float((stream.start_time or 0) * stream.time_base)

    def _copied(self) -> Iterator[tuple[float, list[av.Packet]]]:
        origin, base = self._origin(), self._stream.time_base
        shift = round(origin / base)
        for packet in self._source.demux(self._stream):
            if packet.pts is None or packet.dts is None or packet.pts < shift:
                continue
            packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
            packet.stream = self._target
            yield float(packet.pts * base), [packet]

    def _encoded(self) -> Iterator[tuple[float, list[av.Packet]]]:
        origin = self._origin()
        resampler = av.AudioResampler(format="fltp", layout=self._target.layout, rate=self._target.rate)
        for frame in self._source.decode(self._stream):
            if frame.time is None or frame.time < origin:
                continue
            time = frame.time - origin
            frame.pts = round(time / frame.time_base)
            yield time, [packet for part in resampler.resample(frame) for packet in self._target.encode(part)]

    def write_until(self, seconds: float) -> None:
        """Write the sound that begins before ``seconds``."""
        while self._container is not None:
            if self._next is None:
                try:
                    self._next = next(self._feed, None)
                except av.FFmpegError as error:
                    warnings.warn(
                        f"the sound of {self._path} is damaged ({error.strerror}): it ends there", stacklevel=2
                    )
            if self._next is None or self._next[0] >= seconds:
                return
            self._container.mux(self._next[1])
            self._next = None

    def finish(self) -> None:
        """Write what the encoder still holds and close the source; sound after the last call is left out."""
        if self._container is not None and self._stream.codec_context.name not in COPIED_CODECS:
            self._container.mux(self._target.encode(None))
        self.close()

    def close(self) -> None:
        """Close the source."""
        self._source.close()
