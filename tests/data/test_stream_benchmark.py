"""The benchmark that measures reading shards, beside other loaders."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import stream
from sfdkit.errors import ConfigError
from tests.shards import make_shards

ROOT = Path(__file__).parents[2]


def test_it_measures_the_loaders_and_says_which_it_could_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)  # its processes find the repository from anywhere
    folder = make_shards(tmp_path, "train", [4, 4])
    monkeypatch.setitem(stream.PEERS, "nobody", "a_module_that_is_not_there")
    output = tmp_path / "report.json"
    stream.stream(
        str(folder), workers="0", against="webdataset,nobody", batch_size=4, batches=2, repeats=1, output=str(output)
    )
    printed = capsys.readouterr().out
    assert "nobody: not measured, not installed" in printed and "2 shards, 8 clips at 32 pixels" in printed
    results = json.loads(output.read_text())["results"]
    assert {result["loader"] for result in results} == {"sfdkit", "webdataset"}
    assert all(result["median"]["pairs_per_second"] > 0 < result["median"]["peak_mb"] for result in results)


def test_it_refuses_what_it_cannot_do(tmp_path: Path) -> None:
    folder = make_shards(tmp_path, "train", [2])
    with pytest.raises(ConfigError, match="which would be replaced"):
        stream.stream(str(folder), output=str(folder / "index.json"))
    with pytest.raises(ConfigError, match=r"no such loader\. Did you mean 'webdataset'"):
        stream.stream(str(folder), against="webdatasets")
    with pytest.raises(ConfigError, match="give numbers from 0, such as 0,1,2"):
        stream.stream(str(folder), workers="0,-1")


@pytest.mark.parametrize(
    ("option", "words"),
    [("--batch_size=0", "batch_size: 0 is out of range"), ("--folder=nowhere", "The folder of shards 'nowhere'")],
)
def test_its_errors_are_one_line(option: str, words: str) -> None:
    command = [sys.executable, "-m", "benchmarks.stream", "--folder=nothing", option]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode and done.stderr.count("\n") == 1 and words in done.stderr
