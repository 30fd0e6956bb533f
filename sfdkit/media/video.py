"""Reading and writing videos, one frame in memory at a time (PyAV, https://pyav.org/docs/stable/)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Protocol, Self

import av
import cv2
import numpy as np
from av.container import InputContainer
from av.sidedata.sidedata import Type

from sfdkit.errors import ConfigError, DamageError, DataError
from sfdkit.media.colour import to_rgb
from sfdkit.media.container import LONGEST_PAUSE, file_url, may_start_over, open_media, picture_stream
from sfdkit.media.gif import GifFile
from sfdkit.media.picture import picture_kind, read_animation
from sfdkit.media.sound import SoundTrack

VIDEO_SUFFIXES = (
    *(".mp4", ".mov", ".mkv", ".avi", ".webm", ".m4v", ".3gp", ".3g2", ".divx", ".wmv", ".asf", ".flv", ".f4v"),
    *(".mpg", ".mpeg", ".m2v", ".vob", ".ts", ".mts", ".m2ts", ".ogv", ".ogg", ".ogm", ".rm", ".rmvb", ".mxf", ".gif"),
)
"""File endings that are taken for videos when a folder is searched; a file that is named is known by its content."""

WRITE_SUFFIXES = (".mp4", ".gif")
"""File endings that :class:`VideoWriter` knows."""

FPS_RANGE = (0.1, 1000.0)
"""Frames per second that can be asked for."""

_TRUE_LENGTH = ("mov", "matroska")  # containers whose declared length does not shrink with the file
_NEAR = 0.02  # share by which a declared rate may differ from that of the time stamps
_ROUND = 0.03  # share within which a measured rate becomes a usual one
_USUAL_RATES = (5, 10, 12, 12.5, 15, 20, 24000 / 1001, 24, 25, 30000 / 1001, 30, 48, 50, 60000 / 1001, 60, 90, 100, 120)
_ALIKE = 1.5  # factor within which distances between frames are averaged
_SQUARE_RANGE = (0.2, 5.0)  # of the sample aspect ratio; others are mistakes
_BACK = 0.2  # seconds by which the time of a frame may be wrong
_STILL_BRANDS = ("heic", "heix", "heim", "heis", "mif1", "msf1")  # of HEIF, ISO/IEC 23008-12


def require_fps(fps: float) -> None:
    """Refuse a rate at which nothing can be shown.

    Raises:
        ConfigError: It is out of its range, or no number.
    """
    least, most = FPS_RANGE
    if not least <= fps <= most:
        raise ConfigError(f"fps: {fps} frames per second cannot be shown; give {least:g} to {most:g}")


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
        container = open_media(path)
    except (av.FFmpegError, OSError) as error:
        raise DataError(
            f"cannot read {path} as a video ({error.strerror}): give a file that a video player opens, "
            f"for example {', '.join(VIDEO_SUFFIXES)}"
        ) from error
    kind = container.format.name
    if container.metadata.get("major_brand", "").strip() in _STILL_BRANDS:
        container.close()
        raise DataError(f"{path} is a HEIC picture, which cannot be read: save it as JPEG or PNG")
    if picture_stream(container) is None or kind in ("tty", "image2") or kind.endswith("_pipe"):
        container.close()
        raise DataError(f"{path} is no video (it was recognised as {kind!r}): give a video file")
    return container


def is_video(path: Path) -> bool:
    """Tell by its content whether a file is a video; an animated picture counts, a still one does not."""
    kind = picture_kind(path)
    if kind is not None:
        return kind == "animated"
    try:
        _open(path).close()
    except DataError:
        return False
    return True


class _Showing:
    """Makes of decoded frames what a player shows: all of one size, with square pixels, upright and in BT.709."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._size: tuple[int, int] | None = None

    def __call__(self, frame: av.VideoFrame) -> np.ndarray:
        """Return a frame, H W 3 uint8 RGB, of the size of the first; another shape gets black bars."""
        context = self._stream.codec_context
        picture = to_rgb(frame, int(context.color_trc or 0), int(context.color_primaries or 0))
        height, width = picture.shape[:2]
        aspect = float(self._stream.sample_aspect_ratio or context.sample_aspect_ratio or 1)
        if _SQUARE_RANGE[0] <= aspect <= _SQUARE_RANGE[1]:
            picture = _resized(picture, max(1, round(width * aspect)), height)
        picture = _upright(picture, frame)
        self._size = self._size or (picture.shape[1], picture.shape[0])
        return _fitted(picture, *self._size)


def _resized(picture: np.ndarray, width: int, height: int) -> np.ndarray:
    if picture.shape[:2] == (height, width):
        return picture
    shrinks = 2 * width * height < picture.shape[0] * picture.shape[1]  # else averaging is slow and changes nothing
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)


def _fitted(picture: np.ndarray, width: int, height: int) -> np.ndarray:
    if picture.shape[:2] == (height, width):
        return picture
    scale = min(width / picture.shape[1], height / picture.shape[0])
    inner = _resized(picture, *(max(1, round(side * scale)) for side in picture.shape[1::-1]))
    left, top = (width - inner.shape[1]) // 2, (height - inner.shape[0]) // 2
    right, bottom = width - inner.shape[1] - left, height - inner.shape[0] - top
    return cv2.copyMakeBorder(inner, top, bottom, left, right, cv2.BORDER_CONSTANT)


def _upright(picture: np.ndarray, frame: av.VideoFrame) -> np.ndarray:
    """Apply the display matrix of a frame: a turn by quarters, a mirror, or both.

    The 3 x 3 matrix (ISO/IEC 14496-12, 8.3.2) takes a place (p, q) to (a p + c q, b p + d q), y downwards; it lies in
    memory as a, b, u, c, d, v, x, y, w (https://ffmpeg.org/doxygen/trunk/group__lavu__video__display.html).
    """
    sides: Any = frame.side_data
    matrix = next((data for data in sides if data.type is Type.DISPLAYMATRIX), None)  # by name it takes 0.1 ms
    if matrix is None:
        return picture
    a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32)[:5].tolist()
    if abs(b) + abs(c) > abs(a) + abs(d):
        picture, a, d = picture.transpose(1, 0, 2), c, b
    return np.ascontiguousarray(picture[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])


def _frames_per_second(container: InputContainer) -> Fraction:
    stream = picture_stream(container)
    return stream.average_rate or stream.guessed_rate or Fraction(25)


def _true_rate(declared: float, stamps: list[float]) -> float:
    """Return the frames per second of a clip: as declared, if the times of its frames agree.

    Matroska and WebM need not declare a rate, and then a base of 1000 is mistaken for it; declared averages may be of
    the first frames alone. Else it is that of the usual distance between frames, or the
    round rate near it: a camera's clock is better than the times that a browser writes.

    Args:
        declared: What the file says.
        stamps: When its frames begin, in seconds.
    """
    gaps = np.diff(np.unique(stamps))
    if len(gaps):
        usual = float(np.median(gaps))
        near = gaps[(gaps < _ALIKE * usual) & (gaps > usual / _ALIKE)]
        rates = 1 / float(gaps.mean()), 1 / float(near.mean())
        if not any(abs(declared / rate - 1) <= _NEAR for rate in rates):
            usual = min(_USUAL_RATES, key=lambda rate: abs(rates[1] / rate - 1))
            declared = usual if abs(rates[1] / usual - 1) <= _ROUND else rates[1]
    return float(np.clip(declared, *FPS_RANGE))


def probe(path: str | Path) -> VideoInfo:
    """Read size, rate, length and the presence of sound; decodes one frame, since rotation may belong to it.

    The whole file is read, for the times of its frames: what files declare is often missing or wrong.

    Args:
        path: A video file.

    Raises:
        DataError: The file is missing, is no video, or holds no frame.
    """
    path = Path(path)
    if picture_kind(path) == "animated":
        return _probe_animation(path)
    with _open(path) as container:
        stamps, known = _stamps(container)
        fps = _true_rate(float(_frames_per_second(container)), stamps)
        stream = picture_stream(container)
        frames = known or stream.frames or round((container.duration or 0) / av.time_base * fps)
        has_audio = bool(container.streams.audio)
    first = next(iter(read_frames(path)), None)
    if first is None:
        raise DataError(f"{path} holds no frame: give another video")
    height, width = first[0].shape[:2]
    return VideoInfo(width, height, fps, frames, has_audio)


def _probe_animation(path: Path) -> VideoInfo:
    shown = []
    try:
        for picture, time, length in read_animation(path):
            shown.append((picture.shape, time, length))
    except DataError:
        if not shown:
            raise
    (height, width, _), _, length = shown[0]
    declared = 1 / length if len(shown) == 1 else 0.0  # a single length may be rounded: 8 of 12 in a second last 80 ms
    return VideoInfo(width, height, _true_rate(declared, [time for _, time, _ in shown]), len(shown), False)


def _stamps(container: InputContainer) -> tuple[list[float], int]:
    """Return when the frames of a video begin, in seconds, as far as that is known, and how many there are."""
    stream = picture_stream(container)
    shown, decoded, count = [], [], 0
    try:
        for packet in container.demux(stream):
            if packet.size and not packet.is_discard:
                count += 1
                shown += [] if packet.pts is None else [packet.pts]
                decoded += [] if packet.dts is None else [packet.dts]
    except (av.FFmpegError, OSError):
        pass  # the reading of frames meets the same damage and reports it
    base = float(stream.time_base or Fraction(1, av.time_base))
    return [stamp * base for stamp in (shown if len(shown) >= len(decoded) else decoded)], count


class _Damage(Exception):
    """What could not be read."""


def _packets(container: InputContainer) -> Iterator[av.Packet]:
    """Yield the video packets in order.

    Raises:
        _Damage: The file ends before the length that it declares, or another stream's packet is incomplete.
    """
    video = picture_stream(container)
    end, whole = 0.0, True
    try:
        for packet in container.demux(video, *container.streams.audio):
            if packet.pts is not None and packet.time_base is not None and not packet.is_corrupt:
                end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
            if packet.stream is video and packet.size:
                yield packet
            whole = whole and not packet.is_corrupt
    except av.FFmpegError as error:
        raise _Damage(str(error.strerror)) from error
    if container.duration and container.format.name.startswith(_TRUE_LENGTH):
        promised = (container.duration + (container.start_time or 0)) / av.time_base
        if promised - end > 0.25 + 2 / float(_frames_per_second(container)):
            raise _Damage(f"its data ends at {end:.2f} s of the {promised:.2f} s that it declares")
    if not whole:
        raise _Damage("a packet is incomplete")


def _decoded(container: InputContainer) -> Iterator[av.VideoFrame]:
    """Yield all frames that can be decoded, then raise ``_Damage`` when there should have been more.

    After a packet that cannot be decoded those up to the next key frame are passed over, since they build upon it.
    """
    stream = picture_stream(container)
    context = stream.codec_context
    joins = may_start_over(container)  # where packets beside a join are called incomplete, and are not
    damage: _Damage | None = None
    frame: av.VideoFrame | None = None
    lost = False
    try:
        for packet in _packets(container):
            lost = lost and not packet.is_keyframe
            if lost:
                continue
            try:
                if packet.is_corrupt:
                    damage = damage or _Damage("a packet is incomplete")
                    if not joins:
                        raise damage
                for frame in context.decode(packet):
                    if not (damage and frame.is_corrupt):
                        yield frame
            except (_Damage, av.FFmpegError) as error:
                damage, lost = damage or _reason(error), True
                yield from _held(context)
                context.flush_buffers()
    except _Damage as error:
        damage = damage or error
    try:
        for frame in context.decode(None):
            yield frame
    except av.FFmpegError as error:
        damage = damage or _reason(error)
    if frame is not None and frame.is_corrupt:
        damage = damage or _Damage("the last frame is incomplete")
    if damage:
        raise damage


def _reason(error: Exception) -> _Damage:
    return error if isinstance(error, _Damage) else _Damage(str(getattr(error, "strerror", error)))


def _held(context: Any) -> Iterator[av.VideoFrame]:
    """Yield the whole frames that a decoder still holds."""
    with suppress(av.FFmpegError):
        for frame in context.decode(None):
            if not frame.is_corrupt:
                yield frame


def _seek(container: InputContainer, start: float) -> float | None:
    """Go to the last key frame up to a time; return the time stamp of the first frame where it is known and needed."""
    stream = picture_stream(container)
    if start <= 0 or stream.start_time is None or not container.format.name.startswith(_TRUE_LENGTH):
        return None
    base = stream.time_base or Fraction(1, av.time_base)
    try:
        container.seek(stream.start_time + int(start / base), stream=stream)
    except av.FFmpegError:
        return None
    return float(stream.start_time * base)


def read_frames(path: str | Path, start: float = 0.0) -> Iterator[tuple[np.ndarray, float]]:
    """Decode a video, or an animated picture, frame by frame; memory does not grow with its length.

    Frames come as a player shows them: turned and mirrored as the file says, with square pixels, high dynamic range
    and wide gamuts converted to BT.709, and all of the first one's size. Times are the true ones, so a variable frame
    rate is kept.

    Args:
        path: A video file.
        start: Seconds after the first frame: frames before the last key frame up to then are passed over where the file
            can be searched.

    Yields:
        The picture, H W 3 uint8 RGB, and its time in seconds after the first frame of the video.

    Raises:
        DataError: The file is missing or no video.
        DamageError: It is damaged or cut short, and all frames that can be read were yielded: those before the damage,
            and those from the next key frame on. A GIF that was cut between two frames cannot be told from a whole one.
    """
    path = Path(path)
    kind = picture_kind(path)
    if kind == "still":
        raise DataError(f"{path} is a picture and no video: give a video file")
    yield from _read_animation(path) if kind == "animated" else _read_video(path, start)


def _read_animation(path: Path) -> Iterator[tuple[np.ndarray, float]]:
    count = 0
    try:
        for picture, time, _ in read_animation(path):
            yield picture, time
            count += 1
    except DataError as error:
        raise _ended(path, count, error) from error


def _read_video(path: Path, start: float) -> Iterator[tuple[np.ndarray, float]]:
    with _open(path) as container:
        stream = picture_stream(container)
        stream.thread_type = "AUTO"
        step, base = 1 / float(_frames_per_second(container)), stream.time_base or Fraction(1, av.time_base)
        count, first, time = 0, _seek(container, start), -step
        show, longest = _Showing(stream), LONGEST_PAUSE if may_start_over(container) else float("inf")
        try:
            for frame in _decoded(container):
                stamp = None if frame.pts is None else float(frame.pts * base)
                if first is None:
                    first = stamp or 0.0
                if stamp is not None and count and not -_BACK < stamp - first - time < longest:
                    first = stamp - time - step  # the clock was set anew, as where files were joined
                time = max(stamp - first, time) if stamp is not None else time + step
                count += 1
                yield show(frame), time
        except _Damage as damage:
            raise _ended(path, count, damage) from damage


def _ended(path: Path, count: int, reason: Exception) -> DamageError:
    return DamageError(
        f"{path} is damaged or cut short, {count} of its frames can be read ({reason}): copy or export the video again"
    )


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
        self._container = av.open(file_url(path), "w", format="mp4", options={"movflags": "+faststart"})
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
        require_fps(fps)
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
            what = "check permission and free space" if isinstance(error, OSError) else "give another --size or --fps"
            raise DataError(f"cannot write {self.path}: {error.strerror}; {what}") from error

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
