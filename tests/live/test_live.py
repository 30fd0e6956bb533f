"""A video stands in for the camera: it is played at its own speed, as a camera gives frames."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from sfdkit.apply.animate import Animate
from sfdkit.errors import ConfigError, DataError, SfdkitWarning
from sfdkit.live.camera import Camera, Shot
from sfdkit.live.command import Live, _Record
from sfdkit.live.page import Page
from sfdkit.live.square import ANOTHER, FollowingSquare
from sfdkit.media.box import Box
from sfdkit.media.crop import CropRule
from sfdkit.media.detect import Face
from sfdkit.media.video_reader import probe, read_frames
from tests.running import ROOT
from tests.written import lively_animator, puppet_frames, write_checkpoint, write_video


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint, a source picture, and a video of ten frames in a second."""
    folder = tmp_path_factory.mktemp("files")
    write_checkpoint(folder / "last.ckpt", lively_animator())
    Image.fromarray(puppet_frames(0, 1, 32)[0]).save(folder / "source.png")
    write_video(folder / "camera.mp4", puppet_frames(1, 10), fps=10)
    return folder


def live(files: Path, **options: Any) -> dict[str, Any]:
    given = {"checkpoint": str(files / "last.ckpt"), "source": str(files / "source.png"), "device": "cpu"}
    return Live(**(given | {"camera": str(files / "camera.mp4"), "crop": "none"} | options)).run()


def test_a_camera_gives_its_newest_frame_at_its_own_pace(files: Path) -> None:
    began = time.monotonic()
    with Camera(str(files / "camera.mp4")) as camera:
        assert camera.fps == 10
        first = camera.newest(-1)
        assert first is not None and first.number < 3
        time.sleep(0.45)
        later = camera.newest(0)
        assert later is not None and later.number >= 3, "what nobody took is gone"
        number = later.number
        while (shot := camera.newest(number)) is not None:
            number = shot.number
    assert number == 9 and time.monotonic() - began > 0.85


def test_a_camera_that_is_not_there() -> None:
    with pytest.raises(DataError, match="there is no camera number 77, or another program uses it"):
        Camera("77")
    with pytest.raises(DataError, match=r"there is no video gone\.mp4"):
        Camera("gone.mp4")


def test_a_damaged_video_ends_with_its_error(files: Path, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (30, 64, 64, 3), np.uint8)
    path = write_video(tmp_path / "cut.mp4", list(noise), fps=100)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with Camera(str(path)) as camera, pytest.raises(DataError, match=r"cut\.mp4 is damaged"):
        number = -1
        while (shot := camera.newest(number)) is not None:
            number = shot.number


def moving(faces: list[Box | None]) -> FollowingSquare:
    """A square that is told where the face is."""
    square, told = FollowingSquare(CropRule("face"), every=2), iter(faces)

    def look(picture: np.ndarray) -> Face | None:
        box = next(told)
        return None if box is None else Face(box, 1.0)

    square._look = look  # type: ignore[assignment]
    return square


def head(x: float, size: float = 100) -> Box:
    return Box(x, 200, x + size, 200 + size)


PICTURE = np.zeros((720, 1280, 3), np.uint8)


def test_the_square_follows_smoothly_keeps_its_size_and_does_not_tremble() -> None:
    square = moving([None, head(300), *[head(302), head(299)] * 3, *[head(400)] * 40])
    assert square(PICTURE) is None, "no face yet"
    places = [square(PICTURE) for _ in range(90)]
    boxes = np.array([place.box for place in places if place is not None])
    assert len(boxes) == 90 and {place.turn for place in places if place is not None} == {0.0}
    assert np.ptp(boxes[:, 2] - boxes[:, 0]) < 1e-6
    assert np.ptp(boxes[:12, 0]) == 0, "a face that hardly moves moves nothing"
    steps = np.diff(boxes[:, 0])
    assert steps.max() < 20 and abs(boxes[-1, 0] - boxes[0, 0] - 100) < 0.05 * (boxes[0, 2] - boxes[0, 0])


def test_another_face_makes_a_new_square() -> None:
    square = moving([head(300), head(300, 100 * ANOTHER * 1.1)])
    first, _, third = (square(PICTURE) for _ in range(3))
    assert first is not None and third is not None
    assert third.box.x1 - third.box.x0 > 1.3 * (first.box.x1 - first.box.x0)


def test_a_video_is_written_in_time_with_what_animate_makes(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = live(files, output=str(tmp_path / "new" / "out.mp4"), side_by_side=True, size=32)
    assert 0 < told["frames"] <= 10 and told["frames"] + told["dropped"] <= 10 and told["latency_ms"] > 0
    info = probe(tmp_path / "new" / "out.mp4")
    assert (info.width, info.height, info.fps) == (96, 32, 10.0)
    assert told["frames"] + told["dropped"] == info.frames
    wanted = tmp_path / "wanted.mp4"
    given = {"checkpoint": str(files / "last.ckpt"), "source": str(files / "source.png"), "device": "cpu"}
    Animate(**given, driving=str(files / "camera.mp4"), crop="none", output=str(wanted), side_by_side=True).run()
    made, whole = ([frame.astype(int) for frame, _ in read_frames(p)] for p in (tmp_path / "new" / "out.mp4", wanted))
    assert np.abs(made[0] - whole[0]).mean() < 3, "the first frame is always taken"
    assert "from the camera to the picture" in capsys.readouterr().out


def test_what_was_shown_lasts_until_the_next_picture(tmp_path: Path) -> None:
    command, record = Live(checkpoint="c", source="s", output=str(tmp_path / "out.mp4")), _Record()
    with ExitStack() as stack:
        show = command._open(stack, 10.0)
        for number in (0, 6, 9):
            record.add(Shot(number, 0.0, np.zeros((8, 8, 3), np.uint8)))
            show(np.full((16, 16, 3), 20 * number, np.uint8), record)
    levels = [round(float(frame.mean()) / 20) for frame, _ in read_frames(tmp_path / "out.mp4")]
    assert levels == [0] * 6 + [6] * 3 + [9]


def test_slow_work_drops_frames_and_does_not_lag(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sfdkit.apply.torch_runner import TorchRunner

    plain = TorchRunner.render

    def slow(self: TorchRunner, *args: Any) -> np.ndarray:
        time.sleep(0.25)
        return plain(self, *args)

    monkeypatch.setattr(TorchRunner, "render", slow)
    told = live(files, output=str(tmp_path / "out.mp4"))
    assert told["dropped"] >= 3 and told["frames"] <= 6
    assert probe(tmp_path / "out.mp4").frames == told["frames"] + told["dropped"], "the video keeps the camera's time"


@contextmanager
def asking(page: Page) -> Iterator[HTTPConnection]:
    connection = HTTPConnection(page.address.removeprefix("http://"), timeout=60)
    yield connection
    connection.close()


def test_the_page_streams_pictures_to_this_machine_alone() -> None:
    with Page(0) as page, asking(page) as ask:
        ask.request("GET", "/")
        html = ask.getresponse().read().decode()
        assert 'src="stream"' in html and "http" not in html, "the page asks no other host"
        picture = np.full((32, 48, 3), (200, 30, 60), np.uint8)
        threading.Timer(0.1, lambda: page.show(picture, {"frames": 1})).start()
        ask.request("GET", "/stream")
        stream = ask.getresponse()
        assert stream.getheader("Content-Type") == "multipart/x-mixed-replace; boundary=sfdkit"
        head = b"".join(iter(lambda: stream.readline(), b"\r\n"))
        data = stream.read(int(head.split(b"Content-Length: ")[1]))
        shown = cv2.cvtColor(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
        assert np.abs(shown.astype(int) - picture).max() < 12
    with Page(0) as page, asking(page) as ask:
        page.show(picture, {"frames": 7})
        ask.request("GET", "/told")
        assert json.loads(ask.getresponse().read()) == {"frames": 7}
        ask.request("GET", "/told", headers={"Host": "evil.example"})
        assert ask.getresponse().status == 403
        assert page._server.server_address[0] == "127.0.0.1"
        with pytest.raises(ConfigError, match=r"port: \d+ cannot be used"):
            Page(page._server.server_port)


def test_the_command_shows_a_page_and_ends_with_the_camera(files: Path) -> None:
    words = ["live", "--checkpoint", files / "last.ckpt", "--source", files / "source.png", "--crop", "none"]
    words += ["--camera", files / "camera.mp4", "--port", "0", "--device", "cpu"]
    done = subprocess.run(
        [sys.executable, "-m", "sfdkit", *map(str, words)], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "look at http://127.0.0.1:" in done.stdout and " frames, " in done.stdout


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"output": "out.gif"}, r"output: 'out\.gif' will not do; give page, or a file \.mp4"),
        ({"crop": "aligned"}, "crop: aligned turns the square"),
        ({"checkpoint": None}, "give either --checkpoint or --model"),
    ],
)
def test_options_that_cannot_work(files: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        live(files, **options)


def test_no_face_is_told(files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_video(tmp_path / "grey.mp4", [np.full((64, 64, 3), 128, np.uint8)] * 3, fps=10)
    told = live(files, camera=str(tmp_path / "grey.mp4"), crop="face", source_crop="none")
    assert told["frames"] == 0 and told["without_face"] > 0
    assert "no face was found in front of the camera" in capsys.readouterr().out


def test_what_came_before_a_damaged_place_stays(files: Path, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (30, 64, 64, 3), np.uint8)
    path = write_video(tmp_path / "cut.mp4", list(noise), fps=30)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.warns(SfdkitWarning, match=r"cut\.mp4 is damaged .*; what came before it stays"):
        told = live(files, camera=str(path), output=str(tmp_path / "out.mp4"))
    assert told["frames"] > 0 and probe(tmp_path / "out.mp4").frames == told["frames"] + told["dropped"]
