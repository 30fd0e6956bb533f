"""What an installed sfdkit holds, and that it works away from the repository."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

from sfdkit.points import FACE31
from tests.running import ROOT, logging_to, make_data, small

pytestmark = pytest.mark.slow

PARTS = ("sfdkit", "datamodules", "experiments", "tests", "benchmarks")
FILES = ("pyproject.toml", "setup.py", "README.md", "LICENSE")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of a copy of the repository, as building leaves folders behind."""
    copy, out = tmp_path_factory.mktemp("copy"), tmp_path_factory.mktemp("out")
    for part in PARTS:
        shutil.copytree(ROOT / part, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
    for file in FILES:
        shutil.copy(ROOT / file, copy)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(copy)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(out.glob("*.whl"))


def files_below(folder: Path) -> set[str]:
    """Names of the files in a folder of the repository, without what Python caches."""
    files = (p for p in folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
    return {p.relative_to(ROOT).as_posix() for p in files}


def test_the_wheel_holds_packages_data_and_experiments_and_nothing_else(wheel: Path) -> None:
    packed = {name for name in ZipFile(wheel).namelist() if ".dist-info/" not in name}
    experiments = {f"sfdkit/{name}" for name in files_below(ROOT / "experiments")}
    assert "sfdkit/experiments/trainer/ddp.yaml" in experiments
    assert "sfdkit/face_networks/perceptual_puppets.safetensors" in packed
    assert packed == files_below(ROOT / "sfdkit") | files_below(ROOT / "datamodules") | experiments


def test_weights_by_name_from_another_folder(wheel: Path, tmp_path: Path) -> None:
    site, here = tmp_path / "site", tmp_path / "here"
    here.mkdir()
    ZipFile(wheel).extractall(site)
    draw = "['puppets', 'render', '--identity', '14', '--motion', '14', '--output', 'face.png']"
    move = "['animate', '--checkpoint', 'puppets64', '--source', 'face.png', '--driving', 'face.png', '--crop', 'none'"
    code = f"from sfdkit.cli import main; raise SystemExit(main({draw}) or main({move}, '--output', 'out.png']))"
    environment = {**os.environ, "PYTHONPATH": str(site)}
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, cwd=here, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert (here / "out.png").is_file()


def test_a_training_from_another_folder(wheel: Path, tmp_path: Path) -> None:
    site, here = tmp_path / "site", tmp_path / "here"
    here.mkdir()
    ZipFile(wheel).extractall(site)
    data = make_data(tmp_path / "shards", points=FACE31)
    words = ["fit", "--config", "quickstart.yaml", "--config", "experiments/trainer/auto.yaml"]
    words += [*small(data, here), *logging_to(here)]
    environment = {**os.environ, "PYTHONPATH": str(site)}
    done = subprocess.run(
        [sys.executable, "-m", "sfdkit", *words], cwd=here, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert (here / "checkpoints/last.ckpt").is_file()
    where = [sys.executable, "-c", "import sfdkit.cli, datamodules; print(sfdkit.__file__, datamodules.__file__)"]
    found = subprocess.run(where, cwd=here, env=environment, capture_output=True, text=True, timeout=60).stdout.split()
    assert all(Path(file).is_relative_to(site) for file in found)
