"""How a driver's motion becomes that of a source."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sfdkit.apply.animate import Animate
from sfdkit.apply.axes import Axes, BlockAxes, Direction
from sfdkit.apply.steering import REGIONS, OneEuroFilter, Steered, Steering, make_gain, nearest_frame
from sfdkit.cli import main
from sfdkit.errors import ConfigError
from sfdkit.model.fingerprints import basis_fingerprint
from tests.written import lively_animator, puppet_frames, write_checkpoint

SIZE = 8
STD = np.array([1, 2, 0.5, 1, 1, 1, 0, 1], np.float32)


def axes_of(vectors: dict[str, list[float]], basis: str = "b", size: int = SIZE, std: np.ndarray = STD) -> Axes:
    directions = {name: Direction(np.array(vector, np.float32), "units") for name, vector in vectors.items()}
    nothing = BlockAxes(np.zeros(4, np.float32), np.ones(4, np.float32))
    return Axes(basis, BlockAxes(np.zeros(size, np.float32), std, directions=directions), nothing)


def unit(number: int, *, also: int | None = None, by: float = 0.5) -> list[float]:
    vector = np.zeros(SIZE)
    vector[number] = 1
    if also is not None:
        vector[also] = by
    return vector.tolist()


AXES = axes_of({"yaw": unit(0), "mouth_open": unit(1, also=0), "smile": unit(2), "blink": unit(3), "brows": unit(4)})


def test_relative_motion_is_added_to_the_sources_own() -> None:
    own, motion = np.arange(3.0), np.arange(12.0).reshape(4, 3)
    steer = Steered(Steering("relative"))
    made = np.concatenate([steer(steer.follow(part), own) for part in (motion[:1], motion[1:])])
    np.testing.assert_allclose(made, own + motion - motion[0])
    later = Steered(Steering("relative", motion[2]))
    np.testing.assert_allclose(later(later.follow(motion), own), own + motion - motion[2])
    np.testing.assert_allclose(Steered(Steering())(motion, own), motion)
    moving = np.arange(12.0, 24.0).reshape(4, 3)  # a source that moves by itself
    np.testing.assert_allclose(steer(motion, moving), moving + motion - motion[0])


def test_regions_move_alone_and_each_by_its_strength() -> None:
    """The mouth's direction shares a coefficient with the yaw's: what is read as mouth is not read as yaw."""
    mouth = np.array(AXES.motion.directions["mouth_open"].vector)
    moved = 3 * mouth + 2 * np.array(unit(0)) + np.array(unit(4))
    rest = np.array(unit(5))
    for regions, strength, wanted in (
        (["mouth"], 1.0, 3 * mouth),
        (["pose"], 2.0, 4 * np.array(unit(0))),
        (["pose", "brows"], {"brows": 0.5}, 2 * np.array(unit(0)) + 0.5 * np.array(unit(4))),
        (None, {"mouth": 2.0}, moved + rest + 3 * mouth),
        (None, 1.5, 1.5 * (moved + rest)),
        (None, {"rest": 1.5}, 1.5 * (moved + rest)),
        (None, {"mouth": 2.0, "rest": 0.5}, 0.5 * (moved + rest) + 4.5 * mouth),
        (["mouth", "pose"], {"mouth": 2.0, "rest": 0.5}, 6 * mouth + np.array(unit(0))),
    ):
        gain = make_gain(AXES, SIZE, regions, strength)
        assert gain is not None
        np.testing.assert_allclose(gain @ (moved + rest), wanted, atol=1e-6)
        own = np.ones(SIZE)
        steered = Steered(Steering(gain=gain))((own + moved + rest)[None], own)[0]
        np.testing.assert_allclose(steered, own + wanted, atol=1e-6)
    assert make_gain(None, SIZE, None, 1.0) is None
    parts = [make_gain(AXES, SIZE, [name], 1.0) for name in ("pose", "eyes", "brows", "mouth")]
    whole = make_gain(AXES, SIZE, list(REGIONS), 1.0)
    np.testing.assert_allclose(np.sum(parts, 0), whole, atol=1e-6)
    np.testing.assert_allclose(whole @ whole, whole, atol=1e-6)


@pytest.mark.parametrize(
    ("axes", "regions", "strength", "message"),
    [
        (AXES, ["mouht"], 1.0, r"regions: there is no region 'mouht'\. Did you mean 'mouth'.* are pose, eyes, brows"),
        (AXES, None, {"nose": 2.0}, "strength: there is no region 'nose'.*; rest stands for all that is not named"),
        (AXES, ["pose"], {"brows": 2.0}, "strength: brows does not move, as regions leaves it out"),
        (AXES, [], 1.0, "regions: the list is empty, so nothing would move"),
        (AXES, None, float("nan"), "strength: nan is no factor"),
        (AXES, None, {"eyes": float("inf")}, "strength: inf of eyes is no factor"),
        (None, ["eyes"], 1.0, "region eyes is moved by blink and gaze_x and gaze_y, and it has no named axes"),
        (
            axes_of({"yaw": unit(0)}),
            None,
            {"brows": 2.0},
            "moved by brows, and its axes name yaw; .*--axes FILE",
        ),
    ],
)
def test_what_a_model_cannot_move_is_named(axes: Axes | None, regions: Any, strength: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_gain(axes, SIZE, regions, strength)


def test_smoothing_stills_what_trembles_and_follows_what_moves() -> None:
    draws = np.random.default_rng(0)
    trembling = 0.1 * draws.standard_normal((200, 3))
    still = OneEuroFilter(25.0)(trembling)

    def jitter(motion: np.ndarray) -> float:
        return float(np.abs(np.diff(motion, 2, axis=0)[20:]).mean())

    assert jitter(still) < 0.3 * jitter(trembling)
    jump = np.concatenate([np.zeros((20, 1)), 5 * np.ones((20, 1))])
    followed = OneEuroFilter(25.0)(jump)[:, 0]
    assert (followed[:20] == 0).all() and followed[22] > 3.5 and abs(followed[-1] - 5) < 0.05
    slow = OneEuroFilter(25.0, cutoff=0.2)(trembling)
    assert jitter(slow) < 0.5 * jitter(still)
    apart, parts = OneEuroFilter(25.0), OneEuroFilter(25.0)
    np.testing.assert_allclose(np.concatenate([parts(trembling[:7]), parts(trembling[7:])]), apart(trembling))


def test_the_reference_is_the_frame_of_the_nearest_pose() -> None:
    own = np.zeros(SIZE)
    motion = np.stack([np.array(unit(0)), 0.2 * np.array(unit(0)) + 9 * np.array(unit(2)), -0.5 * np.array(unit(0))])
    assert nearest_frame(motion, own, AXES) == 1, "a smile is no pose"
    assert nearest_frame(motion, own, None) == 2


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    animator = lively_animator()
    write_checkpoint(folder / "model.ckpt", animator)
    vectors = {"yaw": [1.0, 0, 0, 0], "mouth_open": [0, 1.0, 0, 0]}
    axes = axes_of(vectors, basis_fingerprint(animator.descriptors), 4, np.ones(4, np.float32))
    identity = BlockAxes(np.zeros(12, np.float32), np.ones(12, np.float32))
    Axes(axes.basis, axes.motion, identity).save(folder / "axes.json")
    Image.fromarray(puppet_frames(0, 1)[0]).save(folder / "source.png")
    (folder / "driving").mkdir()
    for number, frame in enumerate(puppet_frames(1, 8)):
        Image.fromarray(frame).save(folder / f"driving/{number}.png")
    return folder


def animate(files: Path, output: Path, **options: Any) -> np.ndarray:
    given = {"checkpoint": "model.ckpt", "source": "source.png", "driving": "driving"}
    paths = {name: str(files / value) for name, value in given.items()}
    Animate(**paths, output=str(output), crop="none", device="cpu", **options).run()
    return np.stack([np.asarray(Image.open(file)) for file in sorted(output.iterdir())]).astype(int)


def test_the_command_steers(files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    axes = str(files / "axes.json")
    plain = animate(files, tmp_path / "plain")
    made = {
        "strong": animate(files, tmp_path / "strong", strength=1.8),
        "mouth": animate(files, tmp_path / "mouth", regions=["mouth"], axes=axes),
        "smooth": animate(files, tmp_path / "smooth", smooth=True, smooth_cutoff=0.1, smooth_beta=0.01),
    }
    differences = {name: np.abs(frames - plain).mean() for name, frames in made.items()}
    assert min(differences.values()) > 0.1, differences
    unmoved = animate(files, tmp_path / "still", strength=0.0)
    assert np.abs(unmoved - unmoved[0]).mean() < 1.5, "nothing moves"
    capsys.readouterr()
    relative = animate(files, tmp_path / "relative", mode="relative", reference="auto", axes=axes)
    told = capsys.readouterr().out
    assert "motion is relative to driving frame" in told and len(relative) == len(plain)
    number = int(told.split("driving frame ")[1].split(",")[0])
    assert np.abs(relative[number] - unmoved[0]).mean() < 2.0, "at that frame the source is as it is"


def test_options_of_the_command_line(files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["animate", f"--checkpoint={files / 'model.ckpt'}", f"--source={files / 'source.png'}", "--device=cpu"]
    words += [f"--driving={files / 'driving'}", f"--output={tmp_path / 'out.mp4'}", "--crop=none"]
    axes = f"--axes={files / 'axes.json'}"
    assert main([*words, "--regions=[pose,mouth]", "--strength={mouth: 1.5}", axes]) == 0
    assert main([*words, "--strength=1.2", "--smooth=true"]) == 0
    for options, message in (
        (["--regions=[eyes]", axes], "region eyes is moved by blink"),
        (["--regions=[mouth]"], "it has no named axes"),
        (["--reference=auto"], "reference: auto is for relative motion; give --mode relative"),
        (["--smooth_cutoff=1"], "smooth_cutoff and smooth_beta are for --smooth true"),
    ):
        assert main([*words, *options]) == 1
        (line,) = [each for each in capsys.readouterr().err.splitlines() if "error" in each]
        assert message in line
