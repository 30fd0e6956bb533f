"""The encoded clips of a split, whoever encoded them and in whichever call."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from sfdkit.data.pack.encode import EncodedClip, EncodedSource, encode_source, load_source, read_clip
from sfdkit.data.pack.engines import Engine
from sfdkit.data.pack.fingerprints import source_fingerprint
from sfdkit.data.pack.reuse import Reuse
from sfdkit.data.pack.sources import ClipSource
from sfdkit.errors import DataError


class EncodedSplit:
    """The encoded clips of one split, source by source: from an earlier call where it has them, or earlier shards."""

    def __init__(self, folder: Path, sources: Sequence[ClipSource], encode: Engine, reuse: Reuse) -> None:
        self._folder, self._sources, self._encode, self._reuse = folder, sources, encode, reuse
        self.fingerprints = [source_fingerprint(source) for source in sources]
        self.reused = 0

    def results(self) -> Iterator[EncodedSource]:
        """Yield the clips of each source, in order."""
        numbers = range(len(self._sources))
        known = [load_source(number, self._folder) is not None for number in numbers]
        ready = [not known[number] and self.fingerprints[number] in self._reuse for number in numbers]
        missing = ((number, self._sources[number]) for number in numbers if not known[number] and not ready[number])
        fresh = self._encode(missing, self._folder)
        for number in numbers:
            if ready[number]:
                yield self._take_over(number)
            else:
                found = load_source(number, self._folder) if known[number] else None
                yield found or next(fresh)

    def _take_over(self, number: int) -> EncodedSource:
        name = self.fingerprints[number]
        assert name is not None
        found = self._reuse.take_over(name, number, self._folder)
        if found is None:
            return encode_source((number, self._sources[number]), self._folder)
        self.reused += 1
        return found

    def restore(self, clips: Sequence[EncodedClip]) -> None:
        """Encode again the sources of those of these clips whose files are gone.

        Raises:
            DataError: A source now gives other clips than before.
        """
        self._encode_again({clip.source for clip in clips if not clip.file.exists()})

    def read(self, clip: EncodedClip) -> tuple[bytes, bytes]:
        """Return the json and the frames of a clip."""
        found = read_clip(clip)
        if found is None:
            self._encode_again({clip.source})
            found = read_clip(clip)
        if found is None:
            raise DataError(f"{clip.file} cannot be read back: check the disk, remove the file and call again")
        return found

    def _encode_again(self, numbers: set[int]) -> None:
        before = {number: load_source(number, self._folder) for number in sorted(numbers)}
        again = self._encode(((number, self._sources[number]) for number in before), self._folder)
        for (number, old), new in zip(before.items(), again, strict=True):
            if old != new:
                raise DataError(
                    f"{self._sources[number].name} gives other clips than before the interruption (was it changed, or "
                    f"a library?): remove {self._folder.parent.parent} and pack anew"
                )
