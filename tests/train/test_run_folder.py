"""A training does not write over another one, and predictions go to the disk one by one."""

from __future__ import annotations

import shutil
import subprocess
import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import pytest
import torch
import yaml
from fsspec.implementations.memory import MemoryFileSystem
from lightning.pytorch.loggers import TensorBoardLogger

from sfdkit.cli import main
from sfdkit.errors import ConfigError
from sfdkit.train.callbacks import PredictionWriter, RunCheckpoints
from sfdkit.types import Generated
from tests.running import ROOT, SLOTS, config, fit, logging_to, make_data, small


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("shards"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    run = tmp_path_factory.mktemp("trained")
    fit(data, run, steps=3)
    return run


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


def step(run: Path) -> int:
    return int(torch.load(run / "checkpoints/last.ckpt", weights_only=True)["global_step"])


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_second_training_is_refused_and_writes_nothing(
    data: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(run)
    assert main(["fit", *config(*SLOTS), *small(data, run, 1), *logging_to(run)]) == 1
    line = capsys.readouterr().err.strip().splitlines()[-1]
    for words in (
        f"--ckpt_path {run}/checkpoints/last.ckpt",
        "--checkpoint.dirpath ",
        "--trainer.logger.init_args.name ",
    ):
        assert words in line
    assert contents(run) == before


@pytest.mark.parametrize("given", ["last", "{run}/checkpoints/last.ckpt", "{run}/logs/../checkpoints/last.ckpt"])
def test_the_same_training_goes_on(given: str, data: Path, run: Path) -> None:
    fit(data, run, f"--ckpt_path={given.format(run=run)}", steps=4)
    assert step(run) == 4


def test_a_resumed_training_that_is_refused_keeps_the_saved_configuration(
    data: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (run / "logs/config.yaml").read_bytes()
    other = ["--ckpt_path=last", "--data.init_args.batch_size=3"]
    assert main(["fit", *config(*SLOTS), *small(data, run, 5), *logging_to(run), *other]) == 1
    assert "with other data settings (batch_size 2 then, 3 now)" in capsys.readouterr().err
    assert (run / "logs/config.yaml").read_bytes() == before


def test_a_trial_writes_over_nothing(data: Path, run: Path) -> None:
    fit(data, run, "--trainer.fast_dev_run=1")
    assert step(run) == 3


def test_a_training_that_would_write_over_the_configuration_of_another_is_refused(
    data: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(run)
    elsewhere = f"--checkpoint.dirpath={tmp_path}/new"
    assert main(["fit", *config(*SLOTS), *small(data, run, 1), *logging_to(run), elsewhere]) == 1
    assert "config.yaml belongs to the checkpoints in" in capsys.readouterr().err
    assert contents(run) == before


def test_a_resumed_training_takes_the_options_of_optimisers_that_are_given_now(data: Path, run: Path) -> None:
    options = [
        "--model.basis_lr_factor=0.5",
        "--model.optimizer=torch.optim.Adam",
        "--model.optimizer.init_args.eps=1e-6",
    ]
    fit(data, run, "--ckpt_path=last", *options, steps=4)
    groups = torch.load(run / "checkpoints/last.ckpt", weights_only=True)["optimizer_states"][0]["param_groups"]
    assert {group["eps"] for group in groups} == {1e-6} and groups[1]["scale"] == 0.5


def test_nothing_is_saved_between_the_batches_of_a_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[int] = []
    checkpoints = RunCheckpoints(str(tmp_path), save_last=True, every_n_train_steps=1)
    monkeypatch.setattr(checkpoints, "_save_end", lambda trainer: saved.append(trainer.global_step))
    monkeypatch.setattr(L.pytorch.callbacks.ModelCheckpoint, "on_train_batch_end", lambda *_: saved.append(-1))
    by = SimpleNamespace(should_stop=True, max_steps=3, global_step=2)
    checkpoints.on_train_batch_end(by, SimpleNamespace(summed_batches=1), None, None, 0)  # type: ignore[arg-type]
    assert not saved
    checkpoints.on_train_batch_end(by, SimpleNamespace(summed_batches=0), None, None, 1)  # type: ignore[arg-type]
    assert saved == [-1, 2]


def test_an_early_failure_leaves_a_folder_that_can_be_used(data: Path, tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs/config.yaml").write_text("model: {}\n")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints/.last.part.ckpt").touch()  # of a run that was killed while it saved its first
    fit(data, tmp_path, steps=1)
    assert step(tmp_path) == 1


def test_other_commands_leave_the_config_of_the_training(data: Path, run: Path) -> None:
    before = (run / "logs/config.yaml").read_bytes()
    given = [a for a in small(data, run) if "max_steps" not in a]
    words = [*config(*SLOTS), *given, *logging_to(run), "--ckpt_path=last", "--trainer.limit_test_batches=1"]
    assert main(["test", *words]) == 0
    assert (run / "logs/config.yaml").read_bytes() == before
    saved = yaml.safe_load((run / "logs/config_test.yaml").read_text())
    assert saved["ckpt_path"] == "last" and saved["trainer"]["limit_test_batches"] == 1


def trainer(root: Path, logger: Any = False, **more: Any) -> L.Trainer:
    quiet: dict[str, Any] = dict(enable_progress_bar=False, enable_model_summary=False, max_steps=1)
    return L.Trainer(accelerator="cpu", default_root_dir=root, logger=logger, **quiet, **more)


def refuses(checkpoints: RunCheckpoints, by: L.Trainer, ckpt_path: str | None = None, resumes: bool = False) -> bool:
    try:
        checkpoints.refuse_old_run(by, ckpt_path, resumes)
    except ConfigError:
        return True
    return False


def test_which_folders_are_refused(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "old/step000003.ckpt").touch()
    (tmp_path / "link").symlink_to("old")
    old, link = RunCheckpoints(str(tmp_path / "old"), save_last=True), RunCheckpoints(str(tmp_path / "link"))
    plain = trainer(tmp_path)
    assert refuses(old, plain) and refuses(link, plain)
    assert refuses(old, plain, str(tmp_path / "other/last.ckpt"))  # goes on with another run, into this folder
    assert not refuses(link, plain, str(tmp_path / "old/step000003.ckpt"))
    assert not refuses(old, plain, "last") and not refuses(old, plain, resumes=True)
    assert not refuses(RunCheckpoints(str(tmp_path / "old"), save_last=False, save_top_k=0), plain)  # writes none
    assert not refuses(RunCheckpoints(str(tmp_path / "new")), plain)
    assert not refuses(old, trainer(tmp_path, fast_dev_run=True))
    with pytest.raises(ConfigError, match=r"--ckpt_path \S+/step000003\.ckpt"):
        old.refuse_old_run(plain, None)


def test_folders_that_follow_from_the_logger(tmp_path: Path) -> None:
    for folder in ("logs/named/checkpoints", "logs/numbered/version_0/checkpoints", "checkpoints"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "last.ckpt").touch()
    one = RunCheckpoints(save_last=True)
    assert refuses(one, trainer(tmp_path))
    assert refuses(one, trainer(tmp_path, TensorBoardLogger(tmp_path / "logs", "named", version="")))
    assert not refuses(one, trainer(tmp_path, TensorBoardLogger(tmp_path / "logs", "numbered")))  # takes version_1
    assert one.dirpath is None  # Lightning decides when the loggers know more


def test_a_remote_folder(tmp_path: Path) -> None:
    MemoryFileSystem().pipe("/run/checkpoints/last.ckpt", b"")
    checkpoints = RunCheckpoints("memory://run/checkpoints", save_last=True)
    assert refuses(checkpoints, trainer(tmp_path))
    assert not refuses(checkpoints, trainer(tmp_path), "memory://run/checkpoints/last.ckpt")
    assert not refuses(RunCheckpoints("memory://run/others", save_last=True), trainer(tmp_path))


def test_the_demo_can_be_made_again(tmp_path: Path) -> None:
    """Its earlier run is set aside, with all that lies in it; the commands themselves are left out."""
    run = tmp_path / "runs/quickstart"
    (run / "checkpoints").mkdir(parents=True)
    (run / "checkpoints/last.ckpt").touch()
    (run / "mine.txt").write_text("mine")
    stub = tmp_path / "bin/sfdkit"
    stub.parent.mkdir()
    stub.write_text(
        '#!/bin/sh\n[ "$1" != fit ] || [ ! -e runs/quickstart/checkpoints ] || exit 1\nmkdir -p runs/quickstart\n'
    )
    stub.chmod(0o755)
    given = [f"SFDKIT={stub}", "STAMP=", "PROCESSES=", "PRECISION=32-true"]
    done = subprocess.run(["make", "-f", str(ROOT / "Makefile"), "demo", *given], cwd=tmp_path, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    (aside,) = (tmp_path / "runs").glob("quickstart-*")
    assert (aside / "mine.txt").read_text() == "mine" and (aside / "checkpoints/last.ckpt").exists()
    assert not (run / "mine.txt").exists()


def test_predictions_are_not_kept(
    data: Path, run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    results: list[weakref.ref[torch.Tensor]] = []
    alive: list[int] = []
    write = PredictionWriter.on_predict_batch_end

    def watched(self: PredictionWriter, trainer: Any, module: Any, outputs: Generated, *rest: Any) -> None:
        alive.append(sum(result() is not None for result in results))
        results.append(weakref.ref(outputs.image))
        write(self, trainer, module, outputs, *rest)

    monkeypatch.setattr(PredictionWriter, "on_predict_batch_end", watched)
    given = [a for a in small(data, run) if "max_steps" not in a and "batch_size" not in a]
    words = [*config(*SLOTS), *given, *logging_to(run), "--ckpt_path=last", "--data.init_args.batch_size=1"]
    assert main(["predict", *words]) == 0
    assert len(results) == 3 and max(alive) <= 1  # the one before may go when its name is taken again
    assert len(list((run / "logs/predictions").glob("*.png"))) == 3
    assert "wrote 3 pictures" in capsys.readouterr().out


def predicted(folder: Path, rank: int, world: int, roots: int, keys: list[str]) -> PredictionWriter:
    """What one of several processes writes."""
    writer = PredictionWriter(str(folder))
    module = SimpleNamespace(roots=[None] * roots)
    stand_in: Any = SimpleNamespace(log_dir=None, default_root_dir=folder, datamodule=module, world_size=world)
    stand_in.global_rank = rank
    writer.setup(stand_in, None, "predict")  # type: ignore[arg-type]
    picture = torch.zeros(len(keys), 3, 4, 4)
    batch = {"key": keys, "source": picture, "driving": picture[:, None]}
    outputs = Generated(picture, *[picture] * (len(Generated._fields) - 1))
    writer.on_predict_batch_end(stand_in, None, outputs, batch, 0)  # type: ignore[arg-type]
    return writer


def test_no_process_writes_over_anothers_picture(tmp_path: Path) -> None:
    """Folders of shards that are mixed count their clips each for itself; one folder's clips have a key each."""
    predicted(tmp_path / "one", 0, 2, 1, ["a", "b"])
    predicted(tmp_path / "one", 1, 2, 1, ["c"])
    assert sorted(p.name for p in (tmp_path / "one").iterdir()) == ["a.png", "b.png", "c.png"]
    predicted(tmp_path / "alone", 0, 1, 2, ["a", "b", "a"])
    assert sorted(p.name for p in (tmp_path / "alone").iterdir()) == ["a-2.png", "a.png", "b.png"]
    predicted(tmp_path / "mixed", 0, 2, 2, ["a", "b"])
    predicted(tmp_path / "mixed", 1, 2, 2, ["a", "a"])
    assert len(list((tmp_path / "mixed").iterdir())) == 4


def test_the_folder_is_asked_for_once(tmp_path: Path) -> None:
    """Asking takes all processes, and not all have the same number of batches."""
    asked = []

    class Trainer:
        world_size, global_rank, default_root_dir = 2, 1, tmp_path

        @property
        def log_dir(self) -> str:
            asked.append(1)
            return str(tmp_path)

    writer = PredictionWriter()
    writer.setup(Trainer(), None, "predict")  # type: ignore[arg-type]
    picture = torch.zeros(1, 3, 4, 4)
    outputs = Generated(picture, *[picture] * (len(Generated._fields) - 1))
    batch = {"key": ["a"], "source": picture, "driving": picture[:, None]}
    writer.on_predict_batch_end(Trainer(), None, outputs, batch, 0)  # type: ignore[arg-type]
    assert len(asked) == 1 and len(list((tmp_path / "predictions").iterdir())) == 1
