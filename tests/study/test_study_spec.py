"""What a study's file may say, and what is said about one that is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from sfdkit.errors import ConfigError, SfdkitWarning
from sfdkit.model.summary import gmac_per_driven_frame, parameters
from sfdkit.study.jobs import plan
from sfdkit.study.spec import load_study
from sfdkit.train.task import AnimationTask
from tests.running import EXPERIMENTS

BASE = {
    "base": ["base.yaml"],
    "seeds": [1, 2],
    "runs": {"full": None, "other": {"title": "another", "overrides": {"model.accumulate_grad_batches": 2}}},
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
    study = load_study(write(tmp_path, overrides={"trainer.max_steps": 6, "model.accumulate_grad_batches": 1}))
    assert study.name == tmp_path.name and study.title == tmp_path.name and study.reference == "full"
    assert [run.title for run in study.runs.values()] == ["full", "another"]
    assert [column.label for column in study.metrics] == ["self/psnr", "L1"]
    assert study.curves == ["val/psnr"] and study.checkpoint_every == 100 and study.validations == 0
    jobs = plan(study, tmp_path / "out")
    assert [(job.run, job.seed) for job in jobs] == [("full", 1), ("full", 2), ("other", 1), ("other", 2)]
    assert jobs[3].folder == tmp_path / "out/other/seed2"
    assert jobs[3].arguments == (
        f"--config={tmp_path / 'base.yaml'}",
        "--trainer.max_steps=6",
        "--model.accumulate_grad_batches=2",
        "--seed_everything=2",
        "--data.init_args.seed=2",
    )


def test_a_grid_makes_a_run_of_each_combination(tmp_path: Path) -> None:
    grid = {"model.warmup_steps": [1, 2], "model.animator.init_args.encoder.init_args.name": ["a.b", "c"]}
    study = load_study(write(tmp_path, runs=None, grid=grid))
    names = ["warmup_steps-1_a.b", "warmup_steps-1_c", "warmup_steps-2_a.b", "warmup_steps-2_c"]
    assert list(study.runs) == names
    assert list(study.runs["warmup_steps-1_c"].overrides.values()) == [1, "c"]
    assert (
        study.runs["warmup_steps-1_c"].title
        == "model.warmup_steps 1, model.animator.init_args.encoder.init_args.name c"
    )


def test_values_stay_as_they_are_written(tmp_path: Path) -> None:
    """Texts that look like something else are texts; the command line's parser decides what they become."""
    options = {"model.a": "1", "model.b": "true", "model.c": [1, 2.5, "x"], "model.d": None, "model.e": {"f.g": "2"}}
    study = load_study(write(tmp_path, overrides=options, runs={"a": {"overrides": options}}))
    assert study.overrides == study.runs["a"].overrides == options
    text = (tmp_path / "study.yaml").read_text() + "grid: {model.day: [2020-01-01]}\n"
    (tmp_path / "study.yaml").write_text(text)
    assert load_study(tmp_path).runs["2020-01-01"].overrides == {"model.day": "2020-01-01"}


def test_validations_are_spread_over_the_steps_that_count(tmp_path: Path) -> None:
    runs = {"file": None, "overlay": {"configs": ["overlay.yaml"]}, "override": {"overrides": {"trainer.max_steps": 8}}}
    study = load_study(write(tmp_path, validations=4, runs=runs))
    intervals = [
        job.definition["training"]["options"]["trainer.val_check_interval"] for job in plan(study, tmp_path)[::2]
    ]
    assert intervals == [10, 5, 2]
    assert "--trainer.check_val_every_n_epoch=null" in plan(study, tmp_path)[0].arguments


def test_names_of_the_release_before_count_as_the_new_ones(tmp_path: Path) -> None:
    folder = write(tmp_path, validations=4, runs={"a": {"overrides": {"model.accumulate": 3}}, "b": None})
    (folder / "base.yaml").write_text("trainer: {max_steps: 8}\nmodel: {accumulate: 2}\n")
    with pytest.warns(SfdkitWarning, match=r"study\.yaml: runs\.a\.overrides: model\.accumulate is now model\."):
        study = load_study(folder)
    with pytest.warns(SfdkitWarning, match=r"base\.yaml: model\.accumulate is now model\.accumulate_grad_batches"):
        jobs = plan(study, tmp_path / "out")
    assert study.runs["a"].overrides == {"model.accumulate_grad_batches": 3}
    assert [job.definition["training"]["options"]["trainer.val_check_interval"] for job in jobs[::2]] == [6, 4]


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
        ({"seeds": [True]}, "seeds: True not a number"),
        ({"seeds": [-1]}, "seeds: -1 is out of range; give 0 or more"),
        ({"base": "base.yaml"}, "base: 'base.yaml' will not do; it takes a list"),
        ({"base": ["none.yaml"]}, r"base: config file .*none\.yaml cannot be read.*files are relative to"),
        ({"runs": None}, "runs: is empty; name at least one run"),
        ({"runs": {}}, "runs: is empty"),
        ({"runs": ["full"]}, r"runs: must be a mapping, it is \['full'\]"),
        ({"runs": {"a/b": None}}, r"runs\.a/b: a run's name becomes a folder"),
        ({"runs": {1: None}}, "1 is a name and no text; put it into quotes"),
        ({"runs": {"a": {"override": {}}}}, r"runs\.a: there is no key 'override'\. Did you mean 'overrides'"),
        ({"runs": {"a": {"configs": ["no.yaml"]}}}, r"runs\.a\.configs: config file .*no\.yaml cannot be read"),
        ({"runs": {"a": {"overrides": {"--x": 1}}}}, r"runs\.a\.overrides: '--x' is no option"),
        ({"runs": {"warmup_steps-1": None}, "grid": {"model.warmup_steps": [1]}}, "'warmup_steps-1' is given to two"),
        ({"grid": {"model.warmup_steps": 1}}, r"grid\.model\.warmup_steps: must be a list of values, it is 1"),
        ({"overrides": {"seed_everything": 1}}, "overrides: seed_everything is set by the study itself: give seeds"),
        ({"overrides": {"trainer.logger.x": 1}}, r"trainer\.logger\.x is set by the study itself: its logs go below"),
        ({"overrides": {"checkpoint.save_top_k": 1}}, "set by the study itself: give checkpoint_every"),
        ({"reference": "ful"}, r"reference: there is no run 'ful'\. Did you mean 'full'"),
        ({"validations": -1}, "validations: -1 is out of range; give 0 or more"),
        ({"checkpoint_every": 0}, "checkpoint_every: 0 is out of range; give more than 0"),
        ({"checkpoint_every": 1.5}, "checkpoint_every: 1.5 not an integer"),
        ({"evaluate": {"frames": 2}}, "evaluate: shards is missing"),
        ({"evaluate": {"shards": "x", "output": "y"}}, "evaluate: output is set by the study itself"),
        ({"metrics": []}, "metrics: must be a list of keys"),
        ({"metrics": [{"label": "x"}]}, "metrics: key: is missing"),
        (
            {"metrics": [{"key": "x", "direction": "up"}]},
            "metrics: direction: 'up' will not do; it takes 'higher', 'lower'",
        ),
        ({"metrics": ["x", "x"]}, "metrics: x is there twice"),
        ({"metrics": [3]}, "metrics: must be a mapping, it is 3"),
        ({"metrics": [{"key": "x", "lable": "y"}]}, r"metrics: there is no key 'lable'\. Did you mean 'label'"),
        ({"curves": "val/psnr"}, "curves: 'val/psnr' will not do; it takes a list"),
        (
            {"metrics": ["x"], "scatter": [["x", "y"]]},
            r"scatter: \['x', 'y'\]: y is none of the metrics; name two keys",
        ),
        ({"metrics": ["x"], "scatter": [["x"]]}, r"scatter: \['x'\]: two metrics are wanted"),
        ({"runs": {"a": {"title": 3}}}, "runs.a: title: '3' will not do; it takes text"),
        ({"title": 3}, "title: '3' will not do; it takes text"),
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
    (tmp_path / "study.yaml").write_text("- runs")
    with pytest.raises(ConfigError, match=r"study\.yaml: must be a mapping, it is \['runs'\]"):
        load_study(tmp_path)


def test_a_shipped_study_is_found_by_name_and_a_local_one_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("basis_size", "studies/basis_size", "experiments/studies/basis_size"):
        assert load_study(name).path == EXPERIMENTS / "studies/basis_size/study.yaml"
    (tmp_path / "basis_size").mkdir()
    write(tmp_path / "basis_size")
    assert list(load_study("basis_size").runs) == ["full", "other"]


def test_the_shipped_studies_parse() -> None:
    names = "backbones basis_size disentanglement methods methods_real methods_time sizes small_parts"
    assert names.split() == STUDIES
    for name in STUDIES:
        content = yaml.safe_load((EXPERIMENTS / "studies" / name / "study.yaml").read_text())
        assert content["reference"] in content["runs"] and len(content["runs"]) >= 3


@pytest.mark.slow
@pytest.mark.skipif(not (EXPERIMENTS / "puppets64.yaml").exists(), reason="their base is not there")
@pytest.mark.parametrize("name", STUDIES)
def test_every_run_of_the_shipped_studies_builds(name: str, tmp_path: Path) -> None:
    from sfdkit.study.check import build_run, check_evaluation

    study = load_study(EXPERIMENTS / "studies" / name)
    jobs = plan(study, tmp_path)
    check_evaluation(study, jobs[0])
    for job in {job.run: job for job in jobs}.values():
        model = build_run(job).model
        assert isinstance(model, AnimationTask)
        assert parameters(model.animator) > 0 and gmac_per_driven_frame(model.animator) > 0
