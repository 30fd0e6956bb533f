"""Writing videos frame by frame with PyAV: H.264, H.265 or AV1 with sound in mp4, or an animated GIF or WebP."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self, TypeAlias

import av
import numpy as np
from av.filter import Graph

from sfdkit.errors import DataError
from sfdkit.files import atomic_write
from sfdkit.media.container import file_url
from sfdkit.media.frame_rate import require_fps
from sfdkit.media.sound import SoundTrack

WRITE_SUFFIXES = (".mp4", ".gif", ".webp")
"""Suffixes that :class:`VideoWriter` knows."""

Codec: TypeAlias = Literal["h264", "hevc", "av1"]

_ENCODERS: dict[Codec, str] = {"h264": "libx264", "hevc": "libx265", "av1": "libsvtav1"}
_QUIET = {"hevc": {"x265-params": "log-level=error"}}


class Encoding(NamedTuple):
    """How an mp4 is encoded."""

    codec: Codec = "h264"
    """``h264`` plays everywhere; ``hevc`` (H.265) and ``av1`` are smaller."""
    crf: int = 18
    """Constant rate factor: 0 is best, 51 (63 for av1) worst; each has its own scale."""


USUAL = Encoding()


class Sound(NamedTuple):
    """The sound that goes into an mp4."""

    path: Path
    """A file with sound; one without gives a silent video."""
    start: float = 0.0
    """Seconds after the first of the file's own pictures at which it begins."""
    length: float | None = None
    """Seconds that are taken; None for all."""


_SHORTEST_WEBP = 0.0105  # seconds; viewers show shorter frames of a WebP for a tenth of a second
_SHORTEST = 2  # hundredths of a second; viewers play shorter frames of a GIF at a tenth of a second


class _Mp4Encoder:
    """An mp4: yuv420p, BT.709, index at the front; an odd side is padded by one repeated pixel."""

    def __init__(
        self, path: Path, fps: float, width: int, height: int, sound: Sound | None, encoding: Encoding
    ) -> None:
        self._sound = SoundTrack(*sound) if sound else None
        self._rate = Fraction(fps).limit_denominator(1001)
        self._container = av.open(file_url(path), "w", format="mp4", options={"movflags": "+faststart"})
        options = {"crf": str(encoding.crf), **_QUIET.get(encoding.codec, {})}
        encoder: Any = _ENCODERS[encoding.codec]
        os.environ.setdefault("SVT_LOG", "1")  # of the AV1 encoder: errors alone
        self._stream: Any = self._container.add_stream(encoder, rate=self._rate, options=options)
        self._stream.width, self._stream.height = width + width % 2, height + height % 2
        self._stream.pix_fmt = "yuv420p"
        context = self._stream.codec_context
        if encoding.codec == "hevc":
            context.codec_tag = "hvc1"  # the only one that Apple's players take
        context.colorspace = context.color_primaries = context.color_trc = 1  # BT.709
        context.color_range = 1  # limited
        if self._sound:
            self._sound.attach(self._container)
        self._pad = ((0, height % 2), (0, width % 2), (0, 0))
        self._count = 0

    def write(self, frame: np.ndarray) -> None:
        picture = av.VideoFrame.from_ndarray(np.pad(frame, self._pad, mode="edge"), format="rgb24")
        picture = picture.reformat(format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG")
        picture.pts, picture.time_base = self._count, 1 / self._rate
        self._container.mux(self._stream.encode(picture))
        self._count += 1
        if self._sound:
            self._sound.write_until(float(self._count / self._rate))

    def finish(self) -> None:
        self._container.mux(self._stream.encode(None))
        if self._sound:
            self._sound.finish()
        self._container.close()

    def abort(self) -> None:
        if self._sound:
            self._sound.close()
        self._container.close()


class _GifEncoder:
    """An endless animated GIF, dithered to a palette of each frame's own, so that late colours are as good as early."""

    def __init__(self, path: Path, fps: float, width: int, height: int) -> None:
        self._fps, self._count, self._shown = fps, 0, -_SHORTEST
        base, last = Fraction(1, 100), str(max(_SHORTEST, round(100 / fps)))
        self._container = av.open(file_url(path), "w", format="gif", options={"final_delay": last})
        self._stream: Any = self._container.add_stream("gif", rate=1 / base)
        self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, "pal8"
        self._graph = Graph()
        source = self._graph.add_buffer(
            width=width, height=height, format=av.VideoFormat("rgb24", width, height), time_base=base
        )
        split, palette = self._graph.add("split"), self._graph.add("palettegen", "stats_mode=single")
        dither, sink = self._graph.add("paletteuse", "new=1:dither=floyd_steinberg"), self._graph.add("buffersink")
        for one, other, out, into in ((source, split, 0, 0), (split, dither, 0, 0), (split, palette, 1, 0)):
            one.link_to(other, out, into)
        palette.link_to(dither, 0, 1)
        dither.link_to(sink)
        self._graph.configure()

    def write(self, frame: np.ndarray) -> None:
        tick = round(100 * self._count / self._fps)
        self._count += 1
        if tick - self._shown >= _SHORTEST:
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            picture.pts, picture.time_base = tick, Fraction(1, 100)
            self._shown = tick
            self._encode(picture)

    def _encode(self, picture: av.VideoFrame | None) -> None:
        self._graph.vpush(picture)
        while True:
            try:
                self._container.mux(self._stream.encode(self._graph.vpull()))
            except (av.BlockingIOError, av.EOFError):
                return

    def finish(self) -> None:
        self._encode(None)
        self._container.mux(self._stream.encode(None))
        self._container.close()

    def abort(self) -> None:
        self._container.close()


class _WebpEncoder:
    """An endless animated WebP of quality 85."""

    def __init__(self, path: Path, fps: float, width: int, height: int) -> None:
        rate = Fraction(fps).limit_denominator(1001)
        self._base, self._count, self._shown = 1 / rate, 0, -1.0
        self._container = av.open(file_url(path), "w", format="webp", options={"loop": "0"})
        self._stream: Any = self._container.add_stream("libwebp_anim", rate=rate, options={"quality": "85"})
        self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, "yuv420p"

    def write(self, frame: np.ndarray) -> None:
        if (now := float(self._count * self._base)) - self._shown >= _SHORTEST_WEBP:
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            picture.pts, picture.time_base, self._shown = self._count, self._base, now
            self._container.mux(self._stream.encode(picture))
        self._count += 1

    def finish(self) -> None:
        self._container.mux(self._stream.encode(None))
        self._container.close()

    def abort(self) -> None:
        self._container.close()


class VideoWriter:
    """Writes frames to a video, as they come.

    Use it as a context manager. The file appears whole when the block ends, and not at all after an exception.

    - ``.mp4``: 4:2:0. An odd width or height grows by one repeated pixel, as 4:2:0 needs even sides.
    - ``.gif``: a palette of 256 colours per frame. GIF counts time in hundredths of a second and viewers slow down
      frames shorter than two, so above 50 frames per second some frames are left out. A GIF is silent.
    - ``.webp``: in all colours, and a tenth of a GIF's size; silent, and no more than 16,383 pixels wide. Viewers show
      frames of 10 ms and less for 100, so from 90 frames per second on some are left out.

    Example:
        >>> with VideoWriter("out.mp4", fps=25, sound=Sound(Path("driving.mp4"))) as writer:  # doctest: +SKIP
        ...     writer.write(frame)

    Args:
        path: The file to write; its suffix chooses the format.
        fps: Frames per second.
        sound: What an mp4 gets, cut at the length of the pictures. AAC, AC-3 and ALAC are copied as they are, others
            become AAC.
        encoding: Of an mp4.

    Raises:
        ConfigError: A frame rate out of range.
        DataError: Unknown suffix, missing folder, no permission, a file that cannot be read, or no frame written.
    """

    def __init__(self, path: str | Path, fps: float, sound: Sound | None = None, encoding: Encoding = USUAL) -> None:
        self.path = Path(path)
        if self.path.suffix.lower() not in WRITE_SUFFIXES:
            raise DataError(f"cannot write {self.path}: the suffix must be one of {', '.join(WRITE_SUFFIXES)}")
        if not self.path.parent.is_dir():
            raise DataError(f"cannot write {self.path}: the folder {self.path.parent} does not exist; create it")
        if self.path.is_dir():
            raise DataError(f"cannot write {self.path}: it is a folder; give the name of a file")
        require_fps(fps)
        self._fps, self._sound, self._encoding = fps, sound, encoding
        self._encoder: _Mp4Encoder | _GifEncoder | _WebpEncoder | None = None
        self._shape: tuple[int, ...] = ()

    @contextmanager
    def _reported(self) -> Iterator[None]:
        try:
            yield
        except (av.FFmpegError, OSError) as error:
            what = "check permission and free space" if isinstance(error, OSError) else "give another --size or --fps"
            raise DataError(f"cannot write {self.path}: {error.strerror}; {what}") from error

    def write(self, frame: np.ndarray) -> None:
        """Append a frame.

        Args:
            frame: H W 3 uint8 RGB; all frames have the size of the first.

        Raises:
            DataError: The disk is full or the encoder refused the size.
        """
        with self._reported():
            if self._encoder is None:
                self._shape = frame.shape
                self._encoder = self._open(width=frame.shape[1], height=frame.shape[0])
            if frame.shape != self._shape:
                raise ValueError(f"all frames of {self.path} must be {self._shape}, this one is {frame.shape}")
            self._encoder.write(frame)

    def _open(self, width: int, height: int) -> _Mp4Encoder | _GifEncoder | _WebpEncoder:
        if self.path.suffix.lower() == ".gif":
            return _GifEncoder(self._part, self._fps, width, height)
        if self.path.suffix.lower() == ".webp":
            return _WebpEncoder(self._part, self._fps, width, height)
        return _Mp4Encoder(self._part, self._fps, width, height, self._sound, self._encoding)

    def __enter__(self) -> Self:
        """Create a temporary file beside the final one."""
        with ExitStack() as stack:
            self._part = stack.enter_context(atomic_write(self.path))
            with self._reported():
                self._part.touch()
            stack.push(self._finish)
            self._stack = stack.pop_all()
        return self

    def _finish(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            if self._encoder is not None:
                self._encoder.abort()
            return
        if self._encoder is None:
            raise DataError(f"no frame was written to {self.path}: the source of frames is empty")
        with self._reported():
            self._encoder.finish()

    def __exit__(self, *error: Any) -> None:
        """Finish the file and give it its name; after an exception remove it."""
        self._stack.__exit__(*error)
