"""What a GPU must do as a CPU does, and what it must not wait for: ``python -m pytest -m gpu``, or ``make gpu``.

Without a GPU all is skipped; ``SFDKIT_TEST_DEVICE=cpu`` runs the tests on the processor, to try them.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from kornia.augmentation import (
    ColorJiggle,
    RandomAffine,
    RandomGaussianBlur,
    RandomHorizontalFlip,
    RandomThinPlateSpline,
)
from torch import Tensor
from torchvision.models import vgg19

from sfdkit.apply.animate import Animate
from sfdkit.apply.cuda_graph import CudaGraph
from sfdkit.apply.runner import Precision
from sfdkit.apply.torch_runner import TorchRunner
from sfdkit.checkpoint import load_animator
from sfdkit.data.augment import Augmentation, DriverViewAugmentation, KorniaAugmentation
from sfdkit.device import prepare
from sfdkit.evaluate.command import evaluate
from sfdkit.face_networks.commands import train as train_regressor
from sfdkit.face_networks.types import MeasureSettings
from sfdkit.losses import TERMS, Bent, Crossed, Objective, Step
from sfdkit.losses.equivariance import Bend
from sfdkit.losses.vgg19 import WEIGHTS_VARIABLE
from sfdkit.points import FACE31
from sfdkit.train.callbacks import WeightEMA
from sfdkit.train.task import AnimationTask
from tests.data.test_augment import make_batch
from tests.model.test_generators import GENERATORS, make_animator
from tests.running import EXPERIMENTS, SLOTS, config, fit, logging_to, make_data, small
from tests.tiny import tiny_animator
from tests.train.test_training import WITH_GAN
from tests.train.test_waiting import CROSSED, POINTS
from tests.train.waiting import waits
from tests.written import lively_animator, puppet_frames, write_checkpoint, write_puppets, write_video

pytestmark = pytest.mark.gpu
CPU = torch.device("cpu")


@pytest.fixture(scope="session")
def device() -> torch.device:
    name = os.environ.get("SFDKIT_TEST_DEVICE") or ("cuda" if torch.cuda.is_available() else "")
    if not name:
        pytest.skip("no GPU is visible: python -m pytest -m gpu where there is one, or SFDKIT_TEST_DEVICE=cpu to try")
    return torch.device(name)


@pytest.fixture(scope="session")
def accelerator(device: torch.device) -> str:
    return "gpu" if device.type == "cuda" else device.type


@pytest.fixture
def exact(device: torch.device) -> Iterator[None]:
    """Convolutions in float32, not in TF32."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("shards"), (20, 20), FACE31)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint, puppets, and what to animate."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("files")
    write_checkpoint(folder / "model.ckpt", lively_animator())
    write_puppets(folder / "puppets", shards=(3, 3))
    Image.fromarray(puppet_frames(0, 1)[0]).save(folder / "source.png")
    write_video(folder / "driving.mp4", puppet_frames(1, 6))
    return folder


def move(made: Any, device: torch.device) -> Any:
    """A tuple of tensors and tuples on another device."""
    if isinstance(made, Tensor):
        return made.detach().to(device)
    return made if made is None else type(made)(*(move(part, device) for part in made))


@pytest.mark.parametrize("extra", [(), (*WITH_GAN, *CROSSED, *POINTS)], ids=["as it is", "with all there is"])
def test_a_step_that_is_not_logged_waits_for_nothing(
    extra: tuple[str, ...], data: Path, accelerator: str, tmp_path: Path
) -> None:
    """On a GPU torch itself raises where the host waits: the whole loop of Lightning, from one batch to the next."""
    assert waits(data, tmp_path, accelerator, *extra) == []


def test_results_are_those_of_the_cpu(device: torch.device, exact: None) -> None:
    animator = lively_animator()
    source, driving = torch.rand(2, 4, 3, 32, 32)
    with torch.no_grad():
        wanted = animator(source, driving)
        there = deepcopy(animator).to(device)(source.to(device), driving.to(device))
        read = deepcopy(animator).to(device).describe(source.to(device))
    for name, one, other in zip(wanted._fields, wanted, there, strict=True):
        torch.testing.assert_close(
            other.cpu(), one, atol=2e-4, rtol=1e-3, msg=lambda text, name=name: f"{name}: {text}"
        )
    for one, other in zip(animator.describe(source), read, strict=True):
        torch.testing.assert_close(other.cpu(), one, atol=1e-3, rtol=1e-3)


def test_the_basis_is_exact_with_the_settings_of_training(device: torch.device) -> None:
    """Faster types of numbers are for convolutions."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.benchmark
    prepare(device)
    layer = tiny_animator().descriptors.to(device)
    basis = layer.basis()
    identity, motion = torch.randn(8, 12, device=device), torch.randn(8, 4, device=device)
    with torch.autocast(device.type, torch.bfloat16):
        back = layer.project(layer.combine(identity, motion))
    torch.set_float32_matmul_precision(before[0])
    torch.backends.cudnn.benchmark = before[1]
    error = basis.detach().cpu().double()
    assert (error.T @ error - torch.eye(error.shape[1])).abs().max() < 1e-5
    assert max((back.identity - identity).abs().max(), (back.motion - motion).abs().max()) < 2e-5


def make_step(flat: bool) -> Step:
    """A step with all that any term judges; of flat pictures, whose variance rounding drowns first."""
    torch.manual_seed(5)
    images = torch.rand(6, 4, 3, 64, 64) if not flat else torch.full((6, 4, 3, 64, 64), 0.85)
    if flat:
        images = images + 0.01 * torch.rand(6, 4, 3, 1, 1)
    crossed = Crossed(
        image=images[3],
        source_identity=torch.randn(4, 12),
        driver_motion=torch.randn(4, 6),
        identity=torch.randn(4, 12),
        motion=torch.randn(4, 6),
        restored=images[4],
        driver=images[5],
        source=images[2],
    )
    points = torch.rand(2, 3, len(FACE31.names), 2) * 2 - 1
    return Step(
        image=images[0],
        target=images[1],
        source=images[2][:2],
        motion=torch.randn(2, 3, 6),
        log_noise=torch.randn(6),
        flow=torch.randn(4, 2, 64, 64),
        mask=torch.rand(4, 1, 64, 64),
        warped=images[3],
        source_identity=torch.randn(2, 12),
        points=points[:, 1:].flatten(0, 1),
        row_points=points,
        warped_points=points[:, :1].expand_as(points[:, 1:]).flatten(0, 1),
        identity=torch.randn(2, 2, 12),
        people=torch.tensor([0, 1]),
        bent=Bent(torch.randn(2, 6), Bend.draw(2, CPU, None)),
        crossed=crossed,
    )


@pytest.mark.parametrize("flat", [True, False], ids=["flat", "textured"])
def test_every_loss_term_is_that_of_the_cpu_in_mixed_precision(
    flat: bool, device: torch.device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(vgg19().state_dict(), tmp_path / "vgg19.pth")
    monkeypatch.setenv(WEIGHTS_VARIABLE, str(tmp_path / "vgg19.pth"))
    objective = Objective({name: 1.0 for name in TERMS if name != "identity"}, code_sizes=(12, 6))
    there, step = deepcopy(objective).to(device), make_step(flat)
    wanted = objective(step)[1]
    with torch.autocast(device.type, torch.bfloat16):
        values = there(move(step, device))[1]
    assert values.keys() == wanted.keys() == set(TERMS) - {"identity"}
    for name, value in values.items():
        assert value.item() == pytest.approx(wanted[name].item(), rel=5e-3, abs=1e-3), name


@pytest.mark.parametrize("kind", ["fast", "kornia"])
def test_augmentation_is_that_of_the_cpu(kind: str, device: torch.device) -> None:
    augment: Augmentation = DriverViewAugmentation(joint_scale=0.1, joint_tps=0.02, tps=0.02)
    if kind == "kornia":
        augment = KorniaAugmentation(
            [RandomHorizontalFlip(p=0.5), RandomThinPlateSpline(0.05), ColorJiggle(0.1, 0.1, 0.1, 0.0, p=0.8)],
            [RandomAffine(5.0, p=1.0), RandomGaussianBlur((3, 3), (0.5, 1.5), p=0.5)],
        )
    batch = make_batch()
    batch["points"], batch["point_set"] = torch.rand(6, 4, len(FACE31.names), 2) - 0.5, FACE31.name
    moved = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in batch.items()}
    wanted, there = augment(batch, 3), augment(moved, 3)  # type: ignore[arg-type]
    for name in ("source", "driving", "driving_view", "points"):
        result = there[name]  # type: ignore[literal-required]
        assert result.device.type == device.type
        torch.testing.assert_close(result.cpu(), wanted[name], atol=1e-3, rtol=0)  # type: ignore[literal-required]


def test_the_average_is_that_of_the_cpu(device: torch.device) -> None:
    averages = []
    for place in (CPU, device):
        callback, task = WeightEMA(0.9), AnimationTask(tiny_animator().to(place), {"l1": 1.0}).to(place)
        callback.setup(None, task, "fit")  # type: ignore[arg-type]
        for _ in range(3):
            with torch.no_grad():
                for parameter in task.animator.parameters():
                    parameter.mul_(1.1)
            callback.update(task.animator)
        stored: dict[str, Any] = {}
        callback.on_save_checkpoint(None, task, stored)  # type: ignore[arg-type]
        averages.append({name: value.cpu() for name, value in stored["animator_average"].items()})
    torch.testing.assert_close(averages[1], averages[0], atol=1e-6, rtol=1e-5)


def test_a_resumed_training_goes_on_as_if_uninterrupted(data: Path, accelerator: str, tmp_path: Path) -> None:
    each = (
        f"--trainer.accelerator={accelerator}",
        "--trainer.devices=1",
        "--checkpoint.every_n_train_steps=3",
        "--checkpoint.save_top_k=-1",
        "--model.weights.rate=0.001",  # draws noise on the device
    )
    whole = fit(data, tmp_path / "whole", *each, steps=6)
    middle = tmp_path / "whole/checkpoints/step000003.ckpt"
    resumed = fit(data, tmp_path / "on", *each, f"--ckpt_path={middle}", steps=6)
    one, other, cut = (torch.load(path, weights_only=True)["animator_average"] for path in (whole, resumed, middle))
    names = [name for name, value in one.items() if value.is_floating_point()]
    off = sum((one[name] - other[name]).abs().sum() for name in names)
    way = sum((one[name] - cut[name]).abs().sum() for name in names)
    assert way > 0 and off < 0.05 * way, "sums of a GPU differ in their last digits, no more"


def test_evaluation_gives_the_figures_of_the_cpu(device: torch.device, files: Path, tmp_path: Path) -> None:
    figures = {}
    for name in ("cpu", str(device)):
        figures[name] = evaluate(
            str(files / "model.ckpt"),
            str(files / "puppets"),
            str(tmp_path / name),
            device=name,
            frames=2,
            cross_pairs=4,
            sheet_rows=2,
            measure=MeasureSettings(regressor="none", lpips="none"),
        )
    wanted, there = figures["cpu"], figures[str(device)]
    for name in ("self/psnr", "cross/psnr", "copy/psnr", "self/face_psnr"):
        assert there[name] == pytest.approx(wanted[name], abs=0.05), name
    for name in ("self/l1", "cross/l1", "self/ssim", "cross/ssim"):
        assert there[name] == pytest.approx(wanted[name], abs=2e-3), name
    assert str(there["evaluation/device"]).startswith(device.type)
    assert there["basis/orthonormality"] < 1e-5
    assert (tmp_path / str(device) / "report.html").is_file()


def test_animation_gives_the_frames_of_the_cpu(device: torch.device, files: Path, tmp_path: Path) -> None:
    written = {}
    for name in ("cpu", str(device)):
        made = Animate(
            checkpoint=str(files / "model.ckpt"),
            source=str(files / "source.png"),
            output=str(tmp_path / f"{name.replace(':', '')}.mp4"),
            driving=str(files / "driving.mp4"),
            crop="none",
            device=name,
        ).run()
        written[name] = (made.frames, made.width, made.height)
    assert written["cpu"] == written[str(device)] and written["cpu"][0] == 6


@pytest.mark.parametrize("name", GENERATORS)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_recorded_frames_follow_what_they_are_given(
    name: str, device: torch.device, precision: Precision, exact: None
) -> None:
    """Other frames, another source, and a batch of another size in between."""
    animator = make_animator(name).eval().requires_grad_(False).to(device)
    runner = TorchRunner(animator, precision)
    driving = puppet_frames(1, 4, 32)
    for identity in (0, 2, 0):
        source = runner.source(puppet_frames(identity, 1, 32)[0])
        motion = runner.motion(driving)
        frames = runner.render(source, motion)
        alone = np.concatenate([runner.motion(frame[None]) for frame in driving])
        np.testing.assert_allclose(alone, motion, atol=0.03 * np.abs(motion).max())
        drawn = np.concatenate([runner.render(source, row[None]) for row in motion])
        assert np.abs(drawn.astype(int) - frames).mean() < (0.05 if precision == "float32" else 1.0)
    if device.type == "cuda":
        assert all(isinstance(graph, CudaGraph) and graph.recorded for graph in (runner._read, runner._draw))


def test_the_network_that_reads_puppets_trains(device: torch.device, tmp_path: Path) -> None:
    path = tmp_path / "regressor.safetensors"
    accuracy = train_regressor(32, 3, str(path), 32, device=str(device))
    assert path.is_file() and accuracy["landmarks"] > 0


def test_a_compiled_generator_trains_and_keeps_its_names(device: torch.device) -> None:
    if device.type != "cuda":
        pytest.skip("compiling for a processor takes a compiler and a minute")
    animator = tiny_animator().to(device).train()
    names = list(animator.state_dict())
    source, driving = torch.rand(2, 4, 3, 32, 32, device=device)
    wanted = deepcopy(animator)(source, driving).image
    animator.generator.compile()
    with torch.autocast("cuda", torch.bfloat16):
        image = animator(source, driving).image
    image.float().mean().backward()
    assert list(animator.state_dict()) == names
    assert (image.float() - wanted).abs().mean() < 0.02
    assert all(p.grad is not None and p.grad.isfinite().all() for p in animator.generator.parameters())


def test_two_devices_share_the_work(device: torch.device, accelerator: str, data: Path, tmp_path: Path) -> None:
    if device.type == "cuda" and torch.cuda.device_count() < 2:
        pytest.skip(f"two GPUs are wanted, {torch.cuda.device_count()} is there")
    arguments = [*config(*SLOTS), *small(data, tmp_path), *logging_to(tmp_path), *WITH_GAN]
    arguments += [f"--trainer.accelerator={accelerator}", "--trainer.devices=2"]
    arguments += ["--trainer.strategy=ddp_find_unused_parameters_true", "--trainer.use_distributed_sampler=false"]
    command = [sys.executable, "-m", "sfdkit", "fit", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=EXPERIMENTS.parent)
    assert done.returncode == 0, done.stderr[-3000:]
    if device.type == "cuda":
        assert "nccl" in done.stderr.lower() + done.stdout.lower()
    train = load_animator(tmp_path / "checkpoints/last.ckpt").train
    assert train["world_size"] == 2 and train["steps"] == 2
    assert train["frames"] == 2 * 2 * 2 * 2  # steps, processes, sources, driving frames
