"""Copying the sound of a file into an mp4."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.container import OutputContainer

from sfdkit.errors import DataError, SfdkitWarning
from sfdkit.media.container import LONGEST_PAUSE, may_start_over, open_media, picture_stream

COPIED_CODECS = ("aac", "ac3", "eac3", "alac")
"""Codecs that every player reads in an mp4: their packets are copied. Others are encoded again as AAC."""

_TRIED = 8  # packets that are copied for a trial
_GAP = 0.1  # seconds by which times may be off before silence fills the gap
_LONGEST_GAP = 3600.0  # seconds; a longer one is a damaged time


class SoundTrack:
    """Copies the sound of a file into an mp4 while its pictures are written.

    Times count from ``start`` on, in seconds after the first picture of ``path``, or the first sound without pictures.
    Only encoded packets up to the time asked for are read, so memory does not grow with the length. Sound that cannot
    be kept never stops the pictures: it ends with a warning.

    Args:
        path: Any file with or without sound.
        start: Seconds that are left out.
        length: Seconds after that at which the sound ends; None for all of it.

    Raises:
        DataError: The file cannot be opened.
    """

    def __init__(self, path: Path, start: float = 0.0, length: float | None = None) -> None:
        self._path, self._start, self._length = path, start, length
        try:
            self._source = open_media(path)
        except (av.FFmpegError, OSError) as error:
            raise DataError(
                f"cannot take the sound of {path} ({error.strerror}): give a video or a sound file"
            ) from error
        self._stream: Any = self._source.streams.audio[0] if self._source.streams.audio else None
        self._container: OutputContainer | None = None
        self._target: Any = None
        self._encodes = False
        self._next: tuple[float, list[av.Packet]] | None = None
        self._feed: Iterator[tuple[float, list[av.Packet]]] = iter(())

    def attach(self, container: OutputContainer) -> None:
        """Add the track to a container before its first packet is written."""
        if self._stream is None:
            return
        context = self._stream.codec_context
        if context is None or not context.sample_rate:
            self._warn("is of a kind that cannot be read", "the video stays silent")
            return
        self._container = container
        if context.codec.canonical_name in COPIED_CODECS and _can_copy(self._path):
            self._target = container.add_stream_from_template(self._stream)
            self._feed = self._copied()
        else:
            self._encodes = True
            self._target = container.add_stream("aac", rate=44100 if context.sample_rate % 11025 == 0 else 48000)
            self._target.layout = "mono" if context.channels == 1 else "stereo"
            self._target.format = "fltp"
            self._feed = self._encoded()

    def _warn(self, what: str, then: str) -> None:
        warnings.warn(f"the sound of {self._path} {what}: {then}", SfdkitWarning, stacklevel=3)

    def _origin(self) -> float:
        """Return the time in the source that is time 0 of the new file, in seconds."""
        stream: Any = picture_stream(self._source) or self._stream
        return float((stream.start_time or 0) * stream.time_base) + self._start

    def _copied(self) -> Iterator[tuple[float, list[av.Packet]]]:
        origin, base = self._origin(), self._stream.time_base
        shift = round(origin / base)
        for packet in self._source.demux(self._stream):
            if packet.pts is None or packet.dts is None or packet.pts < shift:
                continue
            packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
            packet.stream = self._target
            yield float(packet.pts * base), [packet]

    def _decoded(self) -> Iterator[av.AudioFrame]:
        """Yield what can be decoded; a damaged packet is passed over."""
        passed = 0
        for packet in self._source.demux(self._stream):
            try:
                frames = packet.decode()
            except (av.FFmpegError, ValueError):
                passed += 1
                continue
            for frame in frames:
                if isinstance(frame, av.AudioFrame) and frame.samples:
                    yield frame
        if passed:
            self._warn(f"is damaged in {passed} packets", "they are left out")

    def _encoded(self) -> Iterator[tuple[float, list[av.Packet]]]:
        """Yield encoded packets whose times are counted in samples: those of a container may be coarse or repeat."""
        rate, origin, count = self._target.rate, self._origin(), 0
        resample = _Resampler(self._target.layout.name, rate)
        longest = LONGEST_PAUSE if may_start_over(self._source) else _LONGEST_GAP
        for frame in self._decoded():
            time = count / rate if frame.time is None else frame.time - origin
            if time < -_GAP and not count:
                continue
            late = time - count / rate
            gap = round(late * rate) if _GAP < late < longest else 0
            begin, parts = (count + gap) / rate, list(self._silence(gap))
            packets, early = [], round(-time * rate) if self._start and not count else 0
            for part in [*parts, *_without(resample(frame), early)]:
                part.pts, part.time_base = count, Fraction(1, rate)
                count += part.samples
                packets += self._target.encode(part)
            yield begin, packets

    def _silence(self, samples: int) -> Iterator[av.AudioFrame]:
        channels = self._target.layout.nb_channels
        while samples > 0:
            part = np.zeros((channels, min(samples, self._target.rate)), np.float32)
            frame = av.AudioFrame.from_ndarray(part, format="fltp", layout=self._target.layout.name)
            frame.sample_rate = self._target.rate
            samples -= part.shape[1]
            yield frame

    def write_until(self, seconds: float) -> None:
        """Write the sound that begins before ``seconds``."""
        seconds = seconds if self._length is None else min(seconds, self._length)
        while self._container is not None:
            try:
                self._next = self._next or next(self._feed, None)
            except (av.FFmpegError, OSError, ValueError) as error:
                self._end(seconds, error)
            if self._next is None or self._next[0] >= seconds:
                return
            try:
                self._container.mux(self._next[1])
            except ValueError as error:  # the packets are at fault, and not the file, as where the disk is full
                self._end(seconds, error)
            self._next = None

    def _end(self, seconds: float, error: Exception) -> None:
        self._warn(f"cannot be kept from {seconds:.2f} s on ({error})", "the video goes on without it")
        self._feed, self._next = iter(()), None

    def finish(self) -> None:
        """Write what the encoder still holds and close the source; sound after the last call is left out."""
        if self._container is not None and self._encodes:
            self._container.mux(self._target.encode(None))
        self.close()

    def close(self) -> None:
        """Close the source."""
        self._source.close()


def _can_copy(path: Path) -> bool:
    """Tell whether an mp4 takes the sound of a file as it is, by copying its beginning into memory.

    Not where its times may jump: there sound is decoded and counted.
    """
    try:
        with open_media(path) as source, av.open(io.BytesIO(), "w", format="mp4") as trial:
            if may_start_over(source):
                return False
            stream = source.streams.audio[0]
            target = trial.add_stream_from_template(stream)
            last = None
            for packet, _ in zip(source.demux(stream), range(_TRIED), strict=False):
                if packet.dts is None:
                    continue
                if last is not None and packet.dts <= last:
                    return False
                last, packet.stream = packet.dts, target
                trial.mux(packet)
            return last is not None
    except (av.FFmpegError, ValueError):
        return False


def _without(parts: list[av.AudioFrame], samples: int) -> Iterator[av.AudioFrame]:
    """Yield parts of planar floats without so many samples at their begin."""
    for part in parts:
        if samples >= part.samples:
            samples -= part.samples
        elif samples <= 0:
            yield part
        else:
            cut = av.AudioFrame.from_ndarray(part.to_ndarray()[:, samples:].copy(), "fltp", part.layout.name)
            cut.sample_rate, samples = part.sample_rate, 0
            yield cut


class _Resampler:
    """Converts sound, whose format may change on the way, to one rate and layout."""

    def __init__(self, layout: str, rate: int) -> None:
        self._layout, self._rate = layout, rate
        self._kind: tuple[str, str, int] | None = None
        self._resampler: Any = None
        self._mixes = False

    def __call__(self, frame: av.AudioFrame) -> list[av.AudioFrame]:
        """Return the next parts; the first of a kind may give none."""
        frame.pts = None
        kind = frame.format.name, frame.layout.name, frame.sample_rate
        if kind == self._kind:
            return list(self._resampler.resample(_mixed(frame) if self._mixes else frame))
        held = [] if self._resampler is None else list(self._resampler.resample(None))
        self._kind, self._mixes = kind, False
        self._resampler = av.AudioResampler("fltp", self._layout, self._rate)
        try:
            return held + list(self._resampler.resample(frame))
        except ValueError:  # there is no standard layout for so many channels
            self._mixes = True
            self._resampler = av.AudioResampler("fltp", self._layout, self._rate)
            return held + list(self._resampler.resample(_mixed(frame)))


def _mixed(frame: av.AudioFrame) -> av.AudioFrame:
    """Return the mean of all channels as one."""
    values = frame.to_ndarray()
    if not frame.format.is_planar:
        values = values.reshape(-1, frame.layout.nb_channels).T
    mean = values.astype(np.float32).mean(0, keepdims=True)
    if values.dtype.kind in "iu":
        mean = mean / 2.0 ** (8 * values.dtype.itemsize - 1) - (values.dtype.kind == "u")
    made = av.AudioFrame.from_ndarray(mean.astype(np.float32), format="fltp", layout="mono")
    made.sample_rate = frame.sample_rate
    return made
