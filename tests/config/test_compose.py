from __future__ import annotations

from pathlib import Path

import pytest

from sfdkit.config.compose import composed_files, expand_arguments
from sfdkit.errors import ConfigError


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


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("compose: [missing.yaml]", r"missing\.yaml, which top\.yaml composes, cannot be read"),
        ("compose: base.yaml", "compose must be a list of files, got 'base.yaml'"),
        ("compose: [top.yaml]", "round in a circle"),
        ("- 1", "must hold a mapping, it holds list"),
        ("a: [", "is no YAML"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, words: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=words):
        composed_files(write(Path("top.yaml"), text))
