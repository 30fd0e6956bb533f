from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch

from sfdkit.errors import ConfigError
from sfdkit.model.animator import FaceAnimator
from sfdkit.model.blocks import ModulatedConv, RunningNorm, SoftPoints, warp
from sfdkit.model.descriptors import DescriptorLayer
from sfdkit.model.discriminator import Discriminator
from sfdkit.model.encoders import FeatureAdapter, TimmEncoder
from sfdkit.model.generator import PART_REACH, POINT_UNIT, Generator, MotionField
from sfdkit.model.heads import REACH, MotionHead
from sfdkit.model.summary import gmac_per_driven_frame, parameters, summary_table
from tests.tiny import tiny_animator

FAMILIES = [
    "resnet10t",
    "convnextv2_atto",
    "mobilenetv4_conv_small",
    "efficientvit_b0",
    "edgenext_xx_small",
    "repvit_m0_9",
    "fastvit_t8",
    "tiny_vit_5m_224",
    "vit_tiny_patch16_224",
    "swin_tiny_patch4_window7_224",
]


@pytest.mark.parametrize("size", [(8, 8), (17, 32), (64, 64)])
def test_zero_flow_is_the_identity_warp(size: tuple[int, int]) -> None:
    image = torch.rand(2, 3, *size)
    assert (warp(image, torch.zeros(2, 2, *size)) - image).abs().max() < 1e-6


def test_warped_maps_have_the_memory_order_of_the_networks() -> None:
    """Else a cat with one copies the other as well."""
    for image in (torch.rand(2, 5, 16, 16), torch.rand(2, 5, 16, 16).contiguous(memory_format=torch.channels_last)):
        warped = warp(image, torch.zeros(2, 2, 16, 16))
        assert warped.is_contiguous(memory_format=torch.channels_last)
        assert torch.cat([warped, warped], 1).is_contiguous(memory_format=torch.channels_last)


def test_the_flow_of_parts_is_the_same_under_autocast() -> None:
    field = MotionField(torch.randn(2, 5, 2, 3), torch.randn(2, 5, 16, 16), torch.randn(2, 2, 16, 16))
    with torch.autocast("cpu", torch.bfloat16):
        flow = field.flow()
    assert flow.dtype == torch.float32 and torch.equal(flow, field.flow())


def test_flow_is_measured_in_half_pictures_and_points_to_the_source() -> None:
    image = torch.zeros(1, 1, 8, 8)
    image[..., 3, 6] = 1
    flow = torch.zeros(1, 2, 8, 8)
    flow[:, 0] = 2 * 2 / 8  # look two pixels to the right
    assert warp(image, flow)[0, 0, 3, 4] == pytest.approx(1, abs=1e-5)


def test_modulation_by_activations_equals_modulation_by_weights() -> None:
    layer = ModulatedConv(6, 5, 4)
    x, style = torch.randn(3, 6, 9, 9), torch.randn(3, 4)
    scale = layer.style(style)
    for row in range(3):
        weight = layer.conv.weight * scale[row][None, :, None, None]
        weight = weight * torch.rsqrt(weight.square().sum((1, 2, 3), keepdim=True) + 1e-6)
        expected = torch.nn.functional.conv2d(x[row : row + 1], weight, layer.bias, padding=1)
        torch.testing.assert_close(layer(x, style)[row : row + 1], expected, atol=1e-4, rtol=1e-4)


def test_soft_points_follow_a_shift() -> None:
    layer = SoftPoints([1], 3, 16)
    torch.nn.init.constant_(layer.heat[0].weight, 20.0)
    x = torch.zeros(1, 1, 16, 16)
    x[..., 5, 5] = 1.0
    moved = torch.roll(x, 4, dims=3)
    change = (layer([moved]) - layer([x]))[0]
    torch.testing.assert_close(change[:, 0], torch.full((3,), 2 * 4 / 16), atol=2e-3, rtol=0)
    torch.testing.assert_close(change[:, 1], torch.zeros(3), atol=1e-4, rtol=0)


def test_first_motion_coefficients_begin_as_coordinates_of_points() -> None:
    torch.manual_seed(0)
    encoder = TimmEncoder("test_resnet", 64, max_stride=16).eval()
    head = MotionHead(encoder, 9, points=4).eval()
    features = [torch.randn(2, c, s, s) for c, s in zip(encoder.channels, encoder.sizes, strict=True)]
    coefficients = head(features)
    assert coefficients.shape == (2, 9)
    places = head.points(features).flatten(1)
    torch.nn.init.zeros_(head.layers[-1].weight)
    expected = REACH * torch.tanh(places / POINT_UNIT / REACH)
    torch.testing.assert_close(head(features)[:, :8], expected)
    assert MotionHead(encoder, 5, points=0).eval()(features).shape == (2, 5)


def test_coefficients_and_part_motions_are_bounded_however_weights_grow() -> None:
    torch.manual_seed(0)
    encoder = TimmEncoder("test_resnet", 64, max_stride=16).eval()
    head = MotionHead(encoder, 9, points=2).eval()
    torch.nn.init.normal_(head.layers[-1].weight, std=1e4)
    features = [torch.randn(2, c, s, s) for c, s in zip(encoder.channels, encoder.sizes, strict=True)]
    assert REACH / 2 < head(features).abs().max() <= REACH
    model = tiny_animator().eval()
    torch.nn.init.normal_(model.generator.places.linear.weight, std=1e4)
    with torch.no_grad():
        flow = model(*torch.rand(2, 1, 3, 32, 32)).flow
    assert 0.1 < flow.abs().max() < 3 + 4 * PART_REACH * (1 + 1.5), "shift of a centre, and turn about it"


def test_noise_has_the_strength_that_was_learned() -> None:
    head = MotionHead(TimmEncoder("test_resnet", 32, max_stride=16), 4, points=1)
    with torch.no_grad():
        head.log_noise.copy_(torch.tensor([0.1, 1.0, 2.0, 0.5]).log())
    spread = head.noisy(torch.zeros(20000, 4)).std(0)
    torch.testing.assert_close(spread, torch.tensor([0.1, 1.0, 2.0, 0.5]), rtol=0.03, atol=0)


def test_equal_codes_have_no_flow_and_parts_turn_about_their_centres() -> None:
    generator = Generator(32, latent_size=4, width=8, max_channels=16, style_size=16, parts=2)
    torch.nn.init.normal_(generator.places.linear.weight, std=3.0)
    code, other = torch.randn(2, 1, 4)
    assert generator._parts(code, code).affine.abs().max() < 1e-6
    field = generator._parts(code, other)
    driving, source = generator.places(code), generator.places(other)
    at_centre = field.affine[0, 0, :, :2] @ driving.centre[0, 0] + field.affine[0, 0, :, 2]
    torch.testing.assert_close(at_centre, (source.centre - driving.centre)[0, 0])
    torch.testing.assert_close(field.affine[0, 0, :, :2], (source.shape - driving.shape)[0, 0])
    assert field.affine[0, 1].abs().max() == 0, "the last part stands still"


def test_too_many_points_are_refused() -> None:
    parts = TimmEncoder("test_resnet", 32, max_stride=16), DescriptorLayer(12, 4), Generator(32, 16, 8, 16, 16)
    with pytest.raises(ConfigError, match=r"motion_points is 3.*there are 4"):
        FaceAnimator(*parts, motion_points=3)
    few = Generator(32, 16, 8, 16, 16, parts=2)
    with pytest.raises(ConfigError, match=r"motion_points is 2.*takes 1 points"):
        FaceAnimator(*parts[:2], few, motion_points=2)


@pytest.mark.parametrize("resolution", [64, 128, 256])
@pytest.mark.parametrize("name", FAMILIES)
def test_ten_families_encode_any_resolution(name: str, resolution: int) -> None:
    with torch.device("meta"):
        encoder = TimmEncoder(name, resolution)
        adapter = FeatureAdapter(encoder.sizes, encoder.channels, (8, 16, 32), (24, 16, 8))
        maps = encoder(torch.rand(2, 3, resolution, resolution))
        adapted = adapter(maps, torch.rand(2, 3, 64, 64))
    assert [tuple(m.shape) for m in maps] == [
        (2, c, s, s) for c, s in zip(encoder.channels, encoder.sizes, strict=True)
    ]
    assert [tuple(m.shape) for m in adapted] == [(2, 24, 8, 8), (2, 16, 16, 16), (2, 8, 32, 32)]


def test_the_finest_map_holds_single_pixels_of_the_picture() -> None:
    adapter = FeatureAdapter((4,), (8,), (8, 16), (6, 12))
    image, maps = torch.rand(1, 3, 32, 32), [torch.zeros(1, 8, 4, 4)]
    changed = image.clone()
    changed[0, 1, 9, 20] += 0.5
    before, after = adapter(maps, image), adapter(maps, changed)
    assert torch.equal(before[0], after[0])
    assert (before[1] != after[1]).any(1).nonzero().tolist() == [[0, y, x] for y in (3, 4, 5) for x in (9, 10, 11)]


@pytest.mark.parametrize("name", ["resnet10t", "vit_tiny_patch16_224"])
def test_encoders_normalise_by_their_own_statistics(name: str) -> None:
    encoder = TimmEncoder(name, 64).eval()
    image = encoder.mean.expand(1, 3, 64, 64)
    expected = encoder.backbone(torch.zeros(1, 3, 64, 64))
    torch.testing.assert_close(encoder(image)[-1], expected[-1])


def test_max_stride_cuts_layers_off() -> None:
    whole, cut = TimmEncoder("resnet10t", 64), TimmEncoder("resnet10t", 64, max_stride=8)
    assert whole.sizes == (32, 16, 8, 4, 2) and cut.sizes == (32, 16, 8)
    assert parameters(cut) < parameters(whole) / 4
    dilated = TimmEncoder("resnet10t", 64, max_stride=16, output_stride=8)
    assert dilated.sizes == (32, 16, 8, 8, 8), "all layers are left, and the last keep 8 x 8 places"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"name": "resnet81"}, "no model named 'resnet81'.*Did you mean"),
        ({"name": "vit_tiny_patch16_224", "resolution": 8}, "vit_tiny_patch16_224.*resolution 8"),
        ({"name": "resnet10t", "weights": "/no/such/file"}, "weights file /no/such/file does not exist"),
    ],
)
def test_encoder_errors_name_value_and_remedy(options: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        TimmEncoder(**options)


def test_local_weights_are_loaded_and_others_refused(tmp_path) -> None:
    donor = timm.create_model("test_resnet")
    path = tmp_path / "weights.pth"
    torch.save(donor.state_dict(), path)
    loaded = TimmEncoder("test_resnet", 64, weights=str(path))
    for key, value in loaded.backbone.model.state_dict().items():
        torch.testing.assert_close(value, donor.state_dict()[key], msg=key)
    with pytest.raises(ConfigError, match=r"does not fit test_byobnet: \d+ of \d+ tensors"):
        TimmEncoder("test_byobnet", 64, weights=str(path))
    path.write_bytes(b"no weights at all")
    with pytest.raises(ConfigError, match="cannot be read"):
        TimmEncoder("test_resnet", 64, weights=str(path))


@pytest.mark.parametrize(("detail", "flow_size"), [(0, None), (8, None), (8, 64)])
@pytest.mark.parametrize("resolution", [64, 128, 256, 512])
def test_generator_renders_every_resolution(resolution: int, detail: int, flow_size: int | None) -> None:
    with torch.device("meta"):
        generator = Generator(resolution, latent_size=16, width=8, detail=detail, flow_size=flow_size)
        assert generator.sizes[-1] == min(flow_size or resolution, resolution // 2)
        features = [torch.rand(2, c, s, s) for c, s in zip(generator.channels, generator.sizes, strict=True)]
        result = generator(torch.rand(2, 16), torch.rand(2, 16), features, torch.rand(2, 3, resolution, resolution))
    assert tuple(result.image.shape) == (2, 3, resolution, resolution)
    assert tuple(result.flow.shape) == (2, 2, resolution, resolution)
    assert tuple(result.mask.shape) == (2, 1, resolution, resolution)


@pytest.mark.parametrize("flow_size", [None, 8])
def test_untrained_generator_follows_its_points_and_stays_in_range(flow_size: int | None) -> None:
    animator = tiny_animator(flow_size=flow_size).eval()
    source = torch.rand(3, 3, 32, 32)
    assert animator(source, source).flow.abs().max() < 1e-6
    state = animator.source_state(source)
    motion = state.descriptors.motion.clone()
    motion[:, 0:4:2] += 2.5  # both points a quarter of half the picture to the right
    result = animator.generate(state, motion)
    assert result.flow[:, 0].mean() < -0.01 and result.flow[:, 0].mean() < -3 * result.flow[:, 1].mean().abs()
    assert result.image.min() >= 0 and result.image.max() <= 1


@pytest.mark.parametrize("driving", [False, True])
def test_cached_source_gives_the_same_picture(driving: bool) -> None:
    animator = tiny_animator(driving=driving).eval()
    source, frames = torch.rand(2, 3, 32, 32), torch.rand(6, 3, 40, 40)
    with torch.no_grad():
        state = animator.source_state(source).expand(3)
        together = animator.generate(state, animator.motion(frames)).image
        alone = animator(source[1:], frames[4:5]).image
    torch.testing.assert_close(together[4:5], alone, atol=1e-5, rtol=1e-5)
    described = animator.describe(source)
    assert described.identity.shape == (2, 12) and described.motion.shape == (2, 4)
    torch.testing.assert_close(described.motion, animator.motion(source))


@pytest.mark.parametrize("flow_size", [None, 8])
def test_every_parameter_but_the_closed_paths_learns(flow_size: int | None) -> None:
    animator = tiny_animator(driving=True, flow_size=flow_size)
    optimizer = torch.optim.SGD(animator.parameters(), lr=0.1)
    for _ in range(2):  # at the first step flow and mask still block what lies behind them
        optimizer.zero_grad()
        result = animator(torch.rand(4, 3, 32, 32), torch.rand(4, 3, 32, 32))
        (result.image - torch.rand(4, 3, 32, 32)).square().mean().backward()
        optimizer.step()
    still = [n for n, p in animator.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert still == ["motion_head.log_noise"], "only training with the term kl uses it"


def test_rows_must_agree() -> None:
    animator = tiny_animator().eval()
    with pytest.raises(ValueError, match=r"state\.expand"):
        animator.generate(animator.source_state(torch.rand(1, 3, 32, 32)), torch.rand(2, 4))


def test_parts_that_do_not_fit_are_refused() -> None:
    encoder = TimmEncoder("test_byobnet", 32)
    with pytest.raises(ConfigError, match=r"latent_size 128.*16"):
        FaceAnimator(encoder, DescriptorLayer(), Generator(32, latent_size=16))
    with pytest.raises(ConfigError, match=r"resolution 32, generator 64"):
        FaceAnimator(encoder, DescriptorLayer(12, 4), Generator(64, latent_size=16))
    with pytest.raises(ConfigError, match="got 100"):
        Generator(100)
    with pytest.raises(ConfigError, match="flow_size must be at least 8, got 4"):
        Generator(64, flow_size=4)
    with pytest.raises(ConfigError, match="power of two"):
        Discriminator(48)


def test_all_modules_are_registered() -> None:
    with torch.device("meta"):
        animator = tiny_animator(driving=True)
        result = animator(torch.rand(2, 3, 32, 32), torch.rand(2, 3, 32, 32))
    assert all(p.is_meta for p in animator.parameters()) and result.image.is_meta
    real = tiny_animator(driving=True)
    assert set(animator.state_dict()) == set(real.state_dict())


def test_discriminator_gives_one_logit_per_picture() -> None:
    discriminator = Discriminator(64, width=4)
    assert discriminator(torch.rand(5, 3, 64, 64)).shape == (5,)


def test_summary_counts_convolutions_and_matrix_products() -> None:
    animator = tiny_animator()
    assert parameters(animator) == sum(p.numel() for p in animator.parameters())
    assert animator.training
    cost = gmac_per_driven_frame(animator)
    assert 0.001 < cost < 0.05 and animator.training
    assert f"{parameters(animator):,}" in summary_table(animator)


def test_base_and_small_models_keep_their_budget_at_256() -> None:
    with torch.device("cpu"):
        driving = TimmEncoder("test_byobnet", 64, max_stride=16)
        encoder = TimmEncoder("test_byobnet", 256, max_stride=16)
    for width, limit in ((56, 6.0), (26, 2.0)):
        animator = FaceAnimator(encoder, DescriptorLayer(), Generator(256, width=width, detail=8), driving)
        assert gmac_per_driven_frame(animator) <= limit


def test_pretrained_weights_that_cannot_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ConfigError, match=r"weights of test_resnet cannot be had .*set pretrained: false"):
        TimmEncoder("test_resnet", 32, pretrained=True, max_stride=16)
    with pytest.warns(UserWarning, match=r"weights of test_resnet cannot be had .*begins with random weights"):
        encoder = TimmEncoder("test_resnet", 32, pretrained="auto", max_stride=16)
    assert len(encoder(torch.rand(1, 3, 32, 32))) == len(encoder.channels)


def test_running_norm_removes_what_is_common_and_takes_a_single_row() -> None:
    torch.manual_seed(0)
    norm, faces = RunningNorm(4), 5 + 2 * torch.randn(500, 4)
    norm(faces)
    assert norm.known == 1
    out = norm.eval()(faces)
    torch.testing.assert_close(out.mean(0), torch.zeros(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(out.std(0), torch.ones(4), atol=1e-2, rtol=0)
    torch.testing.assert_close(norm(faces[:1]), out[:1])
    before = norm.mean.clone()
    alone = norm.train()(faces[:1])
    torch.testing.assert_close(alone, out[:1])
    torch.testing.assert_close(norm.mean, before + 0.1 * (faces[0] - before))
    with torch.autocast("cpu", torch.bfloat16):
        assert norm.eval()(faces.bfloat16()).dtype == torch.float32


def test_running_norm_passes_gradients() -> None:
    norm, x = RunningNorm(3), torch.randn(2, 3, requires_grad=True)
    norm(torch.randn(8, 3))
    norm(x).sum().backward()
    assert x.grad is not None and (x.grad > 0).all()
