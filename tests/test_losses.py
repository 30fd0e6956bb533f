from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torchvision.models import vgg19

from sfdkit.errors import ConfigError
from sfdkit.losses import Objective
from sfdkit.losses.adversarial import discriminator_loss, generator_loss, r1_penalty
from sfdkit.losses.gradient import GradientLoss
from sfdkit.losses.leakage import Leakage
from sfdkit.losses.perceptual import WEIGHTS_VARIABLE, PerceptualLoss
from sfdkit.losses.reconstruction import MultiScaleL1
from sfdkit.schedule import cosine_with_warmup


def test_multi_scale_l1_sees_low_frequencies_more() -> None:
    flat, noise = torch.full((1, 3, 32, 32), 0.1), torch.randn(1, 3, 32, 32)
    noise = noise / noise.abs().mean() * 0.1
    zero = torch.zeros(1, 3, 32, 32)
    assert MultiScaleL1()(flat, zero) == pytest.approx(0.1)
    assert MultiScaleL1()(noise, zero) < 0.075


def test_gradient_term_ignores_brightness_and_sees_edges() -> None:
    image = torch.rand(2, 3, 16, 16)
    assert GradientLoss()(image + 0.3, image) == pytest.approx(0, abs=1e-6)
    assert GradientLoss()(image.flip(-1), image) > 0.1


def test_objective_sums_what_has_a_weight() -> None:
    objective = Objective({"l1": 2.0, "gradient": 0.0, "ssim": 1.0})
    image = torch.rand(2, 3, 32, 32)
    total, values = objective(image * 0.5, image)
    assert set(values) == {"l1", "ssim"}
    assert total == pytest.approx(2 * values["l1"].item() + values["ssim"].item(), rel=1e-5)
    assert objective(image, image)[0] == pytest.approx(0, abs=1e-5)


def test_warp_term_judges_the_warped_source() -> None:
    image, painted = torch.rand(2, 3, 32, 32), torch.rand(2, 3, 32, 32)
    objective = Objective({"l1": 1.0, "warp": 0.5})
    assert objective.needs_warped and not Objective({"l1": 1.0, "warp": 0.0}).needs_warped
    total, values = objective(painted, image, image)
    assert values["warp"] == 0 and values["l1"] > 0.1 and total == pytest.approx(values["l1"].item())
    total, values = objective(image, image, painted)
    assert values["l1"] == 0 and values["warp"] == MultiScaleL1()(painted, image) > 0.1
    assert total == pytest.approx(0.5 * values["warp"].item())


def test_leakage_is_the_intraclass_correlation() -> None:
    torch.manual_seed(0)
    clips, frames = 4000, 3
    person, movement = torch.randn(clips, 1, 2), torch.randn(clips, frames, 2)
    motion = torch.stack([person[..., 0] * 2 + movement[..., 0], movement[..., 1]], 2)
    term = Leakage()
    assert term(motion[:, :, :1]) == pytest.approx(4 / 5, abs=0.02)
    assert term(motion[:, :, 1:]) == pytest.approx(0, abs=0.02)
    assert term(motion * 7 + 3) == pytest.approx(term(motion).item(), abs=1e-4)
    assert term(motion[:1]) == 0 and term(motion[:, :1]) == 0


def test_leakage_equals_brute_force_and_is_unbiased_in_small_batches() -> None:
    torch.manual_seed(0)
    motion = torch.randn(5, 3, 1)
    centred = (motion - motion.mean())[..., 0]
    products = [c[i] * c[j] for c in centred for i in range(3) for j in range(3) if i != j]
    expected = torch.stack(products).mean() / centred.square().mean()
    assert Leakage()(motion) == pytest.approx(expected.item(), abs=1e-4)
    values, totals = Objective({"leakage": 2.0})(motion, motion, None, motion)[::-1]
    assert totals == pytest.approx(2 * values["leakage"].item())
    mean = torch.stack([Leakage()(torch.randn(16, 3, 4)) for _ in range(300)]).mean()
    assert abs(mean) < 0.03  # centring on the batch costs 1/48


def test_squared_term_weighs_large_errors() -> None:
    target = torch.zeros(1, 3, 8, 8)
    spread, peak = torch.full_like(target, 0.1), torch.zeros_like(target)
    peak[..., 0] = 0.8
    objective = Objective({"l2": 2.0})
    assert objective(spread, target)[0] == pytest.approx(2 * 0.01)
    assert objective(peak, target)[0] == pytest.approx(2 * 0.64 / 8)
    assert not objective.needs_warped


def test_unknown_term_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"no loss term 'gradiant'\. Did you mean 'gradient'"):
        Objective({"gradiant": 1.0})


@pytest.mark.parametrize("kind", ["nonsaturating", "hinge"])
def test_adversarial_losses_pull_in_opposite_directions(kind) -> None:
    good, bad = torch.full((4,), 3.0), torch.full((4,), -3.0)
    assert generator_loss(good, kind) < generator_loss(bad, kind)
    assert discriminator_loss(good, bad, kind) < 0.2 < 3 < discriminator_loss(bad, good, kind)


def test_r1_is_half_the_squared_slope() -> None:
    class Linear(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * x.sum((1, 2, 3))

    assert r1_penalty(Linear(), torch.rand(3, 3, 4, 4)) == pytest.approx(4 * 48 / 2)


def test_perceptual_needs_weights_and_says_where_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(WEIGHTS_VARIABLE, str(tmp_path / "none.pth"))
    with pytest.raises(ConfigError, match=r"none\.pth is no file.*vgg19"):
        Objective({"perceptual": 1.0})
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pth")
    monkeypatch.setenv(WEIGHTS_VARIABLE, str(tmp_path / "other.pth"))
    with pytest.raises(ConfigError, match="holds no VGG19 state dict"):
        Objective({"perceptual": 1.0})
    monkeypatch.delenv(WEIGHTS_VARIABLE)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def offline(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(ConfigError, match=r"could not be downloaded.*set the weight perceptual to 0"):
        Objective({"perceptual": 1.0})


def test_perceptual_from_a_local_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = vgg19()
    torch.save(network.state_dict(), tmp_path / "vgg19.pth")
    monkeypatch.setenv(WEIGHTS_VARIABLE, str(tmp_path / "vgg19.pth"))
    loss = PerceptualLoss(scales=2)
    image = torch.rand(1, 3, 64, 64)
    assert loss(image, image) == 0
    moved = image.roll(8, 3).requires_grad_(True)
    loss(moved, image).backward()
    assert moved.grad is not None and moved.grad.abs().sum() > 0
    assert not any(p.requires_grad for p in loss.parameters())


def test_schedule_rises_then_falls() -> None:
    factors = [cosine_with_warmup(s, 10, s / 100) for s in range(101)]
    assert factors[0] == pytest.approx(0.1, rel=0.01) and max(factors) == factors[9]
    assert factors[100] == pytest.approx(0.01) and factors[50] == pytest.approx(0.505, abs=1e-6)
    assert all(math.isfinite(f) for f in factors)
