"""Packs that were interrupted, and two at once."""

from __future__ import annotations

import errno
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from sfdkit.data.pack import encode as encode_module
from sfdkit.data.pack import remote_target
from sfdkit.data.pack import writer as pack_module
from sfdkit.data.pack.commands import check
from sfdkit.data.shards.index import describe_shard
from sfdkit.errors import ConfigError, DataError
from tests.plain import contents, pack_plain, plain_sources

ROOT = Path(__file__).parents[3]
SCRIPT = """
import sys
from pathlib import Path
from sfdkit.data.pack import writer as pack_module
from tests.plain import pack_plain, plain_sources

pack_module._WINDOW = 2
if __name__ == "__main__":
    pack_plain(sys.argv[1], plain_sources(pause=0.03), workers=int(sys.argv[2]))
"""


@pytest.fixture(autouse=True)
def _small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pack_module, "_WINDOW", 2)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The result of a pack that nothing interrupted."""
    out = tmp_path_factory.mktemp("whole") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pack_module, "_WINDOW", 2)
        pack_plain(out)
    return out


def encoded(notes: Path) -> set[str]:
    return {path.name.split("@")[0] for path in notes.iterdir()}


def with_notes(folder: Path) -> tuple[Path, dict[str, Any]]:
    notes = folder / "notes"
    notes.mkdir()
    return notes, dict(sources=plain_sources(notes=notes))


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_after_sigkill_finished_shards_stay_and_the_result_is_the_same(
    tmp_path: Path, whole: Path, workers: int
) -> None:
    script, out = tmp_path / "script.py", tmp_path / "out"
    script.write_text(SCRIPT)
    work = out / ".packing"
    process = subprocess.Popen(
        [sys.executable, str(script), str(out), str(workers)], env={"PYTHONPATH": str(ROOT)}, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 60
    while not (work / "train" / "shards.jsonl").exists() or len(list((work / "result" / "train").iterdir())) < 3:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    time.sleep(0.1 if workers else 0)  # its workers end with it
    assert sorted(path.name for path in out.iterdir()) == [".packing"]
    finished = [line for line in (work / "train" / "shards.jsonl").read_text().splitlines() if line.endswith("}")]
    shards = {path.name: path.stat().st_mtime_ns for path in sorted((work / "result" / "train").iterdir())}
    known = {path.stem for path in (work / "train" / "encoded").glob("[0-9]*.json")}
    assert len(finished) >= 2 and len(known) < 20
    notes, sources = with_notes(tmp_path)
    pack_plain(out, **sources)
    assert contents(out) == contents(whole)
    after = {path.name: path.stat().st_mtime_ns for path in (out / "train").iterdir()}
    kept = [name for name, time_ in shards.items() if after[name] == time_]
    assert len(kept) >= len(finished)
    assert len([name for name in encoded(notes) if name.startswith("train")]) == 20 - len(known)


def interrupt(
    monkeypatch: pytest.MonkeyPatch, out: Path | str, shards: int, error: BaseException, **values: Any
) -> None:
    """Pack until so many shards are written."""
    made: list[Path] = []

    def limited(path: Path) -> Any:
        if len(made) == shards:
            raise error
        made.append(path)
        return describe_shard(path)

    with monkeypatch.context() as patch:
        patch.setattr(pack_module, "describe_shard", limited)
        with pytest.raises((DataError, KeyboardInterrupt)):
            pack_plain(out, **values)


def test_a_lost_or_damaged_shard_is_written_again(tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    interrupt(monkeypatch, out, 6, KeyboardInterrupt())
    tars = sorted((out / ".packing" / "result" / "train").iterdir())
    tars[0].unlink()
    body = bytearray(tars[1].read_bytes())
    body[700] ^= 1
    tars[1].write_bytes(body)
    kept = tars[2].stat().st_mtime_ns
    notes, sources = with_notes(tmp_path)
    pack_plain(out, **sources)
    assert contents(out) == contents(whole)
    assert (out / "train" / tars[2].name).stat().st_mtime_ns == kept
    assert 8 < len(encoded(notes)) < 24


def test_damaged_encoded_clips_are_encoded_again(tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    interrupt(monkeypatch, out, 0, KeyboardInterrupt())
    for path in (out / ".packing" / "train" / "encoded").glob("*.clips"):
        path.write_bytes(path.read_bytes()[:-9])
    pack_plain(out)
    assert contents(out) == contents(whole)


def test_a_source_that_changed_meanwhile_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    interrupt(monkeypatch, out, 3, KeyboardInterrupt())
    for path in (out / ".packing" / "result" / "train").iterdir():
        path.unlink()
    for path in (out / ".packing" / "train" / "encoded").glob("*.clips"):
        path.unlink()
    monkeypatch.setattr(encode_module, "QUALITY", 50)
    monkeypatch.setattr(encode_module.encode_jpeg, "__defaults__", (50,))
    with pytest.raises(DataError, match=r"gives other clips than before the interruption .*remove .*\.packing"):
        pack_plain(out)


def test_other_settings_throw_the_leftovers_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    interrupt(monkeypatch, out, 3, KeyboardInterrupt())
    notes, sources = with_notes(tmp_path)
    pack_plain(out, seed=1, **sources)
    assert len(encoded(notes)) == 24
    pack_plain(tmp_path / "fresh", seed=1)
    assert contents(out) == contents(tmp_path / "fresh")


def test_a_full_disk_is_an_error_and_the_next_call_goes_on(
    tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"

    class FullDisk:
        """A tar whose disk fills in the middle."""

        def __init__(self, stream: Any, **_: object) -> None:
            self.stream = stream

        def __enter__(self) -> FullDisk:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def write(self, _: object) -> None:
            self.stream.write(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("webdataset.TarWriter", FullDisk)
        with pytest.raises(DataError, match=r"--output: cannot write .*No space left on device.*free space"):
            pack_plain(out)
    notes, sources = with_notes(tmp_path)
    pack_plain(out, **sources)
    assert contents(out) == contents(whole) and len(encoded(notes)) < 24


def test_a_publication_that_was_interrupted_is_finished(
    tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    pack_plain(out, seed=1)
    for moves in range(1, 8):
        rename, count = Path.rename, [0]

        def limited(path: Path, target: Path, rename: Any = rename, count: Any = count, moves: int = moves) -> Path:
            if count[0] == moves:
                raise KeyboardInterrupt
            count[0] += 1
            return Path(rename(path, target))

        with monkeypatch.context() as patch:
            patch.setattr(Path, "rename", limited)
            with pytest.raises(KeyboardInterrupt):
                pack_plain(out, overwrite=True)
        report = pack_plain(out, overwrite=True, sources=plain_sources(notes=tmp_path / "none"))
        assert contents(out) == contents(whole)
        assert not report.found and report.splits["train"].clips == 40
        pack_plain(out, seed=1, overwrite=True)


def test_two_packs_into_one_folder_do_not_mix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    interrupt(monkeypatch, out, 3, KeyboardInterrupt())
    before = contents(out)
    with FileLock(out / ".packing" / "lock"), pytest.raises(DataError, match=r"being written by another process.*lock"):
        pack_plain(out, overwrite=True)
    assert contents(out) == before


def test_leftovers_beside_a_complete_result_go(tmp_path: Path) -> None:
    out = tmp_path / "out"
    pack_plain(out)
    (out / ".packing" / "train").mkdir(parents=True)
    assert pack_plain(out).found
    assert not (out / ".packing").exists()
    check(str(out))


@pytest.mark.slow
def test_a_worker_that_is_killed_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import os, sys\n"
        "from dataclasses import dataclass\n"
        "from tests.plain import PlainSource, pack_plain\n"
        "class Deadly(PlainSource):\n"
        "    def clips(self, skip):\n"
        "        os.kill(os.getpid(), 9)\n"
        "if __name__ == '__main__':\n"
        "    pack_plain(sys.argv[1], {'train': [Deadly('train', 0)]}, workers=1)\n"
    )
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "out")],
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "DataError: one of the 1 processes that encode was ended from outside" in done.stderr
    assert not (tmp_path / "out").exists()


def test_outputs_that_cannot_be_written_are_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--output: http://127\.0\.0\.1:1/x cannot be written"):
        pack_plain("http://127.0.0.1:1/x")
    assert remote_target.target_of("s3://bucket/x", str(tmp_path)).work.parent == tmp_path
