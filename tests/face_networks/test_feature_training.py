from __future__ import annotations

from inspect import signature
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import Tensor

from sfdkit.cli import main
from sfdkit.face_networks import feature_training
from sfdkit.face_networks.commands import train_perceptual
from sfdkit.face_networks.distortions import DISTORTIONS, distort, disturb, soften
from sfdkit.face_networks.feature_examples import WINDOW, draw_windows, heat_maps
from sfdkit.face_networks.feature_network import SHIPPED, FeatureNetwork
from sfdkit.face_networks.puppet_examples import Examples, draw_examples
from sfdkit.losses.perceptual import PerceptualLoss
from sfdkit.puppets.factors import IdentityFactors, sample_identity, sample_motion
from sfdkit.puppets.render import render


@pytest.fixture(scope="module")
def examples() -> Examples:
    return draw_examples(4, 2, 128, seed=7, supersample=1, side=128)


@pytest.fixture(scope="module")
def faces() -> Tensor:
    who = IdentityFactors.concat([sample_identity(k, "test", 3) for k in range(6)])
    return render(who, sample_motion(1, "test", 3, frames=1), 64).image


def test_examples_keep_the_side_that_is_asked_for(examples: Examples) -> None:
    assert examples.images.shape == (8, 3, 128, 128)
    assert draw_examples(1, 1, 128, seed=7, supersample=1).images.shape[-1] == 64


def test_distortions_are_where_their_strengths_say() -> None:
    images = torch.rand(64, 3, 32, 32)
    seen, strengths = distort(images, torch.Generator().manual_seed(0))
    assert strengths.shape == (64, len(DISTORTIONS), 32, 32) and seen.min() >= 0 and seen.max() <= 1
    shares = (strengths.abs().amax((2, 3)) > 0.05).float().mean(0)
    assert (shares > 0.3).all() and (shares < 0.8).all()
    untouched = strengths.abs().amax((1, 2, 3)) == 0
    assert 0 < untouched.sum() < 32
    torch.testing.assert_close(seen[untouched], images[untouched])
    assert ((seen - images).abs().mean((1, 2, 3))[~untouched] > 0).all()
    again = distort(images, torch.Generator().manual_seed(0))[0]
    assert torch.equal(again, seen) and not torch.equal(distort(images, torch.Generator().manual_seed(1))[0], seen)


def test_disturbances_are_faint_and_of_fine_patterns() -> None:
    images = torch.full((64, 3, 32, 32), 0.5)
    change = disturb(images, torch.Generator().manual_seed(0)) - images
    strength = change.square().mean((1, 2, 3)).sqrt()
    assert strength.max() < 0.2 and strength.median() > 0.01
    assert soften(change).square().mean() < 0.4 * change.square().mean()
    assert ((change[:, 0] - change[:, 1]).abs().mean((1, 2)) > 0.01).sum() > 10, "in colours, too"


def test_softening_is_a_blur_of_one_pixel() -> None:
    point = torch.zeros(1, 1, 15, 15)
    point[..., 7, 7] = 1
    soft, offset = soften(point), torch.arange(15.0) - 7
    assert soft.sum() == pytest.approx(1) and (soft.sum((0, 1, 2)) * offset**2).sum() == pytest.approx(1)


@pytest.mark.parametrize("halved", [True, False])
def test_windows_are_moved_copies_of_one_place(examples: Examples, halved: bool) -> None:
    windows = draw_windows(examples, 16, halved, torch.Generator().manual_seed(0))
    assert windows.first.shape == windows.moved.shape == (16, 3, WINDOW, WINDOW)
    assert windows.landmarks.shape == (16, 31, 2)
    for first, moved in zip(windows.first, windows.moved, strict=True):
        shifts = [(y, x) for y in range(-4, 5) for x in range(-4, 5)]
        pairs = [torch.stack([first, moved.roll(shift, (1, 2))])[:, :, 5:-5, 5:-5].flatten(1) for shift in shifts]
        likeness = max(torch.corrcoef(pair)[0, 1] for pair in pairs)
        assert likeness > (0.8 if halved else 0.98)  # steps of half a pixel, or whole ones


def test_landmarks_of_windows_are_where_the_pictures_show_them(examples: Examples) -> None:
    size = examples.images.shape[3]
    images = torch.zeros_like(examples.images)
    pixels = ((examples.landmarks[:, 17] + 1) * size / 2).long().clamp(1, size - 2)  # the tip of the nose
    for image, (x, y) in zip(images, pixels.tolist(), strict=True):
        image[:, y - 1 : y + 2, x - 1 : x + 2] = 255
    windows = draw_windows(examples._replace(images=images), 64, True, torch.Generator().manual_seed(0))
    light, at = windows.first.mean(1), (windows.landmarks[:, 17] * WINDOW - 0.5).round().long()
    inside = ((at > 1) & (at < WINDOW - 2)).all(1)
    brightest = light.flatten(1).argmax(1)
    found = torch.stack([brightest % WINDOW, brightest // WINDOW], 1)
    assert inside.sum() > 2 and (found - at)[inside].abs().max() <= 2


def test_heat_maps_peak_at_landmarks() -> None:
    maps = heat_maps(torch.tensor([[[0.625, 0.125], [3.0, 0.5]]]), 4)
    assert maps.shape == (1, 2, 4, 4) and maps[0, 0].argmax() == 2 and maps[0, 0].max() == 1
    assert maps[0, 1].max() < 1e-6, "outside of the window"


def test_fine_patterns_of_colour_are_not_seen(faces: Tensor) -> None:
    """The mean of the colours keeps all detail; the other two channels lose that of single pixels."""
    signs = (torch.arange(64)[:, None] + torch.arange(64)) % 2 * 2.0 - 1
    filters = feature_training.prepared_input()
    red_and_blue = torch.tensor([0.1, 0.0, -0.1])[:, None, None] * signs
    seen = F.conv2d(F.pad(faces + red_and_blue, (2, 2, 2, 2), mode="reflect"), filters)
    plain = F.conv2d(F.pad(faces, (2, 2, 2, 2), mode="reflect"), filters)
    torch.testing.assert_close(seen, plain, atol=1e-4, rtol=0)
    torch.testing.assert_close(plain[:, :1], 4 * faces.mean(1, keepdim=True))


def test_training_learns_and_what_it_returns_is_what_it_trained(
    examples: Examples, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feature_training, "WINDOWS", 4)
    history: list[dict[str, float]] = []
    tensors = feature_training.fit_features(examples, 12, seed=1, report=history.append)
    totals = [sum(terms.values()) for terms in history]
    assert sum(totals[-3:]) < sum(totals[:3])
    again = feature_training.fit_features(examples, 12, seed=1)
    assert all(torch.equal(again[name], tensor) for name, tensor in tensors.items())
    assert [f.shape[1] for f in FeatureNetwork(tensors, "blur")(torch.rand(1, 3, 64, 64))] == [16, 32, 64, 128]


def test_folding_changes_nothing() -> None:
    learner = feature_training._Learner(3)
    for _ in range(3):
        learner(torch.rand(4, 3, 64, 64))  # running statistics that are not those of the start
    image = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        wanted = learner.eval()(image)
    torch.testing.assert_close(FeatureNetwork(learner.folded(), "blur")(image), wanted, atol=1e-4, rtol=1e-4)


def test_the_command_writes_a_network_that_the_term_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_training, "WINDOWS", 2)
    path = tmp_path / "new" / "features.safetensors"
    words = ["--output", str(path), "--steps", "2", "--identities", "2", "--device", "cpu"]
    assert main(["puppets", "train-perceptual", *words]) == 0
    image = torch.rand(1, 3, 64, 64)
    assert PerceptualLoss(str(path))(image, image) == 0
    with safe_open(path, "pt") as file:
        assert "--steps 2 --identities 2 --seed 90001" in file.metadata()["made_by"]


def test_the_shipped_network_is_small_and_says_how_it_was_made() -> None:
    path = SHIPPED["puppets"]
    assert path.stat().st_size < 1_000_000
    default = {name: option.default for name, option in signature(train_perceptual).parameters.items()}
    options = " ".join(f"--{name} {default[name]}" for name in ("steps", "identities", "seed"))
    with safe_open(path, "pt") as file:
        assert file.metadata()["made_by"] == f"sfdkit puppets train-perceptual {options}"
        assert file.metadata()["pool"] == "blur"


@pytest.mark.parametrize("kind", ["blur", "noise", "double"])
def test_the_shipped_network_counts_distortions_more_than_brightness(kind: str, faces: Tensor) -> None:
    faces, generator = faces * 0.8, torch.Generator().manual_seed(0)
    distorted = {
        "blur": soften(soften(faces)),
        "noise": faces + 0.03 * torch.randn(faces.shape, generator=generator),
        "double": (faces + faces.roll(3, 3)) / 2,
    }[kind]
    brighter = faces + (distorted - faces).square().mean((1, 2, 3), keepdim=True).sqrt()
    assert F.mse_loss(brighter, faces) == pytest.approx(F.mse_loss(distorted, faces).item(), rel=1e-3)
    loss = PerceptualLoss("puppets")
    assert loss(distorted, faces) > 1.5 * loss(brighter, faces)


def test_the_shipped_network_prefers_a_sharp_face_in_the_wrong_place_to_a_blurred_one(faces: Tensor) -> None:
    blurred, moved = soften(soften(soften(soften(faces)))), faces.roll(1, 3)
    errors = (F.mse_loss(blurred, faces) / F.mse_loss(moved, faces)).sqrt()
    loss = PerceptualLoss("puppets")
    assert loss(blurred, faces) / loss(moved, faces) > 1.5 * errors
