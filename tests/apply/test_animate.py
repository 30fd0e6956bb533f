from __future__ import annotations

import math
import os
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sfdkit.apply.animate import Animate, Written
from sfdkit.apply.frame_source import open_frame_source, read_source
from sfdkit.apply.reenactment import animate_frames
from sfdkit.apply.torch_runner import TorchRunner
from sfdkit.cli import main
from sfdkit.device import choose_device
from sfdkit.errors import CheckpointError, ConfigError, DataError, SfdkitWarning
from sfdkit.media.crop import CropRule
from sfdkit.media.tensors import to_uint8
from sfdkit.media.video_reader import probe, read_frames
from tests.running import compile_to_the_same
from tests.written import lively_animator, puppet_frames, write_checkpoint, write_video


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a checkpoint, a source picture, a driving video with sound and a folder of driving pictures."""
    folder = tmp_path_factory.mktemp("files")
    write_checkpoint(folder / "model.ckpt", lively_animator())
    Image.fromarray(puppet_frames(0, 1)[0]).save(folder / "source.png")
    tone = np.sin(np.arange(16000 * 2) * 2 * math.pi * 440 / 16000) * 9000
    with wave.open(str(folder / "tone.wav"), "wb") as sound:
        sound.setparams((1, 2, 16000, 0, "NONE", ""))
        sound.writeframes(tone.astype("<i2").tobytes())
    frames = puppet_frames(1, 11)
    write_video(folder / "driving.mp4", frames, fps=10, audio_from=folder / "tone.wav")
    (folder / "driving").mkdir()
    for number, frame in enumerate(frames[:5]):
        Image.fromarray(frame).save(folder / "driving" / f"{number}.png")
    return folder


def run(
    files: Path,
    output: Path,
    driving: str = "driving.mp4",
    source: str = "source.png",
    checkpoint: str = "model.ckpt",
    **options: Any,
) -> Written:
    arguments = {"crop": "none", "device": "cpu", **options}
    given = {"checkpoint": checkpoint, "source": source, "driving": driving}
    paths = {name: str(files / value) for name, value in given.items()}
    return Animate(**paths, output=str(output), **arguments).run()


def clip(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 32, 32, 3), np.uint8)


def floats(pictures: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255


def as_bytes(images: torch.Tensor) -> np.ndarray:
    return np.stack([to_uint8(image) for image in images])


def test_frames_equal_the_animator_called_by_hand_whatever_the_batch() -> None:
    animator = lively_animator()
    source, frames = clip(1, 1)[0], clip(7)
    with torch.no_grad():
        by_hand = as_bytes(animator(floats(source[None]).expand(7, -1, -1, -1), floats(frames)).image)
    for size in (1, 3, 16):
        parts = list(animate_frames(TorchRunner(animator), source, frames, batch_size=size))
        assert [len(p.driving) for p in parts] == [min(size, 7 - at) for at in range(0, 7, size)]
        assert (np.concatenate([p.driving for p in parts]) == frames).all()
        assert np.abs(np.concatenate([p.image for p in parts]).astype(int) - by_hand).max() <= 1
    assert np.abs(by_hand[0].astype(int) - by_hand[1]).max() > 1


def test_frames_are_read_as_they_are_needed() -> None:
    taken = 0

    def endless() -> Iterator[np.ndarray]:
        nonlocal taken
        while True:
            taken += 1
            yield clip(1, taken)[0]

    stream = animate_frames(TorchRunner(lively_animator()), clip(1)[0], endless(), batch_size=4)
    for batch in range(1, 4):
        assert len(next(stream).driving) == 4
        assert taken == 4 * batch
    assert torch.is_grad_enabled()


def test_relative_motion_is_the_change_since_the_first_frame_added_to_the_source() -> None:
    animator = lively_animator()
    source, frames = clip(1, 1)[0], clip(5)
    with torch.no_grad():
        state = animator.source_state(floats(source[None]))
        motion = animator.motion(floats(frames))
        moved = animator.generate(state.expand(5), state.descriptors.motion + motion - motion[:1]).image
        still = as_bytes(animator.generate(state, state.descriptors.motion).image)
    runner = TorchRunner(animator)
    made = np.concatenate([p.image for p in animate_frames(runner, source, frames, "relative", 2)]).astype(int)
    absolute = np.concatenate([p.image for p in animate_frames(runner, source, frames, "absolute", 2)])
    assert np.abs(made - as_bytes(moved)).max() <= 1
    assert np.abs(made[:1] - still).max() <= 1
    assert np.abs(made - absolute).max() > 1


def test_a_folder_of_pictures_holds_what_the_animator_makes(files: Path, tmp_path: Path) -> None:
    run(files, tmp_path / "out", driving="driving", batch_size=2)
    source = read_source(files / "source.png", 32, CropRule("none"))
    driver = open_frame_source(files / "driving", 32, CropRule("none"))
    parts = animate_frames(TorchRunner(lively_animator()), source, driver)
    wanted = [picture for part in parts for picture in part.image]
    written = sorted((tmp_path / "out").iterdir())
    assert [p.name for p in written] == [f"{k:06d}.png" for k in range(5)]
    for path, picture in zip(written, wanted, strict=True):
        assert np.abs(np.asarray(Image.open(path)).astype(int) - picture).max() <= 1
    assert os.listdir(tmp_path) == ["out"]


def test_lower_precision_and_compiled_networks_make_the_same_animation(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = compile_to_the_same(monkeypatch)
    made = {}
    for name, options in {"plain": {}, "compiled": {"compile": True}, "lower": {"precision": "bfloat16"}}.items():
        run(files, tmp_path / name, driving="driving", **options)
        made[name] = np.stack([np.asarray(Image.open(p)).astype(int) for p in sorted((tmp_path / name).iterdir())])
    assert len(compiled) == 2 and np.abs(made["compiled"] - made["plain"]).max() <= 1
    assert 0 < np.abs(made["lower"] - made["plain"]).max() < 20


def test_a_video_keeps_length_rate_and_sound(files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written = run(files, tmp_path / "new" / "out.mp4", size=64, side_by_side=True)
    info = probe(tmp_path / "new" / "out.mp4")
    assert (info.width, info.height, info.fps, info.frames, info.has_audio) == (192, 64, 10.0, 11, True)
    assert written[1:5] == (11, 10.0, 192, 64)
    assert "out.mp4: 11 frames, 1.10 s at 10 fps, 192x64;" in capsys.readouterr().out


def test_sound_and_rate_can_be_changed(files: Path, tmp_path: Path) -> None:
    run(files, tmp_path / "out.mp4", audio="none", fps=20)
    info = probe(tmp_path / "out.mp4")
    assert (info.width, info.fps, info.frames, info.has_audio) == (32, 20.0, 22, False)


def test_side_by_side_shows_source_driving_and_result(files: Path, tmp_path: Path) -> None:
    run(files, tmp_path / "out", driving="driving", side_by_side=True)
    run(files, tmp_path / "alone", driving="driving")
    sheet = np.asarray(Image.open(tmp_path / "out" / "000003.png"))
    driver = list(open_frame_source(files / "driving", 32, CropRule("none")))
    source = read_source(files / "source.png", 32, CropRule("none"))
    assert (sheet[:, :32] == source).all()
    assert (sheet[:, 32:64] == driver[3]).all()
    assert (sheet[:, 64:] == np.asarray(Image.open(tmp_path / "alone" / "000003.png"))).all()


def test_a_gif_and_a_single_picture(files: Path, tmp_path: Path) -> None:
    run(files, tmp_path / "out.gif", driving="driving", fps=5)
    assert probe(tmp_path / "out.gif").fps == pytest.approx(5)
    assert len(list(read_frames(tmp_path / "out.gif"))) == 5
    run(files, tmp_path / "out.png", driving="driving/2.png", size=48)
    assert Image.open(tmp_path / "out.png").size == (48, 48)


def test_the_source_may_be_cut_differently(files: Path, tmp_path: Path) -> None:
    wide = np.pad(puppet_frames(0, 1)[0], ((0, 0), (30, 30), (0, 0)))
    Image.fromarray(wide).save(tmp_path / "wide.png")
    for crop in ("none", "centre"):
        run(files, tmp_path / crop, "driving", source=str(tmp_path / "wide.png"), source_crop=crop, side_by_side=True)
    whole, centre = (np.asarray(Image.open(tmp_path / crop / "000000.png"))[:, :32] for crop in ("none", "centre"))
    assert (whole[:, 0] == 0).all() and (centre[:, 0] > 0).any()


def test_the_command_line_reads_every_option(files: Path, tmp_path: Path) -> None:
    words = f"animate --checkpoint {files}/model.ckpt --source {files}/source.png --driving {files}/driving.mp4"
    words += (
        f" --output {tmp_path}/o.gif --mode relative --crop none --source_crop none --batch_size 3 --fps 5 --size 40"
    )
    words += " --side_by_side true --device cpu --audio none --margin 0.2"
    assert main(words.split()) == 0
    info = probe(tmp_path / "o.gif")
    assert (info.width, info.height, info.fps) == (120, 40, 5.0)


def test_a_cut_driving_clip_gives_what_could_be_read(files: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = write_video(tmp_path / "cut.mp4", [rng.integers(0, 255, (64, 64, 3), np.uint8) for _ in range(40)])
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    for output in ("out.mp4", "out"):
        with pytest.warns(SfdkitWarning, match=r"cut\.mp4 is damaged or cut short"):
            assert 10 < run(files, tmp_path / "results" / output, driving=str(path)).frames < 35
    assert sorted(os.listdir(tmp_path / "results")) == ["out", "out.mp4"]


def test_relative_motion_of_one_picture_is_none(files: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"mode: relative .*2\.png holds no other; use --mode absolute"):
        run(files, tmp_path / "o.png", driving="driving/2.png", mode="relative")


@pytest.mark.parametrize("option", ["driving", "source", "checkpoint"])
@pytest.mark.parametrize("link", [None, os.symlink, os.link])
def test_an_input_is_never_replaced(files: Path, tmp_path: Path, option: str, link: Any) -> None:
    name = {"driving": "driving.mp4", "source": "source.png", "checkpoint": "model.ckpt"}[option]
    given = tmp_path / f"copy.{'png' if option == 'source' else 'mp4'}"
    given.write_bytes((files / name).read_bytes())
    output = tmp_path / f"linked{given.suffix}" if link else given
    if link:
        link(given, output)
    inputs = {"driving": "driving.mp4", "source": "source.png", "checkpoint": "model.ckpt", option: str(given)}
    words = [f"--{key}={files / value}" for key, value in inputs.items()]
    before = given.read_bytes()
    assert main(["animate", *words, f"--output={output}", "--crop=none", "--device=cpu"]) == 1
    assert given.read_bytes() == before


def test_an_output_among_the_driving_frames_is_refused(files: Path, tmp_path: Path) -> None:
    for output in (files / "driving" / "o.mp4", files / "driving" / "deeper" / "o"):
        with pytest.raises(ConfigError, match=r"output: .* lies in --driving .*; name a place outside"):
            run(files, output, driving="driving")


def test_missing_and_faceless_files_are_named(files: Path, tmp_path: Path) -> None:
    text = tmp_path / "face.txt"
    text.write_text("no picture")
    with pytest.raises(DataError, match=r"face\.txt as a picture"):
        run(files, tmp_path / "o.mp4", source=str(text))
    with pytest.raises(DataError, match=r"there is no video .*gone\.mp4"):
        run(files, tmp_path / "o.mp4", driving="gone.mp4")
    Image.new("RGB", (64, 64), "grey").save(tmp_path / "grey.png")
    with pytest.raises(DataError, match=r"grey\.png: no face .* --crop centre or --crop none"):
        run(files, tmp_path / "o.mp4", source=str(tmp_path / "grey.png"), crop="face")


def test_outputs_that_cannot_be_are_refused_before_any_work(files: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"output: .*o\.avi has the suffix '\.avi'; use \.mp4, \.gif"):
        run(files, tmp_path / "o.avi")
    with pytest.raises(ConfigError, match=r"holds one picture and .*driving\.mp4 is a clip"):
        run(files, tmp_path / "o.png")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    with pytest.raises(ConfigError, match="full exists and is no empty folder"):
        run(files, tmp_path / "full")
    (tmp_path / "o.mp4").mkdir()
    with pytest.raises(ConfigError, match=r"o\.mp4 is a folder"):
        run(files, tmp_path / "o.mp4")
    with pytest.raises(DataError, match=r"cannot create the folder .*x/y"):
        run(files, tmp_path / "full" / "x" / "y" / "o.mp4")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_named(files: Path, tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    with pytest.raises(DataError, match="no permission to write"):
        run(files, tmp_path / "o.mp4")


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--batch_size=0", "batch_size: 0 is out of range; give more than 0"),
        ("--size=-4", "size: -4 is out of range; give 1 to 4096, or null"),
        ("--size=100000000", "size: 100000000 is out of range; give 1 to 4096, or null"),
        ("--fps=0", "fps: 0 is out of range; give 0.1 to 1000, or null"),
        ("--mode=relativ", "mode: 'relativ' will not do; it takes 'absolute', 'relative'. Did you mean relative?"),
    ],
)
def test_options_that_cannot_work(option: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["animate", "--checkpoint=c", "--source=s", "--driving=d", "--output=o.mp4", option])
    assert capsys.readouterr().err.strip() == f"sfdkit: error: {words}"


def test_devices_that_cannot_work() -> None:
    with pytest.raises(ConfigError, match="device: 'cuda:77'"):
        choose_device("cuda:77")
    with pytest.raises(ConfigError, match="device: 'tpuu'"):
        choose_device("tpuu")
    assert choose_device("cpu").type == "cpu"


def test_checkpoint_of_another_model(files: Path, tmp_path: Path) -> None:
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    with pytest.raises(CheckpointError, match=r"other\.ckpt is the checkpoint of another program"):
        run(files, tmp_path / "o.mp4", checkpoint=str(tmp_path / "other.ckpt"))
