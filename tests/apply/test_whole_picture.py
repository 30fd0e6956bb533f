"""Faces moved where they are: in whole pictures and videos."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from sfdkit.apply.animate import Animate, Written
from sfdkit.apply.options import seconds
from sfdkit.apply.reenactment import MovingRenderer
from sfdkit.cli import main
from sfdkit.errors import ConfigError, DataError, SfdkitWarning
from sfdkit.media.crop import CropRule, Place
from sfdkit.media.paste import soft_mask
from sfdkit.media.video_reader import probe, read_frames
from tests.written import lively_animator, puppet_frames, write_checkpoint, write_video

SIDE = 160


def wide(*faces: np.ndarray) -> np.ndarray:
    """A picture with faces beside each other on a grey wall, H W 3 uint8."""
    canvas = np.full((SIDE + 60, (SIDE + 60) * len(faces), 3), 120, np.uint8)
    for number, face in enumerate(faces):
        left = 30 + number * (SIDE + 60)
        canvas[30 : 30 + SIDE, left : left + SIDE] = face
    return canvas


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    write_checkpoint(folder / "model.ckpt", lively_animator())
    one, two = puppet_frames(1, 12, SIDE), puppet_frames(4, 12, SIDE)
    Image.fromarray(wide(one[0])).save(folder / "one.png")
    Image.fromarray(wide(one[0], two[0])).save(folder / "two.png")
    write_video(folder / "moving.mp4", [wide(a, b) for a, b in zip(one, two, strict=True)], fps=10)
    write_video(folder / "driver.mp4", puppet_frames(2, 8, 64), fps=10)
    write_video(folder / "other.mp4", puppet_frames(3, 6, 64), fps=10)
    return folder


def run(files: Path, output: Path, source: str, driving: Any = "driver.mp4", **options: Any) -> Written:
    if isinstance(driving, dict):
        driving = {number: str(files / name) for number, name in driving.items()}
    elif driving is not None and not driving.startswith("{"):
        driving = str(files / driving)
    arguments = {"paste": True, "device": "cpu", "crop": "none", "source_crop": "face", **options}
    given = {"checkpoint": str(files / "model.ckpt"), "source": str(files / source), "driving": driving}
    return Animate(**given, output=str(output), **arguments).run()


def pictures(folder: Path) -> np.ndarray:
    return np.stack([np.asarray(Image.open(path)) for path in sorted(folder.iterdir())])


def changed(frames: np.ndarray, source: np.ndarray) -> tuple[bool, bool]:
    """Whether the left and the right half have changed."""
    half = source.shape[1] // 2
    there = (frames != source).any((0, 1, 3))
    return bool(there[:half].any()), bool(there[half:].any())


def test_the_face_moves_and_what_surrounds_it_stays_bit_for_bit(files: Path, tmp_path: Path) -> None:
    written = run(files, tmp_path / "out", "one.png", batch_size=3)
    source, frames = np.asarray(Image.open(files / "one.png")), pictures(tmp_path / "out")
    assert frames.shape == (8, *source.shape) and written[1:5] == (8, 10.0, source.shape[1], source.shape[0])
    rule = CropRule("face")
    place = rule.place([rule.watcher()(source)], source.shape[1], source.shape[0])
    assert isinstance(place, Place)
    x0, y0, x1, y1 = (round(value) for value in place.box)
    mask = np.zeros(source.shape[:2], np.float32)
    mask[y0:y1, x0:x1] = soft_mask(x1 - x0)
    assert (frames[:, mask == 0] == source[mask == 0]).all()
    assert (np.abs(frames.astype(int) - source)[:, mask > 0.9].mean((1, 2)) > 1).all()


def test_faces_are_chosen_from_the_left(files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = np.asarray(Image.open(files / "two.png"))
    made = {}
    for face in (1, 2, "all"):
        run(files, tmp_path / str(face), "two.png", face=face)
        made[face] = pictures(tmp_path / str(face))
    assert [changed(made[face], source) for face in made] == [(True, False), (False, True), (True, True)]
    half = source.shape[1] // 2
    assert (made["all"][:, :, :half] == made[1][:, :, :half]).all()
    assert (made["all"][:, :, half:] == made[2][:, :, half:]).all()
    assert "two.png: 2 faces from the left (1: " in capsys.readouterr().out
    with pytest.raises(DataError, match=r"two\.png: there is no face 3; 2 found, counted from the left"):
        run(files, tmp_path / "o", "two.png", face=3)


def test_each_face_can_have_a_driver_of_its_own(files: Path, tmp_path: Path) -> None:
    run(files, tmp_path / "both", "two.png", {1: "driver.mp4", 2: "other.mp4"}, batch_size=4)
    run(files, tmp_path / "one", "two.png", "driver.mp4", face=1)
    run(files, tmp_path / "two", "two.png", "other.mp4", face=2)
    both, half = pictures(tmp_path / "both"), pictures(tmp_path / "both").shape[2] // 2
    assert len(both) == 6  # as the shorter one
    assert (both[:, :, :half] == pictures(tmp_path / "one")[:6, :, :half]).all()
    assert (both[:, :, half:] == pictures(tmp_path / "two")[:, :, half:]).all()


def test_a_video_keeps_its_own_frames_and_rate(files: Path, tmp_path: Path) -> None:
    run(files, tmp_path / "out", "moving.mp4", face=1, loop=2)
    frames = pictures(tmp_path / "out")
    own = np.stack([frame for frame, _ in read_frames(files / "moving.mp4")])
    half = own.shape[2] // 2
    assert len(frames) == 12  # two times eight driving frames, and the source ends first
    assert (frames[:, :, half:] == own[:, :, half:]).all()
    assert ((frames != own).any(-1)[:, :, :half].mean((1, 2)) > 0.05).all()
    assert run(files, tmp_path / "fast.mp4", "moving.mp4", fps=20).frames == 16
    written = run(files, tmp_path / "o.mp4", "moving.mp4", side_by_side=True, size=100)
    assert (written.height, written.width) == (100, 100 + 2 * 200)


def test_each_frame_of_a_video_moves_from_its_own_motion_by_the_change_since_the_first_driving_frame() -> None:
    """Rows without the face are followed as well, so that the first driving frame stays the first."""

    class Counting:
        """A model whose coefficients are grey levels."""

        def source(self, picture: np.ndarray) -> float:
            return float(picture.mean())

        def describe(self, source: float) -> Any:
            return SimpleNamespace(motion=np.array([source]))

        def render(self, source: float, motion: np.ndarray) -> np.ndarray:
            return np.full((len(motion), 2, 2, 3), motion[0, 0], np.float64)

    greys = [np.full((2, 2, 3), 10 * k, np.uint8) for k in range(4)]
    driver = np.arange(100.0, 108.0)[:, None]
    render = MovingRenderer(Counting(), "relative")  # type: ignore[arg-type]
    first = render({2: greys[0], 3: greys[1]}, driver[:4])
    second = render({0: greys[2]}, driver[4:])
    assert {row: float(made.mean()) for row, made in first.items()} == {2: 0 + 2, 3: 10 + 3}
    assert {row: float(made.mean()) for row, made in second.items()} == {0: 20 + 4}


def test_a_square_follows_the_head_through_a_video(files: Path, tmp_path: Path) -> None:
    """What is pasted goes with a head that walks to the right; the rest of each frame is the source's."""
    face = puppet_frames(1, 1, SIDE)[0]
    walk = []
    for number in range(40):
        frame = np.full((SIDE + 40, 3 * SIDE, 3), 120, np.uint8)
        frame[20 : 20 + SIDE, 4 * number : 4 * number + SIDE] = face
        walk.append(frame)
    write_video(tmp_path / "walk.mp4", walk, fps=10)
    long = write_video(tmp_path / "long.mp4", puppet_frames(2, 8, 64) * 5, fps=10)
    own = np.stack([frame for frame, _ in read_frames(tmp_path / "walk.mp4")])
    middles = {}
    for follow in ("head", "shot"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SfdkitWarning)  # the face moves far
            run(files, tmp_path / follow, str(tmp_path / "walk.mp4"), str(long), follow=follow)
        moved = (np.abs(pictures(tmp_path / follow).astype(int) - own).max(-1) > 3).any(1)
        middles[follow] = np.array([np.flatnonzero(row).mean() for row in moved])
    assert np.ptp(middles["head"]) > 100 > np.ptp(middles["shot"])
    assert np.diff(middles["head"][5:-5]).min() > -3


def test_sound_comes_from_the_driver_or_the_source(files: Path, tmp_path: Path) -> None:
    tone = np.sin(np.arange(16000) / 5)[None].astype(np.float32)
    with av.open(str(tmp_path / "tone.wav"), "w") as sound:
        stream = sound.add_stream("pcm_s16le", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(tone, "fltp", "mono")
        frame.sample_rate = 16000
        sound.mux([*stream.encode(frame), *stream.encode(None)])
    loud = write_video(tmp_path / "loud.mp4", puppet_frames(2, 8, 64), 10, tmp_path / "tone.wav")
    speaks = write_video(
        tmp_path / "speaks.mp4", [wide(f) for f in puppet_frames(1, 8, SIDE)], 10, tmp_path / "tone.wav"
    )
    heard = {}
    for source, driving, audio in (
        ("one.png", loud, "driving"),
        (speaks, "driver.mp4", "driving"),
        (speaks, "driver.mp4", "source"),
        (speaks, loud, "none"),
    ):
        name = tmp_path / f"o{len(heard)}.mp4"
        run(files, name, str(source), str(driving), audio=audio)
        heard[len(heard)] = probe(name).has_audio
    assert heard == {0: True, 1: False, 2: True, 3: False}


def test_a_part_of_the_driver_is_used(files: Path, tmp_path: Path) -> None:
    run(files, tmp_path / "all", "one.png")
    run(files, tmp_path / "part", "one.png", from_=0.2, to="0:00.5")
    run(files, tmp_path / "twice", "one.png", from_=0.2, to=0.5, loop=2, batch_size=4)
    part = pictures(tmp_path / "part")
    assert (part == pictures(tmp_path / "all")[2:5]).all()
    assert (pictures(tmp_path / "twice") == np.concatenate([part, part])).all()
    assert [seconds(time) for time in (2.5, "75.5", "1:05", "1:00:05.5")] == [2.5, 75.5, 65.0, 3605.5]


def test_the_codec_and_its_quality_are_chosen(files: Path, tmp_path: Path) -> None:
    sizes = {}
    for codec, crf in (("h264", 18), ("h264", 40), ("hevc", 28), ("av1", 35)):
        output = tmp_path / f"{codec}{crf}.mp4"
        run(files, output, "one.png", codec=codec, crf=crf)
        with av.open(str(output)) as container:
            assert container.streams.video[0].codec_context.codec.canonical_name == codec
        sizes[codec, crf] = output.stat().st_size
    assert sizes["h264", 40] < 0.6 * sizes["h264", 18]


def test_a_driver_whose_face_is_gone_is_held(files: Path, tmp_path: Path) -> None:
    """The middle of the driver shows a wall; the motion of the last frame before is kept, and so is it at the begin."""
    faces, wall = [wide(f) for f in puppet_frames(2, 12, SIDE)], np.full((SIDE + 60, SIDE + 60, 3), 120, np.uint8)
    lost = write_video(tmp_path / "lost.mp4", [*[wall] * 30, *faces, *[wall] * 40], fps=10)
    with pytest.warns(SfdkitWarning, match=r"lost\.mp4 shows no face from 0\.00 to 3\.00 s, 4\.\d\d to 8\.20 s"):
        run(files, tmp_path / "out", "one.png", str(lost), crop="face")
    frames = pictures(tmp_path / "out")
    assert len(frames) == 82
    assert (frames[:30] == frames[30]).all() and (frames[42:] == frames[41]).all()
    assert (frames[31:40] != frames[30:39]).any((1, 2, 3)).all()


def test_what_cannot_be_is_told_in_one_line(files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wall = tmp_path / "wall.png"
    Image.fromarray(np.full((200, 300, 3), 120, np.uint8)).save(wall)
    for options, error, message in (
        ({"face": "all", "paste": False}, ConfigError, "face: all is for whole pictures; give --paste true"),
        ({"driving": {1: "driver.mp4"}, "paste": False}, ConfigError, "driving: .* is for whole pictures"),
        ({"audio": "source", "paste": False}, ConfigError, "audio: source is for whole pictures"),
        ({"driving": {1: "driver.mp4"}, "face": 2}, ConfigError, "face: 2 is said by the numbers in driving already"),
        ({"face": 2, "source_crop": "none"}, ConfigError, "crop none looks for no faces; give --source_crop face"),
        ({"driving": "{left: a.mp4}"}, ConfigError, "names no faces by number; write '{1: A.mp4, 2: B.mp4}'"),
        ({"driving": {}}, ConfigError, "give either --driving .* neither is given"),
        ({"codec": "hevc", "crf": 60}, ConfigError, "crf: 60 is beyond 51, the worst that hevc has"),
        ({"mode": "relative", "loop": 3, "driving": "one.png"}, ConfigError, "mode: relative .* holds no other"),
        ({"follow": "head", "source_crop": "none"}, ConfigError, "follow: head needs to see the face"),
        ({"from_": "1:xx"}, ConfigError, "'1:xx' is no time; give seconds"),
        ({"from_": 9.0}, ConfigError, r"from: 9 s is after the end of .*driver\.mp4, which is 0\.80 s long"),
        ({"from_": 0.5, "to": 0.4}, ConfigError, "to: 0.4 s is not after from: 0.5 s"),
        ({"source": str(wall)}, DataError, r"wall\.png: no face was found"),
    ):
        with pytest.raises(error, match=message):
            run(files, tmp_path / "o.mp4", **{"source": "one.png", **options})
    assert not (tmp_path / "o.mp4").exists()
    with pytest.raises(ConfigError, match=r"codec and crf are for \.mp4"):
        run(files, tmp_path / "o.gif", "one.png", crf=30)
    with pytest.raises(ConfigError, match="loop: 2 times one picture is a clip"):
        run(files, tmp_path / "o.png", "one.png", "one.png", loop=2)
    words = ["animate", f"--checkpoint={files}/model.ckpt", f"--source={files}/one.png", "--crop=none", "--device=cpu"]
    words += [f"--driving={files}/driver.mp4", "--source_crop=face", "--paste=true", f"--output={tmp_path}/c.mp4"]
    assert main([*words, "--from=0:00.2", "--to=0.6", "--face=1", "--loop=2", "--crf=30"]) == 0
    assert probe(tmp_path / "c.mp4").frames == 8
    assert main([*words, "--from=soon"]) == 1
    assert "sfdkit: error: 'soon' is no time" in capsys.readouterr().err


def test_a_face_at_the_border_and_one_smaller_than_the_model(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    face = puppet_frames(1, 1, SIDE)[0]
    Image.fromarray(np.pad(face, ((0, 40), (0, 120), (0, 0)), mode="edge")[:, 8:]).save(tmp_path / "cut.png")
    Image.fromarray(face).resize((20, 20)).save(tmp_path / "small.png")
    for name, crop in (("cut", "face"), ("small", "none")):
        source = np.asarray(Image.open(tmp_path / f"{name}.png"))
        run(files, tmp_path / name, str(tmp_path / f"{name}.png"), source_crop=crop)
        assert (pictures(tmp_path / name) != source).any()
    told = capsys.readouterr().out
    assert told.count("the model draws") == 1
    assert "small.png: the square of its face has 20 pixels, and the model draws 32: less detail than it could" in told


def test_a_huge_picture_is_made_smaller(files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = Image.open(files / "one.png").resize((12000, 12000), Image.Resampling.NEAREST)
    picture.save(tmp_path / "huge.jpg", quality=50)
    written = run(files, tmp_path / "o", str(tmp_path / "huge.jpg"), to=0.1)
    assert written.frames == 1 and max(written.width, written.height) <= 4096
    assert "it is made 4096 high; --size gives another height" in capsys.readouterr().out
    assert os.listdir(tmp_path / "o") == ["000000.png"]
