"""Means, spreads, tests and the files of a report, against values that were worked out by hand."""

from __future__ import annotations

import base64
import csv
import math
import time
import warnings
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from torch.utils.tensorboard import SummaryWriter

from sfdkit.cli import main
from sfdkit.errors import DataError
from sfdkit.study.compare import Spread, difference, spread
from sfdkit.study.curves import Band, Point, bands, read_curves
from sfdkit.study.jobs import Job, plan, write_json
from sfdkit.study.plot import dot_plot, line_plot, scatter_plot
from sfdkit.study.report import write_report
from sfdkit.study.results import Results
from sfdkit.study.spec import load_study
from tests.study.test_study_spec import write


def test_mean_and_deviation() -> None:
    assert spread([2.0, 4.0, 9.0]) == Spread(3, 5.0, math.sqrt(13.0))  # (9 + 1 + 16) / 2
    assert spread([3.0]) == Spread(1, 3.0, None)


def test_welch_by_hand() -> None:
    """Variances 13 and 1 over three seeds each: standard error sqrt(14/3), df = (14/3)^2 / ((13/3)^2/2 + (1/3)^2/2)."""
    found = difference([2.0, 4.0, 9.0], [1.0, 2.0, 3.0])
    assert found.value == 3.0
    assert found.t == pytest.approx(3 / math.sqrt(14 / 3))
    assert found.df == pytest.approx(196 / 85)
    assert found.p == pytest.approx(integrated(found.t or 0, found.df or 0), abs=1e-7)


def integrated(t: float, freedom: float, parts: int = 20_000) -> float:
    """Two-sided p by the midpoint rule on Student's density."""
    constant = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(freedom * math.pi)
    step = t / parts
    inside = sum((1 + ((i + 0.5) * step) ** 2 / freedom) ** (-(freedom + 1) / 2) for i in range(parts))
    return 1 - 2 * constant * step * inside


@pytest.mark.parametrize("t", [0.1, 1.0, 2.5, 30.0])
def test_p_has_closed_forms_for_one_and_two_degrees_of_freedom(t: float) -> None:
    """A side without spread leaves one degree; two of two seeds with equal spreads leave two."""
    one = difference([t + 0.5, t - 0.5], [0.0, 0.0])
    assert (one.t, one.df) == (pytest.approx(2 * t), pytest.approx(1.0))
    assert one.p == pytest.approx(1 - 2 / math.pi * math.atan(2 * t), rel=1e-9)
    two = difference([-t - 1.0, -t + 1.0], [-1.0, 1.0])
    assert (two.t, two.df) == (pytest.approx(-t / math.sqrt(2)), pytest.approx(2.0))
    assert two.p == pytest.approx(1 - t / math.sqrt(4 + t * t), rel=1e-9)


def test_p_by_the_printed_table() -> None:
    """Three seeds with variance 1 on each side have four degrees, for which the table says 2.776445."""
    shift = 2.776445 * math.sqrt(2 / 3)
    found = difference([shift - 1.0, shift, shift + 1.0], [-1.0, 0.0, 1.0])
    assert found.df == pytest.approx(4.0) and found.p == pytest.approx(0.05, abs=1e-6)


def test_without_spread_there_is_no_p() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert difference([2.0], [1.0, 2.0]).p is None
        assert difference([2.0, 2.0], [1.0, 1.0]).p is None
        assert difference([2.0, 2.0], [1.0, 1.1]).p is not None


def test_a_curve_of_a_run_that_went_on_keeps_the_later_values(tmp_path: Path) -> None:
    for steps, shift in (((1, 3, 5), 0.0), ((3, 5, 7), 0.5)):
        writer = SummaryWriter(str(tmp_path / "logs"))
        for step in steps:
            writer.add_scalar("val/psnr", step + shift, step)
            writer.add_scalar("val/seconds", 10.0 * (step + 1), step)
        writer.close()
        time.sleep(1.1)  # event files are ordered by the second in their name
    found = read_curves(tmp_path / "logs", ["val/psnr", "val/none"])
    assert found == {"val/psnr": [Point(2, 20.0, 1.0), Point(4, 40.0, 3.5), Point(6, 60.0, 5.5), Point(8, 80.0, 7.5)]}
    assert read_curves(tmp_path / "none", ["val/psnr"]) == {}
    (tmp_path / "logs/config.yaml").write_text("model: {accumulate_grad_batches: 2}\n")  # batches are logged
    found = read_curves(tmp_path / "logs", ["val/psnr"])
    assert [point.step for point in found["val/psnr"]] == [1, 2, 3, 4]


def test_bands_take_the_steps_that_all_seeds_have() -> None:
    one = [Point(2, 10.0, 1.0), Point(4, 20.0, 2.0), Point(6, 30.0, 3.0)]
    other = [Point(2, 20.0, 3.0), Point(4, 40.0, 2.0)]
    found = bands([one, other, []])
    assert [(b.x, b.mean) for b in found["steps"]] == [(2, 2.0), (4, 2.0)]
    assert [b.x for b in found["seconds"]] == [15.0, 30.0]
    assert [b.deviation for b in found["steps"]] == [pytest.approx(math.sqrt(2)), 0.0]
    assert bands([one])["steps"][0].deviation is None


PSNR = {("full", 1): 20.0, ("full", 2): 21.0, ("full", 3): 22.0, ("other", 1): 12.0, ("other", 2): 14.0}


def jobs_with_results(folder: Path, values: dict[tuple[str, int], float], **changes: object) -> list[Job]:
    metrics = [{"key": "psnr", "label": "PSNR", "direction": "higher"}, "model/parameters", "device", "absent"]
    write(folder, **{"metrics": metrics, "seeds": [1, 2, 3], **changes})
    jobs = plan(load_study(folder), folder / "out")
    for job in jobs:
        if (job.run, job.seed) in values:
            job.folder.mkdir(parents=True)
            job.begin()
            figures = {"psnr": values[job.run, job.seed], "model/parameters": 1431878, "device": "cpu", "absent": None}
            write_json(job.folder / "metrics.json", figures)
            write_json(job.folder / "done.json", job.definition)
    return jobs


def log(job: Job, values: dict[int, float]) -> None:
    """Log val/psnr by steps made, each of ten seconds."""
    writer = SummaryWriter(str(job.folder / "logs"))
    for step, value in values.items():
        writer.add_scalar("val/psnr", value, step - 1)
        writer.add_scalar("val/seconds", 10.0 * step, step - 1)
    writer.close()


def test_report_of_an_unfinished_study(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    jobs = jobs_with_results(tmp_path, PSNR)
    cut = jobs[5]
    cut.folder.mkdir(parents=True)
    write_json(cut.folder / "progress.json", {"step": 7, "steps": 20, "loss": 0.1, "left": 3.0})
    out = tmp_path / "report"
    assert main(["study", "report", str(tmp_path), "--runs", str(tmp_path / "out"), "--output", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "missing: other seed 3: running or interrupted, at step 7 of 20" in printed
    rows = list(csv.DictReader((out / "report.csv").open()))
    assert [(row["run"], row["seed_given"], row["psnr"]) for row in rows][3] == ("other", "1", "12.0")
    assert len(rows) == 5 and rows[0]["absent"] == ""
    summary = {(row["run"], row["metric"]): row for row in csv.DictReader((out / "summary.csv").open())}
    other = summary["other", "psnr"]
    assert [float(other[k]) for k in ("seeds", "mean", "difference")] == [2, 13.0, -8.0]
    assert float(other["deviation"]) == pytest.approx(math.sqrt(2), rel=1e-5)
    t, freedom = -8 / math.sqrt(2 / 2 + 1 / 3), (1 + 1 / 3) ** 2 / (1 / 1 + (1 / 3) ** 2 / 2)
    assert [float(other["t"]), float(other["df"])] == pytest.approx([t, freedom], rel=1e-5)
    assert float(other["p"]) == pytest.approx(integrated(-t, freedom), abs=1e-5)
    assert other["verdict"] == "worse" and summary["full", "psnr"]["verdict"] == ""
    assert summary["other", "model/parameters"]["verdict"] == "the same"
    text = (out / "report.md").read_text()
    assert "| full | 3 of 3 | 21 ± 1.00 | 1.43 M | cpu | \N{EN DASH} |" in text
    assert f"| other | -8.00 (p {float(other['p']):.3f}, worse) |" in text
    assert "- other seed 3: running or interrupted, at step 7 of 20" in text and "![PSNR" in text
    page = (out / "report.html").read_text()
    assert "http" not in page and 'class="worse"' in page
    svg = (out / "psnr.svg").read_bytes()
    assert base64.b64encode(svg).decode() in page and b"2020" not in svg
    uses = ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}use")
    assert sum("fill-opacity" in use.attrib["style"] for use in uses) == 5  # a dot for each seed


def test_an_earlier_report_stands_in_for_runs_that_are_not_finished_here(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
    done = jobs_with_results(first, {place: value for place, value in PSNR.items() if place[1] == 1})
    log(next(job for job in done if (job.run, job.seed) == ("other", 1)), {2: 1.5, 4: 2.5})
    assert main(["study", "report", str(first), "--runs", str(first / "out"), "--output", str(first / "report")]) == 0
    here = {place: value for place, value in PSNR.items() if place[1] == 2} | {("full", 1): 23.0}
    log(jobs_with_results(second, here)[0], {2: 3.0, 4: 4.0})
    arguments = ["study", "report", str(second), "--runs", str(second / "out"), "--output", str(second / "report")]
    capsys.readouterr()
    assert main([*arguments, "--earlier", str(first / "report/report.csv")]) == 0
    assert "other seed 1 is from an earlier report" in capsys.readouterr().out
    rows = list(csv.DictReader((second / "report/report.csv").open()))
    found = {(row["run"], int(row["seed_given"])): (float(row["psnr"]), row["device"]) for row in rows}
    assert found == {place: (value, "cpu") for place, value in {**here, ("other", 1): PSNR["other", 1]}.items()}
    curves = list(csv.DictReader((second / "report/curves.csv").open()))
    assert [(r["run"], r["seed_given"], r["step"], r["seconds"], r["value"]) for r in curves] == [
        ("full", "1", "2", "20.0", "3.0"),
        ("full", "1", "4", "40.0", "4.0"),
        ("other", "1", "2", "20.0", "1.5"),
        ("other", "1", "4", "40.0", "2.5"),
    ]
    assert (second / "report/val-psnr-seconds.svg").exists()
    assert main([*arguments, "--earlier", str(second / "report/summary.csv")]) == 1
    assert "summary.csv: it is no report.csv of" in capsys.readouterr().err
    (first / "report/curves.csv").write_text("run,seed_given\nother,1\n")
    assert main([*arguments, "--earlier", str(first / "report/report.csv")]) == 1
    assert "curves.csv cannot be read ('seconds'); restore it, or remove it" in capsys.readouterr().err


def test_html_and_markdown_escape_what_a_study_says(tmp_path: Path) -> None:
    metrics = [{"key": "psnr", "label": "a|b<i>", "direction": "higher"}]
    jobs = jobs_with_results(tmp_path, PSNR, title="one & <two>", metrics=metrics)
    write_report(load_study(tmp_path), jobs, tmp_path)
    page, text = (tmp_path / "report.html").read_text(), (tmp_path / "report.md").read_text()
    assert "one &amp; &lt;two&gt;</h1>" in page and "<two>" not in page and "<i>" not in page
    assert "# one & <two>\n" in text and "| run | seeds | a\\|b<i> ↑ |\n| --- | ---: | ---: |\n| full |" in text


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ({("full", 1): 20.0, ("other", 1): 12.0}, "one seed, no test"),
        ({("full", 1): 20.0, ("full", 2): 21.0, ("other", 1): 12.0}, "one seed, no test"),
        ({("full", 1): 20.0, ("full", 2): 20.0, ("other", 1): 12.0, ("other", 2): 12.0}, "zero variance, no test"),
        ({("full", 1): 20.0, ("full", 2): 21.0, ("other", 1): 20.0, ("other", 2): 22.0}, "not significant"),
        ({("full", 1): 20.0, ("full", 2): 20.1, ("other", 1): 29.0, ("other", 2): 29.1}, "better"),
        ({("other", 1): 29.0, ("other", 2): 29.1}, ""),
    ],
)
def test_verdicts(tmp_path: Path, values: dict[tuple[str, int], float], verdict: str) -> None:
    jobs = jobs_with_results(tmp_path, values, seeds=[1, 2])
    study = load_study(tmp_path)
    assert Results(study, jobs).verdict("other", study.metrics[0]) == verdict


def test_one_seed_is_said_plainly(tmp_path: Path) -> None:
    jobs = jobs_with_results(tmp_path, {("full", 1): 20.0, ("other", 1): 12.0}, seeds=[1])
    write_report(load_study(tmp_path), jobs, tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert "With one seed nothing can be tested" in text and "-8.00 (one seed, no test)" in text


def test_another_definition_failure_and_half_done_are_named(tmp_path: Path) -> None:
    jobs_with_results(tmp_path, PSNR)
    write(tmp_path, metrics=["psnr"], seeds=[1, 2, 3], evaluate={"shards": "shards/test", "frames": 3})
    jobs = plan(load_study(tmp_path), tmp_path / "out")
    jobs[5].folder.mkdir(parents=True)
    failure = {"command": "fit", "status": 1, "tail": ["one", "sfdkit: error: no"]}
    write_json(jobs[5].folder / "failed.json", failure)
    results = Results(load_study(tmp_path), jobs)
    assert "full seed 1 was finished under another definition" in results.notes[0]
    assert "(frames: not given -> 3)" in results.notes[0] and len(results.notes) == 5
    assert results.missing == ["other seed 3: failed, sfdkit fit ended with status 1: sfdkit: error: no"]


def test_nothing_to_report(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no run of the study has given anything in .*out; call sfdkit study run"):
        Results(load_study(write(tmp_path)), plan(load_study(tmp_path), tmp_path / "out"))


def test_plots_have_room_for_long_names_and_are_the_same_each_time() -> None:
    name = "a_name_of_fifty_characters_that_says_all_of_the_run"
    curves = {name: [Band(1.0, 2.0, None), Band(2.0, 3.0, None)]}
    dots = {name: [(1.0, 2.0), (2.0, 3.0)], "other": [(1.0, 1.0)]}
    for draw in (
        lambda: line_plot(curves, "steps", "psnr"),
        lambda: dot_plot({name: [1.0, 2.0]}, "psnr", name),
        lambda: scatter_plot(dots, "cost", "psnr"),
    ):
        svg = draw()
        assert svg == draw() and len(svg) < 20_000
        root = ElementTree.fromstring(svg)
        (label,) = [text for text in root.iter("{http://www.w3.org/2000/svg}text") if text.text == name]
        at, width = float(label.attrib["x"]), float(root.attrib["viewBox"].split()[2])
        room = at if "text-anchor: end" in label.attrib["style"] else width - at
        assert room > 5.3 * len(name)  # at 10 points


def test_metrics_are_drawn_against_each_other(tmp_path: Path) -> None:
    jobs = jobs_with_results(tmp_path, PSNR, scatter=[["model/parameters", "psnr"], ["absent", "psnr"]])
    printed = write_report(load_study(tmp_path), jobs, tmp_path)
    svg = (tmp_path / "psnr-against-model-parameters.svg").read_text()
    assert ">full<" in svg and ">other<" in svg and "2 plots" in printed
    assert not (tmp_path / "psnr-against-absent.svg").exists()
    assert Results(load_study(tmp_path), jobs).pairs("other", "model/parameters", "psnr") == [
        (1431878.0, 12.0),
        (1431878.0, 14.0),
    ]


def test_a_plot_of_more_runs_than_colours_tells_them_apart() -> None:
    points = [Band(1.0, 2.0, 0.1), Band(2.0, 3.0, 0.1)]
    svg = line_plot({f"run{number}": points for number in range(12)}, "steps", "psnr")
    assert svg.count("stroke-dasharray") == 4  # two lines, on the plot and in the legend
