from __future__ import annotations

import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from sfdkit.apply.animate import Animate, Written
from sfdkit.apply.extract import Extract
from sfdkit.apply.frame_source import open_frame_source
from sfdkit.apply.motion_track import MotionTrack, compressed_size, quantise, rate_line
from sfdkit.apply.reenactment import animate_frames, animate_track
from sfdkit.apply.torch_runner import TorchRunner
from sfdkit.cli import main
from sfdkit.errors import CheckpointError, ConfigError, DataError
from sfdkit.media.crop import CropRule
from sfdkit.media.video_reader import probe
from sfdkit.model.fingerprints import motion_fingerprint
from tests.tiny import tiny_animator
from tests.written import lively_animator, puppet_frames, write_checkpoint, write_video


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two checkpoints, a source, a driving video, and its track."""
    folder = tmp_path_factory.mktemp("files")
    write_checkpoint(folder / "model.ckpt", lively_animator())
    write_checkpoint(folder / "other.ckpt", lively_animator(1))
    Image.fromarray(puppet_frames(0, 1)[0]).save(folder / "source.png")
    write_video(folder / "driving.mp4", puppet_frames(1, 11), fps=10)
    read(folder, folder / "track.safetensors")
    return folder


def read(files: Path, output: Path, driving: str = "driving.mp4", **options: Any) -> MotionTrack:
    arguments = {"crop": "none", "device": "cpu", **options}
    paths = {"checkpoint": str(files / "model.ckpt"), "driving": str(files / driving), "output": str(output)}
    return Extract(**paths, **arguments).run()


def run(files: Path, output: Path, checkpoint: str = "model.ckpt", **options: Any) -> Written:
    arguments = {"crop": "none", "device": "cpu", **options}
    paths = {"checkpoint": str(files / checkpoint), "source": str(files / "source.png"), "output": str(output)}
    return Animate(**paths, **arguments).run()


def pictures(folder: Path) -> np.ndarray:
    return np.stack([np.asarray(Image.open(path)).astype(int) for path in sorted(folder.iterdir())])


def some_track(frames: int = 20, size: int = 4, bits: int = 32, seed: int = 0) -> MotionTrack:
    walk = np.random.default_rng(seed).normal(size=(frames, size)).cumsum(0).astype(np.float32)
    return MotionTrack(walk, 12.5, "0" * 16, "clip.mp4", bits)


def test_a_track_is_the_motion_of_the_frames(files: Path, tmp_path: Path) -> None:
    animator = lively_animator()
    frames = torch.from_numpy(np.stack(list(open_frame_source(files / "driving.mp4", 32, CropRule("none")))))
    with torch.no_grad():
        wanted = animator.motion(frames.permute(0, 3, 1, 2) / 255).numpy()
    for size in (1, 4, 64):
        track = read(files, tmp_path / f"{size}.safetensors", batch_size=size)
        assert track.motion.shape == (11, 4) and np.allclose(track.motion, wanted, atol=1e-5)
    assert (track.fps, track.clip, track.model) == (10.0, "driving.mp4", motion_fingerprint(animator))
    loaded = MotionTrack.load(tmp_path / "64.safetensors", TorchRunner(animator))
    assert (loaded.motion == track.motion).all() and (loaded.fps, loaded.clip, loaded.bits) == (10.0, "driving.mp4", 32)


def test_frames_are_read_batch_by_batch(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    plain = type(lively_animator()).motion

    def noting(self: Any, image: Tensor) -> Tensor:
        seen.append(len(image))
        return plain(self, image)

    monkeypatch.setattr("sfdkit.model.animator.FaceAnimator.motion", noting)
    read(files, tmp_path / "t.safetensors", batch_size=3)
    assert seen == [3, 3, 3, 2]


@pytest.mark.parametrize("mode", ["absolute", "relative"])
def test_a_track_animates_as_its_clip_does(files: Path, tmp_path: Path, mode: str) -> None:
    from_clip = run(files, tmp_path / "clip", driving=str(files / "driving.mp4"), mode=mode)
    from_track = run(files, tmp_path / "track", motion=str(files / "track.safetensors"), mode=mode)
    assert from_clip[1:5] == from_track[1:5] == (11, 10.0, 32, 32)
    one, other = pictures(tmp_path / "clip"), pictures(tmp_path / "track")
    assert np.abs(one - other).max() <= 1
    assert np.abs(one[0] - one[5]).max() > 1


def test_from_python_a_track_animates_as_its_frames_do() -> None:
    runner = TorchRunner(lively_animator())
    source, *frames = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), np.uint8)
    motion = runner.motion(np.stack(frames))
    made = np.concatenate([p.image for p in animate_track(runner, source, motion, "relative", 3)])
    wanted = np.concatenate([p.image for p in animate_frames(runner, source, frames, "relative", 7)])
    assert np.abs(made.astype(int) - wanted).max() <= 1


def test_side_by_side_shows_source_and_result(files: Path, tmp_path: Path) -> None:
    written = run(files, tmp_path / "both", motion=str(files / "track.safetensors"), side_by_side=True)
    run(files, tmp_path / "alone", motion=str(files / "track.safetensors"))
    assert (written.width, written.height) == (64, 32)
    both, alone = pictures(tmp_path / "both"), pictures(tmp_path / "alone")
    assert (both[:, :, 32:] == alone).all()
    assert (both[0, :, :32] == both[5, :, :32]).all()


def test_a_track_at_another_rate_keeps_its_length(files: Path, tmp_path: Path) -> None:
    run(files, tmp_path / "o.mp4", motion=str(files / "track.safetensors"), fps=20)
    info = probe(tmp_path / "o.mp4")
    assert (info.fps, info.frames, info.has_audio) == (20.0, 22, False)
    track = some_track(5)
    double = track.at_rate(25.0).motion
    assert len(double) == 10 and np.allclose(double[:9:2], track.motion)
    assert np.allclose(double[1:8:2], (track.motion[1:] + track.motion[:-1]) / 2, atol=1e-6)
    assert (double[9] == track.motion[4]).all()
    assert (track.at_rate(12.5).motion == track.motion).all()
    assert len(track.at_rate(1.0).motion) == 1 and len(some_track(1).at_rate(50.0).motion) == 4
    with pytest.raises(ConfigError, match="fps: 0 frames per second"):
        track.at_rate(0)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_rounding_is_off_by_at_most_half_a_step_and_keeps_the_ends(bits: int) -> None:
    motion = some_track(50).motion
    motion[:, 3] = 0.25
    codes = quantise(motion, bits)
    step = (motion.max(0) - motion.min(0)) / (2**bits - 1)
    assert codes.codes.dtype == np.uint8 and int(codes.codes.max()) == 2**bits - 1
    assert np.allclose(codes.step, step)
    assert (np.abs(codes.values() - motion) <= step / 2 + 1e-5).all()
    assert (codes.values()[:, 3] == motion[:, 3]).all()
    assert np.allclose(codes.values().max(0), motion.max(0), atol=1e-5)


@pytest.mark.parametrize("bits", [2, 8, 32])
def test_what_is_written_is_what_is_read(tmp_path: Path, bits: int) -> None:
    track = some_track().rounded(bits)
    track.save(tmp_path / "t.safetensors")
    read_back = MotionTrack.load(tmp_path / "t.safetensors")
    assert read_back.bits == bits and np.allclose(read_back.motion, track.motion, atol=1e-6)
    assert np.abs(track.motion - some_track().motion).max() > (1e-3 if bits < 32 else -1)
    read_back.save(tmp_path / "again.safetensors")
    assert np.allclose(MotionTrack.load(tmp_path / "again.safetensors").motion, track.motion, atol=1e-6)


def test_rounded_tracks_are_smaller_and_move_the_face(files: Path, tmp_path: Path) -> None:
    track = read(files, tmp_path / "8.safetensors", bits=8)
    exact = MotionTrack.load(files / "track.safetensors").motion
    assert 0 < np.abs(track.motion - exact).max() < 0.02 * (exact.max(0) - exact.min(0)).max()
    run(files, tmp_path / "out", motion=str(tmp_path / "8.safetensors"))
    assert len(list((tmp_path / "out").iterdir())) == 11
    long = some_track(2000)
    long.save(tmp_path / "f.safetensors")
    long.rounded(8).save(tmp_path / "c.safetensors")
    sizes = [(tmp_path / name).stat().st_size for name in ("f.safetensors", "c.safetensors")]
    assert sizes[0] > 32000 and sizes[1] < 8600


def test_the_rates_are_those_of_the_formula(tmp_path: Path) -> None:
    track = some_track(50).rounded(8)
    codes = quantise(track.motion, 8).codes.astype(int)
    change = np.diff(codes, axis=0, prepend=0) % 256
    size = len(zlib.compress(change.T.astype(np.uint8).tobytes(), 9))
    assert compressed_size(track) == size
    line = rate_line(track, 50_000)
    assert "4 coefficients x 8 bits x 12.5 fps = 0.40 kbit/s" in line
    assert f"{size * 8 / 4 / 1000:.2f} kbit/s after zlib" in line  # 50 frames are 4 seconds
    assert "32 bytes once" in line and line.endswith("clip.mp4 itself: 100.0 kbit/s")
    floats = rate_line(some_track(50), 1)
    assert "4 coefficients x 32 bits x 12.5 fps = 1.60 kbit/s" in floats and "once" not in floats


def test_a_still_clip_compresses_to_almost_nothing() -> None:
    still = MotionTrack(np.tile(np.float32([[0.1, -1, 2, 0.3]]), (500, 1)), 25.0, "0" * 16, "c")
    assert compressed_size(still) < 100 < compressed_size(some_track(500))


def test_the_fingerprint_knows_the_branch_that_reads_motion() -> None:
    own = motion_fingerprint(tiny_animator())
    assert re.fullmatch("[0-9a-f]{16}", own) and motion_fingerprint(tiny_animator()) == own
    rendered, read_otherwise, based = tiny_animator(), tiny_animator(), tiny_animator()
    with torch.no_grad():
        next(rendered.generator.parameters()).add_(1.0)
        next(read_otherwise.motion_head.parameters()).add_(1.0)
        based.descriptors.weight.add_(torch.eye(16))
    assert motion_fingerprint(rendered) == own
    assert len({own, *map(motion_fingerprint, (read_otherwise, based, tiny_animator(driving=True)))}) == 4


def test_tracks_of_another_model_are_refused(files: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"track\.safetensors was read from driving\.mp4 by another model"):
        run(files, tmp_path / "o.mp4", "other.ckpt", motion=str(files / "track.safetensors"))
    assert not list(tmp_path.iterdir())


def test_either_a_clip_or_a_track(files: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"give either --driving .* or --motion .*; neither is given"):
        run(files, tmp_path / "o.mp4")
    with pytest.raises(ConfigError, match="both is given"):
        run(files, tmp_path / "o.mp4", driving=str(files / "driving.mp4"), motion=str(files / "track.safetensors"))


def write_raw(path: Path, motion: Tensor, **about: str) -> Path:
    header = {"schema": "sfdkit.motion/1", "model": "0" * 16, "clip": "c", "fps": "25.0", "bits": "32", **about}
    save_file({"motion": motion}, path, header)
    return path


def test_files_that_are_no_tracks(files: Path, tmp_path: Path) -> None:
    for name, motion, words in (
        ("short", torch.zeros(0, 4), r"short\.safetensors is no usable track: coefficients of shape \(0, 4\)"),
        ("flat", torch.zeros(4), r"flat\.safetensors is no usable track"),
        ("nan", torch.full((2, 4), float("nan")), r"nan\.safetensors is no usable track: .*all finite"),
    ):
        with pytest.raises(DataError, match=words):
            MotionTrack.load(write_raw(tmp_path / f"{name}.safetensors", motion))
    with pytest.raises(DataError, match=r"rate\.safetensors is no usable track"):
        MotionTrack.load(write_raw(tmp_path / "rate.safetensors", torch.zeros(2, 4), fps="0"))
    with pytest.raises(DataError, match=r"word\.safetensors is damaged \(could not convert"):
        MotionTrack.load(write_raw(tmp_path / "word.safetensors", torch.zeros(2, 4), fps="fast"))
    with pytest.raises(DataError, match=r"old\.safetensors holds something else: its schema is 'x'"):
        MotionTrack.load(write_raw(tmp_path / "old.safetensors", torch.zeros(2, 4), schema="x"))
    with pytest.raises(DataError, match=r"codes\.safetensors is incomplete: it lacks codes, offset, step"):
        MotionTrack.load(write_raw(tmp_path / "codes.safetensors", torch.zeros(2, 4), bits="8"))
    with pytest.raises(DataError, match=r"source\.png is damaged or no \.safetensors file"):
        run(files, tmp_path / "o.mp4", motion=str(files / "source.png"))


def test_what_cannot_be_extracted_is_refused_before_any_work(files: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"output: .*t\.npz has the suffix '\.npz'; use \.safetensors"):
        read(files, tmp_path / "t.npz")
    with pytest.raises(DataError, match=r"there is no video .*gone\.mp4"):
        read(files, tmp_path / "t.safetensors", driving="gone.mp4")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--bits=16", "bits: '16' will not do; it takes 2, 3, 4, 5, 6, 7, 8, 32"),
        ("--batch_size=0", "batch_size: 0 is out of range; give more than 0"),
    ],
)
def test_numbers_that_cannot_work(option: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["motion", "extract", "--checkpoint=c", "--driving=d", "--output=o.safetensors", option])
    assert f"sfdkit: error: {words}" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="bits: 16 is not possible; give 2 to 8, or 32"):
        some_track().rounded(16)


def test_the_command_line_extracts_and_animates(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = f"motion extract --checkpoint {files}/model.ckpt --driving {files}/driving.mp4 --bits 6 --fps 5"
    words += f" --output {tmp_path}/t.safetensors --crop none --device cpu --batch_size 2 --margin 0.3"
    assert main(words.split()) == 0
    out = capsys.readouterr().out
    assert "t.safetensors: 5 frames, 1.00 s at 5 fps" in out or "t.safetensors: 6 frames, 1.20 s at 5 fps" in out
    assert "4 coefficients x 6 bits x 5 fps = 0.12 kbit/s" in out and "driving.mp4 itself: " in out
    words = f"animate --checkpoint {files}/model.ckpt --source {files}/source.png --motion {tmp_path}/t.safetensors"
    words += f" --output {tmp_path}/o.gif --crop none --device cpu --mode relative --side_by_side true"
    assert main(words.split()) == 0
    assert (probe(tmp_path / "o.gif").width, probe(tmp_path / "o.gif").fps) == (64, 5.0)
