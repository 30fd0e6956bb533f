"""Points of faces under augmentation: a dot drawn at a point is found again where the point is said to be."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from kornia.augmentation import (
    AugmentationBase2D,
    CenterCrop,
    ColorJiggle,
    RandomAffine,
    RandomCrop,
    RandomElasticTransform,
    RandomErasing,
    RandomFisheye,
    RandomGaussianBlur,
    RandomHorizontalFlip,
    RandomPerspective,
    RandomResizedCrop,
    RandomRotation,
    RandomShear,
    RandomThinPlateSpline,
    RandomVerticalFlip,
    Resize,
)
from torch import Tensor

from sfdkit.data.augment import Augmentation, DriverViewAugmentation, KorniaAugmentation
from sfdkit.points import FACE5, from_pixels, to_pixels
from sfdkit.types import FrameBatch
from tests.data.test_augment import OFF

SIDE, ROWS, POINTS = 64, 12, len(FACE5.names)


def dotted() -> FrameBatch:
    """Rows of as many frames as there are points, each with a dot at the point of its number."""
    places = 20 + 24 * torch.rand(ROWS, POINTS, POINTS, 2, generator=torch.Generator().manual_seed(0))
    y, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    mine = places.diagonal(dim1=1, dim2=2).transpose(1, 2)  # of each frame its own point
    far = (x - mine[..., :1, None]) ** 2 + (y - mine[..., 1:, None]) ** 2
    frames = torch.exp(-far / 2)[:, :, None].expand(-1, -1, 3, -1, -1)
    names = [f"clip{row}" for row in range(ROWS)]
    batch = FrameBatch(source=frames[:, 0], driving=frames[:, 1:], key=names, identity=names)
    batch["points"], batch["point_set"] = from_pixels(places, SIDE), FACE5.name
    return batch


def dots(batch: FrameBatch) -> Tensor:
    """Where the dot of each frame is, in pixels; not a number where it is gone."""
    frames = torch.cat([batch["source"][:, None], batch["driving"]], 1).mean(2)
    line = torch.arange(SIDE, dtype=torch.float32)
    weight = frames.sum((2, 3))
    found = torch.stack([(frames * line).sum((2, 3)), (frames * line[:, None]).sum((2, 3))], -1) / weight[..., None]
    return found.where(weight[..., None] > 1, torch.nan)


def check(augment: Augmentation, shown: float = 1.0, seed: int = 3) -> tuple[FrameBatch, int]:
    """Compare dots with points; return the result and the number of rows in which left and right changed places."""
    result = augment(dotted(), seed)
    assert result["point_set"] == FACE5.name
    points, found = to_pixels(result["points"], SIDE), dots(result)
    errors = []
    for numbers in (list(range(POINTS)), FACE5.mirrored):
        each = torch.stack([points[:, frame, number] for frame, number in enumerate(numbers)], 1)
        errors.append((each - found).norm(dim=-1))
    kept = ~torch.stack(errors).isnan().any(0)
    assert kept.float().mean() >= shown
    of_rows = torch.stack(errors).nan_to_num(0).amax(2)
    assert (of_rows.amin(0) < 0.5).all(), of_rows.amin(0)
    return result, int((of_rows[1] < of_rows[0]).sum())


OWN: list[tuple[dict[str, float], bool]] = [
    ({"flip": 0.5}, True),
    ({"flip": 1.0}, True),
    ({"joint_scale": 0.3}, False),
    ({"joint_tps": 0.03}, False),
    ({"flip": 0.5, "joint_scale": 0.2, "joint_tps": 0.02}, True),
]


@pytest.mark.parametrize(("strengths", "mirrors"), OWN, ids=[" ".join(strengths) for strengths, _ in OWN])
def test_points_go_where_the_fast_augmentation_moves_them(strengths: dict[str, float], mirrors: bool) -> None:
    result, mirrored = check(DriverViewAugmentation(**(OFF | strengths), padding="zeros"))
    assert not torch.equal(result["points"], dotted()["points"])
    assert mirrored == ROWS if strengths.get("flip") == 1 else (0 < mirrored < ROWS) == mirrors


def test_the_view_of_the_driver_moves_no_points() -> None:
    strengths = OFF | {"scale": 0.3, "shift": 0.2, "tps": 0.05, "colour": 0.3}
    assert torch.equal(DriverViewAugmentation(**strengths)(dotted(), 1)["points"], dotted()["points"])
    driver = KorniaAugmentation(driver=[RandomAffine(20.0, p=1.0)])
    assert torch.equal(driver(dotted(), 1)["points"], dotted()["points"])


def test_a_place_that_is_not_found_under_strong_bending_is_not_known() -> None:
    result = DriverViewAugmentation(**(OFF | {"joint_tps": 0.2}), padding="zeros")(dotted(), 1)
    assert 0.1 < result["points"].isnan().float().mean() < 1


MODULES: list[tuple[AugmentationBase2D, bool]] = [
    (RandomHorizontalFlip(p=0.5), True),
    (RandomVerticalFlip(p=0.5), True),
    (RandomAffine(20.0, (0.1, 0.1), (0.9, 1.1), (5.0, 5.0), p=1.0), False),
    (RandomAffine(20.0, p=0.5), False),
    (RandomAffine(20.0, p=1.0, same_on_batch=True), False),
    (RandomRotation(20.0, p=1.0), False),
    (RandomShear(10.0, p=1.0), False),
    (RandomPerspective(0.2, p=1.0), False),
    (RandomResizedCrop((SIDE, SIDE), scale=(0.8, 1.0), p=1.0), False),
    (RandomCrop((SIDE, SIDE), padding=6, p=1.0), False),
    (RandomElasticTransform(p=1.0), False),
    (RandomElasticTransform(sigma=(10.0, 10.0), p=0.5), False),
    (RandomThinPlateSpline(0.1, p=1.0), False),
    (RandomFisheye(torch.tensor([-0.3, 0.3]), torch.tensor([-0.3, 0.3]), torch.tensor([0.9, 1.0]), p=1.0), False),
]


@pytest.mark.parametrize(("module", "mirrors"), MODULES, ids=[f"{type(m).__name__}-{m.p}" for m, _ in MODULES])
def test_points_go_where_a_module_of_kornia_moves_them(module: AugmentationBase2D, mirrors: bool) -> None:
    result, mirrored = check(KorniaAugmentation([module]), shown=0.9)
    assert not torch.equal(result["points"], dotted()["points"])
    assert (0 < mirrored < ROWS) == mirrors and (mirrored == 0) != mirrors


def test_points_follow_a_list_of_modules_of_several_sizes() -> None:
    sizes = [CenterCrop((56, 56), p=1.0), Resize((SIDE, SIDE), p=1.0)]
    modules = [RandomHorizontalFlip(), *sizes, RandomThinPlateSpline(0.05, p=1.0), RandomAffine(10.0, p=1.0)]
    _, mirrored = check(KorniaAugmentation(modules), shown=0.9)
    assert 0 < mirrored < ROWS


@pytest.mark.parametrize("module", [ColorJiggle(0.2, 0.2, 0.2, 0.1, p=1.0), RandomGaussianBlur((3, 3), (1.0, 1.0))])
def test_points_stay_where_colours_alone_change(module: Any) -> None:
    batch = dotted()
    assert torch.equal(KorniaAugmentation([module, RandomErasing(p=1.0)])(batch, 1)["points"], batch["points"])


class Turned(AugmentationBase2D):
    """A class of one's own that mirrors and shifts every picture, and says nothing of a matrix."""

    def generate_parameters(self, shape: Any) -> dict[str, Tensor]:
        return {}

    def apply_transform(self, input: Tensor, params: Any, flags: Any, transform: Tensor | None = None) -> Tensor:
        return torch.nn.functional.pad(input.flip(-1), (3, -3))


def test_points_follow_a_class_of_ones_own_and_are_not_known_where_it_shows_them_no_more() -> None:
    batch = dotted()
    batch["points"][0, :, 0] = from_pixels(torch.tensor([62.0, 30.0]), SIDE)  # comes to 4
    batch["points"][1, :, 0] = from_pixels(torch.tensor([1.0, 30.0]), SIDE)  # to 65, outside
    batch["points"][2, :, 0] = torch.nan
    moved = to_pixels(KorniaAugmentation([Turned(p=1.0)])(batch, 1)["points"], SIDE)
    where = FACE5.mirrored[0]
    assert torch.allclose(moved[0, :, where], torch.tensor([4.0, 30.0]), atol=1e-3)
    assert moved[1:3, :, where].isnan().all() and int(moved.isnan().sum()) == 2 * POINTS * 2
    kept = KorniaAugmentation([Turned(p=0.0)])(batch, 1)["points"]
    assert torch.allclose(kept, batch["points"], atol=1e-3, equal_nan=True)


def test_points_that_are_not_known_stay_so() -> None:
    batch = dotted()
    batch["points"][3:] = torch.nan
    for augment in (
        DriverViewAugmentation(**(OFF | {"flip": 0.5, "joint_scale": 0.2, "joint_tps": 0.02})),
        KorniaAugmentation([RandomHorizontalFlip(), RandomAffine(10.0, p=1.0), RandomThinPlateSpline(0.05, p=1.0)]),
    ):
        points = augment(batch, 1)["points"]
        assert points[3:].isnan().all() and not points[:3].isnan().any()
