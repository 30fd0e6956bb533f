from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from sfdkit.config.compose import composed_files, expand_arguments
from sfdkit.errors import ConfigError
from sfdkit.train.command import build


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_files_come_in_order_and_once(tmp_path: Path) -> None:
    base = write(tmp_path / "base.yaml", "a: 1")
    part = write(tmp_path / "sub/part.yaml", "compose: [../base.yaml]\nb: 2")
    top = write(tmp_path / "top.yaml", "compose: [base.yaml, sub/part.yaml]\nc: 3")
    assert [p.resolve() for p in composed_files(top)] == [base, part, top]


def test_arguments_are_expanded_in_place(tmp_path: Path) -> None:
    write(tmp_path / "base.yaml", "a: 1")
    top = write(tmp_path / "top.yaml", "compose: [base.yaml]")
    base = str(tmp_path / "base.yaml")
    expected = ["fit", "--config", base, "--config", str(top), "--x", "1"]
    assert expand_arguments(["fit", "--config", str(top), "--x", "1"]) == expected
    assert expand_arguments(["fit", f"--config={top}", "--x", "1"]) == expected


def test_weights_merge_term_by_term_and_other_mappings_are_replaced(tmp_path: Path) -> None:
    write(tmp_path / "base.yaml", "model: {weights: {l1: 1, ssim: 2}, other: {a: 1}}\ndata: {root: {a: 1}}")
    write(tmp_path / "top.yaml", "compose: [base.yaml]\nmodel: {weights: {l1: 3}, starts: {l1: 0.5}, other: {b: 2}}")
    over = write(tmp_path / "over.yaml", "model: {weights: {parts: 4}}\ndata: {root: {b: 1}}")
    null = write(tmp_path / "null.yaml", "model: {weights: null}")
    words = ["fit", "--config", str(tmp_path / "top.yaml"), "--config", str(over), "--config", str(null)]
    texts = expand_arguments([*words, "--config", str(over)])[2::2]
    files = [str(tmp_path / name) for name in ("base.yaml", "top.yaml", "over.yaml", "null.yaml", "over.yaml")]
    assert [text for text in texts if text in files] == files
    first, second = (yaml.safe_load(text) for text in texts if text not in files)
    assert first == {"model": {"weights": {"l1": 3, "ssim": 2}}}
    assert second == {"model": {"weights": {"l1": 3, "ssim": 2, "parts": 4}}}


def test_points_are_learned_on_top_of_what_a_recipe_learns() -> None:
    task = build(["--config", "clips128.yaml", "--config", "objective/points.yaml"], with_networks=True).model
    weights = task.objective.weights
    assert weights["parts"] == weights["points"] == 2.0 and weights["l1"] == 1.0 and weights["perceptual"] == 0.4


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("compose: [missing.yaml]", r"missing\.yaml, which top\.yaml composes, cannot be read"),
        ("compose: base.yaml", "compose must be a list of files, got 'base.yaml'"),
        ("compose: [top.yaml]", "round in a circle"),
        ("- 1", "must hold a mapping, it holds list"),
        ("a: [", "is no YAML"),
        ("model: {a: 1}\ndata: {}\nmodel: {b: 2}\n", "'model' is there twice, rename or remove one.* line 3"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, words: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=words):
        composed_files(write(Path("top.yaml"), text))
