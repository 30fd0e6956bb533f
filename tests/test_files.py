"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sfdkit.apply.frame_writer import check_output, open_frame_writer
from sfdkit.errors import ConfigError, DataError
from sfdkit.files import atomic_write, new_folder, write_picture


def test_a_file_is_replaced_only_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    with atomic_write(path) as part:
        part.write_text("old")
        assert part.suffix == ".json" and not path.exists()
    with pytest.raises(ZeroDivisionError), atomic_write(path) as part:
        part.write_text("new")
        raise ZeroDivisionError
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_one_line_that_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    black = np.zeros((2, 2, 3), np.uint8)
    with pytest.raises(DataError, match=r"cannot write \S+/a\.png: No space left on device; check permission"):
        write_picture(tmp_path / "a.png", black)
    with (
        pytest.raises(DataError, match=r"cannot write \S+/frames: No space left on device"),
        open_frame_writer(tmp_path / "frames", 25) as write,
    ):
        write(black)
    assert not list(tmp_path.iterdir())


def test_the_working_folder_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"output: \. is the folder that this command runs in"), new_folder(Path(".")):
        pass
    with pytest.raises(ConfigError, match=r"is the folder that this command runs in"):
        check_output(".", "clip.mp4")
