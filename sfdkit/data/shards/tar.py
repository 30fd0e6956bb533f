"""A strict tar reader: whatever is wrong with a shard is an error that names the shard and the byte.

Python's ``tarfile`` takes a damaged or missing header for the end of the archive, so a cut shard loses clips without a
word. This reader takes its headers one by one and knows what a shard may hold: regular files, pax records
(https://pubs.opengroup.org/onlinepubs/9699919799/utilities/pax.html), GNU long names
(https://www.gnu.org/software/tar/manual/html_node/Standard.html), and an end of two zero blocks.
"""

from __future__ import annotations

import tarfile
from typing import BinaryIO, NamedTuple

from sfdkit.errors import ShardError

_BLOCK = 512
_ZERO = bytes(_BLOCK)
_NO_END = "the archive ends without its end mark; the file was cut between two members"


class Header(NamedTuple):
    """A regular file in a tar, before its data."""

    name: str
    """Its path within the archive, without a leading ``./``."""
    position: int
    """Byte in the shard at which its header starts, extended headers included."""
    size: int
    """Bytes of data."""


class TarReader:
    """The members of one tar, one at a time: ``next_header``, then ``read`` its data.

    Args:
        stream: A binary stream at the start of the tar; it need not seek.
        shard: What messages call the shard.
        start: Byte of the shard at which the stream begins, for messages.
    """

    def __init__(self, stream: BinaryIO, shard: str, start: int = 0) -> None:
        self.stream = stream
        self.shard = shard
        self.position = start

    def error(self, position: int, what: str) -> ShardError:
        """Return the error that says ``what`` is wrong at a byte of this shard."""
        return ShardError(f"Shard {self.shard}, byte {position}: {what}. Copy the shard again, or pack it again.")

    def next_header(self) -> Header | None:
        """Return the next regular file, or None at a proper end of the archive.

        Raises:
            ShardError: There is neither, or the member is no regular file.
        """
        path: str | None = None
        size: int | None = None
        first = self.position
        while True:
            position = self.position
            block = self._block(position)
            if block == _ZERO:
                if position != first:
                    raise self.error(position, "the archive ends after an extended header that belongs to no member")
                self._finish()
                return None
            try:
                info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
            except tarfile.HeaderError as error:
                raise self.error(position, f"this is no tar header, or a damaged one ({error})") from error
            if info.type == tarfile.GNUTYPE_LONGNAME:
                path = self.read(position, info.size, "a long name").rstrip(b"\0").decode("utf-8", "surrogateescape")
            elif info.type == tarfile.XHDTYPE:
                records = self._pax(self.read(position, info.size, "a pax header"), position)
                path = records.get("path", path)
                size = int(records["size"]) if "size" in records else size
            elif info.type == tarfile.XGLTYPE:
                self.read(position, info.size, "a global pax header")
            elif info.type in (tarfile.REGTYPE, tarfile.AREGTYPE):
                name = (path if path is not None else info.name).removeprefix("./")
                if not name:
                    raise self.error(position, "a member has no name")
                return Header(name, first, info.size if size is None else size)
            else:
                raise self.error(
                    position, f"member {info.name!r} is of type {info.type!r}, only regular files are allowed"
                )

    def read(self, position: int, size: int, what: str) -> bytes:
        """Return the data that follows the header at ``position`` and go to the next block.

        Raises:
            ShardError: The file ends before the data does, or its padding is not zero.
        """
        start = self.position
        data = self._take(size + -size % _BLOCK)
        if len(data) < size + -size % _BLOCK:
            raise self.error(self.position, f"the file was cut inside {what}, which starts at byte {position}")
        if any(data[size:]):
            raise self.error(start + size, f"the padding after {what} is not zero")
        return data[:size]

    def _take(self, size: int) -> bytes:
        data = self.stream.read(size)
        while len(data) < size and (more := self.stream.read(size - len(data))):  # raw streams may return less
            data += more
        self.position += len(data)
        return data

    def _block(self, position: int) -> bytes:
        block = self._take(_BLOCK)
        if not block:
            raise self.error(position, "the file is empty" if position == 0 else _NO_END)
        if len(block) < _BLOCK:
            raise self.error(position, f"a header has {len(block)} of {_BLOCK} bytes; the file was cut")
        return block

    def _finish(self) -> None:
        position = self.position
        if self._take(_BLOCK) != _ZERO:
            raise self.error(position, "the end mark is one zero block instead of two")
        while rest := self._take(20 * _BLOCK):
            if any(rest):
                raise self.error(position, "there are bytes after the end mark; tars cannot be joined by appending")

    def _pax(self, data: bytes, position: int) -> dict[str, str]:
        records: dict[str, str] = {}
        while data:
            digits, _, _ = data.partition(b" ")
            length = int(digits) if digits.isdigit() else 0
            name, equals, value = data[len(digits) + 1 : length].partition(b"=")
            if not equals or not value.endswith(b"\n") or (name == b"size" and not value[:-1].isdigit()):
                raise self.error(position, f"a damaged pax record {data[:40]!r}")
            records[name.decode("utf-8", "replace")] = value[:-1].decode("utf-8", "surrogateescape")
            data = data[length:]
        return records
