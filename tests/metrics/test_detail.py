from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from sfdkit.metrics.detail import BANDS, bands, central_ellipse, frame_detail
from sfdkit.puppets.factors import sample_identity, sample_motion
from sfdkit.puppets.render import render


def grating(period: float, size: int = 96) -> Tensor:
    """Return vertical stripes, 1 3 H W."""
    x = torch.arange(size, dtype=torch.float32)
    return (0.5 + 0.3 * torch.cos(2 * math.pi * x / period)).expand(1, 3, size, size)


def gain(band: int, period: float) -> float:
    """Return how much of a sinusoid's amplitude a band passes: the kernel of gap g passes cos(g w / 2) ^ 4."""
    passed = [math.cos(2**level * math.pi / period) ** 4 for level in range(band)]
    return math.prod(passed[:-1]) * (1 - passed[-1])


def blurred(image: Tensor) -> Tensor:
    return image - bands(image)[0]


@pytest.fixture(scope="module")
def faces() -> tuple[Tensor, Tensor]:
    """Pictures of three puppets in two frames each, and the masks of their faces."""
    made = [render(sample_identity(k, "test", 0), sample_motion(k, "test", 0, 2, 3.0), 64) for k in range(3)]
    return torch.cat([one.image for one in made]), torch.cat([one.mask for one in made])


@pytest.mark.parametrize("period", [2, 3, 4, 6, 8, 12, 16])
def test_bands_pass_sinusoids_as_their_kernel_says(period: int) -> None:
    image = grating(period)
    middle = (..., slice(24, -24), slice(24, -24))
    for number, band in enumerate(bands(image), 1):
        assert torch.allclose(band[middle], gain(number, period) * (image - 0.5)[middle], atol=1e-5)


def test_bands_and_the_last_blur_add_up_to_the_picture() -> None:
    image = torch.rand(2, 3, 5, 70)
    parts = bands(image)
    assert len(parts) == BANDS and all(part.shape == image.shape for part in parts)
    rest = bands(image - sum(parts))
    assert float(rest[0].abs().mean()) < 0.05 * float(parts[0].abs().mean())
    assert all(torch.equal(part, torch.zeros_like(part)) for part in bands(torch.full((1, 3, 9, 9), 0.5)))


def test_fading_stripes_have_the_square_of_their_contrast_as_energy_and_agree() -> None:
    target = grating(6)
    values = frame_detail(0.5 + 0.6 * (target - 0.5), target, torch.ones(1, 1, 96, 96))
    for band in range(1, BANDS + 1):
        assert values[f"detail_energy_{band}"].item() == pytest.approx(0.36, rel=1e-4)
        assert values[f"detail_agreement_{band}"].item() == pytest.approx(1, rel=1e-4)
    assert torch.equal(values["sharpness"], values["detail_energy_1"])


def test_the_truth_itself_has_all_detail(faces: tuple[Tensor, Tensor]) -> None:
    values = frame_detail(faces[0], *faces)
    assert all(torch.allclose(value, torch.ones(6)) for value in values.values()) and len(values) == 1 + 2 * BANDS


def test_blur_lowers_energy_most_in_the_finest_band(faces: tuple[Tensor, Tensor]) -> None:
    truth, mask = faces
    once, twice = (frame_detail(image, truth, mask) for image in (blurred(truth), blurred(blurred(truth))))
    for frame in range(6):
        energies = [float(once[f"detail_energy_{band}"][frame]) for band in (1, 2, 3)]
        assert energies[0] < energies[1] < energies[2] < 1
        assert twice["sharpness"][frame] < once["sharpness"][frame] < 0.2
    assert float(once["detail_agreement_2"].min()) > 0.9


@pytest.mark.parametrize("damage", ["noise", "checkerboard"])
def test_false_detail_has_energy_and_does_not_agree(faces: tuple[Tensor, Tensor], damage: str) -> None:
    truth, mask = faces
    board = (torch.arange(64)[:, None] + torch.arange(64)) % 2 * 2.0 - 1.0
    false = 0.06 * (torch.randn(truth.shape) if damage == "noise" else board)
    clean, dirty = (frame_detail(blurred(truth) + more, truth, mask) for more in (0.0, false))
    assert float((dirty["sharpness"] - clean["sharpness"]).min()) > 0.3
    assert float((dirty["detail_agreement_1"] - clean["detail_agreement_1"]).max()) < -0.1
    assert float((dirty["detail_agreement_3"] - clean["detail_agreement_3"]).abs().max()) < 0.05


def test_coloured_specks_show(faces: tuple[Tensor, Tensor]) -> None:
    truth, mask = faces
    specks = 0.1 * torch.randn(6, 1, 64, 64) * torch.tensor([0.587, -0.299, 0.0])[:, None, None]  # of no brightness
    assert float(frame_detail(truth + specks, truth, mask)["sharpness"].min()) > 1.1


def test_double_edges_agree_less_than_faint_detail_of_the_same_energy(faces: tuple[Tensor, Tensor]) -> None:
    truth, mask = faces
    double = frame_detail((truth + truth.roll(3, 3)) / 2, truth, mask)
    faint = frame_detail(0.5 + 0.75 * (truth - 0.5), truth, mask)
    assert float((double["sharpness"] - faint["sharpness"]).abs().max()) < 0.15
    assert float(double["detail_agreement_1"].max()) < 0.85


def test_moving_a_face_keeps_its_sharpness(faces: tuple[Tensor, Tensor]) -> None:
    truth, mask = faces
    values = frame_detail(truth.roll(1, 3), truth, mask)
    assert values["sharpness"].tolist() == pytest.approx([1] * 6, abs=0.15)
    assert float(values["detail_agreement_1"].max()) < 0.8


def test_nothing_outside_the_mask_counts_in_the_finest_band() -> None:
    target = torch.rand(1, 3, 48, 48)
    mask = torch.zeros(1, 1, 48, 48)
    mask[..., 10:30, 12:34] = 1
    inside = target * 0.5
    values = frame_detail(inside, target, mask)
    outside = torch.where(mask > 0, inside, torch.rand_like(target))
    for name, value in frame_detail(outside, target, mask).items():
        if not name.endswith(("2", "3")):
            assert value.item() == pytest.approx(values[name].item(), rel=1e-5)
    assert values["sharpness"].item() == pytest.approx(0.25, rel=1e-4)
    leaked = frame_detail(outside, target, torch.ones(1, 1, 48, 48))
    assert abs(leaked["sharpness"].item() - 0.25) > 0.1


def test_frames_that_cannot_be_compared_have_no_figure() -> None:
    rough, flat = torch.rand(1, 3, 32, 32), torch.full((1, 3, 32, 32), 0.5)
    steps = flat + (torch.rand(1, 3, 32, 32) - 0.5) / 255
    whole, none = torch.ones(1, 1, 32, 32), torch.zeros(1, 1, 32, 32)
    narrow = torch.zeros(1, 1, 32, 32)
    narrow[..., 10:14, :] = 1
    for target, mask in ((rough, none), (rough, narrow), (flat, whole), (steps, whole)):
        assert all(value.isnan().all() for value in frame_detail(rough, target, mask).values())
    empty = frame_detail(flat, rough, whole)
    assert empty["sharpness"].item() == 0 and empty["detail_agreement_1"].item() == 0


def test_the_central_ellipse_lies_in_the_middle() -> None:
    pictures = torch.rand(2, 3, 60, 40)
    mask = central_ellipse(pictures)
    assert mask.shape == (1, 1, 60, 40) and set(mask.unique().tolist()) == {0.0, 1.0}
    assert float(mask.mean()) == pytest.approx(math.pi * (1 / 4) * (1 / 3), rel=0.01)
    assert mask[0, 0].any(0).sum() == 20 and mask[0, 0].any(1).sum() == 40
    assert torch.equal(mask, mask.flip(2, 3))
    assert frame_detail(pictures, pictures, mask)["sharpness"].tolist() == pytest.approx([1, 1])
