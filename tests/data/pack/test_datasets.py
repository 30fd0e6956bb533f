"""Data sets of other packages, which the kit finds by their entry points."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from sfdkit.cli import main
from sfdkit.data.pack.datasets import data_sets
from sfdkit.data.shards.index import load_index
from tests.datasets import coded_video

MODULE = """
from pathlib import Path

from sfdkit.data.pack.layout import DataSet, Found, VideoSegment, no_layout, require_root

LAYOUTS = ("<person>.mp4",)


def find(root: Path) -> Found:
    require_root(root)
    paths = sorted(root.glob("*.mp4"))
    if not paths:
        raise no_layout(root, "Mine", LAYOUTS)
    return Found("one video of each person", [VideoSegment(p, p.name, p.stem, "train") for p in paths], [], "centre")


DATASET = DataSet(
    name="mine",
    title="Mine",
    address="https://example.org/mine",
    licence="CC0-1.0",
    citation="me",
    resolution=32,
    fps=25.0,
    layouts=LAYOUTS,
    find=find,
)
"""


def install(folder: Path, package: str, module: str, entries: dict[str, str]) -> None:
    """Lay a package out as pip installs it: its module, and a folder that says what it is and declares."""
    folder.mkdir(exist_ok=True)
    (folder / f"{package}.py").write_text(module)
    about = folder / f"{package}-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    lines = [f"{name} = {value}" for name, value in entries.items()]
    (about / "entry_points.txt").write_text("\n".join(["[sfdkit.datasets]", *lines, ""]))


def test_a_package_of_somebody_else_brings_a_data_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install(tmp_path / "site", "outside_data", MODULE, {"mine": "outside_data:DATASET"})
    monkeypatch.syspath_prepend(tmp_path / "site")
    assert {"mine", "voxceleb", "hdtf", "celebv"} <= set(data_sets())
    for person in ("ann", "bob"):
        coded_video(tmp_path / "root" / f"{person}.mp4", 12)
    words = [f"--root={tmp_path / 'root'}", f"--output={tmp_path / 'shards'}", "--validation_share=0"]
    assert main(["prepare", "mine", *words, "--frames_per_clip=10", "--min_frames=4"]) == 0
    assert "Mine: one video of each person" in capsys.readouterr().out
    index = load_index(tmp_path / "shards/train")
    assert (index["dataset"], index["identities"], index["resolution"]) == ("mine", 2, 32)


@pytest.mark.parametrize(
    ("module", "entry", "words"),
    [
        ("import a_module_that_is_not_there", "broken:DATASET", "ModuleNotFoundError: No module named 'a_module"),
        ("raise SystemError('two\\nlines')", "broken:DATASET", r"\(SystemError: two lines\)"),
        ("", "broken:DATASET", "AttributeError: .* has no attribute 'DATASET'"),
        ("DATASET = 'no data set'", "broken:DATASET", r"it is a str and no sfdkit\.data\.pack\.layout\.DataSet"),
        (MODULE, "broken:DATASET", "another one has this name"),
    ],
)
def test_a_broken_package_breaks_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, entry: str, words: str
) -> None:
    name = "clips" if module is MODULE else "theirs"
    install(tmp_path / "site", "broken", module, {name: entry})
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.delitem(sys.modules, "broken", raising=False)
    line = rf"^the data set '{name}' of the package 'broken' is left out.*{words}.*repair or uninstall"
    with pytest.warns(match=line) as noted:
        assert set(data_sets()) == {"voxceleb", "hdtf", "celebv"}
    assert len(noted) == 1 and "\n" not in str(noted[0].message)


def test_without_an_installation_the_error_says_how_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sfdkit.data.pack.datasets.entry_points", lambda group: ())
    for name in ("voxceleb", "--help"):
        assert main(["prepare", name]) == 1
        said = capsys.readouterr().err
        assert "run `pip install -e .` in its folder" in said and said.count("\n") == 1
    coded_video(tmp_path / "root/a.mp4", 12)
    words = ["--resolution=32", "--crop=centre", "--validation_share=0", "--test_share=0"]
    assert main(["prepare", "clips", f"--root={tmp_path / 'root'}", f"--output={tmp_path / 'out'}", *words]) == 0
