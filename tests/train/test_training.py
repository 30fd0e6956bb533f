from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch.utilities.exceptions import SIGTERMException
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sfdkit.checkpoint import load_animator
from sfdkit.cli import main
from sfdkit.config.compose import composed_files
from sfdkit.errors import CheckpointError, ConfigError
from sfdkit.points import FACE31
from sfdkit.train.task import AnimationTask
from tests.running import EXPERIMENTS, SLOTS, config, fit, logging_to, make_data, small
from tests.shards import make_shards
from tests.tiny import tiny_animator

WITH_GAN = (
    "--model.discriminator=sfdkit.model.discriminator.Discriminator",
    "--model.discriminator.init_args.width=4",
    "--model.weights.adversarial=0.1",
    "--model.weights.feature_matching=1.0",
    "--model.weights.r1=1.0",
    "--model.r1_every=2",
)


@pytest.fixture(autouse=True)
def _leave_no_process_group() -> Iterator[None]:
    """A training under DDP leaves its process group and the variables of its environment behind."""
    before = dict(os.environ)
    yield
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    for name in set(os.environ) - set(before):
        del os.environ[name]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("shards"), points=FACE31)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    """A finished run of four steps with a discriminator."""
    folder = tmp_path_factory.mktemp("run")
    fit(data, folder, *WITH_GAN, steps=4)
    return folder


def slot_files() -> list[str]:
    files = [p.relative_to(EXPERIMENTS) for p in EXPERIMENTS.rglob("*.yaml")]
    return sorted(str(p) for p in files if p.parts[0] != "studies")  # tests/study/test_study_spec.py builds those


def files_for(name: str) -> tuple[str, ...]:
    """A whole experiment around one file: the file alone if it is one, else with the other slots' defaults."""
    if Path(name).parent == Path() and "compose" in yaml.safe_load((EXPERIMENTS / name).read_text()):
        return (name,)
    return (*(slot for slot in SLOTS if Path(slot).parent != Path(name).parent), name)


@pytest.mark.slow
@pytest.mark.parametrize("name", slot_files())
def test_every_yaml_trains(name: str, data: Path, tmp_path: Path) -> None:
    files = [f for top in files_for(name) for f in composed_files(EXPERIMENTS / top)]
    used = [m for f in files for m in re.findall(r"class_path: datamodules\.(\w+)\.", f.read_text())]
    if used[-1] != "puppets":
        data = make_data_of(used[-1], tmp_path / "shards")
    checkpoint = fit(
        data,
        tmp_path,
        "--trainer.devices=1",
        "--trainer.max_time=null",
        "--model.weights.perceptual=0",  # weights that no test downloads
        files=files_for(name),
    )
    assert load_animator(checkpoint).train["steps"] == 2


def make_data_of(dataset: str, folder: Path) -> Path:
    for split, clips in (("train", [4]), ("validation", [2]), ("test", [2])):
        make_shards(folder, split, clips, dataset=dataset)
    return folder


def test_steps_count_generator_steps_only(run: Path) -> None:
    loaded = load_animator(run / "checkpoints/last.ckpt")
    assert loaded.train["steps"] == 4
    assert loaded.train["identities"] == 9 and loaded.train["seed"] == 1
    stored = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    assert stored["global_step"] == 4
    assert int(stored["animator_average"]["n_averaged"]) == 4


def test_run_writes_config_scalars_histograms_and_pictures(run: Path) -> None:
    saved = yaml.safe_load((run / "logs/config.yaml").read_text())
    assert main(["model", "summary", f"--config={run}/logs/config.yaml"]) == 0
    assert saved["compose"] is None and saved["model"]["weights"]["adversarial"] == 0.1
    events = EventAccumulator(str(run / "logs"))
    events.Reload()
    tags = events.Tags()
    assert "train/faces" in tags["images"]
    assert {"train/motion coefficients", "train/identity coefficients"} <= set(tags["histograms"])


EPOCH = 5
"""Batches of an epoch: nine clips, one row each, in full batches of two."""
EACH_STEP = (
    "--model.weights.kl=1e-4",  # draws noise
    "--model.weights.leakage=0.05",  # remembers a variance
    "--model.animator.init_args.code_share=0.5",  # draws rows
    "--checkpoint.every_n_train_steps=1",
    "--checkpoint.save_top_k=-1",
    "--data.init_args.rows_per_clip=1",
    *WITH_GAN,
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    """An uninterrupted run of two epochs, with a checkpoint of each step."""
    folder = tmp_path_factory.mktemp("whole")
    fit(data, folder, *EACH_STEP, steps=2 * EPOCH)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("cut", [2, EPOCH, EPOCH + 2])
def test_resume_equals_uninterrupted(cut: int, data: Path, whole: Path, tmp_path: Path) -> None:
    """The run is cut within an epoch or after one, and continued to the end of the second."""
    middle = whole / f"checkpoints/step{cut:06d}.ckpt"
    assert torch.load(middle, weights_only=True)["epoch"] == (cut - 1) // EPOCH
    resumed = fit(data, tmp_path, *EACH_STEP, f"--ckpt_path={middle}", steps=2 * EPOCH)
    one, other = (torch.load(path, weights_only=True) for path in (whole / "checkpoints/last.ckpt", resumed))
    assert one["global_step"] == other["global_step"] == 2 * EPOCH and one["epoch"] == other["epoch"] == 1
    assert one["sfdkit"]["train"]["frames"] == other["sfdkit"]["train"]["frames"]
    for part in ("state_dict", "animator_average"):
        assert one[part].keys() == other[part].keys()
        for key, value in one[part].items():
            assert torch.equal(value, other[part][key]), f"{part}: {key}"


@pytest.mark.slow
def test_the_end_is_saved_whatever_the_interval(data: Path, whole: Path, tmp_path: Path) -> None:
    rare = [*EACH_STEP, "--checkpoint.every_n_train_steps=50"]
    last = fit(data, tmp_path / "short", *rare, steps=EPOCH)
    assert torch.load(last, weights_only=True)["global_step"] == EPOCH
    resumed = fit(data, tmp_path / "on", *rare, f"--ckpt_path={last}", steps=2 * EPOCH)
    one, other = (torch.load(path, weights_only=True) for path in (whole / "checkpoints/last.ckpt", resumed))
    assert one["epoch"] == other["epoch"] and one["global_step"] == other["global_step"]
    assert one["sfdkit"]["train"]["frames"] == other["sfdkit"]["train"]["frames"]


def test_an_interrupted_validation_saves_nothing(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The average stands in the weights' place then."""
    handler = signal.getsignal(signal.SIGINT)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(AnimationTask, "validation_step", interrupted)
    with pytest.raises(SystemExit):
        fit(data, tmp_path, *EACH_STEP, "--checkpoint.every_n_train_steps=50", steps=2 * EPOCH)
    signal.signal(signal.SIGINT, handler)
    assert not (tmp_path / "checkpoints/last.ckpt").exists()


@pytest.mark.slow
@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SIGTERMException])
def test_an_interruption_is_saved_and_goes_on(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interruption: type[BaseException]
) -> None:
    step = AnimationTask.training_step
    handler = signal.getsignal(signal.SIGINT)

    def interrupted(task: AnimationTask, batch: Any, number: int) -> Any:
        if task.global_step == 3:
            raise interruption
        return step(task, batch, number)

    rare = [*EACH_STEP, "--checkpoint.every_n_train_steps=50"]
    with monkeypatch.context() as patch:
        patch.setattr(AnimationTask, "training_step", interrupted)
        with pytest.raises(SystemExit) as ended:
            fit(data, tmp_path / "cut", *rare, steps=2 * EPOCH)
    signal.signal(signal.SIGINT, handler)  # Lightning has switched it off
    assert ended.value.code == (1 if interruption is KeyboardInterrupt else 128 + signal.SIGTERM)
    last = tmp_path / "cut/checkpoints/last.ckpt"
    assert torch.load(last, weights_only=True)["global_step"] == 3
    resumed = fit(data, tmp_path / "on", *rare, f"--ckpt_path={last}", steps=2 * EPOCH)
    assert torch.load(resumed, weights_only=True)["global_step"] == 2 * EPOCH


def test_configured_rate_wins_over_the_checkpoints(data: Path, run: Path, tmp_path: Path) -> None:
    checkpoint = run / "checkpoints/last.ckpt"
    rate = "--model.optimizer.init_args.lr=0.05"
    resumed = fit(data, tmp_path, *WITH_GAN, rate, f"--ckpt_path={checkpoint}", "--trainer.max_steps=8")
    group = torch.load(resumed, weights_only=True)["optimizer_states"][0]["param_groups"][0]
    assert 0.05 * 0.01 <= group["lr"] <= 0.05 and group["lr"] > 1e-3


@pytest.mark.parametrize("precision", ["bf16-mixed", "32-true"])
def test_precisions_and_accumulation(precision: str, data: Path, tmp_path: Path) -> None:
    extra = (f"--trainer.precision={precision}", "--model.accumulate_grad_batches=2", *WITH_GAN)
    loaded = load_animator(fit(data, tmp_path, *extra))
    assert loaded.train["steps"] == 2
    basis = loaded.animator.descriptors.basis()
    assert (basis.T @ basis - torch.eye(basis.shape[1])).abs().max() < 1e-5


def test_precisions_that_the_method_cannot_take_are_refused_by_name() -> None:
    task = AnimationTask(tiny_animator(), {"l1": 1.0})

    def begin(precision: str, stage: str) -> None:
        task._trainer = SimpleNamespace(precision=precision, strategy=None)  # type: ignore[assignment]
        task.setup(stage)

    for precision in ("32-true", "bf16-mixed"):
        begin(precision, "fit")
    begin("16-mixed", "validate")
    with pytest.raises(ConfigError, match=r"16-mixed needs loss scaling.*use bf16-mixed"):
        begin("16-mixed", "fit")
    for precision in ("bf16-true", "16-true", "64-true"):
        with pytest.raises(ConfigError, match=f"trainer.precision: {precision} .* use bf16-mixed or 32-true"):
            begin(precision, "validate")


@pytest.mark.parametrize("shown", [True, False])
def test_progress_bar_can_be_switched_off(
    shown: bool, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fit(data, tmp_path, f"--trainer.enable_progress_bar={str(shown).lower()}")
    output = capsys.readouterr()
    assert ("images/s=" in output.out + output.err) == shown


def test_checkpoint_keeps_the_resolution_it_was_trained_at(run: Path) -> None:
    loaded = load_animator(run / "checkpoints/last.ckpt")
    parts = loaded.experiment["init_args"]
    assert parts["encoder"]["init_args"]["resolution"] == parts["generator"]["init_args"]["resolution"] == 32
    assert loaded.animator.resolution == loaded.animator.encoder.resolution == 32


@pytest.mark.parametrize("command", ["validate", "test", "predict"])
def test_other_subcommands(
    command: str, data: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [*config(*SLOTS), *small(data, tmp_path), *logging_to(tmp_path), *WITH_GAN]
    arguments = [a for a in arguments if not a.startswith("--trainer.max_steps")]
    assert main([command, *arguments, f"--ckpt_path={run}/checkpoints/last.ckpt"]) == 0
    out = capsys.readouterr().out
    if command == "predict":
        assert len(list((tmp_path / "logs/predictions").glob("*.png"))) == 3
    else:
        assert f"{command[:3] if command == 'validate' else 'test'}/psnr" in out


@pytest.mark.slow
def test_two_processes_share_the_work(data: Path, tmp_path: Path) -> None:
    files = ("base.yaml", "encoder/tiny.yaml", "data/puppets.yaml", "trainer/cpu2.yaml")
    arguments = [*config(*files), *small(data, tmp_path), *logging_to(tmp_path), *WITH_GAN]
    arguments += ["--trainer.max_epochs=1", "--trainer.max_steps=-1", "--data.init_args.rows_per_clip=1"]
    command = [sys.executable, "-m", "sfdkit", "fit", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=EXPERIMENTS.parent)
    assert done.returncode == 0, done.stderr[-3000:]
    train = load_animator(tmp_path / "checkpoints/last.ckpt").train
    assert train["world_size"] == 2
    assert train["steps"] == 3  # the larger share of nine clips is five: three batches of two, against EPOCH alone
    assert train["frames"] == 3 * 2 * 2 * 2  # steps, processes, sources, driving frames
    (epoch,) = json.loads((tmp_path / "logs/data_report.json").read_text())["train"]
    assert epoch["total"] == {"expected": 12, "read": 12, "skipped": 0, "repeated_reads": 0}
    assert [(rank["rank"], rank["read"]) for rank in epoch["ranks"]] == [(0, 6), (1, 6)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("root=https://me:hunter22@host/x", "holds a user name or password"),
        ("root=s3://bucket/x?X-Amz-Signature=hunter22", "holds the parameter 'X-Amz-Signature'"),
        ("storage.endpoint=http://me:hunter22@host", "holds a user name or password"),
        ("root=pipe:cat hunter22/{}", "storage.allow_pipe: true"),
        ("batch_size=0", "data.batch_size is 0"),
    ],
)
def test_what_the_data_module_refuses_is_one_line(
    change: str, message: str, data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = [*config(*SLOTS), *small(data, tmp_path), *logging_to(tmp_path), f"--data.init_args.{change}"]
    assert main(["fit", *arguments]) == 1
    error = capfd.readouterr().err
    assert message in error and "Traceback" not in error and "Namespace" not in error
    if "pipe:" not in change:
        assert "hunter22" not in error
    assert not (tmp_path / "logs/config.yaml").exists()


def test_checkpoint_of_another_model_is_refused(data: Path, run: Path, tmp_path: Path, capsys) -> None:
    arguments = [*config(*SLOTS), *small(data, tmp_path), "--trainer.logger=false", *WITH_GAN]
    arguments += ["--model.animator.init_args.generator.init_args.width=16", f"--ckpt_path={run}/checkpoints/last.ckpt"]
    assert main(["fit", *arguments]) == 1
    assert "another model" in capsys.readouterr().err


def test_checkpoint_of_another_method_is_refused_by_its_name(data: Path, run: Path, tmp_path: Path, capsys) -> None:
    arguments = [*config(*SLOTS, "methods/lia.yaml"), *small(data, tmp_path), "--trainer.logger=false"]
    assert main(["fit", *arguments, f"--ckpt_path={run}/checkpoints/last.ckpt"]) == 1
    error = capsys.readouterr().err
    assert "of another method: its generator is sfdkit.model.generator.Generator" in error and "LiaGenerator" in error


def test_checkpoint_errors_name_the_file(tmp_path: Path, run: Path) -> None:
    with pytest.raises(CheckpointError, match=r"none\.ckpt does not exist"):
        load_animator(tmp_path / "none.ckpt")
    (tmp_path / "text.ckpt").write_text("no checkpoint")
    with pytest.raises(CheckpointError, match=r"text\.ckpt is no readable checkpoint"):
        load_animator(tmp_path / "text.ckpt")
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    with pytest.raises(CheckpointError, match="another program or model"):
        load_animator(tmp_path / "other.ckpt")
    stored = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    stored["sfdkit"]["animator"]["init_args"]["encoder"]["class_path"] = "subprocess.Popen"
    torch.save(stored, tmp_path / "evil.ckpt")
    with pytest.raises(CheckpointError, match=r"subprocess\.Popen, which is not sfdkit's"):
        load_animator(tmp_path / "evil.ckpt")
    stored["sfdkit"]["animator"]["init_args"]["encoder"]["class_path"] = "sfdkit.model.encoders.TimmEncoder"
    stored["sfdkit"]["animator"]["init_args"]["generator"]["init_args"]["width"] = 16
    torch.save(stored, tmp_path / "misfit.ckpt")
    with pytest.raises(CheckpointError, match="do not fit the model"):
        load_animator(tmp_path / "misfit.ckpt")
