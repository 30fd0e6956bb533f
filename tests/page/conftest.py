from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sfdkit.page.desk import Desk
from sfdkit.page.models import Models
from tests.written import known_axes, lively_animator, puppet_frames, write_checkpoint, write_video


@pytest.fixture(scope="session", autouse=True)
def own_temporary_folder() -> Iterator[None]:
    """Pages of tests in other processes write elsewhere."""
    with tempfile.TemporaryDirectory(prefix="page-") as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", folder)
        patch.setitem(os.environ, "TMPDIR", folder)
        yield


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with axes, one without, a picture, a clip, both without a face, a picture above the limit, a text."""
    folder = tmp_path_factory.mktemp("page")
    for name, seed in (("run", 0), ("other", 1)):
        (folder / name / "checkpoints").mkdir(parents=True)
        write_checkpoint(folder / name / "checkpoints/last.ckpt", lively_animator(seed, code_share=0.5))
    known_axes().save(folder / "run/axes.json")
    Image.fromarray(puppet_frames(0, 1, 48)[0]).save(folder / "face.png")
    write_video(folder / "clip.mp4", puppet_frames(1, 12), fps=10)
    grey = np.full((64, 64, 3), 128, np.uint8)
    Image.fromarray(grey).save(folder / "grey.png")
    write_video(folder / "grey.mp4", [grey] * 12, fps=10)
    Image.new("1", (30_000, 30_000)).save(folder / "large.png")
    (folder / "text.png").write_text("no picture")
    return folder


@pytest.fixture
def models(files: Path) -> Models:
    names = {"run": files / "run/checkpoints/last.ckpt", "other": files / "other/checkpoints/last.ckpt"}
    names["gone"] = files / "gone.ckpt"
    return Models({name: {"checkpoint": str(path), "crop": "none", "device": "cpu"} for name, path in names.items()})


@pytest.fixture
def desk() -> Iterator[Desk]:
    with Desk() as desk:
        yield desk
    assert not desk.folder.exists()
