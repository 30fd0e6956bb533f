"""The sheet that shows what would be cut."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sfdkit.cli import main
from sfdkit.media.box import Box
from sfdkit.media.detect import CascadeDetector, Face
from tests.media.test_video import write


def test_each_video_has_a_cell_and_those_left_out_their_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def detector(self: CascadeDetector, image: np.ndarray, near: Box | None = None) -> list[Face]:
        return [Face(Box(20, 12, 36, 28), 1)]

    monkeypatch.setattr(CascadeDetector, "__call__", detector)
    (tmp_path / "in").mkdir()
    for name, frames in (("a", 20), ("b", 3), ("c", 20)):
        write(tmp_path / f"in/{name}.mp4", frames)
    (tmp_path / "in/d.mp4").write_bytes(b"no video")
    sheet = tmp_path / "sheet.png"
    assert main(["crop", "preview", f"--root={tmp_path / 'in'}", f"--output={sheet}", "--columns=2", "--cell=50"]) == 0
    printed = capsys.readouterr().out
    assert "4 of 4 videos looked at, 2 would be left out" in printed
    assert "b.mp4: short, 3 frames, at least 8 are wanted" in printed and "d.mp4: unreadable" in printed
    pixels = np.asarray(Image.open(sheet))
    assert pixels.shape == (2 * (50 + 15 + 4), 2 * (3 * 50 + 4), 3)
    first, second = pixels[15:65, :150], pixels[15:65, 154:304]
    assert (first == (0, 220, 90)).all(-1).any() and not (second == (0, 220, 90)).all(-1).any()  # the green square
    assert (second == (230, 40, 40)).all(-1).any()  # the red frame of what is left out
