"""Reading and writing videos, one frame in memory at a time (PyAV, https://pyav.org/docs/stable/)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Protocol, Self

import av
import numpy as np
from av.container import InputContainer

from sfdkit.data.gif import GifFile
from sfdkit.data.sound import SoundTrack
from sfdkit.errors import DataError

VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".avi", ".webm", ".mpg", ".mpeg", ".m4v", ".gif")
"""File endings that are taken for videos when a folder is searched."""

WRITE_SUFFIXES = (".mp4", ".gif")
"""File endings that :class:`VideoWriter` knows."""

_TRUE_LENGTH = ("mov", "matroska")  # containers whose declared length does not shrink with the file


class VideoInfo(NamedTuple):
    """What a video says about itself, after its rotation was applied."""

    width: int
    """Pixels."""
    height: int
    """Pixels."""
    fps: float
    """Average frames per second."""
    frames: int
    """As declared; estimated from the length where the file declares none; 0 where both are unknown."""
    has_audio: bool


def _open(path: Path) -> InputContainer:
    if not path.exists():
        raise DataError(f"there is no video {path}: check the path")
    try:
        container = av.open(str(path))
    except (av.FFmpegError, OSError) as error:
        raise DataError(
            f"cannot read {path} as a video ({error.strerror}): give a file that a video player opens, "
            f"for example {', '.join(VIDEO_SUFFIXES)}"
        ) from error
    kind = container.format.name
    if not container.streams.video or kind == "tty" or kind.endswith("_pipe"):
        container.close()
        raise DataError(f"{path} is no video (it was recognised as {kind!r}): give a video file")
    return container


def _upright(frame: av.VideoFrame) -> np.ndarray:
    """Return the picture as it is to be shown, H W 3 uint8 RGB."""
    picture = frame.to_ndarray(format="rgb24")
    turns = round(frame.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(picture, turns)) if turns else picture


def _frames_per_second(container: InputContainer) -> Fraction:
    stream = container.streams.video[0]
    return stream.average_rate or stream.guessed_rate or Fraction(25)


def probe(path: str | Path) -> VideoInfo:
    """Read size, rate, length and the presence of sound; decodes one frame, since rotation may belong to it.

    Args:
        path: A video file.

    Raises:
        DataError: The file is missing, is no video, or holds no frame.
    """
    path = Path(path)
    with _open(path) as container:
        stream = container.streams.video[0]
        fps = float(_frames_per_second(container))
        frames = stream.frames or round((container.duration or 0) / av.time_base * fps)
        has_audio = bool(container.streams.audio)
    first = next(iter(read_frames(path)), None)
    if first is None:
        raise DataError(f"{path} holds no frame: give another video")
    height, width = first[0].shape[:2]
    return VideoInfo(width, height, fps, frames, has_audio)


class _Damage(Exception):
    """The reason why reading stopped before the end."""


def _packets(container: InputContainer) -> Iterator[av.Packet]:
    """Yield the video packets in order.

    Raises:
        _Damage: The file ends before the length that it declares, or a packet is incomplete.
    """
    video = container.streams.video[0]
    end = 0.0
    try:
        for packet in container.demux(video, *container.streams.audio):
            if packet.is_corrupt:
                raise _Damage("a packet is incomplete")
            if packet.pts is not None and packet.time_base is not None:
                end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
            if packet.stream is video and packet.size:
                yield packet
    except av.FFmpegError as error:
        raise _Damage(str(error.strerror)) from error
    if container.duration and container.format.name.startswith(_TRUE_LENGTH):
        promised = (container.duration + (container.start_time or 0)) / av.time_base
        if promised - end > 0.25 + 2 / float(_frames_per_second(container)):
            raise _Damage(f"its data ends at {end:.2f} s of the {promised:.2f} s that it declares")


def _decoded(container: InputContainer) -> Iterator[av.VideoFrame]:
    """Yield all frames that can be decoded, then raise ``_Damage`` when there should have been more."""
    stream = container.streams.video[0]
    damage: _Damage | None = None
    frame: av.VideoFrame | None = None
    try:
        for packet in _packets(container):
            for frame in stream.codec_context.decode(packet):
                yield frame
    except (_Damage, av.FFmpegError) as error:
        damage = error if isinstance(error, _Damage) else _Damage(str(error.strerror))
    try:
        for frame in stream.codec_context.decode(None):
            yield frame
    except av.FFmpegError as error:
        damage = damage or _Damage(str(error.strerror))
    if frame is not None and frame.is_corrupt:
        damage = damage or _Damage("the last frame is incomplete")
    if damage:
        raise damage


def _seek(container: InputContainer, start: float) -> float | None:
    """Go to the last key frame up to a time; return the time stamp of the first frame where it is known and needed."""
    stream = container.streams.video[0]
    if start <= 0 or stream.start_time is None or not container.format.name.startswith(_TRUE_LENGTH):
        return None
    base = stream.time_base or Fraction(1, av.time_base)
    try:
        container.seek(stream.start_time + int(start / base), stream=stream)
    except av.FFmpegError:
        return None
    return float(stream.start_time * base)


def read_frames(path: str | Path, start: float = 0.0) -> Iterator[tuple[np.ndarray, float]]:
    """Decode a video frame by frame; memory does not grow with its length.

    The rotation that phones write beside the picture is applied. Times are the true ones, so a variable frame rate
    is kept. Pixels are taken as square.

    Args:
        path: A video file.
        start: Seconds after the first frame: frames before the last key frame up to then are passed over where the file
            can be searched.

    Yields:
        The picture, H W 3 uint8 RGB, and its time in seconds after the first frame of the video.

    Raises:
        DataError: The file is missing or no video; or it is damaged or cut short, and then only after all frames
            before the damage were yielded. A GIF that was cut between two frames cannot be told from a whole one.
    """
    path = Path(path)
    with _open(path) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        step, base = 1 / float(_frames_per_second(container)), stream.time_base or Fraction(1, av.time_base)
        count, first, time = 0, _seek(container, start), -step
        try:
            for frame in _decoded(container):
                stamp = None if frame.pts is None else float(frame.pts * base)
                if first is None:
                    first = stamp or 0.0
                time = max(stamp - first, time) if stamp is not None else time + step
                count += 1
                yield _upright(frame), time
        except _Damage as damage:
            raise DataError(
                f"{path} is damaged or cut short after {count} frames ({damage}): "
                "copy or export the video again, or cut it before that point"
            ) from damage


class _FrameFile(Protocol):
    """What writes frames of one kind of file."""

    def write(self, frame: np.ndarray) -> None:
        """Append one frame."""

    def close(self) -> None:
        """Finish the file."""

    def abort(self) -> None:
        """Let go of the file, finished or not."""


class _Mp4File:
    """H.264 in mp4: yuv420p, BT.709, crf 18, index at the front; an odd side is padded by one repeated pixel."""

    def __init__(self, path: Path, fps: float, width: int, height: int, audio_from: Path | None) -> None:
        self._sound = SoundTrack(audio_from) if audio_from else None
        self._rate = Fraction(fps).limit_denominator(1001)
        self._container = av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"})
        self._stream: Any = self._container.add_stream("libx264", rate=self._rate, options={"crf": "18"})
        self._stream.width, self._stream.height = width + width % 2, height + height % 2
        self._stream.pix_fmt = "yuv420p"
        context = self._stream.codec_context
        context.colorspace = context.color_primaries = context.color_trc = 1  # BT.709
        context.color_range = 1  # limited
        if self._sound:
            self._sound.attach(self._container)
        self._pad = ((0, height % 2), (0, width % 2), (0, 0))
        self._count = 0

    def write(self, frame: np.ndarray) -> None:
        padded = np.pad(frame, self._pad, mode="edge") if frame.shape[0] % 2 or frame.shape[1] % 2 else frame
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(padded), format="rgb24")
        picture = picture.reformat(format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG")
        picture.pts, picture.time_base = self._count, 1 / self._rate
        self._container.mux(self._stream.encode(picture))
        self._count += 1
        if self._sound:
            self._sound.write_until(float(self._count / self._rate))

    def close(self) -> None:
        self._container.mux(self._stream.encode(None))
        if self._sound:
            self._sound.finish()
        self._container.close()

    def abort(self) -> None:
        if self._sound:
            self._sound.close()
        self._container.close()


class VideoWriter:
    """Write frames to a video, as they come.

    Use it as a context manager. The video is written to a hidden temporary file beside ``path`` and takes its name at
    the end; after an exception nothing is left.

    - ``.mp4``: H.264, 4:2:0, crf 18. An odd width or height grows by one repeated pixel, as 4:2:0 needs even sides.
    - ``.gif``: a palette of 256 colours per frame. GIF counts time in hundredths of a second and viewers slow down
      frames shorter than two, so above 50 frames per second some frames are left out. A GIF is silent.

    Example:
        >>> with VideoWriter("out.mp4", fps=25, audio_from=Path("driving.mp4")) as writer:  # doctest: +SKIP
        ...     writer.write(frame)

    Args:
        path: The file to write; its suffix chooses the format.
        fps: Frames per second.
        audio_from: A file whose sound is copied to an mp4, cut at the length of the pictures; its time 0 is the first
            frame of its own pictures. AAC, MP3, AC-3 and ALAC are copied as they are, others become AAC.
            A file without sound gives a silent video.

    Raises:
        DataError: Unknown suffix, missing folder, no permission, a file that cannot be read, or no frame written.
    """

    def __init__(self, path: str | Path, fps: float, audio_from: Path | None = None) -> None:
        self.path = Path(path)
        if self.path.suffix.lower() not in WRITE_SUFFIXES:
            raise DataError(f"cannot write {self.path}: the suffix must be one of {', '.join(WRITE_SUFFIXES)}")
        if not self.path.parent.is_dir():
            raise DataError(f"cannot write {self.path}: the folder {self.path.parent} does not exist; create it")
        if self.path.is_dir():
            raise DataError(f"cannot write {self.path}: it is a folder; give the name of a file")
        if fps <= 0:
            raise DataError(f"cannot write {self.path} at {fps} frames per second: give a rate above 0")
        self._fps, self._audio_from = fps, audio_from
        self._partial = self.path.with_name(f".{self.path.stem}.{os.getpid()}.partial{self.path.suffix.lower()}")
        self._file: _FrameFile | None = None
        self._shape: tuple[int, ...] = ()
        with self._reported():
            self._partial.touch()

    @contextmanager
    def _reported(self) -> Iterator[None]:
        try:
            yield
        except (av.FFmpegError, OSError) as error:
            raise DataError(f"cannot write {self.path}: {error.strerror}; check permission and free space") from error

    def write(self, frame: np.ndarray) -> None:
        """Append a frame.

        Args:
            frame: H W 3 uint8 RGB; all frames have the size of the first.

        Raises:
            DataError: The disk is full or the encoder refused the size.
        """
        if self._file is None:
            self._shape = frame.shape
            height, width = frame.shape[:2]
            with self._reported():
                if self._partial.suffix == ".gif":
                    self._file = GifFile(self._partial, self._fps, width, height)
                else:
                    self._file = _Mp4File(self._partial, self._fps, width, height, self._audio_from)
        if frame.shape != self._shape:
            raise ValueError(f"all frames of {self.path} must be {self._shape}, this one is {frame.shape}")
        with self._reported():
            self._file.write(frame)

    def __enter__(self) -> Self:
        """Return the writer."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Finish the file and give it its name; after an exception remove it."""
        try:
            if kind is None:
                if self._file is None:
                    raise DataError(f"no frame was written to {self.path}: the source of frames is empty")
                with self._reported():
                    self._file.close()
                    os.replace(self._partial, self.path)
            elif self._file is not None:
                self._file.abort()
        finally:
            self._partial.unlink(missing_ok=True)
