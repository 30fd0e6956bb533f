from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import yaml

from sfdkit.config.compose import expand_arguments
from sfdkit.config.renamed import CLASSES, KEYS, rename_arguments, rename_config
from sfdkit.errors import SfdkitWarning


@pytest.fixture(autouse=True)
def _no_other_warning() -> None:
    warnings.simplefilter("error")


def nested(key: str, value: object) -> dict:
    first, _, rest = key.partition(".")
    return {first: nested(rest, value) if rest else value}


@pytest.mark.parametrize(("old", "new"), KEYS.items())
def test_an_old_key_becomes_the_new_one(old: str, new: str) -> None:
    said = f"{old} is now {new}; the next release knows the new names only"
    with pytest.warns(SfdkitWarning, match=f"^mine.yaml: {said}$"):
        assert rename_config(nested(old, 3), "mine.yaml") == nested(new, 3)
    with pytest.warns(SfdkitWarning, match=f"^study.yaml: {said}$"):
        assert rename_config({old: 3}, "study.yaml") == {new: 3}
    above, _, leaf = old.rpartition(".")
    for given, expected in (
        ([f"--{old}=3"], [f"--{new}=3"]),
        ([f"--{old}", "3"], [f"--{new}", "3"]),
        ([f"--{old}.deeper=3"], [f"--{new}.deeper=3"]),
        *([([f"--{above}={{{leaf}: 3}}"], [f"--{above}={{{new.rpartition('.')[2]}: 3}}"])] if above else []),
        *([([f"--{above}", f"{{{leaf}: 3}}"], [f"--{above}", f"{{{new.rpartition('.')[2]}: 3}}"])] if above else []),
    ):
        with pytest.warns(SfdkitWarning, match=f"^the command line: {said}$"):
            assert rename_arguments(given) == expected


@pytest.mark.parametrize(("old", "new"), CLASSES.items())
def test_an_old_module_becomes_the_new_one(old: str, new: str) -> None:
    said = f"{old} is now {new}"
    content = {"a": {"class_path": f"{old}.Some", "init_args": {"b": [f"{old}.function", {"class_path": "x.Y"}]}}}
    with pytest.warns(SfdkitWarning, match=said):
        renamed = rename_config(content, "mine.yaml")
    assert renamed == {
        "a": {"class_path": f"{new}.Some", "init_args": {"b": [f"{new}.function", {"class_path": "x.Y"}]}}
    }
    with pytest.warns(SfdkitWarning, match=said):
        assert rename_arguments([f"--trainer.callbacks+={old}.Some"]) == [f"--trainer.callbacks+={new}.Some"]
    with pytest.warns(SfdkitWarning, match=said):
        assert rename_arguments(["--a", f"{{class_path: {old}.Some}}"]) == ["--a", f"{{class_path: {new}.Some}}"]


def test_all_old_names_of_a_source_are_told_in_one_line() -> None:
    with pytest.warns(SfdkitWarning) as told:
        rename_config({"average": {"decay": 0.9}, "model": {"gradient_clip": 1, "accumulate": 2}}, "mine.yaml")
    assert len(told) == 1
    for words in ("average is now ema; ", "model.gradient_clip is now model.gradient_clip_norm; ", "accumulate is now"):
        assert words in str(told[0].message)


def test_other_names_stay_as_they_are() -> None:
    content = {
        "model": {"weights": {"kl": 1, "l1": 2}, "basis_rate_": 3, "gradient_clip_norm": 1.0},
        "data": {"average": 1, "rate": 2, "class_path": "sfdkit.tasks.Mine", 5: [{"average": 1}]},
        "trainer": {"accumulate_grad_batches": 1, "max_time": "00:00:05:50"},
    }
    assert rename_config(content, "mine.yaml") == content
    words = ["fit", "--config", "a: [", "--x=.nan", "--ema.decay=0.5", "--model.weights={kl: 1.0e-4}", "2024-13-45", ""]
    assert rename_arguments(words) == words


def test_a_composed_file_with_old_names_is_replaced_by_its_content(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("model: {weights: {rate: 1.0e-4, l1: 1.0}}\naverage: {decay: 0.5}\n")
    (tmp_path / "mine.yaml").write_text("compose: [base.yaml]\nema: {decay: 0.25}\n")
    with pytest.warns(SfdkitWarning, match=r"base\.yaml: average is now ema; .*rate is now "):
        first, content, second, mine = expand_arguments(["--config", str(tmp_path / "mine.yaml")])
    assert first == second == "--config" and mine == str(tmp_path / "mine.yaml")
    assert yaml.safe_load(content) == {"model": {"weights": {"kl": 1e-4, "l1": 1.0}}, "ema": {"decay": 0.5}}
