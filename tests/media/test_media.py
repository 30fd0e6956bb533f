"""What people bring: files whose names, rates, shapes and colours are not what a clean export has."""

from __future__ import annotations

import wave
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from sfdkit.apply.frame_source import open_frame_source
from sfdkit.cli import main
from sfdkit.errors import ConfigError, DamageError, DataError, SfdkitWarning
from sfdkit.media.colour import to_rgb
from sfdkit.media.container import is_video
from sfdkit.media.crop import CropRule
from sfdkit.media.frame_rate import require_fps, true_fps
from sfdkit.media.video_reader import probe, read_frames
from sfdkit.media.video_writer import Sound, VideoWriter
from tests.media.test_video import ramp, write

WHOLE = CropRule("none")


def encode(
    path: Path,
    pictures: list[np.ndarray],
    codec: str = "libx264",
    stamps: list[int] | None = None,
    rate: int = 25,
    **context: object,
) -> Path:
    """Write a video with everything a stream can declare; ``stamps`` in thousandths of a second."""
    with av.open(f"file:{path}", "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for name, value in context.items():
            setattr(stream.codec_context, name, value)
        matrix = {1: "ITU709", 5: "ITU601", 9: "BT2020"}[int(context.get("colorspace", 5))]  # type: ignore[call-overload]
        if stamps:
            stream.codec_context.time_base = Fraction(1, 1000)
        for number, picture in enumerate(pictures):
            kind = "rgb48le" if picture.dtype == np.uint16 else "rgb24"
            frame = av.VideoFrame.from_ndarray(picture, format=kind)
            frame = frame.reformat(
                format=stream.pix_fmt, dst_colorspace=matrix, dst_color_range=context.get("color_range", 1)
            )
            frame.pts, frame.time_base = (stamps[number], Fraction(1, 1000)) if stamps else (number, Fraction(1, rate))
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def error(picture: np.ndarray, true: np.ndarray) -> float:
    return float(np.abs(picture.astype(float) - true).mean())


@pytest.mark.parametrize(("aspect", "width"), [("4/3", 64), ("16/11", 70), ("3/4", 36), ("1/100", 48)])
def test_pixels_become_square(tmp_path: Path, aspect: str, width: int) -> None:
    path = encode(tmp_path / "a.mp4", [ramp(0, 48, 48)] * 2, sample_aspect_ratio=Fraction(aspect))
    assert next(read_frames(path))[0].shape == (48, width, 3)
    assert probe(path)[:2] == (width, 48)


def test_later_sizes_are_brought_to_the_first(tmp_path: Path) -> None:
    bars = np.full((48, 96, 3), 255, np.uint8)
    with av.open(str(tmp_path / "all.ts"), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 96, "yuv420p"
        for part, picture in enumerate((ramp(0, 96, 96), ramp(0, 64, 64), bars)):
            encoder = av.CodecContext.create("libx264", "w")
            encoder.height, encoder.width = picture.shape[:2]
            encoder.pix_fmt, encoder.time_base = "yuv420p", Fraction(1, 25)
            frames = [av.VideoFrame.from_ndarray(picture) for _ in range(3)]
            for number, frame in enumerate([*frames, None]):
                if frame is not None:
                    frame.pts, frame.time_base = 3 * part + number, Fraction(1, 25)
                for packet in encoder.encode(frame):
                    packet.stream = stream
                    container.mux(packet)
    read = [picture for picture, _ in read_frames(tmp_path / "all.ts")]
    assert len(read) == 9 and {picture.shape for picture in read} == {(96, 96, 3)}
    assert error(read[5], read[0]) < 4
    assert read[8][:20].max() < 16 and read[8][40:56].min() > 235  # its shape is kept


@pytest.mark.parametrize("matrix", [1, 5])
@pytest.mark.parametrize("extent", [1, 2])
def test_each_matrix_and_range_is_read_by_its_own(tmp_path: Path, matrix: int, extent: int) -> None:
    path = encode(tmp_path / "a.mp4", [ramp(12)] * 2, colorspace=matrix, color_range=extent)
    assert error(next(read_frames(path))[0], ramp(12)) < 3


def to_pq(light: np.ndarray) -> np.ndarray:
    """Light in cd/m2 to the signal of SMPTE ST 2084."""
    power = (light / 10000) ** 0.1593017578125
    return ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375


def to_hlg(light: np.ndarray) -> np.ndarray:
    """Light of a scene, up to 1, to the signal of ITU-R BT.2100."""
    return np.where(
        light <= 1 / 12, np.sqrt(3 * light), 0.17883277 * np.log(np.maximum(12 * light - 0.28466892, 1e-9)) + 0.55991073
    )


def hdr_of(picture: np.ndarray, transfer: int) -> np.ndarray:
    """Return an ordinary picture as H W 3 uint16 of BT.2020, its white as bright as BT.2408 asks for."""
    to_2020 = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])
    light = (picture / 255.0) ** 2.2 @ to_2020.T
    signal = to_pq(203 * light) if transfer == 16 else to_hlg(0.265 * light)
    return np.rint(65535 * signal).astype(np.uint16)


@pytest.mark.parametrize("transfer", [16, 18])
@pytest.mark.parametrize("extent", [1, 2])
def test_high_dynamic_range_looks_like_the_ordinary_picture(tmp_path: Path, transfer: int, extent: int) -> None:
    colours = ramp(12) * 0.8
    frames = [hdr_of(colours, transfer)] * 2
    marks = {"colorspace": 9, "color_primaries": 9, "color_trc": transfer, "color_range": extent}
    path = encode(tmp_path / "a.mp4", frames, pix_fmt="yuv420p10le", **marks)
    assert error(next(read_frames(path))[0], colours) < 5


@pytest.mark.parametrize("transfer", [16, 18])
def test_high_dynamic_range_may_have_the_primaries_of_bt709(transfer: int) -> None:
    red = np.zeros((4, 4, 3), np.uint16)
    red[..., 0] = 30_000
    frame = av.VideoFrame.from_ndarray(red, format="rgb48le")
    assert to_rgb(frame, transfer, 1)[0, 0, 0] < to_rgb(frame, transfer, 9)[0, 0, 0]
    grey = av.VideoFrame.from_ndarray(np.full((4, 4, 3), 30_000, np.uint16), format="rgb48le")
    assert np.abs(to_rgb(grey, transfer, 1).astype(int) - to_rgb(grey, transfer, 9)).max() <= 1


def test_highlights_are_rolled_off_and_order_is_kept() -> None:
    nits = np.array([0, 1, 100, 203, 400, 1000, 4000, 10000.0])
    signal = np.rint(65535 * to_pq(nits)).astype(np.uint16)
    frame = av.VideoFrame.from_ndarray(np.repeat(np.tile(signal[None, :, None], (8, 1, 3)), 4, 1), format="rgb48le")
    row = to_rgb(frame, 16, 1)[0, ::4, 0].astype(int)
    assert row[0] == 0 and 180 < row[2] < 190 and 235 < row[3] < 250
    assert all(np.diff(row) >= 0) and row[3] < row[4] < row[5]


def test_a_wide_gamut_is_converted() -> None:
    red = np.zeros((8, 8, 3), np.uint16)
    red[..., 0], red[..., 1] = 60000, 15000
    frame = av.VideoFrame.from_ndarray(red, format="rgb48le")
    plain, wide = to_rgb(frame, 1, 1)[0, 0], to_rgb(frame, 1, 12)[0, 0]
    assert wide[0] > plain[0] and wide[1] < plain[1]


@pytest.mark.parametrize(
    ("declared", "stamps", "rate"),
    [
        (25, [0.04 * k for k in range(50)], 25),
        (30000 / 1001, [round(k * 1.001 / 30, 3) for k in range(60)], 30000 / 1001),
        (1000, [round(k / 30, 3) for k in range(60) if k % 5], 30),
        (1000, [k / 1000 for k in range(100)], 1000),
        (240, [k / 240 for k in range(100)], 240),
        (90000, [0.0, 7.0, 14.0], 1 / 7),
        (9.37, [0, 0.04, 0.08, 0.2, 0.21, 0.6, 0.64], 9.37),
        (3, [0, 0.04, 0.08, 0.2, 0.21, 0.6, 0.64], 25),
        (60, [0.0], 60),
        (1e9, [], 1000),
    ],
)
def test_the_rate_is_that_of_the_time_stamps(declared: float, stamps: list[float], rate: float) -> None:
    assert true_fps(declared, stamps) == pytest.approx(rate, rel=0.06)


def test_a_recording_that_claims_a_thousand_frames_a_second(tmp_path: Path) -> None:
    stamps = [33 * k + (k % 3) for k in range(48) if k not in (7, 8, 20)]
    path = encode(tmp_path / "a.webm", [ramp(k) for k in range(45)], "libvpx", stamps, rate=1000)
    driver = open_frame_source(path, 16, WHOLE)
    assert 25 <= driver.fps <= 31
    assert 44 <= len(list(driver)) <= 50 and driver.frames == pytest.approx(45, abs=5)


@pytest.mark.parametrize("name", ["a.webp", "a.png", "a.gif", "named.mp4", "no_suffix"])
def test_animated_pictures_are_videos(tmp_path: Path, name: str) -> None:
    frames = [Image.fromarray(np.full((24, 32, 3), 60 * k, np.uint8)) for k in range(4)]
    kind = {"webp": "WEBP", "gif": "GIF"}.get(name[-4:].strip("."), "PNG")
    extra = {"lossless": True} if kind == "WEBP" else {}
    frames[0].save(tmp_path / name, kind, save_all=True, append_images=frames[1:], duration=100, loop=0, **extra)
    driver = open_frame_source(tmp_path / name, 16, WHOLE)
    assert (driver.clip.kind, driver.fps, driver.frames) == ("video", 10.0, 4) and is_video(tmp_path / name)
    assert [round(float(f.mean()) / 60) for f in driver] == [0, 1, 2, 3]
    assert [round(time, 3) for _, time in read_frames(tmp_path / name)] == [0.0, 0.1, 0.2, 0.3]


def test_an_animation_of_rounded_lengths_that_was_cut(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (12, 48, 64, 3), np.uint8)
    frames = [Image.fromarray(frame) for frame in noise]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:], duration=[80, 80, 90] * 4)
    driver = open_frame_source(tmp_path / "a.gif", 16, WHOLE)
    assert driver.fps == pytest.approx(12, rel=0.01) and len(list(driver)) == 12
    (tmp_path / "cut.gif").write_bytes((tmp_path / "a.gif").read_bytes()[: (tmp_path / "a.gif").stat().st_size // 2])
    with pytest.warns(SfdkitWarning, match=r"cut\.gif is damaged or cut short, \d of its frames"):
        assert 3 < len(list(open_frame_source(tmp_path / "cut.gif", 16, WHOLE))) < 8


@pytest.mark.parametrize("name", ["a.webp", "a.png", "a.gif"])
def test_each_frame_of_an_animation_lasts_as_long_as_it_says(tmp_path: Path, name: str) -> None:
    frames = [Image.fromarray(np.full((24, 32, 3), 60 * k, np.uint8)) for k in range(4)]
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], duration=[100, 300, 50, 50], loop=0)
    assert [round(time, 3) for _, time in read_frames(tmp_path / name)] == [0.0, 0.1, 0.4, 0.45]


def test_a_transparent_animation_lies_on_white_and_leaves_its_stand_in_out(tmp_path: Path) -> None:
    stand_in, clear, red = (Image.new("RGBA", (8, 8), c) for c in ("blue", (255, 0, 0, 0), (255, 0, 0, 255)))
    stand_in.save(tmp_path / "a.png", save_all=True, append_images=[clear, red], duration=40, default_image=True)
    assert [picture[0, 0].tolist() for picture, _ in read_frames(tmp_path / "a.png")] == [[255] * 3, [255, 0, 0]]


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.avi"])
def test_a_damaged_packet_costs_no_more_than_what_builds_upon_it(tmp_path: Path, name: str) -> None:
    pictures = [ramp(0, 96, 96) for _ in range(30)]
    for number, picture in enumerate(pictures):
        picture[40:56, 40:56] = 8 * number  # too little for a key frame where none is due
    path = encode(tmp_path / name, pictures, gop_size=10, max_b_frames=0)
    with av.open(str(path)) as container:
        packet = [p for p in container.demux(video=0) if p.size][13]
    content = bytearray(path.read_bytes())
    start = int(packet.pos or 0)
    content[start : start + packet.size] = bytes(packet.size)
    path.write_bytes(content)
    read = {}
    with pytest.raises(DamageError, match=r"is damaged or cut short, 2\d of its frames can be read"):
        for picture, time in read_frames(path):
            read[round(25 * time)] = picture
    assert set(read) >= {*range(13), *range(20, 30)} and 13 not in read
    assert max(error(read[number], pictures[number]) for number in (12, 20, 29)) < 4
    with pytest.warns(SfdkitWarning, match="these are used"):
        assert len(list(open_frame_source(path, 16, WHOLE))) == 30  # in step with its sound


@pytest.mark.parametrize("later", [0, 90_000])
def test_joined_streams_follow_each_other(tmp_path: Path, later: int) -> None:
    for part, start in (("a.ts", 0), ("b.ts", later)):
        stamps = [1000 * start + 40 * k for k in range(25)]
        encode(tmp_path / part, [ramp(k) for k in range(25)], stamps=stamps, max_b_frames=0)
    joined = tmp_path / "joined.ts"
    joined.write_bytes((tmp_path / "a.ts").read_bytes() + (tmp_path / "b.ts").read_bytes())
    times = []
    with suppress(DamageError):  # FFmpeg may take the join itself for damage
        for _, time in read_frames(joined):
            times.append(time)
    assert len(times) == 50 and np.allclose(np.diff(times), 0.04, atol=0.02)


def test_text_that_is_called_a_picture_is_no_video(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("a few words")
    assert not is_video(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"cannot read .*a\.png as a picture"):
        open_frame_source(tmp_path / "a.png", 16, WHOLE)


@pytest.mark.parametrize("fps", [1e9, 1e-9, 0.0, -1.0, float("nan"), float("inf")])
def test_rates_that_cannot_be_shown_are_refused(tmp_path: Path, fps: float) -> None:
    with pytest.raises(ConfigError, match=r"fps: .* give 0\.1 to 1000"):
        require_fps(fps)
    with pytest.raises(ConfigError, match=r"fps: "):
        VideoWriter(tmp_path / "a.mp4", fps)


def test_a_colon_in_a_relative_name_is_no_protocol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    name = Path("12:30 call.mp4")
    write(name, 5)
    assert len(list(read_frames(name))) == probe(name).frames == 5
    with VideoWriter("http:copy.mp4", 25, Sound(sounding(Path("tone:1.mkv"), "pcm_s16le", 48000, 1))) as writer:
        writer.write(ramp(0))
    assert heard(Path("http:copy.mp4"))[0] > 0


def sounding(path: Path, codec: str, rate: int, channels: int, seconds: float = 1.0) -> Path:
    """Write pictures with a tone."""
    with av.open(f"file:{path}", "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        layout = {1: "mono", 2: "stereo", 6: "5.1"}[channels]
        sound = container.add_stream(codec, rate=rate, layout=layout)
        for number in range(round(25 * seconds)):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(ramp(number))))
        tone = np.sin(np.arange(round(seconds * rate)) / rate * 2 * np.pi * 440) * 9000
        shape = np.repeat(tone[None].astype(np.int16), channels, 0)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(shape), format="s16p", layout=layout)
        frame.sample_rate, frame.pts = rate, 0
        frame.time_base = Fraction(1, rate)
        for part in av.AudioResampler(sound.format.name, layout, rate).resample(frame):
            container.mux(sound.encode(part))
        container.mux(sound.encode(None))
        container.mux(stream.encode(None))
    return path


def heard(path: Path) -> tuple[float, float]:
    """Return the length of the sound in seconds, and its loudness."""
    with av.open(f"file:{path}") as container:
        frames = [frame for frame in container.decode(audio=0)]
    values = np.concatenate([frame.to_ndarray().mean(0) for frame in frames])
    return len(values) / frames[0].sample_rate, float(np.sqrt((values.astype(float) ** 2).mean()))


@pytest.mark.parametrize(
    ("suffix", "codec", "rate", "channels"),
    [
        (".avi", "libmp3lame", 44100, 2),
        (".avi", "libmp3lame", 11025, 1),
        (".mkv", "libmp3lame", 48000, 2),
        (".mkv", "pcm_s16le", 192000, 2),
        (".mkv", "flac", 176400, 1),
        (".mkv", "pcm_s16le", 11025, 1),
        (".mkv", "pcm_s16le", 8000, 1),
        (".mkv", "pcm_s24le", 96000, 6),
        (".mkv", "ac3", 48000, 6),
        (".webm", "libopus", 48000, 2),
        (".ts", "aac", 44100, 2),
        (".mp4", "aac", 96000, 1),
    ],
)
def test_sound_of_any_rate_and_kind_is_written(
    tmp_path: Path, suffix: str, codec: str, rate: int, channels: int
) -> None:
    if codec not in av.codecs_available:
        pytest.skip(f"this PyAV has no {codec}")
    source = tmp_path / f"a{suffix}"
    if suffix == ".webm":
        suffix = ".mkv"
        source = tmp_path / "a.mkv"
    sounding(source, codec, rate, channels)
    with VideoWriter(tmp_path / "o.mp4", 25, Sound(source)) as writer:
        for number in range(25):
            writer.write(ramp(number))
    length, loud = heard(tmp_path / "o.mp4")
    assert length == pytest.approx(1.0, abs=0.15) and loud > 0.05
    assert probe(tmp_path / "o.mp4").frames == 25


@pytest.mark.parametrize("channels", [3, 9])
def test_channels_without_a_place_are_kept(tmp_path: Path, channels: int) -> None:
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setparams((channels, 2, 48000, 0, "NONE", ""))
        tone = (np.sin(np.arange(48000) / 17) * 9000).astype("<i2")
        file.writeframes(np.repeat(tone[:, None], channels, 1).tobytes())
    with VideoWriter(tmp_path / "o.mp4", 25, Sound(tmp_path / "a.wav")) as writer:
        for number in range(25):
            writer.write(ramp(number))
    length, loud = heard(tmp_path / "o.mp4")
    assert length == pytest.approx(1.0, abs=0.15) and loud > 0.05


def test_sound_that_breaks_off_does_not_lose_the_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = sounding(tmp_path / "a.mkv", "pcm_s16le", 48000, 1)

    def broken(*_: object) -> None:
        raise ValueError("no such thing")

    monkeypatch.setattr("sfdkit.media.sound._Resampler.__call__", broken)
    with (
        pytest.warns(SfdkitWarning, match=r"sound of .*a\.mkv cannot be kept"),
        VideoWriter(tmp_path / "o.mp4", 25, Sound(source)) as writer,
    ):
        for number in range(10):
            writer.write(ramp(number))
    assert len(list(read_frames(tmp_path / "o.mp4"))) == 10


@pytest.mark.parametrize(
    "words",
    [
        "edit --checkpoint m.ckpt --source p.png --axis motion:0 --from -1 --to 1 --output p.png",
        "interpolate --checkpoint m.ckpt --source a.png --target p.png --output p.png",
        "motion extract --checkpoint m.ckpt --driving p.png --output p.png",
        "motion extract --checkpoint t.safetensors --driving p.png --output t.safetensors",
        "crop preview --root frames --output frames/sheet.png",
        "crop preview --root frames --output link.png",
        "evaluate --checkpoint m.ckpt --shards s --output out --protocol pairs --pairs out/pairs.csv",
        "shards copy --source frames --target frames",
    ],
)
def test_no_command_replaces_what_it_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("m.ckpt", "a.png", "p.png", "t.safetensors", "frames/1.png", "out/pairs.csv", "s/index.json"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text(name)
    Path("link.png").hardlink_to("frames/1.png")
    Path("s/index.json").unlink()
    assert main(words.split()) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and ("which would be replaced" in said or "which is read" in said)
    assert all(path.read_text() in (path.as_posix(), "frames/1.png") for path in Path().rglob("*") if path.is_file())
