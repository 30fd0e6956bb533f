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
from sfdkit.model.blocks import identity_grid
from sfdkit.model.descriptors import DescriptorLayer
from sfdkit.model.encoders import TimmEncoder
from sfdkit.model.generator import Generator
from sfdkit.model.key_points import PER_POINT, KeyPoints
from sfdkit.model.methods.f3a import F3aGenerator
from sfdkit.model.methods.fomm import FommGenerator
from sfdkit.model.methods.lia import LiaGenerator
from sfdkit.model.methods.mrfa import Matches, MrfaGenerator
from sfdkit.model.summary import gmac_per_driven_frame
from tests.written import puppet_frames

LATENT = 16
GENERATORS: dict[str, Callable[..., Any]] = {
    "own": partial(Generator, width=8, max_channels=16, style_size=16, detail=4),
    "lia": partial(LiaGenerator, width=4, max_channels=16),
    "fomm": partial(FommGenerator, points=2, width=4, max_channels=16, motion_width=4, blocks=2),
    "mrfa": partial(MrfaGenerator, points=2, width=4, max_channels=16, motion_width=4, matching=8),
    "prior": partial(MrfaGenerator, points=2, width=4, max_channels=16, motion_width=4, prior_only=True),
    "f3a": partial(F3aGenerator, width=4, max_channels=16, flow_width=8),
}
OF_KEY_POINTS = ("fomm", "mrfa", "prior")
"""Those whose motion coefficients are key points."""
every = pytest.mark.parametrize("name", GENERATORS)


def make_animator(name: str, resolution: int = 32, **options: Any) -> FaceAnimator:
    torch.manual_seed(0)
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
        for parameter in animator.parameters():  # what is closed at the start blocks what lies behind it
            parameter += 0.02 * torch.randn_like(parameter)

    def gradients(checkpointing: bool) -> dict[str, torch.Tensor]:
        learner = deepcopy(animator)
        learner.generator.activation_checkpointing = checkpointing
        state = learner.source_state(source)
        if learner.template is not None:
            chosen = torch.tensor([True, False, True, False])
            state = state.replace_rows(chosen, learner.code_state(state.descriptors.identity))
        made = learner.generate(state, learner.motion(driving))
        ((made.image - wanted).square().mean() + made.mask.mean() + made.warped.mean()).backward()
        return {n: p.grad for n, p in learner.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}

    kept, computed_again = gradients(False), gradients(True)
    assert {n for n, _ in animator.named_parameters()} - set(kept) == {"motion_head.log_noise"}
    for key, gradient in kept.items():
        torch.testing.assert_close(computed_again[key], gradient, msg=key)


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


def test_the_motion_coefficients_are_the_key_points() -> None:
    """Also after a training step, as the basis stays: what is read from a code is what the head read."""
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


def test_without_refinement_the_flow_is_the_prior() -> None:
    prior, whole = make_animator("prior"), make_animator("mrfa")
    assert sum(p.numel() for p in prior.parameters()) < sum(p.numel() for p in whole.parameters())
    assert prior.generator.motion_update is None and whole.generator.motion_update is not None


def test_lia_reads_pictures_of_powers_of_two() -> None:
    with pytest.raises(ConfigError, match="got 100"):
        LiaGenerator(100)
