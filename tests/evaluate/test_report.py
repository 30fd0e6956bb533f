from __future__ import annotations

import base64
import io
import json
import re
import subprocess
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from sfdkit.evaluate.command import evaluate
from sfdkit.evaluate.networks import Networks
from sfdkit.evaluate.report.images import TALLEST, WIDEST, Bar, jpeg_uri, plot_follow
from sfdkit.evaluate.report.page import About, write_page
from tests.browser import CHROMIUM, FLAGS
from tests.measuring import BrightnessMeasurer
from tests.written import lively_animator, write_checkpoint, write_puppets

PICTURES = (np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8, 3), np.uint8))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    write_checkpoint(folder / "model <1>.ckpt", lively_animator())
    write_puppets(folder / "puppets")
    write_puppets(folder / "real", real=True)
    return folder


def report(files: Path, output: Path, shards: str, measure: bool) -> str:
    """Evaluate, with a measurer or without, and return the report's text."""
    measurer = BrightnessMeasurer()
    opened = (
        Networks(measurer, about=measurer.about, missing={"LPIPS": "needs <weights>"})
        if measure
        else Networks(missing={"identity": "no network"})
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sfdkit.evaluate.command.open_networks", lambda *_: opened)
        evaluate(str(files / "model <1>.ckpt"), str(files / shards), str(output), frames=2, cross_pairs=6, device="cpu")
    return (output / "report.html").read_text()


@pytest.fixture(scope="module")
def page(files: Path) -> str:
    return report(files, files / "out", "puppets", measure=True)


class Reader(HTMLParser):
    """Collects tags, addresses and words, and whether every tag is closed."""

    VOID = ("meta", "img")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]
        assert not [name for name, _ in attrs if name.startswith("on")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_the_page_needs_nothing_else(page: str) -> None:
    read = Reader(page)
    assert not read.open
    assert not {"script", "link", "iframe", "object", "base"} & set(read.tags)
    kinds = [address.partition(";base64,")[0] for address in read.addresses]
    assert kinds == ["data:image/png", "data:image/jpeg", "data:image/jpeg"]
    assert not re.search(r"https?:|url\(|@import|//[a-z]", re.sub(r"base64,[A-Za-z0-9+/=]+", "", page))
    for address in read.addresses:
        picture = Image.open(io.BytesIO(base64.b64decode(address.split(",")[1])))
        assert picture.width > 500 and np.asarray(picture).std() > 20
    assert len(page) < 3e6


def test_the_page_says_what_was_measured(page: str, files: Path) -> None:
    words = " ".join(Reader(page).words)
    for part in (
        "Evaluation report",
        "How well the result follows the driver",
        "Identity of the result",
        "What the descriptors encode",
    ):
        assert part in words
    for part in (
        "Results by group",
        "Fine detail, by its period in pixels",
        "face mask",
        "sharpness",
        "Identity factors by group",
        "eyes and brows",
        "the network itself",
        "mouth_open",
        "skin_tone",
        "Leakage",
        "yaw",
        "About the network",
        "brightness",
    ):
        assert part in words
    assert "model <1>.ckpt" in words and "<1>" not in page and "&lt;1&gt;" in page
    assert "LPIPS needs <weights>" in re.sub(r"\\s+", " ", words)
    assert re.search(
        r"sfdkit evaluate --checkpoint '.*model <1>.ckpt' .*--frames 2 --device cpu|--cross_pairs 6", words
    )


def test_a_report_on_real_faces_says_what_is_missing(files: Path, tmp_path: Path) -> None:
    words = " ".join(Reader(report(files, tmp_path, "real", measure=False)).words)
    for part in ("hold no known factors", "only puppets have a rendered truth", "identity no network"):
        assert part in words
    assert "What the descriptors encode" not in words and "How well the result follows the driver" not in words
    measured = " ".join(Reader(report(files, tmp_path, "real", measure=True)).words)
    assert "How well the result follows the driver" in measured and "Leakage" in measured


def test_what_the_network_cannot_read_is_pale(tmp_path: Path) -> None:
    metrics = {"cross/follow_yaw": 0.9, "cross/follow_blink": 0.8, "measure/reads_yaw": 0.9, "measure/reads_blink": 0.1}
    metrics |= {"cross/follow_mean": 0.9, "self/follow_roll": 0.5, "copy/follow_yaw": 0.3}
    networks = {"regressor/file": "r", "regressor/yaw": 3.25, "regressor/r2_blink": 0.125, "regressor/blink": 0.5}
    drawn: list[Figure] = []

    def plot(bars: Sequence[Bar]) -> Figure:
        drawn.append(plot_follow(bars))
        return drawn[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sfdkit.evaluate.report.page.plot_follow", plot)
        write_page(tmp_path / "r.html", metrics, [], [], *PICTURES, About("c", "sfdkit evaluate", {}, [], networks))
    (axes,) = drawn[0].axes
    assert [text.get_text() for text in axes.get_yticklabels()] == ["yaw", "blink"]
    assert [bar.get_width() for bar in axes.patches] == [0.9, 0.8]
    assert [bar.get_alpha() for bar in axes.patches] == [1.0, 0.3]
    assert [text.get_text() for text in axes.texts] == ["0.90", "0.80"]
    assert [list(line.get_xdata()) for line in axes.lines] == [[0.3, 0.3]]
    text = (tmp_path / "r.html").read_text()
    assert "hardly reads blink (" in text and "<tr><td>yaw</td><td>3.25</td><td></td>" in text


def test_a_factor_that_does_not_vary_has_no_bar() -> None:
    (axes,) = plot_follow([Bar("yaw", None, None, False), Bar("roll", -0.4, 0.1, False)]).axes
    assert [text.get_text() for text in axes.texts] == ["does not vary", "\N{MINUS SIGN}0.40"]
    assert len(axes.patches) == 1 and axes.get_xlim() == (-0.25, 1)


def test_small_groups_are_marked(tmp_path: Path) -> None:
    metrics = {"groups/skin/dark/self_pairs": 4, "groups/skin/dark/cross_pairs": 5, "groups/skin/light/self_pairs": 9}
    metrics |= {"groups/skin/light/cross_pairs": 9, "groups/skin/dark/cross_psnr": 1, "groups/skin/dark/self_psnr": 2}
    write_page(tmp_path / "r.html", metrics, [], [], *PICTURES, About("c", "sfdkit evaluate", {}, ["skin"], {}))
    text = (tmp_path / "r.html").read_text()
    (row,) = re.findall(r"<tr><td>dark</td>.*?</tr>", text)
    assert row.count('class="small"') == 2 and '<td class="small">4</td><td>5</td>' in row
    assert '<td class="small">2.00</td>' in row and "<td>1.00</td>" in row
    assert [p.name for p in tmp_path.iterdir()] == ["r.html"]


def test_pictures_are_bounded() -> None:
    uri = jpeg_uri(np.zeros((9000, 3000, 3), np.uint8))
    picture = Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1])))
    assert (
        picture.width <= WIDEST
        and picture.height <= TALLEST
        and picture.height / picture.width == pytest.approx(3, abs=0.01)
    )


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
def test_a_browser_shows_every_picture(page: str, files: Path, tmp_path: Path) -> None:
    """A page of the test's own loads the report in a frame and says what it sees there."""
    (tmp_path / "report.html").write_text(page)
    (tmp_path / "look.html").write_text(
        """<iframe id=f src=report.html width=1100 height=900></iframe><pre id=seen></pre><script>
        f.onload = () => { const d = f.contentDocument; seen.textContent = JSON.stringify({
          images: [...d.images].map(i => [i.complete, i.naturalWidth, i.getBoundingClientRect().width]),
          asked: f.contentWindow.performance.getEntriesByType('resource').map(r => r.name),
          wide: d.documentElement.scrollWidth, plots: d.querySelectorAll('img.plot').length}) }
        </script>"""
    )
    command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=10000"]
    command += ["--allow-file-access-from-files", "--dump-dom", (tmp_path / "look.html").as_uri()]
    seen = subprocess.run(command, capture_output=True, text=True, timeout=120).stdout
    found = re.search(r'<pre id="seen">(.*)</pre>', seen)
    assert found, seen[:500]
    facts = json.loads(found[1])
    assert len(facts["images"]) == 3 and not [a for a in facts["asked"] if not a.startswith("data:")]
    assert all(complete and natural > 500 and 300 < shown <= 1100 for complete, natural, shown in facts["images"])
    assert facts["wide"] <= 1100 and facts["plots"] == 1
