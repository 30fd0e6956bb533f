from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sfdkit import __version__
from sfdkit.cli import OWN_COMMANDS, TRAINER_COMMANDS, main
from tests.running import SLOTS, config, make_data, small


def test_module_and_help() -> None:
    done = subprocess.run([sys.executable, "-m", "sfdkit", "--help"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert all(command in done.stdout for command in (*TRAINER_COMMANDS, *OWN_COMMANDS))


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert __version__ in capsys.readouterr().out


def test_unknown_command_suggests_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["animat"]) == 1
    assert "Did you mean 'animate'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["animate"],
        ["edit"],
        ["interpolate"],
        ["motion", "extract"],
        ["evaluate"],
        ["shards", "pack", "videos"],
        ["shards", "check"],
        ["puppets", "sheet"],
    ],
)
def test_each_command_explains_itself(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([*words, "--help"])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    assert "--folder" in out if words[-1] == "check" else "--output" in out


def test_model_summary(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["model", "summary", *config(*SLOTS), "--data.init_args.resolution=128"]) == 0
    out = capsys.readouterr().out
    assert "GMAC" in out and "driven frame at 128" in out


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("--model.animator.init_args.encoder.init_args.name=resnet_18", "Did you mean 'resnet18'"),
        ("--model.weights.l3=1", "there is no loss term 'l3'"),
        ("--model.animator.init_args.generator.init_args.latent_size=64", "latent_size 128, generator has 64"),
        ("--data.init_args.resolution=48", "resolution must be 32, 64"),
        ("--model.weights.adversarial=1", "no discriminator"),
        ("--data.init_args.root=/no/such/shards", "/no/such/shards"),
    ],
)
def test_bad_values_are_one_line(override: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = make_data(tmp_path / "shards")
    arguments = [*config(*SLOTS), *small(data, tmp_path), "--trainer.logger=false", override]
    assert main(["fit", *arguments]) == 1
    err = capsys.readouterr().err.strip().splitlines()[-1]
    assert err.startswith("sfdkit: error: ") and words in err


def test_misspelt_key_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.yaml").write_text("model: {warmup_step: 3}\n")
    with pytest.raises(SystemExit) as stop:
        main(["fit", *config(*SLOTS), "--config", str(tmp_path / "mine.yaml")])
    assert stop.value.code == 2
    assert "warmup_step" in capsys.readouterr().err


def test_missing_config_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--config", "no/such.yaml"]) == 1
    assert "no/such.yaml cannot be read" in capsys.readouterr().err
