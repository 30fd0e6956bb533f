"""Files that appear whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from sfdkit.files import atomic_write


def test_a_file_is_replaced_only_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    with atomic_write(path) as part:
        part.write_text("old")
        assert part.suffix == ".json" and not path.exists()
    with pytest.raises(ZeroDivisionError), atomic_write(path) as part:
        part.write_text("new")
        raise ZeroDivisionError
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
