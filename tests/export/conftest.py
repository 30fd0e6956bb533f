from __future__ import annotations

from pathlib import Path

import pytest

from sfdkit.cli import main
from sfdkit.model.animator import FaceAnimator
from tests.written import known_axes, lively_animator, write_checkpoint


@pytest.fixture(scope="module")
def animator() -> FaceAnimator:
    return lively_animator(code_share=0.5).requires_grad_(False)


@pytest.fixture(scope="module")
def exported(animator: FaceAnimator, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the command writes, with axes; beside it lie last.ckpt and axes.json."""
    folder = tmp_path_factory.mktemp("export")
    checkpoint = write_checkpoint(folder / "last.ckpt", animator)
    known_axes().save(folder / "axes.json")
    out = folder / "model"
    arguments = ["--checkpoint", str(checkpoint), "--axes", str(folder / "axes.json"), "--output", str(out)]
    assert main(["export", *arguments]) == 0
    return out
