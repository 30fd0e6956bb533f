from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torchmetrics.functional.image import structural_similarity_index_measure

from sfdkit.errors import ConfigError
from sfdkit.losses import OF_NETWORKS, RAMP, TERMS, Bent, Crossed, Objective, Step
from sfdkit.losses.adversarial import discriminator_loss, feature_matching, generator_loss, r1_penalty
from sfdkit.losses.consistency import Consistency
from sfdkit.losses.equivariance import Bend
from sfdkit.losses.field import Painting, Smoothness
from sfdkit.losses.gradient import GradientLoss
from sfdkit.losses.kl import KLDivergence
from sfdkit.losses.leakage import Leakage
from sfdkit.losses.reconstruction import MultiScaleL1
from sfdkit.losses.reencode import Reencode
from sfdkit.losses.sparsity import Sparsity
from sfdkit.losses.structure import StructureLoss
from sfdkit.metrics.image import frame_ssim
from sfdkit.points import FACE31
from sfdkit.train.schedule import cosine_with_warmup
from tests.networks import save_features, save_script


def made(image: torch.Tensor, target: torch.Tensor, **fields: object) -> Step:
    """A step of B results, each of a row of its own."""
    count, _, side, _ = image.shape
    rest = {
        "source": target,
        "motion": torch.zeros(count, 2, 4),
        "log_noise": torch.zeros(4),
        "source_identity": torch.zeros(count, 12),
        "flow": torch.zeros(count, 2, side, side),
        "mask": torch.ones(count, 1, side, side),
        "warped": target,
        **fields,
    }
    return Step(image, target, **rest)  # type: ignore[arg-type]


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
    total, values = objective(made(image * 0.5, image))
    assert set(values) == {"l1", "ssim"}
    assert total == pytest.approx(2 * values["l1"].item() + values["ssim"].item(), rel=1e-5)
    assert objective(made(image, image))[0] == pytest.approx(0, abs=1e-5)


def test_structure_is_that_of_torchmetrics_in_grey() -> None:
    image = torch.rand(2, 3, 32, 48)
    near = (image + 0.1 * torch.randn_like(image)).clamp(0, 1)
    grey = [torch.tensor([[0.299, 0.587, 0.114]]).to(each) @ each.flatten(2) for each in (near, image)]
    wanted = structural_similarity_index_measure(*(g.view(2, 1, 32, 48) for g in grey), data_range=1.0)
    assert StructureLoss()(near, image) == pytest.approx(1 - float(wanted), abs=1e-5)
    assert wanted < 0.99


def test_warp_term_judges_the_warped_source() -> None:
    image, painted = torch.rand(2, 3, 32, 32), torch.rand(2, 3, 32, 32)
    objective = Objective({"l1": 1.0, "warp": 0.5})
    total, values = objective(made(painted, image, warped=image))
    assert values["warp"] == 0 and values["l1"] > 0.1 and total == pytest.approx(values["l1"].item())
    total, values = objective(made(image, image, warped=painted))
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
    picture = torch.zeros(5, 3, 8, 8)
    values, totals = Objective({"leakage": 2.0})(made(picture, picture, motion=motion))[::-1]
    assert totals == pytest.approx(2 * values["leakage"].item())
    mean = torch.stack([Leakage()(torch.randn(16, 3, 4)) for _ in range(300)]).mean()
    assert abs(mean) < 0.03  # centring on the batch costs 1/48


def test_total_leakage_counts_each_coefficient_by_its_variance() -> None:
    torch.manual_seed(0)
    motion = torch.randn(6, 3, 2) * torch.tensor([3.0, 0.5]) + torch.randn(6, 1, 2)
    each = torch.stack([Leakage()(motion[..., k : k + 1]) for k in range(2)])
    variance = motion.flatten(0, 1).var(0, correction=0)
    expected = (each * variance).sum() / variance.sum()
    assert Leakage(together=True)(motion) == pytest.approx(expected.item(), abs=1e-5)
    assert abs(Leakage()(motion) - expected) > 0.05
    silent = torch.cat([motion, torch.zeros(6, 3, 30)], 2)
    assert Leakage(together=True)(silent) == pytest.approx(expected.item(), abs=1e-5)
    picture = torch.zeros(6, 3, 8, 8)
    total, values = Objective({"total_leakage": 2.0})(made(picture, picture, motion=motion))
    assert values["total_leakage"] == pytest.approx(expected.item(), abs=1e-5) and total == 2 * values["total_leakage"]


def test_squared_term_weighs_large_errors() -> None:
    target = torch.zeros(1, 3, 8, 8)
    spread, peak = torch.full_like(target, 0.1), torch.zeros_like(target)
    peak[..., 0] = 0.8
    objective = Objective({"l2": 2.0})
    assert objective(made(spread, target))[0] == pytest.approx(2 * 0.01)
    assert objective(made(peak, target))[0] == pytest.approx(2 * 0.64 / 8)


def test_unknown_term_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"weights: .*no loss term 'gradiant'\. Did you mean 'gradient'"):
        Objective({"gradiant": 1.0})
    with pytest.raises(ConfigError, match=r"starts: .*no loss term 'cicle'\. Did you mean 'cycle'"):
        Objective({"cycle": 1.0}, {"cicle": 10})


def test_identity_term_wants_its_network_and_sees_crossed_results_too(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"identity is not 0.*model\.networks\.identity"):
        Objective({"identity": 1.0})
    with pytest.raises(ConfigError, match="networks: there is no loss term 'l1'"):
        Objective({"l1": 1.0}, None, {"l1": "x.pt"})
    with pytest.raises(ConfigError, match=r"none\.onnx"):
        Objective({"identity": 1.0}, None, {"identity": str(tmp_path / "none.onnx")})

    class Mean(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean((2, 3))

    torch.jit.script(Mean()).save(str(tmp_path / "mean.pt"))
    objective = Objective({"identity": 2.0}, None, {"identity": str(tmp_path / "mean.pt")})
    red, green = torch.zeros(2, 1, 3, 112, 112)
    red[:, 0], green[:, 1] = 1.0, 1.0
    low = objective(made(torch.cat([red, red]), torch.cat([red, red]), source=red))[0]
    high = objective(made(torch.cat([red, green]), torch.cat([red, red]), source=red))[0]
    step = made(red, red, crossed=Crossed(green, red, red, red, red, None, red, red))
    assert low == pytest.approx(0, abs=1e-5) and high > 0.05
    assert objective(step)[0] == pytest.approx(high.item(), abs=1e-5)


def test_terms_start_at_their_step() -> None:
    objective = Objective({"l1": 1.0, "warp": 1.0}, {"warp": 5})
    step = made(torch.zeros(1, 3, 16, 16), torch.ones(1, 3, 16, 16), warped=torch.zeros(1, 3, 16, 16))
    assert set(objective(step, 4)[1]) == {"l1"} and set(objective(step, 5)[1]) == {"l1", "warp"}
    late = Objective({"kl": 1.0}, {"kl": 5})
    assert not late.needs("noise", 4) and late.needs("noise", 5)
    assert objective(step, 5)[0] == pytest.approx(1 + 1 / RAMP)
    assert objective(step, 5 + RAMP // 2 - 1)[0] == pytest.approx(1.5)
    assert objective(step, 5 + RAMP)[0] == pytest.approx(2.0)


def test_rate_is_the_divergence_from_a_normal_around_the_mean() -> None:
    torch.manual_seed(0)
    motion, log_noise = torch.randn(3, 2, 5), torch.randn(5)
    one = torch.distributions.Normal(motion, log_noise.exp())
    expected = (
        torch.distributions.kl_divergence(one, torch.distributions.Normal(motion.mean((0, 1)), 1.0)).sum(2).mean()
    )
    assert KLDivergence()(motion, log_noise) == pytest.approx(expected.item(), rel=1e-5)
    assert KLDivergence()(motion + 5, log_noise) == pytest.approx(expected.item(), rel=1e-4), (
        "an offset of all tells nothing"
    )
    assert KLDivergence()(torch.zeros(4, 5), torch.zeros(5)) == 0


def test_consistency_equals_brute_force_and_leaves_out_the_same_person() -> None:
    torch.manual_seed(0)
    identity, people = torch.randn(4, 2, 6), torch.tensor([0, 1, 0, 2])
    expected = []
    for first, second in ((0, 1), (1, 0)):
        for row in range(4):
            close = {
                other: math.exp(torch.cosine_similarity(identity[row, first], identity[other, second], 0).item() / 0.5)
                for other in range(4)
                if other == row or people[other] != people[row]
            }
            expected.append(-math.log(close[row] / sum(close.values())))
    assert Consistency(0.5)(identity, people) == pytest.approx(sum(expected) / 8, rel=1e-4)
    agreeing = torch.eye(4)[:, None].expand(-1, 2, -1) * 3
    assert Consistency(0.05)(agreeing, torch.arange(4)) == pytest.approx(0, abs=1e-6)


def test_reencode_is_zero_when_both_come_back() -> None:
    identity, motion = torch.randn(3, 6), torch.randn(3, 4)
    term, silent = Reencode(), torch.full((4,), -20.0)
    assert term(identity * 2, motion, identity, motion, silent) == pytest.approx(0, abs=1e-6)
    assert term(-identity, motion, identity, motion, silent) == pytest.approx(2, abs=1e-5)
    assert term(identity, motion + 0.4, identity, motion, silent) == pytest.approx(0.5 * 0.16, abs=1e-5)
    noisy = torch.tensor([-20.0, -20.0, math.log(0.5), 1.0])
    expected = 0.5 * 0.16 * (1 + 1 + 0.75 + 0) / 4
    assert term(identity, motion + 0.4, identity, motion, noisy) == pytest.approx(expected, abs=1e-5)


def test_crossed_terms_read_their_fields_and_are_silent_without_pairs() -> None:
    picture, other = torch.zeros(2, 3, 16, 16), torch.full((2, 3, 16, 16), 0.25)
    code = torch.eye(2)
    crossed = Crossed(picture, code, code, code, code + 0.2, other, picture, picture)
    objective = Objective({"reencode": 2.0, "cycle": 3.0})
    assert objective.needs("crossed", 0) and objective.needs("restored", 0)
    total, values = objective(made(picture, picture, crossed=crossed, log_noise=torch.full((2,), -20.0)))
    assert values["cycle"] == pytest.approx(0.25) and values["reencode"] == pytest.approx(0.02)
    assert total == pytest.approx(0.79)
    total, values = objective(made(picture, picture))
    assert total == 0 and values == {}


def test_smoothness_is_in_pixels_and_painting_in_shares() -> None:
    ramp = (torch.arange(8.0) * 2 / 8 * 0.5).expand(1, 2, 8, 8)  # half a pixel from column to column
    assert Smoothness()(ramp) == pytest.approx(0.25)
    assert Smoothness()(torch.full((1, 2, 8, 8), 0.7)) == 0
    assert Painting()(torch.full((1, 1, 4, 4), 0.3)) == pytest.approx(0.7)


def test_sparsity_falls_with_fewer_active_coefficients_not_with_smaller_ones() -> None:
    motion = torch.tensor([[1.0, 1.0], [-1.0, -1.0]])
    assert Sparsity()(motion) == pytest.approx(1) and Sparsity()(motion * 0.01) == pytest.approx(1, abs=1e-3)
    assert Sparsity()(torch.tensor([[1.0, 0.0], [-1.0, 0.0]])) == pytest.approx(0.5 / 0.5**0.5)


@pytest.mark.parametrize("kind", ["nonsaturating", "hinge"])
def test_adversarial_losses_pull_in_opposite_directions(kind) -> None:
    good, bad = torch.full((4,), 3.0), torch.full((4,), -3.0)
    assert generator_loss(good, kind) < generator_loss(bad, kind)
    assert discriminator_loss(good, bad, kind) < 0.2 < 3 < discriminator_loss(bad, good, kind)


def test_feature_matching_counts_depths_alike() -> None:
    wanted = [torch.full((2, 3, 8, 8), 100.0), torch.full((2, 6, 4, 4), 0.01)]
    assert feature_matching(wanted, wanted) == 0
    assert feature_matching([wanted[0] * 1.5, wanted[1]], wanted) == pytest.approx(0.25)
    assert feature_matching([wanted[0], wanted[1] * 0.5], wanted) == pytest.approx(0.25)
    halves = [w.bfloat16() for w in wanted]
    with torch.autocast("cpu", torch.bfloat16):
        assert feature_matching([1.01 * h.float() for h in halves], halves) == pytest.approx(0.01, rel=1e-4)


def test_r1_is_half_the_squared_slope() -> None:
    class Linear(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * x.sum((1, 2, 3))

    assert r1_penalty(Linear(), torch.rand(3, 3, 4, 4)) == pytest.approx(4 * 48 / 2)


def test_schedule_rises_then_falls() -> None:
    factors = [cosine_with_warmup(s, 10, s / 100) for s in range(101)]
    assert factors[0] == pytest.approx(0.1, rel=0.01) and max(factors) == factors[9]
    assert factors[100] == pytest.approx(0.01) and factors[50] == pytest.approx(0.505, abs=1e-6)
    assert all(math.isfinite(f) for f in factors)


PICTURES = {"flat": torch.full((4, 3, 64, 64), 0.85), "textured": torch.rand(4, 3, 64, 64)}


@pytest.mark.parametrize("name", TERMS)
@pytest.mark.parametrize("picture", PICTURES)
def test_every_term_is_the_same_under_autocast(name: str, picture: str, tmp_path: Path) -> None:
    image, draws = PICTURES[picture], torch.Generator().manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=draws)

    points = random(4, 2, len(FACE31.names), 2).clamp(-1, 1)
    who, what = (random(2, 6), random(2, 6)), (random(2, 6), random(2, 6))
    crossed = Crossed(image[:2], who[0], what[0], who[1], what[1], image[:2], image[2:], image[:2])
    step = made(
        image,
        (image + 0.02 * random(4, 3, 64, 64)).clamp(0, 1) if picture == "textured" else image.clone(),
        motion=random(4, 2, 6),
        source_identity=random(4, 12),
        points=points[:, 1],
        row_points=points,
        warped_points=points[:, 0],
        flow=random(4, 2, 64, 64),
        mask=torch.rand(4, 1, 64, 64, generator=draws),
        warped=image.clone(),
        identity=random(4, 2, 6),
        people=torch.arange(4),
        log_noise=torch.zeros(6),
        bent=Bent(random(4, 6), Bend.draw(4, image.device, draws)),
        crossed=crossed,
    )
    files = {}
    if name == "perceptual":
        files = {name: str(save_features(tmp_path / "features.npz"))}
    elif name in OF_NETWORKS:
        layers = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, stride=4), torch.nn.Flatten())
        files = {name: str(save_script(tmp_path / "network.pt", layers, 112))}
    objective = Objective({name: 1.0}, None, files, code_sizes=(12, 6)).eval()
    total, _ = objective(step)
    with torch.autocast("cpu", torch.bfloat16):
        under, values = objective(step)
    assert under.dtype == torch.float32
    assert under.item() == pytest.approx(total.item(), abs=1e-3) and set(values) == {name}


def test_equal_flat_pictures_are_equal_in_structure_under_autocast() -> None:
    for mean in (0.3, 0.6, 0.85):
        flat = torch.full((2, 3, 64, 64), mean)
        with torch.autocast("cpu", torch.bfloat16):
            assert StructureLoss()(flat, flat) == pytest.approx(0, abs=1e-3)
            torch.testing.assert_close(frame_ssim(flat, flat), torch.ones(2), atol=1e-3, rtol=0)
            torch.testing.assert_close(frame_ssim(prediction=flat, target=flat), torch.ones(2), atol=1e-3, rtol=0)


@pytest.mark.parametrize("kind", ["nonsaturating", "hinge"])
def test_adversarial_losses_take_logits_of_half_precision(kind: str) -> None:
    real, fake = torch.randn(8).bfloat16(), torch.randn(8).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        half = (generator_loss(fake, kind), discriminator_loss(real, fake, kind))  # type: ignore[arg-type]
    full = (generator_loss(fake.float(), kind), discriminator_loss(real.float(), fake.float(), kind))  # type: ignore
    torch.testing.assert_close(half, full)


def test_leakage_has_a_floor_that_follows_what_is_usual() -> None:
    """A batch in which next to nothing moves must not drown the other terms."""
    term = Leakage()
    for _ in range(50):
        term(torch.randn(16, 3, 4))
    assert term.running_mean == pytest.approx(1, abs=0.1)
    still = (1e-3 * torch.randn(16, 1, 4)).expand(-1, 3, -1).clone().requires_grad_(True)
    term(still).backward()
    assert still.grad is not None and still.grad.norm() < 0.01
    bare = Leakage().eval()
    free = still.detach().clone().requires_grad_(True)
    bare(free).backward()
    assert free.grad is not None and free.grad.norm() > 1e3 * still.grad.norm()
    kept = float(term.running_mean)
    term(torch.full((4, 2, 4), float("nan")))
    assert term.running_mean == kept
    term.eval()(10 * torch.randn(16, 3, 4))
    assert term.running_mean == kept


@pytest.mark.parametrize(
    ("weights", "starts", "words"),
    [
        ({"l1": math.nan}, {}, "weights: l1 is nan; give 0"),
        ({"l1": 1.0, "r1": -1.0}, {}, "weights: r1 is -1; give 0"),
        ({"l1": math.inf}, {}, "weights: l1 is inf"),
        ({"l1": 1.0}, {"feature_matching": 0.5}, "starts: feature_matching counts from where adversarial does"),
    ],
)
def test_weights_and_starts_that_cannot_work_are_refused(weights: dict, starts: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Objective(weights, starts)
