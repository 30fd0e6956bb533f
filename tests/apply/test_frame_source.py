from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sfdkit.apply.clip import kind_of, resample_frames
from sfdkit.apply.frame_source import open_frame_source, read_source
from sfdkit.errors import ConfigError, DataError, SfdkitWarning
from sfdkit.media.crop import CropRule, Place, crop_resize
from tests.written import puppet_frames, write_video


def ramp(count: int) -> list[np.ndarray]:
    return [np.full((32, 32, 3), 10 * k, np.uint8) for k in range(count)]


def numbered(times: list[float]) -> Iterator[tuple[np.ndarray, float]]:
    return ((np.full((1, 1, 3), number, np.uint8), time) for number, time in enumerate(times))


def shown(times: list[float], fps: float) -> list[int]:
    return [int(frame[0, 0, 0]) for frame in resample_frames(numbered(times), fps)]


def test_a_steady_clip_stays_as_it_is() -> None:
    jitter = np.random.default_rng(0).uniform(-0.003, 0.003, 50)
    times = list(np.arange(50) / 29.97 + jitter + 1.5)
    assert shown(times, 29.97) == list(range(50))


def test_uneven_times_repeat_and_drop_frames_so_that_the_length_stays() -> None:
    assert shown([0.0, 0.1, 0.4, 0.41, 0.5], 10) == [0, 1, 1, 1, 2, 4]
    half = shown([k / 20 for k in range(40)], 10)
    assert half == list(range(0, 40, 2))
    double = shown([k / 10 for k in range(20)], 20)
    assert len(double) == 40 and double[-1] == 19 and set(double) == set(range(20))
    assert len(shown([k / 25 for k in range(50)], 10)) == 20
    assert shown([3.0], 25) == [0]
    assert shown([], 25) == []


def test_a_video_is_delivered_at_its_rate_and_size(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", ramp(12), fps=10)
    driver = open_frame_source(path, 16, CropRule("none"))
    frames = list(driver)
    assert (driver.fps, driver.frames, driver.clip.has_sound, driver.clip.kind) == (10.0, 12, False, "video")
    assert all(f.shape == (16, 16, 3) and f.dtype == np.uint8 for f in frames)
    levels = [float(f.mean()) for f in frames]
    assert levels == pytest.approx([10 * k for k in range(12)], abs=4)
    assert [float(f.mean()) for f in driver] == levels


def test_another_rate_keeps_the_length(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", ramp(12), fps=10)
    driver = open_frame_source(path, 16, CropRule("none"), fps=5)
    levels = [float(f.mean()) for f in driver]
    assert (driver.fps, driver.frames) == (5.0, 6)
    assert levels == pytest.approx([0, 20, 40, 60, 80, 100], abs=4)


@pytest.mark.parametrize(("start", "end", "wanted"), [(1.0, 5.0, [0] * 10 + [1] * 20 + [2] * 10), (2.5, 3.5, [1] * 10)])
def test_a_part_begins_with_the_frame_that_is_shown_then(
    tmp_path: Path, start: float, end: float, wanted: list[int]
) -> None:
    """Frames of two seconds each."""
    slides = [Image.fromarray(frame) for frame in ramp(4)]
    slides[0].save(tmp_path / "a.gif", save_all=True, append_images=slides[1:], duration=2000)
    driver = open_frame_source(tmp_path / "a.gif", 16, CropRule("none"), 10, start, end)
    assert driver.frames == len(wanted)
    assert [round(float(frame.mean()) / 10) for frame in driver] == wanted


def test_a_part_at_another_rate_begins_at_its_start(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", ramp(25), fps=25)
    for fps in (25.0, 5.0):
        levels = [float(frame.mean()) / 10 for frame in open_frame_source(path, 16, CropRule("none"), fps, 0.4, 0.8)]
        assert levels == pytest.approx(np.arange(10, 20, 25 / fps), abs=1.1)


def test_a_folder_plays_in_natural_order_and_a_picture_is_one_frame(tmp_path: Path) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    for number, frame in enumerate(ramp(12)):
        Image.fromarray(frame).save(folder / f"frame{number}.png")
    driver = open_frame_source(folder, 16, CropRule("centre"), fps=12.5)
    assert (driver.fps, driver.frames, driver.clip.kind) == (12.5, 12, "folder")
    assert [int(f[0, 0, 0]) for f in driver] == [10 * k for k in range(12)]
    single = open_frame_source(folder / "frame3.png", 16, CropRule("none"))
    assert [int(f[0, 0, 0]) for f in single] == [30]
    assert (single.fps, single.frames, single.clip.kind) == (25.0, 1, "picture")


def test_one_box_serves_the_whole_clip(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 255, (20, 40, 3), np.uint8) for _ in range(3)]
    folder = tmp_path / "frames"
    folder.mkdir()
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / f"{number}.png")
    place = CropRule("centre").place([], 40, 20)
    assert isinstance(place, Place)
    for made, frame in zip(open_frame_source(folder, 20, CropRule("centre")), frames, strict=True):
        assert (made == crop_resize(frame, place, 20)).all()


def test_faces_are_cut_out_of_the_whole_clip(tmp_path: Path) -> None:
    frames = puppet_frames(1, 8, 160)
    canvas = [np.pad(f, ((60, 20), (200, 40), (0, 0)), mode="edge") for f in frames]
    path = write_video(tmp_path / "a.mp4", canvas)
    driver = open_frame_source(path, 64, CropRule("face", 0.2))
    place = driver.framing.at(0)
    assert place is not None and place.box.x0 > 150 and place.box.x1 - place.box.x0 < 200
    assert len(list(driver)) == 8
    source = read_source(path, 64, CropRule("face", 0.2))
    assert source.shape == (64, 64, 3)


def test_no_face_names_the_way_out(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", ramp(5))
    with pytest.raises(DataError, match=r"a\.mp4: no face was found; use --crop centre or --crop none"):
        open_frame_source(path, 16, CropRule("face"))
    with pytest.raises(DataError, match=r"no face was found"):
        read_source(path, 16, CropRule("face"))


def test_a_source_may_be_a_picture_a_video_or_a_folder(tmp_path: Path) -> None:
    Image.fromarray(ramp(9)[8]).save(tmp_path / "b.png")
    video = write_video(tmp_path / "a.mp4", ramp(5)[1:])
    levels = [float(read_source(p, 16, CropRule("none")).mean()) for p in (tmp_path / "b.png", video)]
    assert levels == pytest.approx([80, 10], abs=3)
    (tmp_path / "in").mkdir()
    Image.fromarray(ramp(3)[2]).save(tmp_path / "in" / "1.png")
    assert read_source(tmp_path / "in", 16, CropRule("none")).max() == 20


def test_bad_sources_and_clips_are_named(tmp_path: Path) -> None:
    text = tmp_path / "face.txt"
    text.write_text("no picture")
    with pytest.raises(DataError, match=r"face\.txt as a picture"):
        read_source(text, 16, CropRule("none"))
    with pytest.raises(DataError, match=r"there is no picture .*gone\.png"):
        read_source(tmp_path / "gone.png", 16, CropRule("none"))
    with pytest.raises(DataError, match=r"there is no video .*gone\.mp4"):
        open_frame_source(tmp_path / "gone.mp4", 16, CropRule("none"))
    with pytest.raises(DataError, match=r"face\.txt"):
        open_frame_source(text, 16, CropRule("none"))
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DataError, match=r"folder .*empty holds no picture"):
        open_frame_source(empty, 16, CropRule("none"))
    with pytest.raises(ConfigError, match=r"fps: 0"):
        open_frame_source(empty, 16, CropRule("none"), fps=0)


def test_pictures_of_one_clip_need_one_size(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "1.png")
    Image.new("RGB", (9, 7)).save(tmp_path / "2.png")
    with pytest.raises(DataError, match=r"2\.png is 9x7, .* 8x8"):
        list(open_frame_source(tmp_path, 16, CropRule("none")))


def test_a_cut_video_says_so_after_its_last_good_frame(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = write_video(tmp_path / "a.mp4", [rng.integers(0, 255, (64, 64, 3), np.uint8) for _ in range(40)])
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    with pytest.warns(SfdkitWarning, match=r"a\.mp4 is damaged or cut short, \d+ of its frames"):
        assert 10 < len(list(open_frame_source(path, 16, CropRule("none")))) < 35


def test_a_damaged_picture_ends_a_folder(tmp_path: Path) -> None:
    for number, frame in enumerate(ramp(4)):
        Image.fromarray(frame).save(tmp_path / f"{number}.png")
    (tmp_path / "2.png").write_bytes(b"no picture")
    with pytest.warns(SfdkitWarning, match=r"ends after 2 frames: .*2\.png"):
        assert len(list(open_frame_source(tmp_path, 16, CropRule("none")))) == 2
    (tmp_path / "0.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"0\.png"):
        open_frame_source(tmp_path, 16, CropRule("none"))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.jfif", "JPEG"),
        ("no_suffix", "JPEG"),
        ("a.jp2", "JPEG2000"),
        ("a.mp4", "PNG"),
        ("a.JPG", "BMP"),
        ("b", "GIF"),
    ],
)
def test_one_rule_for_sources_and_drivers(tmp_path: Path, name: str, kind: str) -> None:
    Image.fromarray(ramp(9)[8]).save(tmp_path / name, kind)
    driver = open_frame_source(tmp_path / name, 16, CropRule("none"))
    assert (driver.clip.kind, driver.frames) == ("picture", 1)
    source = read_source(tmp_path / name, 16, CropRule("none"))
    assert [float(f.mean()) for f in (*driver, source)] == pytest.approx([80, 80], abs=2)
    video = write_video(tmp_path / "v.mp4", ramp(3)).rename(tmp_path / "video.png")
    assert kind_of(video) == "video" and len(list(open_frame_source(video, 16, CropRule("none")))) == 3


def test_kinds_of_what_is_not_there_are_told_by_suffix(tmp_path: Path) -> None:
    assert kind_of(tmp_path) == "folder"
    assert kind_of(Path("a.JPG")) == "picture"
    assert kind_of(Path("a.gif")) == kind_of(Path("a.unknown")) == "video"
    assert kind_of(Path("a.unknown"), otherwise="picture") == "picture"


def test_what_is_wrong_with_a_clip_is_not_taken_for_a_missing_face(tmp_path: Path) -> None:
    """The hint at another crop belongs to faces alone."""
    for number, frame in enumerate(puppet_frames(1, 4, 160)):
        Image.fromarray(frame[: 160 - 40 * (number == 3)]).save(tmp_path / f"{number}.png")
    with pytest.raises(DataError, match=r"the frames of one clip need one size$"):
        open_frame_source(tmp_path, 16, CropRule("face"))
