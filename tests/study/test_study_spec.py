"""What a study's file may say, and what is said about one that is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from sfdkit.errors import ConfigError
from sfdkit.study.jobs import plan
from sfdkit.study.spec import load_study
from tests.running import EXPERIMENTS

BASE = {
    "base": ["base.yaml"],
    "seeds": [1, 2],
    "runs": {"full": None, "other": {"title": "another", "overrides": {"model.accumulate": 2}}},
    "evaluate": {"shards": "shards/test"},
    "metrics": ["self/psnr", {"key": "self/l1", "label": "L1", "direction": "lower"}],
}
STUDIES = sorted(p.parent.name for p in (EXPERIMENTS / "studies").glob("*/study.yaml"))


def write(folder: Path, **changes: object) -> Path:
    """A study with other values; None removes a key."""
    (folder / "base.yaml").write_text("trainer: {max_steps: 40}\nmodel: {warmup_steps: 1}\n")
    (folder / "overlay.yaml").write_text("trainer: {max_steps: 20}\n")
    content = {key: value for key, value in {**BASE, **changes}.items() if value is not None}
    (folder / "study.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return folder


def test_runs_seeds_and_defaults(tmp_path: Path) -> None:
    study = load_study(write(tmp_path, overrides={"trainer.max_steps": 6, "model.accumulate": 1}))
    assert study.name == tmp_path.name and study.title == tmp_path.name and study.reference == "full"
    assert [run.title for run in study.runs] == ["full", "another"]
    assert study.runs[1].overrides == {"trainer.max_steps": 6, "model.accumulate": 2}
    assert study.curves == ("val/psnr",) and study.checkpoint_every == 100 and study.validations is None
    jobs = plan(study, tmp_path / "out")
    assert [(job.index, job.run, job.seed) for job in jobs] == [
        (0, "full", 1),
        (1, "full", 2),
        (2, "other", 1),
        (3, "other", 2),
    ]
    assert jobs[3].folder == tmp_path / "out/other/seed2"
    assert jobs[3].arguments == (
        f"--config={tmp_path / 'base.yaml'}",
        "--trainer.max_steps=6",
        "--model.accumulate=2",
        "--seed_everything=2",
        "--data.init_args.seed=2",
    )


def test_a_grid_makes_a_run_of_each_combination(tmp_path: Path) -> None:
    grid = {"model.warmup_steps": [1, 2], "model.animator.init_args.encoder.init_args.name": ["a.b", "c"]}
    study = load_study(write(tmp_path, runs=None, grid=grid))
    names = ["warmup_steps-1_a.b", "warmup_steps-1_c", "warmup_steps-2_a.b", "warmup_steps-2_c"]
    assert [run.name for run in study.runs] == names
    assert list(study.runs[1].overrides.values()) == [1, "c"]


def test_validations_are_spread_over_the_steps_that_count(tmp_path: Path) -> None:
    runs = {"file": None, "overlay": {"configs": ["overlay.yaml"]}, "override": {"overrides": {"trainer.max_steps": 8}}}
    study = load_study(write(tmp_path, validations=4, runs=runs))
    intervals = [job.training["options"]["trainer.val_check_interval"] for job in plan(study, tmp_path)[::2]]
    assert intervals == [10, 5, 2]
    assert "--trainer.check_val_every_n_epoch=null" in plan(study, tmp_path)[0].arguments


def test_validations_need_a_length(tmp_path: Path) -> None:
    study = load_study(write(tmp_path, validations=4, overrides={"trainer.max_steps": -1}))
    with pytest.raises(ConfigError, match=r"run 'full' has no trainer\.max_steps to spread them over"):
        plan(study, tmp_path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"run": {}}, r"there is no key 'run'\. Did you mean 'runs'"),
        ({"seeds": None}, "seeds: is missing"),
        ({"seeds": []}, r"list of different whole numbers.*it is \[\]"),
        ({"seeds": [1, 1]}, "list of different whole numbers"),
        ({"seeds": [True]}, "list of different whole numbers"),
        ({"base": "base.yaml"}, "base: must be a list, it is str 'base.yaml'"),
        ({"base": ["none.yaml"]}, r"base: config file .*none\.yaml cannot be read.*files are relative to"),
        ({"runs": None}, "runs: is empty; name at least one run"),
        ({"runs": {}}, "runs: is empty"),
        ({"runs": ["full"]}, r"runs: must be a mapping, it is list \['full'\]"),
        ({"runs": {"a/b": None}}, r"runs\.a/b: a run's name becomes a folder"),
        ({"runs": {1: None}}, "runs: the name 1 is no text"),
        ({"runs": {"a": {"override": {}}}}, r"runs\.a: there is no key 'override'\. Did you mean 'overrides'"),
        ({"runs": {"a": {"configs": ["no.yaml"]}}}, r"runs\.a\.configs: config file .*no\.yaml cannot be read"),
        ({"runs": {"a": {"overrides": {"--x": 1}}}}, r"runs\.a\.overrides: '--x' is no option"),
        ({"runs": {"warmup_steps-1": None}, "grid": {"model.warmup_steps": [1]}}, "'warmup_steps-1' is given to two"),
        ({"grid": {"model.warmup_steps": 1}}, r"grid\.model\.warmup_steps: must be a list of values, it is int 1"),
        ({"overrides": {"seed_everything": 1}}, "overrides: seed_everything is set by the study itself: give seeds"),
        ({"overrides": {"trainer.logger.x": 1}}, r"trainer\.logger\.x is set by the study itself: its logs go below"),
        ({"overrides": {"checkpoint.save_top_k": 1}}, "set by the study itself: give checkpoint_every"),
        ({"reference": "ful"}, r"reference: there is no run 'ful'\. Did you mean 'full'"),
        ({"validations": 0}, "validations: must be a whole number of at least 1, it is int 0"),
        ({"checkpoint_every": 1.5}, "checkpoint_every: must be a whole number"),
        ({"evaluate": {"frames": 2}}, "evaluate: shards is missing"),
        ({"evaluate": {"shards": "x", "output": "y"}}, "evaluate: output is set by the study itself"),
        ({"metrics": []}, "metrics: must be a list of keys"),
        ({"metrics": [{"label": "x"}]}, "metrics: key: must be a text, it is empty"),
        ({"metrics": [{"key": "x", "direction": "up"}]}, "direction of x must be higher or lower, it is 'up'"),
        ({"metrics": ["x", "x"]}, "metrics: x is there twice"),
        ({"curves": "val/psnr"}, "curves: must be a list"),
        ({"title": 3}, "title: must be a text, it is int 3"),
    ],
)
def test_wrong_studies_are_told_by_file_key_and_remedy(tmp_path: Path, changes: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        load_study(write(tmp_path, **changes))
    assert str(caught.value).startswith(str(tmp_path / "study.yaml"))


def test_missing_broken_and_double(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"study .*study\.yaml cannot be read: No such file"):
        load_study(tmp_path)
    (tmp_path / "study.yaml").write_text("runs: [")
    with pytest.raises(ConfigError, match="is no YAML"):
        load_study(tmp_path)
    (tmp_path / "study.yaml").write_text("runs:\n  a: {}\n  a: {}\n")
    with pytest.raises(ConfigError, match="'a' is there twice, rename or remove one"):
        load_study(tmp_path)
    (tmp_path / "study.yaml").write_text(
        "overrides: {model.x: 2020-01-01}\nbase: []\nseeds: []\nevaluate: {}\nmetrics: []"
    )
    with pytest.raises(ConfigError, match=r"overrides: .*date.* put dates and the like into quotes"):
        load_study(tmp_path)


def test_the_shipped_studies_parse() -> None:
    assert STUDIES == ["backbones", "basis_size", "disentanglement"]
    for name in STUDIES:
        content = yaml.safe_load((EXPERIMENTS / "studies" / name / "study.yaml").read_text())
        assert content["reference"] in content["runs"] and len(content["runs"]) >= 6


@pytest.mark.slow
@pytest.mark.skipif(not (EXPERIMENTS / "puppets64.yaml").exists(), reason="their base is not there")
@pytest.mark.parametrize("name", STUDIES)
def test_every_run_of_the_shipped_studies_builds(name: str, tmp_path: Path) -> None:
    from sfdkit.study.check import check_evaluation, check_run, first_jobs

    study = load_study(EXPERIMENTS / "studies" / name)
    jobs = plan(study, tmp_path)
    check_evaluation(study, jobs[0])
    for job in first_jobs(jobs):
        cost, _ = check_run(study, job)
        assert cost.parameters > 0 and cost.gmac > 0
