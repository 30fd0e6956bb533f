from __future__ import annotations

import json
from pathlib import Path

import pytest

from sfdkit.cli import main
from sfdkit.data import bench_peers
from tests.shards import make_shards


@pytest.mark.slow
def test_bench_measures_the_stream_beside_webdataset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_shards(tmp_path, "train", [8, 8])
    output = tmp_path / "bench.json"
    options = "--workers 0,1 --against webdataset --batch_size 4 --rows_per_clip 2 --driving 3 --batches 4 --repeats 1"
    assert main(["bench", "stream", "--folder", str(folder), *options.split(), "--output", str(output)]) == 0
    report = json.loads(output.read_text())
    assert report["not_measured"] == {} and report["clips"] == 16
    measured = {(result["loader"], result["workers"]): result["median"] for result in report["results"]}
    assert set(measured) == {(loader, workers) for loader in ("sfdkit", "webdataset") for workers in (0, 1)}
    for figures in measured.values():
        assert all(value > 0 for name, value in figures.items() if name != "cpu_seconds_per_1000_pairs")  # may be 0
        assert figures["pairs_per_second"] == pytest.approx(figures["clips_per_second"] * 2 * 3)
        size = sum(path.stat().st_size for path in folder.glob("*.tar")) / 16 / 1e6
        assert figures["mb_per_second"] == pytest.approx(figures["clips_per_second"] * size)
    printed = capsys.readouterr().out
    assert printed.count("webdataset ") == 2 and "pairs/s" in printed


def test_bench_says_what_it_cannot_measure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(bench_peers.PEERS, "litdata", "no_such_module")
    folder = make_shards(tmp_path, "train", [4])
    options = "--workers 0 --against litdata --batch_size 2 --batches 1 --repeats 1"
    assert main(["bench", "stream", "--folder", str(folder), *options.split()]) == 0
    assert "litdata: not measured, not installed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--workers two", "--workers"),
        ("--against webdatasets", "Did you mean 'webdataset'"),
        ("--repeats 0", "--repeats is 0"),
    ],
)
def test_bench_refuses_wrong_options(options: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "stream", "--folder", "nowhere", *options.split()]) == 1
    assert message in capsys.readouterr().err
