"""Folders of this machine."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from sfdkit.storage.driver import PIECE, Driver, Short, Transfer


def local_path(root: str) -> str:
    """Return the path of a local address, with or without ``file://``."""
    return root.removeprefix("file://")


class LocalDriver(Driver):
    """A folder of this machine."""

    def __init__(self, root: str) -> None:
        self.root = root
        self._folder = Path(local_path(root))

    def open(self, name: str, start: int, stop: int | None, etag: str | None) -> Transfer:
        """Open and seek."""
        file = open(self._folder / name, "rb")  # noqa: SIM115  # the transfer closes it
        file.seek(start)
        return Transfer(file.read, None if stop is None else stop - start, Short(), close=file.close)

    def size(self, name: str) -> int:
        """Ask the file system."""
        return (self._folder / name).stat().st_size

    def names(self) -> list[str]:
        """List the folder."""
        return sorted(path.name for path in self._folder.iterdir() if path.is_file())

    def put(self, name: str, path: Path) -> None:
        """Copy beside the place, under a name of its own as others may write the same file, then rename."""
        target = self._folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, partial = tempfile.mkstemp(prefix=f".{target.name}-", dir=target.parent)
        try:
            with os.fdopen(handle, "wb") as out, path.open("rb") as source:
                shutil.copyfileobj(source, out, PIECE)
                os.fchmod(out.fileno(), 0o644)
                out.flush()
                os.fsync(out.fileno())
            os.replace(partial, target)
        except BaseException:
            Path(partial).unlink(missing_ok=True)
            raise

    def remove(self, name: str) -> None:
        """Unlink."""
        (self._folder / name).unlink(missing_ok=True)

    def glob(self) -> list[str]:
        """Match folders."""
        anchor = Path(self._folder.anchor or ".")
        pattern = self._folder.relative_to(anchor) if self._folder.is_absolute() else self._folder
        return sorted(str(path) for path in anchor.glob(str(pattern)) if path.is_dir())
