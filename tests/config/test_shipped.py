from __future__ import annotations

from pathlib import Path

import pytest

from sfdkit.cli import main
from sfdkit.config import shipped
from sfdkit.config.compose import composed_files, expand_arguments
from sfdkit.config.shipped import find_config
from sfdkit.errors import ConfigError
from tests.running import EXPERIMENTS


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Another folder than the repository."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ["quickstart.yaml", "trainer/ddp.yaml", "studies/backbones/study.yaml"])
@pytest.mark.parametrize("before", ["", "experiments/", "./", "./experiments/"])
def test_a_shipped_experiment_has_its_name_everywhere(before: str, name: str) -> None:
    assert find_config(before + name) == EXPERIMENTS / name


def test_a_local_file_wins(elsewhere: Path) -> None:
    for name in ("quickstart.yaml", "experiments/quickstart.yaml"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text("trainer: {max_steps: 1}")
        assert find_config(name).resolve() == elsewhere / name
    assert expand_arguments(["fit", "--config", "quickstart.yaml"]) == ["fit", "--config", "quickstart.yaml"]


def test_composed_files_are_found_beside_the_file_and_then_by_name(elsewhere: Path) -> None:
    folder = elsewhere / "mine"
    (folder / "encoder").mkdir(parents=True)
    (folder / "encoder/tiny.yaml").write_text("a: 1")
    names = "[base.yaml, encoder/tiny.yaml, experiments/encoder/resnet18.yaml]"
    (folder / "top.yaml").write_text(f"compose: {names}")
    expected = [EXPERIMENTS / "base.yaml", folder / "encoder/tiny.yaml", EXPERIMENTS / "encoder/resnet18.yaml"]
    assert composed_files(folder / "top.yaml") == [*expected, folder / "top.yaml"]


def test_a_whole_experiment_is_composed_of_shipped_files() -> None:
    words = expand_arguments(["fit", "--config=quickstart.yaml", "--config", "trainer/cpu2.yaml"])
    files = [Path(word).relative_to(EXPERIMENTS).as_posix() for word in words[2::2] if word.endswith(".yaml")]
    assert files == [
        *("base.yaml", "encoder/tiny.yaml", "data/puppets.yaml", "trainer/auto.yaml", "quickstart.yaml"),
        "trainer/cpu2.yaml",
    ]


def test_a_package_that_holds_experiments_reads_those(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (elsewhere / "sfdkit/config").mkdir(parents=True)
    (elsewhere / "sfdkit/experiments").mkdir()
    (elsewhere / "sfdkit/experiments/base.yaml").write_text("a: 1")
    monkeypatch.setattr(shipped, "__file__", str(elsewhere / "sfdkit/config/shipped.py"))
    assert find_config("base.yaml") == elsewhere / "sfdkit/experiments/base.yaml"


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("quikstart.yaml", "Did you mean quickstart.yaml?"),
        ("experiments/quikstart.yaml", "Did you mean quickstart.yaml?"),
        ("ddp.yaml", "Did you mean trainer/ddp.yaml?"),
        ("data/puppet.yaml", "Did you mean data/puppets.yaml"),
        ("no/such.yaml", "sfdkit ships base.yaml, base256.yaml, "),
        ("../quickstart.yaml", "Did you mean quickstart.yaml?"),
        ("/quickstart.yaml", "Did you mean quickstart.yaml?"),
    ],
)
def test_an_unknown_name_is_one_line_with_those_near(name: str, hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--config", name]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"sfdkit: error: config file {name} cannot be read: No such file or directory. {hint}")


def test_an_unknown_part_names_who_composes_it() -> None:
    Path("top.yaml").write_text("compose: [encoder/tinny.yaml]")
    with pytest.raises(
        ConfigError, match=r"tinny.yaml, which top.yaml composes, cannot .*Did you mean encoder/tiny.yaml"
    ):
        expand_arguments(["fit", "--config", "top.yaml"])
