from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from sfdkit.cli import main
from sfdkit.errors import CheckpointError, ConfigError
from sfdkit.face_networks.embedder import load_embedder
from sfdkit.face_networks.measurer import open_measurer
from sfdkit.face_networks.puppet_accuracy import accuracy, pair_similarities, retrieval, verification
from sfdkit.face_networks.puppet_examples import SURROUNDINGS, Examples, augment, blur, draw_examples, mirror
from sfdkit.face_networks.puppet_measurer import SCHEMA, PuppetMeasurer, Regressor, regressor_path, save_regressor
from sfdkit.face_networks.puppet_network import EXPRESSION, POSE, PuppetNetwork, cut, face_frame
from sfdkit.face_networks.puppet_training import contrastive, fit
from sfdkit.face_networks.types import MeasureSettings
from sfdkit.losses.identity import IdentityTerm
from sfdkit.points import to_pixels
from sfdkit.puppets.factors import IdentityFactors, MotionFactors, sample_identity, sample_motion
from sfdkit.puppets.landmarks import LANDMARKS
from sfdkit.puppets.render import render


@pytest.fixture(scope="module")
def examples() -> Examples:
    return draw_examples(32, 3, 32, seed=7, supersample=1)


def make_file(path: Path, resolution: int = 32, **about: object) -> PuppetNetwork:
    torch.manual_seed(3)
    network = PuppetNetwork().eval()
    numbers = {"landmarks": 0.5}
    standard = {"schema": SCHEMA, "resolution": resolution, "steps": 2, "seed": 1}
    save_regressor(path, Regressor(network, standard | {"accuracy": numbers, "accuracy_soft": numbers} | about))
    return network


def test_verification_figures_by_hand() -> None:
    same, other = torch.tensor([0.9, 0.8, 0.4]), torch.tensor([0.1, 0.4, 0.5, 0.2])
    # of 12 comparisons: 0.9 and 0.8 win 4 each, 0.4 beats two and ties with one
    # at a threshold of 0.5 one of three is refused and one of four taken; no other is more balanced
    assert verification(same, other) == pytest.approx(((1 / 3 + 1 / 4) / 2, (4 + 4 + 2.5) / 12))
    assert verification(torch.tensor([0.9]), torch.tensor([0.1])) == (0, 1)
    assert verification(torch.tensor([-0.1]), torch.tensor([0.9]))[1] == 0


def test_verification_figures_against_brute_force() -> None:
    embedding = F.normalize(torch.randn(24, 4), dim=1)
    identity = torch.arange(24) // 3
    same, other = pair_similarities(embedding, identity)
    pairs = [(a, b) for a in range(24) for b in range(a + 1, 24)]
    expected = [float(embedding[a] @ embedding[b]) for a, b in pairs if a // 3 == b // 3]
    assert sorted(same.tolist()) == pytest.approx(sorted(expected), abs=1e-6)
    assert len(same) == 8 * 3 and len(other) == len(pairs) - 24
    wins = [(s > o) + 0.5 * (s == o) for s in same.tolist() for o in other.tolist()]
    equal_error, auc = verification(same, other)
    assert auc == pytest.approx(sum(wins) / len(wins))
    rates = []
    for threshold in [*same.tolist(), *other.tolist()]:
        refused = sum(s < threshold for s in same.tolist()) / len(same)
        taken = sum(o >= threshold for o in other.tolist()) / len(other)
        rates.append((abs(refused - taken), (refused + taken) / 2))
    assert equal_error == pytest.approx(min(rates)[1])
    hits = 0
    for asked in (k for k in range(24) if k % 3):
        likeness = [float(embedding[asked] @ embedding[first]) for first in range(0, 24, 3)]
        hits += likeness.index(max(likeness)) == asked // 3
    assert retrieval(embedding, identity) == pytest.approx(hits / 16)


def test_contrastive_loss_by_hand() -> None:
    angles = torch.tensor([0.0, 0.2, 1.0, 1.3])
    embedding = torch.stack([angles.cos(), angles.sin()], 1)
    total = 0.0
    for row, own in ((0, 1), (1, 0), (2, 3), (3, 2)):
        weight = {k: math.exp(math.cos(float(angles[row] - angles[k])) / 0.5) for k in range(4) if k != row}
        total -= math.log(weight[own] / sum(weight.values())) / 4
    assert contrastive(embedding, 0.5) == pytest.approx(total, rel=1e-5)


def test_examples_tell_the_truth_and_people_keep_only_their_faces(examples: Examples) -> None:
    assert torch.equal(draw_examples(32, 3, 32, 7, 1).images, examples.images)
    assert examples.images.shape == (96, 3, 32, 32) and examples.landmarks.shape == (96, len(LANDMARKS), 2)
    motion = sample_motion(0, "train", 7, 96, 1 / 2.7)
    assert torch.equal(examples.pose[:, POSE.index("roll")], motion.roll)
    assert torch.equal(examples.expression[:, EXPRESSION.index("blink")], motion.blink)
    who = sample_identity(4, "train", 7)
    rendered = render(who, motion[13], 32, 1)
    torch.testing.assert_close(to_pixels(examples.landmarks[13:14], 32), rendered.landmarks, atol=1e-3, rtol=0)
    inside = rendered.mask[0, 0] > 0.99
    shift = (examples.images[13].float() / 255 - rendered.image[0]).abs()
    assert shift[:, inside].mean() < 0.15 < shift[:, :3].mean() * 3  # another light on the face, another wall
    assert {name.split("_")[0] for name in SURROUNDINGS} == {"back", "clothes", "light", "neckline"}


def test_mirrored_truth_is_that_of_the_mirrored_motion(examples: Examples) -> None:
    who = sample_identity(0, "train", 7)
    values = MotionFactors.from_values(
        {name: 0.0 for name in MotionFactors.names()} | {"scale": 1.0, "yaw": 17, "roll": -8, "gaze_x": 0.5}
    )
    turned = values.row(0) | {"yaw": -17.0, "roll": 8.0, "gaze_x": -0.5}

    def truth(motion: MotionFactors) -> Tensor:
        return (render(who, motion, 32).landmarks + 0.5) / 16 - 1

    one = Examples(
        examples.images[:1], truth(values), torch.tensor([[17.0, 0, -8]]), torch.tensor([[0, 0, 0, 0.5, 0, 0]]), 1
    )
    other = mirror(one, torch.tensor([True]))
    torch.testing.assert_close(other.landmarks, truth(MotionFactors.from_values(turned)), atol=1e-4, rtol=0)
    assert other.pose.tolist() == [[-17, 0, 8]] and other.expression.tolist() == [[0, 0, 0, -0.5, 0, 0]]
    assert torch.equal(other.images, one.images.flip(3))
    for a, b in zip(mirror(other, torch.tensor([True]))[:4], one[:4], strict=True):
        assert torch.equal(a, b)


def test_augmentation_keeps_pictures_and_truth_together() -> None:
    images = torch.zeros(40, 3, 32, 32, dtype=torch.uint8)
    column, row = torch.randint(6, 26, (2, 40))
    for k in range(40):
        images[k, :, row[k] - 1 : row[k] + 2, column[k] - 1 : column[k] + 2] = 255
    place = torch.stack([column, row], 1)[:, None].expand(40, len(LANDMARKS), 2)
    given = Examples(images, (place + 0.5) / 16 - 1, torch.ones(40, 3), torch.ones(40, 6), 2)
    seen, truth = augment(given, torch.Generator().manual_seed(0))
    assert seen.shape == images.shape and seen.min() >= 0 and seen.max() <= 1
    weight = (seen.mean(1) - 0.3).clamp(min=0)
    weight = weight / weight.sum((1, 2), keepdim=True)
    grid = torch.arange(32.0)
    found = torch.stack([(weight.sum(1) * grid).sum(1), (weight.sum(2) * grid).sum(1)], 1)
    assert (found - to_pixels(truth.landmarks[:, 0], 32)).abs().max() < 0.5
    assert (truth.landmarks - given.landmarks).abs().max() > 0.05
    assert torch.equal(truth.pose[::2], truth.pose[1::2]) and set(truth.pose[:, 0].tolist()) == {-1.0, 1.0}


def test_blur_is_gaussian() -> None:
    point = torch.zeros(1, 2, 33, 33)
    point[:, :, 16, 16] = 1
    soft = blur(point, 1.5)
    places = torch.arange(33.0) - 16
    assert soft.sum() == pytest.approx(2, rel=1e-5)
    assert (soft[0, 0].sum(0) * places.square()).sum() == pytest.approx(1.5**2, rel=0.05)
    assert torch.allclose(blur(torch.full((1, 3, 8, 8), 0.3), 2.0), torch.tensor(0.3))


def test_parts_are_cut_upright_and_of_one_size() -> None:
    """A face drawn of dots, turned, made larger and moved, shows the same dots in the same places of a part."""
    eyes = {"outer": (1.3, 0.0), "inner": (0.7, 0.0), "upper": (1.0, -0.1), "lower": (1.0, 0.1)}
    face = torch.zeros(len(LANDMARKS), 2)
    for name, (x, y) in eyes.items():
        face[LANDMARKS.index(f"left_eye_{name}")] = torch.tensor([-x, y])
        face[LANDMARKS.index(f"right_eye_{name}")] = torch.tensor([x, y])
    face[LANDMARKS.index("left_mouth_corner")], face[LANDMARKS.index("right_mouth_corner")] = torch.tensor(
        [[-0.8, 2.0], [0.8, 2.0]]
    )
    angle, size, middle = math.radians(20), 0.21, torch.tensor([0.1, -0.15])
    turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    placed = (face * size) @ turn.T + middle
    frame = face_frame(placed[None])
    torch.testing.assert_close(frame[0], turn * size * 2)  # eyes and mouth are 2 apart
    dot = (torch.tensor([1.0, 0.5]) * size) @ turn.T + middle  # half a unit right and a quarter below the centre
    grid = torch.stack(torch.meshgrid(*[(torch.arange(64.0) + 0.5) / 32 - 1] * 2, indexing="xy"), 2)
    image = torch.exp(-(grid - dot).square().sum(2) / (2 * 0.05**2)).expand(1, 3, 64, 64)
    part = cut(image, middle[None], frame, reach=1.0)[0, 0]
    at = int(part.argmax())
    row, column = divmod(at, part.shape[1])
    assert part.max() > 0.8
    assert [(2 * k + 1) / part.shape[1] - 1 for k in (column, row)] == pytest.approx([0.5, 0.25], abs=0.06)


def test_training_learns_and_repeats_itself(examples: Examples) -> None:
    history: list[dict[str, float]] = []
    network = fit(examples, 20, seed=1, report=history.append)
    assert set(history[0]) == {"landmarks", "pose", "expression", "identity"} and len(history) == 20
    for name in ("landmarks", "identity"):
        assert sum(h[name] for h in history[-5:]) < 0.8 * sum(h[name] for h in history[:5])
    found = accuracy(network, examples)
    fresh = accuracy(PuppetNetwork().eval(), examples)
    assert found["landmarks"] < 0.7 * fresh["landmarks"]
    assert found["identity_top1"] > 0.3 and 0 < found["identity_equal_error"] < 0.4
    again = fit(examples, 2, seed=1).state_dict()
    for name, value in fit(examples, 2, seed=1).state_dict().items():
        assert torch.equal(value, again[name])


def test_accuracy_is_in_pixels_of_64_and_degrees(examples: Examples) -> None:
    class Near(torch.nn.Module):
        at = 0

        def forward(self, images: Tensor) -> tuple[Tensor, ...]:
            rows = slice(self.at, self.at + len(images))
            self.at += len(images)
            shift = torch.tensor([3.0, 4.0]) / 32
            pose = examples.pose[rows] + torch.tensor([1.0, -2.0, 3.0])
            expression = examples.expression[rows] + 0.1
            return examples.landmarks[rows] + shift, pose, expression, torch.eye(96)[rows]

    found = accuracy(Near(), examples)  # type: ignore[arg-type]
    assert found["landmarks"] == pytest.approx(5, rel=1e-4)
    assert [found[name] for name in POSE] == pytest.approx([1, 2, 3], rel=1e-4)
    assert found["smile"] == pytest.approx(0.1, rel=1e-4)
    variance = examples.expression[:, 1].var(correction=0).item()
    assert found["r2_smile"] == pytest.approx(1 - 0.01 / variance, rel=1e-3)


def test_file_round_trip_and_measurer(tmp_path: Path) -> None:
    path = tmp_path / "r.safetensors"
    network = make_file(path)
    images = torch.rand(70, 3, 32, 32)
    measurer = PuppetMeasurer(path, 32)
    found, read = measurer.measure(images), network(images)
    torch.testing.assert_close(found.landmarks, (read.landmarks.detach() + 1) * 16 - 0.5)
    for a, b in ((found.pose, read.pose), (found.expression, read.expression), (found.embedding, read.embedding)):
        torch.testing.assert_close(a, b.detach())
    assert found.embedding is not None and torch.allclose(found.embedding.norm(dim=1), torch.ones(70))
    assert measurer.expression_names == EXPRESSION and not measurer.missing
    assert measurer.about["regressor/landmarks"] == 0.5 and measurer.about["regressor/soft_landmarks"] == 0.5
    assert path.stat().st_size < 1_050_000 and [p.name for p in tmp_path.iterdir()] == ["r.safetensors"]
    assert path.stat().st_mode & 0o777 == 0o644
    with pytest.raises(ConfigError, match="--resolution 48"):
        measurer.measure(torch.rand(1, 3, 48, 48))


def test_unusable_files_are_refused_with_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "r.safetensors"
    with pytest.raises(CheckpointError, match="does not exist"):
        PuppetMeasurer(path, 32)
    make_file(path)
    with pytest.raises(CheckpointError, match=r"32 pixels, not 64.*--resolution 64"):
        PuppetMeasurer(path, 64)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="damaged"):
        PuppetMeasurer(path, 32)
    make_file(path, schema=SCHEMA - 1)
    with pytest.raises(CheckpointError, match=f"schema {SCHEMA - 1}"):
        PuppetMeasurer(path, 32)
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    about = json.loads(metadata["sfdkit_regressor"]) | {"schema": SCHEMA}
    save_file({"odd": torch.zeros(2)}, path, metadata={"sfdkit_regressor": json.dumps(about)})
    with pytest.raises(CheckpointError, match="do not fit"):
        PuppetMeasurer(path, 32)
    save_file({"odd": torch.zeros(2)}, path)
    with pytest.raises(CheckpointError, match="no regressor"):
        PuppetMeasurer(path, 32)


def test_open_measurer_for_puppets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SFDKIT_CACHE", str(tmp_path))
    measurer = open_measurer(MeasureSettings(), 32, puppets=True)
    assert set(measurer.missing) == {"landmarks", "pose", "expression", "identity"}
    assert "sfdkit measure train --resolution 32" in measurer.missing["pose"]
    assert set(measurer.measure(torch.rand(1, 3, 32, 32))) == {None}
    assert regressor_path(32) == tmp_path / "regressor-32.safetensors"
    make_file(regressor_path(32))
    assert isinstance(open_measurer(MeasureSettings(), 32, True), PuppetMeasurer)
    assert open_measurer(MeasureSettings(regressor="none"), 32, True).missing
    with pytest.raises(CheckpointError, match="does not exist"):
        open_measurer(MeasureSettings(regressor=str(tmp_path / "other.safetensors")), 32, True)


def test_regressor_serves_as_identity_network_at_any_size(tmp_path: Path) -> None:
    path = tmp_path / "r.safetensors"
    network = make_file(path)
    images = torch.rand(3, 3, 32, 32)
    torch.testing.assert_close(load_embedder(path)(images), network(images).embedding.detach())
    for size in (33, 64, 100):
        image = torch.rand(2, 3, size, size, requires_grad=True)
        value = IdentityTerm(str(path))(image, torch.rand(2, 3, size, size))
        value.backward()
        assert image.grad is not None and bool((image.grad.flatten(1).abs().sum(1) > 0).all())


def test_train_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "cache" / "r.safetensors"
    words = ["measure", "train", "--resolution", "16", "--steps", "2", "--identities", "32", "--output", str(path)]
    assert main(words) == 0
    printed = capsys.readouterr().out
    for word in ("landmarks", "yaw", "R2", "equal error rate", "top-1", str(path)):
        assert word in printed
    about = PuppetMeasurer(path, 16).about
    assert about["regressor/steps"] == 2 and isinstance(about["regressor/soft_r2_gaze_x"], float)
    assert main([*words[:-1], str(tmp_path / "r.pt")]) == 1
    assert "has the suffix '.pt'; use .safetensors" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--steps=0", "steps: 0 is out of range; give more than 0"),
        ("--resolution=8", "resolution: 8 is out of range; give 16 or more"),
        ("--identities=31", "identities: 31 is out of range; give 32 or more"),
    ],
)
def test_numbers_that_cannot_work(option: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["measure", "train", option])
    assert capsys.readouterr().err.strip() == f"sfdkit: error: {words}"


def test_puppet_factors_that_are_the_face_are_kept() -> None:
    kept = set(IdentityFactors.names()) - set(SURROUNDINGS)
    assert {"skin_tone", "hair_tone", "glasses", "jaw", "iris_colour"} <= kept and len(SURROUNDINGS) == 11
