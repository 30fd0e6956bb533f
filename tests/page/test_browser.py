"""The page in Chromium."""

from __future__ import annotations

import base64
import io
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sfdkit.apply.animate import Animate
from sfdkit.media.video_reader import read_frames
from sfdkit.page.command import Page
from tests.browser import CHROMIUM, Tab
from tests.written import puppet_frames, write_video

pytest.importorskip("gradio")

from sfdkit.page.server import serving

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")]

EDITED = "document.querySelector('#edited img').src"
SAID = "document.querySelector('.toast-body').innerText"


def present(folder: Path) -> set[Path]:
    """All files below; folders may go meanwhile, which rglob does not take."""
    return {Path(parent) / name for parent, _, names in os.walk(folder) for name in names}


def settle(read: Callable[[], Any]) -> Any:
    """Return what is read once it has not changed for three seconds."""
    until, last, since = time.monotonic() + 120, read(), time.monotonic()
    while time.monotonic() - since < 3:
        assert time.monotonic() < until
        time.sleep(0.1)
        if (value := read()) != last:
            last, since = value, time.monotonic()
    return last


def folders() -> set[Path]:
    return set(Path(tempfile.gettempdir()).glob("sfdkit-page-*"))


@pytest.fixture(scope="module")
def page(files: Path) -> Iterator[tuple[str, Path]]:
    """Its address and its folder."""
    before = folders()
    models = Page(checkpoint=str(files / "run/checkpoints/last.ckpt"), device="cpu").models()
    with serving(models, "none", "127.0.0.1", 0, 5) as address:
        (folder,) = folders() - before
        yield address, folder
    assert not folders() - before


@pytest.fixture
def tab(page: tuple[str, Path], tmp_path: Path) -> Iterator[Tab]:
    tab = Tab(tmp_path / "profile")
    try:
        tab.open(page[0])
        tab.wait("document.querySelector('#animate') && document.querySelector('#facts').innerText.includes('pixels')")
        yield tab
        strangers = [url for url in tab.requests if not url.startswith((page[0], "blob:", "data:"))]
        assert not strangers and not tab.errors and tab.requests
    finally:
        tab.close()


def press(tab: Tab, selector: str) -> None:
    tab.wait(f"document.querySelector('{selector}') && !document.querySelector('{selector}').disabled")
    tab.run(f"document.querySelector('{selector}').click()")


def go(tab: Tab, name: str) -> None:
    tab.run(f"[...document.querySelectorAll('[role=tab]')].find((e) => e.innerText.trim() === '{name}').click()")


def upload(tab: Tab, where: str, file: Path, shown: str) -> None:
    tab.wait(f"document.querySelector('#{where} input[type=file]')")
    tab.choose(f"#{where} input[type=file]", file)
    tab.wait(f"document.querySelector('#{where} {shown}')?.src.includes('/gradio_api/file=')")


def download(tab: Tab, address: str) -> bytes:
    """Load a file as the page does."""
    data = tab.run(f"""(async () => {{
        const bytes = new Uint8Array(await (await fetch({address})).arrayBuffer());
        return btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));
    }})()""")
    return base64.b64decode(data)


def test_a_picture_and_a_clip_are_uploaded_animated_and_downloaded(
    tab: Tab, page: tuple[str, Path], files: Path, tmp_path: Path
) -> None:
    upload(tab, "source", files / "face.png", "img")
    upload(tab, "driving", files / "clip.mp4", "video")
    assert not tab.run("!!document.querySelector('#result video')")
    press(tab, "#animate")
    tab.wait("document.querySelector('#said').innerText.includes('12 frames')")
    tab.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    press(tab, "#download")
    made, until = tmp_path / "animation.mp4", time.monotonic() + 60
    while not made.exists():
        assert time.monotonic() < until
        tab.run("1")
        time.sleep(0.1)
    given: dict[str, Any] = {"source": str(files / "face.png"), "driving": str(files / "clip.mp4"), "size": 256}
    wanted = tmp_path / "wanted.mp4"
    checkpoint = str(files / "run/checkpoints/last.ckpt")
    Animate(**given, checkpoint=checkpoint, crop="none", device="cpu", output=str(wanted)).run()
    one, other = (np.stack([frame for frame, _ in read_frames(path)]).astype(int) for path in (made, wanted))
    assert one.shape == other.shape == (12, 256, 256, 3)
    assert np.abs(one - other).max() <= 2 and np.abs(one[0] - one[-1]).max() > 10
    assert tab.run("document.querySelector('#result video').src.includes('/gradio_api/file=')")


def test_a_slider_changes_the_picture_and_reset_brings_it_back(tab: Tab, files: Path) -> None:
    def shown(earlier: str) -> tuple[str, np.ndarray]:
        tab.wait(f"document.querySelector('#edited img') && {EDITED} !== '{earlier}'")
        data = download(tab, EDITED)
        return tab.run(EDITED), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)

    go(tab, "Edit")
    upload(tab, "edit-source", files / "face.png", "img")
    address, still = shown("")
    tab.run("""(async () => {
        const slider = document.querySelector('#axes-motion input[type=range]');
        for (slider.value = 0; slider.valueAsNumber < slider.max; slider.stepUp()) {
            slider.dispatchEvent(new Event('input', { bubbles: true }));
            await new Promise((go) => setTimeout(go, 20));
        }
    })()""")
    tab.wait(f"{EDITED} !== '{address}'")
    settle(lambda: tab.run(EDITED))  # the last of many
    address, moved = shown("")
    assert np.abs(moved - still).max() > 10
    press(tab, "#reset")
    _, back = shown(address)
    assert np.array_equal(back, still)


def test_cancel_stops_the_work_and_leaves_nothing(
    tab: Tab, page: tuple[str, Path], files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sfdkit.apply.torch_runner import TorchRunner

    plain, calls = TorchRunner.render, []

    def slow(self: TorchRunner, *args: Any) -> np.ndarray:
        calls.append(time.monotonic())
        time.sleep(0.2)
        return plain(self, *args)

    monkeypatch.setattr(TorchRunner, "render", slow)
    upload(tab, "source", files / "face.png", "img")
    upload(tab, "driving", write_video(tmp_path / "long.mp4", puppet_frames(2, 50) * 20, fps=25), "video")
    earlier = present(page[1])
    press(tab, "#animate")
    tab.wait("/animate - [0-9.]+%/.test(document.querySelector('#result').innerText)")
    assert present(page[1]) - earlier
    press(tab, "#cancel")
    tab.wait(f"{SAID}.includes('Nothing was kept')")
    assert settle(lambda: len(calls)) < 125
    assert not present(page[1]) - earlier, "those of earlier tabs may go meanwhile"


def test_errors_are_shown_as_messages(tab: Tab, files: Path, tmp_path: Path) -> None:
    tab.choose("#source input[type=file]", files / "text.png")
    tab.wait("document.querySelector('#source img')")
    press(tab, "#animate")
    tab.wait(f"{SAID}.includes('give a driving clip first')")
    press(tab, ".toast-close")
    upload(tab, "driving", files / "clip.mp4", "video")
    press(tab, "#animate")
    tab.wait(f"{SAID}.includes('cannot read text.png as a picture')")
    assert "Traceback" not in tab.run("document.body.innerText")
    press(tab, ".toast-close")
    (tmp_path / "large.png").write_bytes(bytes(6_000_000))
    go(tab, "Edit")
    tab.wait("document.querySelector('#edit-source input[type=file]')")
    tab.choose("#edit-source input[type=file]", tmp_path / "large.png")
    tab.wait(f"{SAID}.includes('exceed the maximum allowed size')")


def test_the_examples_need_no_file(tab: Tab) -> None:
    press(tab, "#example")
    tab.wait("document.querySelector('#driving video')?.src.includes('puppet19.mp4')")
    press(tab, "#animate")
    tab.wait("document.querySelector('#said').innerText.includes('50 frames')")
    go(tab, "Motion")
    press(tab, "#motion-example")
    tab.wait("document.querySelector('#motion-clip video')?.src.includes('puppet19.mp4')")
    press(tab, "#extract")
    tab.wait("document.querySelector('#motion-said').innerText.includes('kbit/s')")
    press(tab, "#use")
    tab.wait("document.querySelector('#track')?.innerText.includes('puppet19')")
    press(tab, "#animate")
    tab.wait("document.querySelector('#result video')")
    go(tab, "About")
    tab.wait("document.querySelector('#about').innerText.includes('7 steps')")


def test_results_go_when_the_tab_is_closed(page: tuple[str, Path], tmp_path: Path) -> None:
    def results() -> set[Path]:
        return {path for path in present(page[1]) if path.name == "animation.mp4"}

    others = results()
    tab = Tab(tmp_path / "profile")
    try:
        tab.open(page[0])
        press(tab, "#example")
        tab.wait("document.querySelector('#driving video')")
        press(tab, "#animate")
        tab.wait("document.querySelector('#result video')")
        assert len(results() - others) == 1, "those of earlier tabs may go meanwhile"
    finally:
        tab.close()
    until = time.monotonic() + 60
    while results() - others:
        assert time.monotonic() < until
        time.sleep(0.1)
