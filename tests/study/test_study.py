"""Studies that really run: killed and resumed, failing, changed, shared, and on Slurm and Ray."""

from __future__ import annotations

import fcntl
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml

from sfdkit.cli import main
from sfdkit.errors import ConfigError, DataError
from sfdkit.study.engines import environments, slurm_script
from sfdkit.study.jobs import Job, plan, read_json, write_json
from sfdkit.study.spec import load_study
from sfdkit.study.view import View, duration
from sfdkit.study.worker import work_on
from tests.data.test_stream import cut_pictures
from tests.running import EXPERIMENTS, make_data

ROOT = EXPERIMENTS.parent
STEPS = 12
WRONG_SIZE = {"overrides": {"data.init_args.resolution": 48}}
SLOW = {"overrides": {"model.optimizer.init_args.lr": 1e-05}}

pytestmark = pytest.mark.slow


def small_study(folder: Path, data: Path, **changes: object) -> Path:
    """A study of the shared parts at 32 pixels."""
    slots = ("base.yaml", "encoder/tiny.yaml", "data/puppets.yaml", "trainer/auto.yaml")
    overrides = {
        "data.init_args.root": str(data),
        "data.init_args.resolution": 32,
        "data.init_args.batch_size": 2,
        "trainer.accelerator": "cpu",
        "trainer.max_steps": STEPS,
        "pictures.every": 1000,
        "model.warmup_steps": 2,
    }
    content = {
        "base": [str(EXPERIMENTS / slot) for slot in slots],
        "overrides": overrides,
        "seeds": [1, 2],
        "validations": 3,
        "checkpoint_every": 1,
        "runs": {"full": None, "slow": SLOW},
        "evaluate": {"shards": str(data / "test"), "frames": 2},
        "metrics": [{"key": "self/psnr", "direction": "higher"}, "train/steps"],
        **changes,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "study.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return folder


def start(folder: Path, output: Path, *extra: str) -> subprocess.Popen[str]:
    words = [sys.executable, "-m", "sfdkit", "study", "run", str(folder), "--output", str(output), *extra]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        words,
        env=environment,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def wait_for(path: Path, process: subprocess.Popen[str], seconds: float = 900) -> None:
    deadline = time.monotonic() + seconds
    while not path.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            pytest.fail(process.communicate()[0])
        time.sleep(0.01)


class Finished:
    """A study of two runs with two seeds, killed in the middle and finished."""

    def __init__(self, folder: Path) -> None:
        self.data = make_data(folder / "data")
        self.folder = small_study(folder / "tiny", self.data)
        self.output = folder / "out"
        self.jobs = plan(load_study(self.folder), self.output)
        first, second = self.jobs[:2]
        process = start(self.folder, self.output)
        wait_for(second.checkpoint, process)
        assert process.stdout is not None
        process.kill()  # alone: the training goes on, and keeps the lock
        process.wait()
        self.orphan = work_on(second, "another", {}, ROOT)
        self.kept = (first.folder / "done.json").stat().st_mtime_ns, first.log.read_text()
        os.killpg(process.pid, signal.SIGKILL)
        while not free(second):
            time.sleep(0.01)
        self.cut = torch.load(second.checkpoint, weights_only=True)["global_step"]
        process = start(self.folder, self.output, "--jobs", "2")
        self.printed = process.communicate(timeout=1200)[0]
        self.status = process.returncode

    def copy(self, folder: Path, *jobs: int, **changes: object) -> tuple[Path, Path, list[Job]]:
        """A study of seed 1 with other values, its output with copies of some jobs, and its jobs."""
        study = small_study(folder / "tiny", self.data, **{"seeds": [1], "runs": {"full": None}, **changes})
        for index in jobs:
            job = self.jobs[index]
            shutil.copytree(job.folder, folder / "out" / job.folder.relative_to(self.output))
        return study, folder / "out", plan(load_study(study), folder / "out")


def free(job: Job) -> bool:
    with (job.folder / "lock").open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True


def run(study: Path, output: Path, *extra: str) -> int:
    return main(["study", "run", str(study), "--output", str(output), *extra])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return Finished(tmp_path_factory.mktemp("study"))


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    yield


def test_a_killed_study_goes_on_and_keeps_what_is_finished(finished: Finished) -> None:
    assert finished.status == 0, finished.printed
    first, second = finished.jobs[:2]
    assert finished.orphan == "held"
    assert finished.kept == ((first.folder / "done.json").stat().st_mtime_ns, first.log.read_text())
    assert 1 <= finished.cut < STEPS
    assert f"--ckpt_path={second.checkpoint}" in second.log.read_text()
    assert re.search(r"1  full +2  at \d+ +[\d,]{7,}", finished.printed)
    for job in finished.jobs:
        assert job.state() == "done"
        metrics = read_json(job.folder / "metrics.json") or {}
        assert metrics["train/steps"] == STEPS and metrics["seed"] == job.seed
        assert read_json(job.folder / "progress.json") == {
            "step": STEPS,
            "steps": STEPS,
            "loss": pytest.approx(0.25, abs=0.2),
            "left": 0.0,
        }
        assert [path.name for path in (job.folder / "checkpoints").iterdir()] == ["last.ckpt"]
    assert "full seed 2: training" in finished.printed and "slow seed 2: done after" in finished.printed
    assert "3 of 3 done" in finished.printed and "full seed 1:" not in finished.printed


def test_its_report_has_curves_of_all_seeds(finished: Finished, tmp_path: Path) -> None:
    out = tmp_path / "report"
    assert main(["study", "report", str(finished.folder), "--runs", str(finished.output), "--output", str(out)]) == 0
    text = (out / "report.md").read_text()
    assert re.search(r"\| full \| 2 of 2 \| [\d.]+ ± [\d.]+ \| 12 \|", text) and "Missing" not in text
    assert sorted(p.name for p in out.glob("*.svg")) == ["self-psnr.svg", "val-psnr-seconds.svg", "val-psnr-steps.svg"]
    from sfdkit.study.report import Results

    curve = Results(load_study(finished.folder), finished.jobs).bands("full", "val/psnr")
    assert [band.x for band in curve["steps"]] == [4, 8, 12]
    seconds = [band.x for band in curve["seconds"]]
    assert seconds == sorted(seconds) and seconds[0] > 0


def test_a_second_call_has_nothing_to_do(finished: Finished, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(finished.folder, finished.output) == 0
    printed = capsys.readouterr().out
    assert "all 4 done" in printed and "training" not in printed


def test_another_way_of_measuring_is_told_and_measured_again(
    finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate = {"shards": str(finished.data / "test"), "frames": 3}
    study, output, (job,) = finished.copy(tmp_path, 0, evaluate=evaluate)
    log = job.log.read_text()
    assert run(study, output) == 1
    said = capsys.readouterr()
    assert "full seed 1 was finished under another definition (frames: 2 -> 3): kept as it is; --redo true" in said.out
    assert "1 of 1 runs were finished under another definition" in said.err and job.log.read_text() == log
    assert run(study, output, "--redo", "true") == 0
    assert (read_json(job.folder / "metrics.json") or {})["evaluation/frames_per_clip"] == 3
    assert "sfdkit fit" not in job.log.read_text()[len(log) :] and job.state() == "done"


def test_another_training_is_begun_anew(finished: Finished, tmp_path: Path) -> None:
    overrides = {"overrides": {"model.accumulate": 2}}
    _, _, (job,) = finished.copy(tmp_path, 0, runs={"full": overrides})
    assert job.state() == "changed" and job.changes() == [
        "trainer.val_check_interval: 4 -> 8",
        "model.accumulate: not given -> 2",
    ]
    assert job.begin() == "new"
    assert sorted(path.name for path in job.folder.iterdir()) == ["definition.json", "lock"]
    assert job.state() == "new"


def test_a_changed_file_is_named(finished: Finished, tmp_path: Path) -> None:
    slots = tmp_path / "experiments"
    shutil.copytree(EXPERIMENTS, slots)
    content = yaml.safe_load((finished.folder / "study.yaml").read_text())
    base = [str(slots / Path(file).relative_to(EXPERIMENTS)) for file in content["base"]]
    _, _, (job,) = finished.copy(tmp_path, 0, base=base)
    assert job.state() == "done"  # the place of a file does not matter
    with (slots / "base.yaml").open("a") as file:
        file.write("# more\n")
    study = load_study(tmp_path / "tiny")
    assert plan(study, tmp_path / "out")[0].changes() == ["the content of base.yaml"]


def test_a_run_that_fails_does_not_stop_the_others(
    finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad"
    shutil.copytree(finished.data, bad)
    cut_pictures(bad / "train", 2)
    runs = {"bad": {"overrides": {"data.init_args.root": str(bad)}}, "full": None}
    study, output, (failing, good) = finished.copy(tmp_path, 0, runs=runs)
    (good.folder / "done.json").unlink()
    assert run(study, output) == 1
    said = capsys.readouterr()
    assert "bad seed 1: FAILED after" in said.out and "full seed 1: done after" in said.out
    assert f"bad seed 1 failed: sfdkit fit ended with status 1; {failing.log}:" in said.out
    assert "sfdkit: error: " in said.out and "picture in train-00000.tar" in said.out
    assert "1 of 2 runs failed: bad seed 1; the same command tries them again" in said.err
    assert good.state() == "done" and failing.state() == "cut"


def test_a_training_that_is_terminated_has_failed_and_goes_on(finished: Finished, tmp_path: Path) -> None:
    long = {"overrides": {"trainer.max_steps": 100_000}}
    study, output, (job,) = finished.copy(tmp_path, runs={"long": long}, validations=None)
    process = start(study, output)
    wait_for(job.checkpoint, process)
    children = subprocess.run(["pgrep", "-P", str(process.pid), "-f", "sfdkit fit"], capture_output=True, text=True)
    os.kill(int(children.stdout), signal.SIGTERM)
    printed = process.communicate(timeout=300)[0]
    assert process.returncode == 1 and f"sfdkit fit ended with status {128 + signal.SIGTERM}" in printed
    assert job.state() == "cut"
    (job.folder / "trained.json").write_text("{}")
    assert job.state() == "trained"
    job.checkpoint.unlink()
    assert job.state() == "new"


def test_what_another_process_works_on_is_waited_for(
    finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study, output, (job,) = finished.copy(tmp_path, 0)
    (job.folder / "done.json").rename(job.folder / "away")
    lock = (job.folder / "lock").open()
    fcntl.flock(lock, fcntl.LOCK_EX)
    assert work_on(job, "us", {}, ROOT) == "held"

    def end() -> None:
        (job.folder / "away").rename(job.folder / "done.json")
        lock.close()

    timer = threading.Timer(2.5, end)
    log = job.log.read_text()
    timer.start()
    assert run(study, output, "--only", "0") == 0
    timer.join()
    printed = capsys.readouterr().out
    assert "full seed 1: elsewhere" in printed and "full seed 1: done" in printed and job.log.read_text() == log


def test_a_study_that_is_told_to_end_ends_what_it_started(finished: Finished, tmp_path: Path) -> None:
    study, output, (job,) = finished.copy(tmp_path, 0)
    (job.folder / "done.json").unlink()
    before = (job.folder / "status.json").stat().st_mtime_ns
    process = start(study, output, "--only", "0")
    while process.poll() is None and (job.folder / "status.json").stat().st_mtime_ns == before:
        time.sleep(0.01)
    process.terminate()
    printed = process.communicate(timeout=300)[0]
    assert process.returncode == 1 and "stopped; the same command goes on from the last checkpoints" in printed
    assert (read_json(job.folder / "status.json") or {})["state"] == "stopped"
    assert free(job) and job.state() == "trained"


def test_dry_run_lists_and_trains_nothing(
    finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study, output, _ = finished.copy(tmp_path, 0, seeds=[1, 7])
    assert run(study, output, "--dry_run", "true") == 0
    printed = capsys.readouterr().out
    assert re.search(r"0  full +1  done +[\d,]{7,} +0\.\d{3}  full", printed)
    assert re.search(r"1  full +7  new +[\d,]{7,} +0\.\d{3}  full", printed)
    assert not (output / "full/seed7").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"runs": {"a": {"overrides": {"model.weights.l3": 1}}}}, "run 'a': weights: there is no loss term 'l3'"),
        ({"runs": {"a": {"overrides": {"model.wramup_steps": 1}}}}, "run 'a': .*wramup"),
        (
            {"runs": {"a": WRONG_SIZE, "b": WRONG_SIZE}},
            r"run 'a': .*resolution.* \(and another problem: b\)",
        ),
        ({"runs": {"a": {"overrides": {"data.init_args.root": "none"}}}}, "run 'a': data.root 'none' has no folder"),
        ({"evaluate": {"shards": "none"}}, "run 'full': .*none"),
        ({"evaluate": {"shards": "x", "frame": 2}}, r"evaluate: there is no option 'frame'\. Did you mean 'frames'"),
        ({"evaluate": {"shards": "x", "frames": "many"}}, "evaluate: .*frames.*many"),
    ],
)
def test_mistakes_are_found_before_anything_runs(
    changes: dict[str, object], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = small_study(tmp_path / "tiny", make_data(tmp_path / "data"), **changes)
    assert run(study, tmp_path / "out") == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert re.search(rf"sfdkit: error: .*study\.yaml: {words}", error), error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--jobs", "0"], "--jobs 0: give a number of at least 1"),
        (["--cpus_per_run", "0"], "--cpus_per_run 0"),
        (["--gpus_per_run", "0.5"], "--gpus_per_run 0.5: give a whole number, or a share with --engine ray"),
        (["--only", "4"], "--only 4: the study in .* has runs 0 to 3"),
        (["--only", "1", "--engine", "slurm"], "--only runs here"),
        (["--slurm_options", '["-p x"]'], "--slurm_options belong to --engine slurm"),
    ],
)
def test_options_that_cannot_work(
    options: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = small_study(tmp_path / "tiny", tmp_path / "data")
    assert run(study, tmp_path / "out", *options) == 1
    assert re.search(words, capsys.readouterr().err)


def test_threads_and_gpus_are_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS")
    cores = len(os.sched_getaffinity(0))
    assert environments(1, None, 0) == [{}]
    assert environments(2, None, 0) == [{"OMP_NUM_THREADS": str(max(1, cores // 2))}] * 2
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5,7")
    assert environments(1, 4, 2) == [{"OMP_NUM_THREADS": "4", "CUDA_VISIBLE_DEVICES": "3,5"}]
    assert [e["CUDA_VISIBLE_DEVICES"] for e in environments(3, 1, 1)] == ["3", "5", "7"]
    with pytest.raises(ConfigError, match=r"needs 4 GPUs and this machine shows 3; lower --jobs"):
        environments(2, 1, 2)


SBATCH = """#!/bin/bash
# the array's tasks one after the other, as Slurm would run them
test "$1" = --parsable || exit 2
list=$(sed -n 's/^#SBATCH --array=\\([0-9,]*\\).*/\\1/p' "$2")
for index in ${list//,/ }; do
  SLURM_JOB_ID=7 SLURM_ARRAY_TASK_ID=$index SLURM_NTASKS=1 bash "$2" >> "$2.log" 2>&1 || exit 3
done
echo "7;cluster"
"""


def test_slurm_runs_the_jobs_that_are_not_done(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "sbatch").write_text(SBATCH)
    (tools / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    monkeypatch.chdir(ROOT)
    study, output, (done, job) = finished.copy(tmp_path, 0, 2, runs={"full": None, "slow": SLOW})
    (job.folder / "done.json").unlink()
    options = ["--engine", "slurm", "--jobs", "3", "--gpus_per_run", "1", "--cpus_per_run", "2"]
    assert run(study, output, *options, "--slurm_options", '["--partition=gpu"]') == 0
    printed = capsys.readouterr().out
    (script,) = output.glob("slurm-*.sh")
    assert f"submitted {script} as job 7: 1 tasks" in printed
    lines = script.read_text().splitlines()
    for line in ("--array=1%3", "--cpus-per-task=2", "--gres=gpu:1", "--partition=gpu", "--requeue", "--ntasks=1"):
        assert f"#SBATCH {line}" in lines
    assert job.state() == done.state() == "done", Path(f"{script}.log").read_text()
    assert "all 1 done" in Path(f"{script}.log").read_text()


def test_slurm_without_sbatch_leaves_the_script(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    study, output, _ = finished.copy(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert run(study, output, "--engine", "slurm") == 0
    (script,) = output.glob("slurm-*.sh")
    assert f"wrote {script}; there is no sbatch on this machine" in capsys.readouterr().out
    assert "#SBATCH --array=0\n" in script.read_text()
    (tmp_path / "sbatch").write_text("#!/bin/sh\necho no such partition >&2\nexit 1\n")
    (tmp_path / "sbatch").chmod(0o755)
    assert run(study, output, "--engine", "slurm") == 1
    assert "no such partition" in capsys.readouterr().err


def test_a_script_quotes_its_words(tmp_path: Path) -> None:
    script = slurm_script(tmp_path / "a b/study.yaml", tmp_path / "o p", [0, 2], None, None, 0, [], True)
    assert f"'{tmp_path}/a b/study.yaml'" in script and "--redo true --only" in script and "--array=0,2\n" in script
    assert "--gres" not in script and "--cpus-per-task" not in script


def test_ray_runs_a_job(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("ray", reason="the extra cluster is not installed")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.chdir(ROOT)
    study, output, (job,) = finished.copy(tmp_path, 0)
    (job.folder / "done.json").unlink()
    assert run(study, output, "--engine", "ray") == 0
    assert "full seed 1: done after" in capsys.readouterr().out and job.state() == "done"
    status = read_json(job.folder / "status.json") or {}
    assert status["state"] == "done" and status["process"] != os.getpid()
    (job.folder / "done.json").unlink()
    assert run(study, output, "--engine", "ray", "--gpus_per_run", "0.5") == 1
    assert "--gpus_per_run 0.5: the Ray cluster has 0 GPU" in capsys.readouterr().err
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    assert run(study, output, "--engine", "ray") == 1
    assert "no Ray cluster answers at" in capsys.readouterr().err


def test_a_full_disk_or_a_file_in_the_way_is_an_error(tmp_path: Path) -> None:
    study = small_study(tmp_path / "tiny", tmp_path / "data")
    job = plan(load_study(study), tmp_path / "out")[0]
    (tmp_path / "out").write_text("")
    with pytest.raises(DataError, match=r"cannot write into .*seed1: Not a directory; free space, or name another"):
        work_on(job, "us", {}, ROOT)


def test_the_view_redraws_a_table_or_writes_lines(tmp_path: Path) -> None:
    jobs = plan(load_study(small_study(tmp_path / "tiny", tmp_path / "data")), tmp_path / "out")
    for job in jobs[:2]:
        job.folder.mkdir(parents=True)
    write_json(jobs[0].folder / "status.json", {"state": "training", "owner": "us"})
    write_json(jobs[1].folder / "status.json", {"state": "evaluating", "owner": "another"})
    write_json(jobs[0].folder / "progress.json", {"step": 30, "steps": 600, "loss": 0.1234, "left": 190.0})
    shown = {}
    for live in (True, False):
        stream = io.StringIO()
        view = View(jobs, "us", 2, stream, live)
        view.update({0, 1}, {2: "done"}, {3})
        view._last = 0.0
        view.update({1}, {0: "failed", 2: "done"}, {3})
        view.close()
        shown[live] = stream.getvalue()
    assert "full seed 1  training    step 30/600, loss 0.1234, 3 min left\n" in shown[True]
    assert "full seed 2  waiting" in shown[True] and "slow seed 2  elsewhere" in shown[True]
    assert "1 of 4 done, 1 running, 1 with another process, 1 waiting; about" in shown[True]
    assert "\x1b[5F\x1b[J" in shown[True] and "\x1b" not in shown[False]
    lines = shown[False].splitlines()
    assert lines[0] == "full seed 1: training" and "full seed 1: FAILED after 0 s" in lines
    assert lines[-1].startswith("1 of 4 done, 1 failed, 1 with another process, 1 waiting")
    assert [duration(seconds) for seconds in (42, 300, 7800)] == ["42 s", "5 min", "2 h 10 min"]


def test_a_definition_reads_back_as_it_was_written(finished: Finished) -> None:
    job = finished.jobs[2]
    assert json.loads((job.folder / "done.json").read_text())["training"] == job.training
    assert job.training["options"]["model.optimizer.init_args.lr"] == 1e-05
