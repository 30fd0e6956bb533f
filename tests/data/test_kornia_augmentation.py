from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import kornia.augmentation
import pytest
import torch
import yaml
from kornia.augmentation import (
    AugmentationBase2D,
    ColorJiggle,
    RandomAffine,
    RandomChannelDropout,
    RandomCrop,
    RandomGaussianBlur,
    RandomGaussianNoise,
    RandomHorizontalFlip,
)

from sfdkit.cli import main
from sfdkit.data.augment import DriverViewAugmentation, KorniaAugmentation
from sfdkit.errors import ConfigError
from sfdkit.train.command import build
from sfdkit.types import FrameBatch
from tests.data.test_augment import make_batch, same
from tests.running import config

AUGMENTATION = "data.init_args.augmentation"


def one_picture(rows: int = 6, driving: int = 3) -> FrameBatch:
    """A batch whose frames are all the same picture."""
    batch = make_batch(rows, driving)
    batch["driving"] = batch["source"][:1, None].expand(rows, driving, -1, -1, -1)
    batch["source"] = batch["source"][:1].expand(rows, -1, -1, -1)
    return batch


def agree(batch: FrameBatch) -> bool:
    """Whether the driving frames of each row are its source."""
    return all(torch.allclose(frame, batch["source"], atol=1e-5) for frame in batch["driving"].unbind(1))


def of_a_row(batch: FrameBatch) -> list[tuple[float, ...]]:
    """What tells rows apart: a few pixels of each row's source, rounded."""
    return [tuple(row.flatten()[::97].mul(1e3).round().tolist()) for row in batch["source"]]


@pytest.mark.parametrize(
    "module",
    [
        RandomAffine(20.0, translate=(0.1, 0.1), p=1.0),
        ColorJiggle(0.3, 0.3, 0.3, 0.1, p=1.0),
        RandomGaussianNoise(std=0.1, p=1.0),
        RandomAffine(20.0, translate=(0.1, 0.1), p=0.5),
        ColorJiggle(0.3, 0.3, 0.3, 0.1, p=0.5),
    ],
    ids=lambda module: f"{type(module).__name__}-{module.p}",
)
def test_a_row_has_one_joint_draw_and_rows_differ(module: AugmentationBase2D) -> None:
    batch = one_picture(rows=16)
    result = KorniaAugmentation(joint=[module])(batch, 5)
    assert agree(result)
    assert torch.equal(result["driving_view"], result["driving"])
    kinds, untouched = set(of_a_row(result)), of_a_row(batch)[0]
    if module.p == 1:
        assert len(kinds) == 16
    else:
        unchanged = of_a_row(result).count(untouched)
        assert 3 <= unchanged <= 13 and len(kinds) == 16 - unchanged + 1


def joint_modules() -> list[AugmentationBase2D]:
    """All of kornia's augmentations that can be made without arguments, to be applied to every second row or so."""
    made = []
    for name in kornia.augmentation.__all__:
        kind = getattr(kornia.augmentation, name)
        if not (inspect.isclass(kind) and issubclass(kind, AugmentationBase2D)) or "Base" in name:
            continue
        parameters = inspect.signature(kind).parameters
        needed = [p for p in parameters.values() if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]
        if not needed and "p" in parameters and name not in ("RandomChannelDropout", "RandomDissolving"):
            made.append(kind(p=0.5))
    return made


def test_every_augmentation_of_kornia_changes_a_row_as_a_whole() -> None:
    modules = joint_modules()
    assert len(modules) > 20
    for module in modules:
        assert agree(KorniaAugmentation(joint=[module])(one_picture(), 3)), module


def test_the_driver_part_is_drawn_for_each_frame_and_changes_the_view_alone() -> None:
    batch = one_picture(rows=4, driving=3)
    result = KorniaAugmentation(driver=[RandomAffine(20.0, p=1.0), RandomGaussianBlur((3, 3), (0.5, 1.5))])(batch, 1)
    assert torch.equal(result["source"], batch["source"]) and torch.equal(result["driving"], batch["driving"])
    views = result["driving_view"].flatten(0, 1)
    assert all(not torch.equal(one, other) for place, one in enumerate(views) for other in views[place + 1 :])


def both() -> KorniaAugmentation:
    joint = [RandomHorizontalFlip(p=0.5), ColorJiggle(0.1, 0.1, 0.1, 0.1, p=0.8)]
    return KorniaAugmentation(joint, [RandomAffine(5.0, p=1.0), RandomGaussianNoise(std=0.5, p=0.5)])


def test_the_seed_alone_decides_and_the_global_generator_stays() -> None:
    batch = make_batch()
    before = torch.get_rng_state()
    first = both()(batch, 1)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(99)
    augment = both()
    assert not same(augment(batch, 2), first)
    assert same(augment(batch, 1), first), "what was drawn before does not matter"


def test_images_are_float32_in_range_under_autocast() -> None:
    batch = make_batch()
    batch["source"].requires_grad_()
    plain = both()(batch, 1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = both()(batch, 1)
    assert same(plain, result)
    for name in ("source", "driving", "driving_view"):
        image = result[name]  # type: ignore[literal-required]
        assert image.dtype == torch.float32 and not image.requires_grad
        assert image.min() >= 0 and image.max() <= 1
    assert result["driving_view"].shape == result["driving"].shape == batch["driving"].shape
    assert result["key"] == batch["key"] and result["identity"] == batch["identity"]


def test_without_modules_the_batch_stays() -> None:
    batch = make_batch()
    result = KorniaAugmentation()(batch, 1)
    assert torch.equal(result["source"], batch["source"]) and torch.equal(result["driving"], batch["driving"])
    assert torch.equal(result["driving_view"], batch["driving"])


def test_the_last_batch_is_not_kept() -> None:
    augment = both()
    augment(make_batch(), 1)
    for modules in (augment.joint, augment.driver):
        assert modules is not None and modules._output_image is None


@pytest.mark.parametrize("part", ["joint", "driver"])
def test_another_size_is_refused(part: str) -> None:
    with pytest.raises(ConfigError, match=rf"augmentation\.{part} makes images of 3x12x12 .* from images of 3x24x24"):
        KorniaAugmentation(**{part: [RandomCrop((12, 12), p=1.0)]})(make_batch(), 1)


def test_a_draw_that_holds_places_in_the_batch_is_refused_for_rows() -> None:
    with pytest.raises(ConfigError, match=r"augmentation\.joint\[1\] is RandomChannelDropout"):
        KorniaAugmentation([RandomHorizontalFlip(), RandomChannelDropout()])
    KorniaAugmentation(driver=[RandomChannelDropout()])(make_batch(), 1)


def experiment(*overrides: str) -> list[str]:
    return [*config("base.yaml", "encoder/tiny.yaml", "data/kornia.yaml", "trainer/auto.yaml"), *overrides]


def test_the_example_names_modules_and_arguments() -> None:
    augment = build(experiment("--trainer.logger=false")).datamodule.augmentation
    assert isinstance(augment, KorniaAugmentation) and augment.joint is not None and augment.driver is not None
    assert [type(m).__name__ for m in augment.joint.children()] == ["RandomHorizontalFlip", "ColorJiggle"]
    affine, blur = augment.driver.children()
    assert isinstance(affine, RandomAffine) and isinstance(blur, RandomGaussianBlur) and blur.p == 0.3


def test_it_is_laid_over_the_fast_augmentation() -> None:
    files = config("quickstart.yaml", "data/kornia.yaml")
    assert isinstance(build([*files, "--trainer.logger=false"]).datamodule.augmentation, KorniaAugmentation)
    again = build([*files, *config("data/puppets.yaml"), "--trainer.logger=false"]).datamodule.augmentation
    assert isinstance(again, DriverViewAugmentation) and again.scale == 0.04


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"driver": [{"class_path": "torch.nn.ReLU"}]}, ".driver: Import path torch.nn.ReLU does not correspond to a"),
        ({"joint": [{"class_path": "kornia.augmentation.RandomMixUpV2"}]}, "does not correspond to a subclass of Augm"),
        ({"drivr": []}, "KorniaAugmentation has no argument 'drivr'. Did you mean driver?"),
        ({"driver": [{"class_path": "kornia.augmentation.RandomAfine"}]}, "Did you mean RandomAffine?"),
        (
            {"driver": [{"class_path": "kornia.augmentation.RandomAffine", "init_args": {"degrees": 1, "scal": 2}}]},
            ".driver.init_args: kornia.augmentation.RandomAffine has no argument 'scal'. Did you mean scale?",
        ),
        (
            {"joint": [{"class_path": "kornia.augmentation.RandomHorizontalFlip", "init_args": {"p": "often"}}]},
            ".joint.init_args.p: 'often' will not do; it takes a number",
        ),
    ],
)
def test_what_is_refused_is_one_line(
    arguments: dict[str, Any], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    augmentation = {"class_path": "sfdkit.data.augment.KorniaAugmentation", "init_args": arguments}
    data = {"class_path": "datamodules.puppets.PuppetsDataModule", "init_args": {"augmentation": augmentation}}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"data": data}))
    with pytest.raises(SystemExit) as stop:
        main(["model", "summary", *experiment("--config", str(tmp_path / "mine.yaml"))])
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"sfdkit: error: {AUGMENTATION}.init_args") and said in line
