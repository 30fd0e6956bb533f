from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from sfdkit.errors import ConfigError
from sfdkit.evaluate.command import evaluate
from sfdkit.evaluate.run import Row
from sfdkit.evaluate.samples import Pair, Sample
from sfdkit.evaluate.summarise import group_figures, means
from sfdkit.face_networks.types import MeasureSettings
from sfdkit.types import Clip
from tests.written import lively_animator, write_checkpoint, write_puppets


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder with what an evaluation of five puppets and twelve pairs wrote."""
    folder = tmp_path_factory.mktemp("files")
    write_checkpoint(folder / "model.ckpt", lively_animator())
    write_puppets(folder / "puppets")
    run(folder, folder / "out")
    return folder


def run(folder: Path, output: Path, groups: list[str] | None = None) -> None:
    nothing = MeasureSettings(regressor="none", lpips="none")
    arguments = {"frames": 2, "cross_pairs": 12, "device": "cpu", "sheet_rows": 1, "measure": nothing}
    evaluate(str(folder / "model.ckpt"), str(folder / "puppets"), str(output), groups=groups, **arguments)  # type: ignore[arg-type]


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "out" / "pairs.csv").open() as file:
        return list(csv.DictReader(file))


def test_every_pair_has_a_row_and_means_are_over_rows(result: Path) -> None:
    rows, metrics = table(result), json.loads((result / "out" / "metrics.json").read_text())
    assert [row["kind"] for row in rows] == ["self"] * 5 + ["cross"] * 12
    assert all(row["source"] == row["driver"] for row in rows[:5])
    assert all(row["source_identity"] != row["driver_identity"] for row in rows[5:])
    places = {"self": {"l1": "self/l1", "copy_psnr": "self/copy_psnr", "face_ssim": "self/face_ssim"}}
    places["cross"] = {"l1": "cross/l1", "copy_psnr": "copy/psnr", "copy_face_l1": "copy/face_l1"}
    for kind, keys in places.items():
        for name, key in keys.items():
            column = [float(row[name]) for row in rows if row["kind"] == kind]
            assert metrics[key] == pytest.approx(np.mean(column), rel=1e-4), key


def test_groups_are_means_over_their_rows(result: Path) -> None:
    rows, metrics = table(result), json.loads((result / "out" / "metrics.json").read_text())
    for group in ("skin", "age", "glasses", "beard"):
        found = {}
        for value in {row[f"source_{group}"] for row in rows}:
            column = [float(r["psnr"]) for r in rows if r["kind"] == "cross" and r[f"source_{group}"] == value]
            assert metrics[f"groups/{group}/{value}/cross_pairs"] == len(column)
            if column:
                found[value] = np.mean(column)
                assert metrics[f"groups/{group}/{value}/cross_psnr"] == pytest.approx(found[value], rel=1e-4)
        if len(found) > 1:
            gap = max(found.values()) - min(found.values())
            assert metrics[f"groups/{group}/gap_cross_psnr"] == pytest.approx(gap, abs=1e-3)


def test_a_chosen_group_and_one_that_is_not_there(result: Path, tmp_path: Path) -> None:
    run(result, tmp_path, groups=["glasses"])
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert {key.split("/")[1] for key in metrics if key.startswith("groups/")} == {"glasses"}
    with pytest.raises(ConfigError, match=r"a group 'hat'; the groups there are age, beard, glasses, skin"):
        run(result, tmp_path, groups=["skin", "hat"])


def scored(value: float, groups: dict[str, str], **more: float) -> Row:
    meta = {"identity": "a", "groups": groups}
    sample = Sample(Clip(key="a", meta=meta, frames=b""), [0, 1])
    return Row(Pair(sample, sample), {"psnr": value, **more})


def test_gaps_small_groups_and_values_that_some_rows_lack() -> None:
    rows = [
        scored(20.0, {"skin": "dark"}),
        scored(24.0, {"skin": "dark"}, leakage=0.1),
        scored(25.0, {"skin": "light"}),
    ]
    rows.append(scored(30.0, {}))
    assert means(rows, "cross") == {"cross/psnr": pytest.approx(24.75), "cross/leakage": pytest.approx(0.1)}
    figures = group_figures(["skin"], [], rows)
    assert figures["groups/skin/dark/cross_psnr"] == pytest.approx(22)
    assert figures["groups/skin/gap_cross_psnr"] == pytest.approx(3)
    assert figures["groups/skin/dark/cross_pairs"] == 2 and figures["groups/skin/light/self_pairs"] == 0
    assert figures["groups/skin/dark/cross_leakage"] == pytest.approx(0.1)
    assert "groups/skin/gap_cross_leakage" not in figures
