"""What every generator must do, whatever its method."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sfdkit.errors import ConfigError
from sfdkit.export.runtime import Animator
from sfdkit.export.write import export_animator
from sfdkit.model.animator import FaceAnimator
from sfdkit.model.blocks import identity_grid, resize
from sfdkit.model.descriptors import DescriptorLayer
from sfdkit.model.encoders import TimmEncoder
from sfdkit.model.generator import Generator
from sfdkit.model.key_points import PER_POINT, KeyPoints
from sfdkit.model.methods.f3a import F3aGenerator
from sfdkit.model.methods.fomm import FommGenerator
from sfdkit.model.methods.lia import LiaGenerator
from sfdkit.model.methods.mrfa import Matches, MrfaGenerator
from sfdkit.model.summary import gmac_per_driven_frame
from sfdkit.train.task import AnimationTask
from tests.written import puppet_frames

LATENT = 16
GENERATORS: dict[str, Callable[..., Any]] = {
    "own": partial(Generator, width=8, max_channels=16, style_size=16, detail=4),
    "lia": partial(LiaGenerator, width=4, max_channels=16),
    "fomm": partial(FommGenerator, points=2, width=4, max_channels=16, motion_width=4, blocks=2),
    "mrfa": partial(MrfaGenerator, points=2, width=4, max_channels=16, motion_width=4, matching=8),
    "prior": partial(MrfaGenerator, points=2, width=4, max_channels=16, motion_width=4, prior_only=True),
    "f3a": partial(F3aGenerator, width=4, max_channels=16, flow_width=8),
    "fused": partial(F3aGenerator, width=4, max_channels=16, flow_width=8, warps=False),
}
OF_KEY_POINTS = ("fomm", "mrfa", "prior")
"""Those whose motion coefficients are key points."""
every = pytest.mark.parametrize("name", GENERATORS)


def make_animator(name: str, resolution: int = 32, seed: int = 0, **options: Any) -> FaceAnimator:
    torch.manual_seed(seed)
    keyed = name in OF_KEY_POINTS
    points = 2 if keyed else 0
    motion_size = PER_POINT * points if keyed else 4
    return FaceAnimator(
        TimmEncoder("test_byobnet", resolution, max_stride=16),
        DescriptorLayer(identity_size=LATENT - motion_size, motion_size=motion_size),
        GENERATORS[name](resolution, LATENT),
        motion_points=points,
        key_points=keyed,
        **options,
    )


@every
@pytest.mark.parametrize("resolution", [64, 128, 256, 512])
def test_pictures_flow_and_mask_have_the_resolution(name: str, resolution: int) -> None:
    with torch.device("meta"):
        generator = GENERATORS[name](resolution, LATENT)
        features = [torch.rand(2, c, s, s) for c, s in zip(generator.channels, generator.sizes, strict=True)]
        code = torch.rand(2, LATENT)
        made = generator(code, code, features, torch.rand(2, 3, resolution, resolution))
    assert list(generator.sizes) == sorted(generator.sizes) and generator.resolution == resolution
    assert [tuple(each.shape[1:]) for each in made] == [(c, resolution, resolution) for c in (3, 2, 1, 3)]


@every
@pytest.mark.parametrize("code_share", [0.0, 0.5])
def test_every_parameter_learns_and_checkpointing_changes_nothing(name: str, code_share: float) -> None:
    animator = make_animator(name, code_share=code_share)
    source, driving, wanted = torch.rand(3, 4, 3, 32, 32)
    with torch.no_grad():
        for parameter_name, parameter in animator.named_parameters():
            if parameter_name != "descriptors.weight":  # what is closed at the start blocks what lies behind it
                parameter += 0.02 * torch.randn_like(parameter)

    def gradients(checkpointing: bool) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        learner = deepcopy(animator)
        learner.generator.activation_checkpointing = checkpointing
        state = learner.source_state(source)
        if learner.template is not None:
            chosen = torch.tensor([True, False, True, False])
            state = state.replace_rows(chosen, learner.code_state(state.descriptors.identity))
        made = learner.generate(state, learner.motion(driving))
        ((made.image - wanted).square().mean() + made.mask.mean() + made.warped.mean()).backward()
        found = {n: p.grad for n, p in learner.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
        return found, dict(learner.named_buffers())

    (kept, after), (computed_again, after_again) = gradients(False), gradients(True)
    still = {n for n, _ in animator.named_parameters()} - set(kept) - {"motion_head.log_noise"}
    assert not still
    if name in OF_KEY_POINTS:  # but for what rounding lets through
        assert max(float(g.abs().max()) for n, g in kept.items() if n.startswith("identity_head.")) < 1e-6
    for key, gradient in kept.items():
        torch.testing.assert_close(computed_again[key], gradient, msg=key)
    for key, buffer in after.items():
        torch.testing.assert_close(after_again[key], buffer, msg=key)


@every
def test_results_are_pictures_in_lower_precision_too(name: str) -> None:
    animator = make_animator(name).eval()
    source, driving = torch.rand(2, 2, 3, 32, 32)
    with torch.no_grad():
        exact = animator(source, driving)
        with torch.autocast("cpu", torch.bfloat16):
            close = animator(source, driving)
    assert close.image.dtype == close.flow.dtype == torch.float32
    assert exact.image.min() >= 0 and exact.image.max() <= 1
    assert (close.image - exact.image).abs().mean() < 0.02


@every
def test_no_flow_leaves_the_source_where_it_is(name: str) -> None:
    generator = GENERATORS[name](32, LATENT).eval()
    for key, parameter in generator.named_parameters():
        if any(part in key for part in ("motion", "field", "places")):
            torch.nn.init.zeros_(parameter)
    features = [torch.rand(1, c, s, s) for c, s in zip(generator.channels, generator.sizes, strict=True)]
    image, code = torch.rand(1, 3, 32, 32), torch.rand(1, LATENT)
    made = generator(code, code, features, image)
    assert made.flow.abs().max() < 1e-6
    torch.testing.assert_close(made.warped, image, atol=1e-5, rtol=0)


@every
def test_it_is_counted_and_exported_as_any_other(name: str, tmp_path: Path) -> None:
    animator = make_animator(name).eval().requires_grad_(False)
    assert gmac_per_driven_frame(animator) > 0
    export_animator(animator, tmp_path / "exported")
    exported, (source, driving) = Animator(tmp_path / "exported"), puppet_frames(0, 2, 32)
    made = exported.render(exported.source(source), exported.motion(driving[None]))
    pictures = [torch.from_numpy(each).permute(2, 0, 1)[None] / 255 for each in (source, driving)]
    wanted = (animator(*pictures).image * 255).round().permute(0, 2, 3, 1).numpy()
    assert np.abs(made.astype(float) - wanted).max() <= 1


def test_points_lead_those_that_can_be_led() -> None:
    parts = TimmEncoder("test_byobnet", 32, max_stride=16), DescriptorLayer(identity_size=12, motion_size=4)
    with pytest.raises(ConfigError, match=r"motion_points is 2.*the generator takes 0 points; lower motion_points"):
        FaceAnimator(*parts, GENERATORS["lia"](32, LATENT), motion_points=2)


def test_generators_of_key_points_want_them() -> None:
    def build(**options: Any) -> FaceAnimator:
        layer = DescriptorLayer(identity_size=4, motion_size=options.pop("motion_size", 12))
        generator = GENERATORS["fomm"](32, layer.latent_size)
        return FaceAnimator(TimmEncoder("test_byobnet", 32, max_stride=16), layer, generator, **options)

    with pytest.raises(ConfigError, match=r"2 key points have 12 coefficients, and descriptors\.motion_size is 8"):
        build(motion_size=8, motion_points=2, key_points=True)
    with pytest.raises(ConfigError, match=r"FommGenerator reads 2 key points.*key_points to true, .*motion_size to 12"):
        build(motion_points=1)
    with pytest.raises(ConfigError, match=r"key_points to true"):
        build(motion_points=2, motion_size=24)
    with pytest.raises(ConfigError, match=r"lower motion_points, or raise .* its parts or points"):
        build(motion_points=3, motion_size=18, key_points=True)
    with pytest.raises(ConfigError, match=r"orthogonal and descriptors\.identity_basis to true"):
        layer = DescriptorLayer(motion_size=12, latent_size=16, identity_basis=False)
        encoder = TimmEncoder("test_byobnet", 32, max_stride=16)
        FaceAnimator(encoder, layer, GENERATORS["fomm"](32, 16), motion_points=2, key_points=True)


def test_a_training_of_key_points_keeps_the_basis() -> None:
    with pytest.raises(ConfigError, match=r"basis_lr_factor is 0\.02, and key points .*: set it to 0"):
        AnimationTask(make_animator("fomm"), {"l1": 1.0})
    AnimationTask(make_animator("fomm"), {"l1": 1.0, "equivariance": 1.0}, basis_lr_factor=0.0)
    with pytest.raises(ConfigError, match=r"equivariance is for key points; set .*key_points to true"):
        parts = TimmEncoder("test_byobnet", 32, max_stride=16), DescriptorLayer(identity_size=10, motion_size=6)
        animator = FaceAnimator(*parts, GENERATORS["own"](32, LATENT), motion_points=2)
        AnimationTask(animator, {"l1": 1.0, "equivariance": 1.0})


def test_the_motion_coefficients_are_the_key_points() -> None:
    """What is read from a code is what the head read."""
    animator = make_animator("fomm").eval()
    face = torch.rand(2, 3, 32, 32)
    motion = animator.motion(face) + 0.3 * torch.randn(2, 12)
    read = animator.generator.reader(animator.recombine(animator.identity(face), motion))
    wanted = KeyPoints.read(motion)
    for one, other in zip(read, wanted, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(wanted.write(), motion, atol=1e-4, rtol=1e-4)


def test_motion_of_key_points_is_affine_near_them() -> None:
    own = KeyPoints(torch.rand(1, 1, 2) - 0.5, torch.tensor([[[[1.0, 0.2], [0.1, 0.9]]]]))
    source = KeyPoints(torch.rand(1, 1, 2) - 0.5, torch.tensor([[[[0.8, -0.3], [0.2, 1.1]]]]))
    grid = identity_grid(8, 8, own.places)[0].flatten(1)
    wanted = source.places[0, 0][:, None] + source.jacobians[0, 0] @ own.jacobians[0, 0].inverse() @ (
        grid - own.places[0, 0][:, None]
    )
    made = own.motions(source, 8)[0, 0].flatten(1) + grid
    torch.testing.assert_close(made, wanted, atol=1e-5, rtol=1e-5)
    assert own.regions(64).amax() > 0.9 and own.motions(own, 8).abs().max() < 1e-5


def test_matches_are_looked_up_where_the_flow_leads() -> None:
    """Places that show the same thing fit best; a look-up at the right flow finds the best fit in its middle."""
    torch.manual_seed(1)
    source = torch.randn(1, 64, 16, 16)
    driving = source.roll(3, dims=3)  # what lies at x in the source lies at x + 3 cells
    fits = Matches.correlate(driving, source, 16)
    flow = torch.zeros(1, 2, 16, 16)
    flow[:, 0] = -3 * 2 / 16
    found = Matches.look_up(fits, flow)[:, :49, 5:-5, 5:-5]
    assert (found.argmax(1) == 24).float().mean() > 0.95
    assert (Matches.look_up(fits, 0 * flow)[:, :49, 5:-5, 5:-5].argmax(1) == 21).float().mean() > 0.95


def test_changes_are_added_to_the_whole_prior() -> None:
    """Without any change each step's flow is the prior, and one of a single step stays in those that follow."""
    generator = make_animator("mrfa", 64).generator.eval()
    driving, source = (KeyPoints.read(0.5 * torch.randn(1, 12)) for _ in range(2))
    features = [torch.rand(1, c, s, s) for c, s in zip(generator.channels, generator.sizes, strict=True)]
    image = torch.rand(1, 3, 64, 64)
    prior = generator.motion(resize(image, 16), driving, source)

    def fields() -> list[tuple[torch.Tensor, torch.Tensor]]:
        return generator._refine(prior, features, image, driving, source)

    torch.nn.init.zeros_(generator.motion_update.change.weight)
    assert [flow.shape[2] for flow, _ in fields()] == [8, 16, 32, 64]
    for flow, seen in fields():
        torch.testing.assert_close(flow, resize(prior[0], flow.shape[2]))
        torch.testing.assert_close(seen, resize(prior[1], flow.shape[2]))
    torch.nn.init.constant_(generator.motion_update.change.bias, 1.0)
    for number, (flow, _) in enumerate(fields()):
        moved = (flow - resize(prior[0], flow.shape[2])) * (generator.matches.size / 2)
        torch.testing.assert_close(moved, torch.full_like(moved, 1.0 + number), atol=1e-4, rtol=0)


@pytest.mark.parametrize("size", [3, 20, 64])
def test_maps_are_matched_at_sizes_that_there_are(size: int) -> None:
    with pytest.raises(ConfigError, match=rf"matching_size must be a power of two from 8 to .*, 32, got {size}"):
        MrfaGenerator(32, LATENT, points=2, matching_size=size)


def test_lia_reads_pictures_of_powers_of_two() -> None:
    with pytest.raises(ConfigError, match="got 100"):
        LiaGenerator(100)
