"""A training that is killed at any moment and resumed ends with the weights of one that was not."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from sfdkit.cli import main
from sfdkit.errors import CheckpointError
from sfdkit.train.callbacks import AtomicCheckpointIO
from tests.running import EXPERIMENTS, SLOTS, config, fit, logging_to, make_data, small
from tests.servers.loopback import S3Server, serve_s3
from tests.train.test_training import WITH_GAN

STEPS = 24
"""More than an epoch, which has nine batches."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    folder = tmp_path_factory.mktemp("served")
    make_data(folder / "bucket/puppets", (7, 1, 10))
    with serve_s3(folder) as started:
        yield started


def arguments(run: Path, workers: int) -> list[str]:
    changes = {
        "--data.init_args.root": "s3://bucket/puppets",
        "--data.init_args.num_workers": str(workers),
        "--data.init_args.rows_per_clip": "1",
        "--checkpoint.every_n_train_steps": "1",
        "--trainer.precision": "32-true",
    }
    given = [a for a in small(run, run, STEPS) if a.partition("=")[0] not in changes]
    return ["fit", *config(*SLOTS), *given, *logging_to(run), *WITH_GAN, *(f"{k}={v}" for k, v in changes.items())]


def start(server: S3Server, run: Path, workers: int, *extra: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "sfdkit", *arguments(run, workers), *extra]
    environment = {**os.environ, **server.environment, "OMP_NUM_THREADS": "1"}
    log = (run.parent / f"{run.name}.log").open("ab")
    return subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=EXPERIMENTS.parent)


def weights(run: Path) -> dict[str, torch.Tensor]:
    stored = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    assert stored["global_step"] == STEPS
    return {f"{part}.{k}": v for part in ("state_dict", "animator_average") for k, v in stored[part].items()}


@pytest.mark.slow
def test_killed_and_resumed_equals_uninterrupted(server: S3Server, tmp_path: Path) -> None:
    """SIGKILL twice, at moments that depend on the machine; two workers, then none, then one; shards over S3."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert start(server, whole, 1).wait(300) == 0, (tmp_path / "whole.log").read_text()[-3000:]
    last = cut / "checkpoints/last.ckpt"
    killed = []
    for workers, steps in ((2, 4), (0, 13)):
        resume = [f"--ckpt_path={last}"] if last.exists() else []
        process = start(server, cut, workers, *resume)
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            if any(int(path.stem[4:]) >= steps for path in (cut / "checkpoints").glob("step*.ckpt")):
                break
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, (tmp_path / "cut.log").read_text()[-3000:]
        killed.append(torch.load(last, weights_only=True)["global_step"])
    assert 3 <= killed[0] < killed[1] < STEPS
    assert start(server, cut, 1, f"--ckpt_path={last}").wait(300) == 0, (tmp_path / "cut.log").read_text()[-3000:]
    line = "data, train, epoch 0: 18 rows expected = 18 read + 0 skipped"
    assert line in (tmp_path / "whole.log").read_text()
    one, other = weights(whole), weights(cut)
    assert one.keys() == other.keys()
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    report = json.loads((whole / "logs/data_report.json").read_text())
    assert [entry["total"] for entry in report["train"]][:2] == [
        {"expected": 18, "read": 18, "skipped": 0, "repeated_reads": 0}
    ] * 2


@pytest.mark.slow
def test_a_checkpoint_of_other_data_settings_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = make_data(tmp_path / "data")
    checkpoint = fit(data, tmp_path, "--data.init_args.rows_per_clip=2", steps=3)
    assert main(["fit", *config(*SLOTS), *small(data, tmp_path, 6), f"--ckpt_path={checkpoint}"]) == 1
    assert "in the middle of epoch 0, after 3 of 9 batches" in capsys.readouterr().err


def test_a_full_disk_keeps_the_last_good_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = AtomicCheckpointIO()
    path = tmp_path / "run/last.ckpt"
    writer.save_checkpoint({"step": 1}, path)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(
        CheckpointError, match=r"last\.ckpt: No space left on device; the last good one is .*last\.ckpt"
    ):
        writer.save_checkpoint({"step": 2}, path)
    assert torch.load(path, weights_only=True) == {"step": 1}
    assert [file.name for file in path.parent.iterdir()] == ["last.ckpt"]
    with pytest.raises(CheckpointError, match="there is none yet"):
        writer.save_checkpoint({"step": 2}, tmp_path / "other/last.ckpt")


def test_a_training_on_a_full_disk_ends_with_its_last_good_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real, written = os.fsync, []

    def full(descriptor: int) -> None:
        written.append(descriptor)
        if len(written) > 4:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    data = make_data(tmp_path / "data")
    monkeypatch.setattr("sfdkit.train.callbacks.checkpoints.os.fsync", full)
    each = ["--checkpoint.every_n_train_steps=1", "--data.init_args.rows_per_clip=1"]
    assert main(["fit", *config(*SLOTS), *small(data, tmp_path, 4), *logging_to(tmp_path), *each]) == 1
    assert "No space left on device; the last good one is" in capsys.readouterr().err
    monkeypatch.undo()
    assert torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)["global_step"] == 2


@pytest.mark.slow
def test_the_account_is_in_the_log_the_report_and_tensorboard(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from tests.data.test_stream import cut_pictures

    data = make_data(tmp_path / "data")
    cut_pictures(data / "train", 2)
    tolerant: tuple[Any, ...] = ("--data.init_args.skip_budget=0.5", "--data.init_args.rows_per_clip=2")
    fit(data, tmp_path, *tolerant, "--trainer.log_every_n_steps=1", steps=9)
    (entry,) = json.loads((tmp_path / "logs/data_report.json").read_text())["train"]
    assert entry["total"] == {"expected": 18, "read": 16, "skipped": 2, "repeated_reads": 0}
    (skip,) = entry["ranks"][0]["skipped"]
    assert (skip["shard"], skip["reason"], skip["rows"]) == ("train-00000.tar", "picture", 2)
    assert "Cannot decode frame" in skip["message"]
    events = EventAccumulator(str(tmp_path / "logs"))
    events.Reload()
    assert [event.value for event in events.Scalars("data/train/skipped")] == [2.0]
    shares = [event.value for event in events.Scalars("train/wait_share")]
    assert len(shares) == 9 and all(0 <= share <= 1 for share in shares) and max(shares) > 0
    run = tmp_path / "strict"
    assert main(["fit", *config(*SLOTS), *small(data, run, 9), *logging_to(run)]) == 1
    assert "x picture in train-00000.tar" in capsys.readouterr().err
    (entry,) = json.loads((run / "logs/data_report.json").read_text())["train"]
    assert entry["stopped_by"] == "ShardError" and entry["ranks"][0]["skipped"]
