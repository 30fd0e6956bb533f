"""Studies that really run: killed and resumed, failing, changed, at the same time, and one run alone."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml

from sfdkit.cli import main
from sfdkit.errors import DataError
from sfdkit.study.commands import _chosen
from sfdkit.study.jobs import Job, plan, read_json
from sfdkit.study.pool import environments
from sfdkit.study.results import Results
from sfdkit.study.spec import load_study
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
        for one in (process.pid, pid_of(process, "study run.* --only=full --seed=2")):
            os.kill(one, signal.SIGKILL)  # without the training, which keeps the lock
        process.wait()
        with pytest.raises(DataError) as held:
            work_on(second, [])
        self.held = str(held.value)
        self.kept = (first.folder / "done.json").stat().st_mtime_ns, log(first)
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


def pid_of(process: subprocess.Popen[str], words: str) -> int:
    """A command in the group of a process."""
    found = subprocess.run(["pgrep", "-g", str(process.pid), "-f", words], capture_output=True, text=True)
    return int(found.stdout)


def log(job: Job) -> str:
    return (job.folder / "log.txt").read_text()


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
    assert re.match("full seed 2: another process works on it and holds .*full/seed2/lock; wait", finished.held)
    assert finished.kept == ((first.folder / "done.json").stat().st_mtime_ns, log(first))
    assert 1 <= finished.cut < STEPS
    assert f"--ckpt_path={second.checkpoint}" in log(second)
    assert re.search(r"full +2  at \d+ +[\d,]{7,}", finished.printed)
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
    lines = finished.printed.splitlines()[6:]
    assert any(re.fullmatch(r"full seed 2: training, resumed at step \d+", line) for line in lines)
    assert sorted(re.sub(r"\d:\d\d:\d\d|, resumed.*", "", line) for line in lines[:-1]) == [
        *("full seed 2: done after ", "full seed 2: training"),
        *("slow seed 1: done after ", "slow seed 1: training"),
        *("slow seed 2: done after ", "slow seed 2: training"),
    ]
    assert lines[-1].startswith("all 4 done; sfdkit study report ")


def test_its_report_has_curves_of_all_seeds(finished: Finished, tmp_path: Path) -> None:
    out = tmp_path / "report"
    assert main(["study", "report", str(finished.folder), "--runs", str(finished.output), "--output", str(out)]) == 0
    text = (out / "report.md").read_text()
    assert re.search(r"\| full \| 2 of 2 \| [\d.]+ ± [\d.]+ \| 12 \|", text) and "Missing" not in text
    assert sorted(p.name for p in out.glob("*.svg")) == ["self-psnr.svg", "val-psnr-seconds.svg", "val-psnr-steps.svg"]
    results = Results(load_study(finished.folder), finished.jobs)
    assert [band.x for band in results.bands("val/psnr", "steps")["full"]] == [4, 8, 12]
    seconds = [band.x for band in results.bands("val/psnr", "seconds")["full"]]
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
    before = log(job)
    assert run(study, output) == 1
    said = capsys.readouterr()
    assert "full seed 1 was finished under another definition (frames: 2 -> 3): kept as it is; --redo true" in said.out
    assert "1 of 1 runs were finished or begun under another definition" in said.err and log(job) == before
    assert run(study, output, "--redo", "true") == 0
    assert (read_json(job.folder / "metrics.json") or {})["evaluation/frames_per_clip"] == 3
    assert "sfdkit fit" not in log(job)[len(before) :] and job.state() == "done"


def test_another_training_is_begun_anew(finished: Finished, tmp_path: Path) -> None:
    overrides = {"overrides": {"model.accumulate_grad_batches": 2}}
    _, _, (job,) = finished.copy(tmp_path, 0, runs={"full": overrides})
    assert job.state() == "changed" and job.changes() == [
        "trainer.val_check_interval: 4 -> 8",
        "model.accumulate_grad_batches: not given -> 2",
    ]
    assert job.begin() == "new"
    assert sorted(path.name for path in job.folder.iterdir()) == ["definition.json", "lock"]
    assert job.state() == "new"


def test_what_was_begun_under_another_definition_is_kept(
    finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = {"overrides": {"model.warmup_steps": 3}}
    study, output, (job,) = finished.copy(tmp_path, 0, runs={"full": overrides})
    for name in ("done.json", "trained.json", "metrics.json"):
        (job.folder / name).unlink()
    checkpoint = job.checkpoint.read_bytes()
    assert job.state() == "left"
    assert run(study, output) == 1
    said = capsys.readouterr()
    assert "full seed 1 was begun under another definition (model.warmup_steps: " in said.out
    assert "1 of 1 runs were finished or begun under another definition" in said.err
    assert job.checkpoint.read_bytes() == checkpoint
    assert job.begin() == "new" and not job.checkpoint.exists()


def test_a_run_or_a_seed_alone_may_be_named() -> None:
    study = load_study("methods")
    jobs = plan(study, Path("out"))
    assert [(job.run, job.seed) for job in _chosen(study, jobs, "own", None)] == [("own", 1), ("own", 2)]
    assert [job.run for job in _chosen(study, jobs, None, 2)] == list(study.runs)


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
    finished: Finished, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad"
    shutil.copytree(finished.data, bad)
    cut_pictures(bad / "train", 2)
    runs = {"bad": {"overrides": {"data.init_args.root": str(bad)}}, "full": None}
    study, output, (failing, good) = finished.copy(tmp_path, 0, runs=runs)
    (good.folder / "done.json").unlink()
    assert run(study, output) == 1
    said = capfd.readouterr()
    failed = "sfdkit: error: bad seed 1: FAILED, sfdkit fit ended with status 1: 2 x picture in train-00000.tar"
    assert failed in said.err and "full seed 1: done after" in said.out
    assert f"bad seed 1 failed: sfdkit fit ended with status 1; {failing.folder / 'log.txt'}:\n" in said.out
    assert "\n  sfdkit: error: " in said.out and "picture in train-00000.tar" in said.out
    assert said.err.endswith("error: 1 of 2 runs failed: bad seed 1; the same command tries them again\n")
    assert good.state() == "done" and failing.state() == "interrupted"
    (missing,) = Results(load_study(study), [failing, good]).missing
    assert missing.startswith("bad seed 1: failed, sfdkit fit ended with status 1: 2 x picture in train-00000.tar")


def test_a_training_that_is_terminated_has_failed_and_goes_on(finished: Finished, tmp_path: Path) -> None:
    long = {"overrides": {"trainer.max_steps": 100_000}}
    study, output, (job,) = finished.copy(tmp_path, runs={"long": long}, validations=None)
    process = start(study, output)
    wait_for(job.checkpoint, process)
    os.kill(pid_of(process, "sfdkit fit"), signal.SIGTERM)
    printed = process.communicate(timeout=300)[0]
    assert process.returncode == 1 and f"sfdkit fit ended with status {128 + signal.SIGTERM}" in printed
    assert job.state() == "interrupted"
    (job.folder / "trained.json").write_text("{}")
    assert job.state() == "trained"
    job.checkpoint.unlink()
    assert job.state() == "new"


def test_what_another_process_works_on_is_left_to_it(
    finished: Finished, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    study, output, (job,) = finished.copy(tmp_path, 0)
    (job.folder / "done.json").unlink()
    before = {path: path.read_bytes() for path in job.folder.rglob("*") if path.is_file()}
    with (job.folder / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert run(study, output, "--only", "full", "--seed", "1") == 1
        assert "error: full seed 1: another process works on it and holds" in capfd.readouterr().err
        assert run(study, output) == 1
    assert "1 of 1 runs failed: full seed 1; the same command" in capfd.readouterr().err
    assert before == {path: path.read_bytes() for path in job.folder.rglob("*") if path.is_file()}


def test_a_study_that_is_told_to_end_ends_what_it_started(finished: Finished, tmp_path: Path) -> None:
    study, output, (job,) = finished.copy(tmp_path, 0)
    (job.folder / "done.json").unlink()
    before = log(job)
    process = start(study, output)
    while process.poll() is None and log(job) == before:
        time.sleep(0.01)
    process.terminate()
    printed = process.communicate(timeout=300)[0]
    assert process.returncode == 1 and "stopped; the same command resumes from the last checkpoints" in printed
    assert free(job) and job.state() == "trained" and not (job.folder / "failed.json").exists()


def test_one_run_alone_and_its_report(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a task of Slurm, from whose variables Lightning would take that there are two processes."""
    for name, value in {"JOB_ID": "7", "JOB_NAME": "study", "NTASKS": "2", "ARRAY_TASK_ID": "3"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    output, report = tmp_path / "out", tmp_path / "report"
    assert run(finished.folder, output, "--only", "slow", "--seed", "2") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "slow seed 2: training" and re.fullmatch(r"slow seed 2: done after \d:\d\d:\d\d", lines[1])
    assert [path.relative_to(output).as_posix() for path in output.glob("*/*")] == ["slow/seed2"]
    assert main(["study", "report", str(finished.folder), "--runs", str(output), "--output", str(report)]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"slow +1 of 2 +[\d.]+ +12", printed) and "missing: full seed 1: not started" in printed
    again, first = (read_json(folder / "slow/seed2/metrics.json") for folder in (output, finished.output))
    assert again["self/psnr"] == pytest.approx(first["self/psnr"], abs=1e-4) and again["seed"] == 2
    assert run(finished.folder, output, "--only", "slow", "--seed", "2") == 0
    assert capsys.readouterr().out == ""


def test_dry_run_lists_and_trains_nothing(
    finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study, output, _ = finished.copy(tmp_path, 0, seeds=[1, 7])
    assert run(study, output, "--dry_run", "true") == 0
    printed = capsys.readouterr().out
    assert re.search(r"\nfull +1  done +[\d,]{7,} +0\.\d{3}  full", printed)
    assert re.search(r"\nfull +7  new +[\d,]{7,} +0\.\d{3}  full", printed)
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
        (
            {"evaluate": {"shards": "x", "frame": 2}},
            r"evaluate: sfdkit evaluate has no option --frame\. Did you mean --frames",
        ),
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
        (["--jobs", "0"], "jobs: 0 is out of range; give more than 0"),
        (
            ["--only", "ful", "--seed", "1"],
            r"--only ful: .*study\.yaml has no such run\. Did you mean 'full'\? It has full, slow",
        ),
        (["--only", "full", "--seed", "3"], r"--seed 3: the seeds of .*study\.yaml are 1, 2"),
        (
            ["--only", "full", "--seed", "1", "--jobs", "2"],
            "--jobs 2 does nothing beside --only full, which is one run: leave one of them out",
        ),
        (["--seed", "5"], r"--seed 5: the seeds of .*study\.yaml are 1, 2"),
        (["--engine", "ray"], "sfdkit study run has no option --engine. See sfdkit study run --help"),
    ],
)
def test_options_that_cannot_work(
    options: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = small_study(tmp_path / "tiny", tmp_path / "data")
    try:
        assert run(study, tmp_path / "out", *options) == 1
    except SystemExit as stop:
        assert stop.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(words, line), line


def test_threads_and_gpus_are_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS")
    cores = len(os.sched_getaffinity(0))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    assert environments(1) == [{}]
    assert environments(2) == [{"OMP_NUM_THREADS": str(max(1, cores // 2))}] * 2
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    assert environments(1) == [{}]
    assert [e["CUDA_VISIBLE_DEVICES"] for e in environments(3)] == ["3", "5", "3"]
    assert {e["OMP_NUM_THREADS"] for e in environments(3)} == {"4"}
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [e["CUDA_VISIBLE_DEVICES"] for e in environments(2)] == ["0", "1"]


def test_the_array_job_of_the_readme_runs_every_run_and_seed(tmp_path: Path) -> None:
    text = (EXPERIMENTS / "README.md").read_text()
    (script,) = (block for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL) if "SBATCH" in block)
    found = re.search(r"--array=(\d+)-(\d+).* (experiments/studies/\w+) ", script, re.DOTALL)
    assert found is not None
    first, last, study = found.groups()
    (tmp_path / "sfdkit").write_text('#!/bin/sh\necho "$@"\n')
    (tmp_path / "sfdkit").chmod(0o755)
    calls = []
    for index in range(int(first), int(last) + 1):
        environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_ARRAY_TASK_ID": str(index)}
        done = subprocess.run(["bash", "-eu"], input=script, env=environment, capture_output=True, text=True)
        calls += re.findall(rf"^study run {study} .*--only (\S+) --seed (\d+)$", done.stdout)
    assert calls == [(job.run, str(job.seed)) for job in plan(load_study(ROOT / study), tmp_path)]


def test_a_full_disk_or_a_file_in_the_way_is_an_error(tmp_path: Path) -> None:
    study = small_study(tmp_path / "tiny", tmp_path / "data")
    job = plan(load_study(study), tmp_path / "out")[0]
    (tmp_path / "out").write_text("")
    with pytest.raises(DataError, match=r"cannot write into .*seed1: Not a directory; free space, or name another"):
        work_on(job, [])


def test_a_definition_reads_back_as_it_was_written(finished: Finished) -> None:
    job = finished.jobs[2]
    assert json.loads((job.folder / "done.json").read_text())["training"] == job.definition["training"]
    assert job.definition["training"]["options"]["model.optimizer.init_args.lr"] == 1e-05
