"""The page: its frames are the model's, it does what its buttons say, and no request leaves the host."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sfdkit.apply.axes import Direction
from sfdkit.cli import main
from sfdkit.export.manifest import Manifest
from sfdkit.export.runtime import Animator
from sfdkit.export.web import RUNTIME, WebPage
from tests.browser import CHROMIUM, Tab, served
from tests.running import ROOT
from tests.written import known_axes, puppet_frames, write_video

PACKAGE = ROOT / "node_modules/onnxruntime-web"
in_browser = pytest.mark.skipif(
    CHROMIUM is None or not PACKAGE.is_dir(),
    reason="needs Chromium, and npm install --no-save --no-package-lock onnxruntime-web in the project's folder",
)


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """An npm package of the same form, whose files are short."""
    dist = tmp_path / "onnxruntime-web/dist"
    dist.mkdir(parents=True)
    (dist / RUNTIME).write_text('load("ort-wasm-x.mjs"); load("ort-wasm-absent.wasm")')
    (dist / "ort-wasm-x.mjs").write_text('load("ort-wasm-x.wasm")')
    for name in ("ort-wasm-x.wasm", "ort-wasm-other.wasm"):
        (dist / name).write_bytes(b"\0asm")
    (dist.parent / "package.json").write_text('{"name": "onnxruntime-web", "version": "1.2.3"}')
    return dist.parent


def test_the_runtime_s_files_come_along_and_no_others(package: Path, exported: Path, tmp_path: Path) -> None:
    folder = tmp_path / "page"
    folder.mkdir()
    WebPage(str(package)).write(folder, Manifest.read(exported), "seen: <1,000> faces & more")
    assert {file.name for file in (folder / "runtime").iterdir()} == {RUNTIME, "ort-wasm-x.mjs", "ort-wasm-x.wasm"}
    page, card = (folder / "index.html").read_text(), (folder / "README.md").read_text()
    assert 'data-runtime="runtime/"' in page and "https://" not in page
    assert "seen: &lt;1,000&gt; faces &amp; more" in page and "seen: <1,000> faces & more" in card
    assert "onnxruntime-web 1.2.3" in card and "person.onnx" in card
    strip = Image.open(folder / "driver.jpg")
    assert Image.open(folder / "source.jpg").size == (32, 32) and strip.size == (32, 25 * 32)


def test_a_public_address_is_named_in_what_the_page_may_load(exported: Path, tmp_path: Path) -> None:
    WebPage("https://example.org/ort@1/dist").write(tmp_path, Manifest.read(exported), "")
    page = (tmp_path / "index.html").read_text()
    assert 'data-runtime="https://example.org/ort@1/dist/"' in page and "script-src 'self' https://example.org " in page
    assert not (tmp_path / "runtime").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--format", "web"], "runtime: is missing"),
        (["--format", "web", "--runtime", "nowhere"], f"runtime: nowhere holds no dist/{RUNTIME}"),
        (["--format", "web", "--runtime", "http://example.org/dist"], "is no https address"),
        (["--format", "onnx", "--runtime", "https://example.org/dist"], "--format onnx has no page"),
        (["--format", "web", "--runtime", "https://example.org", "--target", "cpu"], "target: browsers take"),
        (["--format", "web", "--runtime", "https://example.org", "--half", "true"], "half: not every browser"),
        (["--format", "web", "--runtime", "https://example.org", "--int8", "puppets"], "int8: not every browser"),
    ],
)
def test_wrong_options_are_told_before_anything_is_exported(
    options: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", "--checkpoint", "puppets64", "--output", str(tmp_path / "out"), *options]) != 0
    told = capsys.readouterr().err
    assert words in told and len(told.splitlines()) == 1 and not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def page(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What the command writes; an axis of each block is named."""
    folder = tmp_path_factory.mktemp("web") / "page"
    axes, checkpoint = known_axes(), exported.parent / "last.ckpt"
    axes.identity.directions["age"] = Direction(np.ones(12, np.float32), "of its range")
    axes.save(folder.parent / "axes.json")
    arguments = ["--checkpoint", str(checkpoint), "--axes", str(folder.parent / "axes.json"), "--output", str(folder)]
    assert main(["export", *arguments, "--format", "web", "--runtime", str(PACKAGE)]) == 0
    yield folder


@pytest.fixture
def tab(page: Path, tmp_path: Path) -> Iterator[Tab]:
    """The page in Chromium, as far as it has come after 3 frames."""
    with served(page) as address:
        tab = Tab(tmp_path / "profile", "--use-fake-ui-for-media-stream")
        try:
            tab.open(f"{address}/index.html")
            tab.wait("self.sfdkit?.state.frames >= 3")
            yield tab
            strangers = [url for url in tab.requests if not url.startswith((address, "blob:", "data:"))]
            assert not strangers and not tab.errors
        finally:
            tab.close()


def coded(pixels: np.ndarray) -> str:
    return json.dumps(base64.b64encode(np.ascontiguousarray(pixels).tobytes()).decode())


@pytest.mark.slow
@in_browser
def test_the_page_s_frames_are_the_model_s(tab: Tab, page: Path) -> None:
    source, driving = puppet_frames(1, 1, 32)[0], np.stack(puppet_frames(0, 3, 32))
    model = Animator(page)
    face, step = model.source(source), np.linspace(-1, 1, model.identity_size, dtype=np.float32)
    other = model.change_identity(face, model.describe(face).identity + step[None])
    wanted = [model.render(each, model.motion(driving)) for each in (face, other)]
    tab.run("document.getElementById('pause').click()")
    made = tab.run(f"""(async () => {{
        const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
        const {{ animator }} = self.sfdkit, made = [];
        await animator.source(bytes({coded(source)}));
        for (const step of [null, {json.dumps(step.tolist())}]) {{
            await animator.change(step);
            for (const frame of [{", ".join(map(coded, driving))}])
                made.push(Array.from(await animator.render(await animator.motion(bytes(frame)))));
        }}
        return made;
    }})()""")
    frames = np.array(made, np.int16).reshape(2, 3, 32, 32, 3)
    assert np.abs(frames - np.stack(wanted)).max() <= 1
    assert np.abs(frames[0] - source).max() > 30, "the source moves"
    assert np.abs(frames[1] - frames[0]).max() > 5, "it is another person"
    assert "as this browser has no WebGPU" in tab.run("document.getElementById('told').textContent")


RESULT = "document.getElementById('result').toDataURL()"


def changed_by(tab: Tab, script: str) -> bool:
    """Whether what a script does changes the result."""
    before = tab.run(RESULT)
    tab.run(f"self.seen = self.sfdkit.state.frames; {script}")
    tab.wait("self.sfdkit.state.frames > self.seen && !self.sfdkit.state.changed")
    return tab.run(RESULT) != before


@pytest.mark.slow
@in_browser
def test_pictures_videos_sliders_and_relative_motion(tab: Tab, tmp_path: Path) -> None:
    Image.fromarray(puppet_frames(3, 1, 48)[0]).save(tmp_path / "face.png")
    write_video(tmp_path / "clip.mp4", puppet_frames(2, 5, 32))
    tab.choose("#driver-file", tmp_path / "clip.mp4")
    tab.wait("self.sfdkit.driver.square.image.videoWidth === 32")
    tab.run("document.getElementById('pause').click()")
    tab.run("self.seen = self.sfdkit.state.frames")
    tab.choose("#source-file", tmp_path / "face.png")
    tab.wait("self.sfdkit.source.image.width === 48 && self.sfdkit.state.frames > self.seen")
    before = tab.run(RESULT)
    slide = "(() => {{ const one = document.querySelector('#{0} input'); one.value = 2; one.oninput(); }})()"
    assert changed_by(tab, slide.format("motion")) and changed_by(tab, slide.format("identity"))
    assert changed_by(tab, "document.getElementById('undo').click()") and tab.run(RESULT) == before
    assert changed_by(tab, "document.getElementById('relative').click()")
    assert changed_by(tab, "self.sfdkit.source.zoom.value = 2; self.sfdkit.source.moved()")
    assert "ms for a frame" in tab.run("document.getElementById('told').textContent")


@pytest.mark.slow
@in_browser
def test_relative_motion_begins_where_each_driver_does(tab: Tab, tmp_path: Path) -> None:
    still = {32: puppet_frames(2, 1, 32)[0], 48: np.full((48, 48, 3), 200, np.uint8)}
    seen = {}
    for relative in (False, True):
        tab.run(f"document.getElementById('relative').checked = {str(relative).lower()}")
        for size, frame in still.items():
            write_video(tmp_path / f"{size}.mp4", [frame] * 5)
            tab.choose("#driver-file", tmp_path / f"{size}.mp4")
            tab.wait(f"""(({{ paused, video, square }}) =>
                !paused && square.image === video && video.videoWidth === {size} && video.currentTime > 0
            )(self.sfdkit.driver)""")
            tab.run("self.seen = self.sfdkit.state.frames")
            tab.wait("self.sfdkit.state.frames > self.seen + 2 && self.sfdkit.state.reference !== true")
            data = tab.run(RESULT).partition(",")[2]
            seen[relative, size] = np.asarray(Image.open(BytesIO(base64.b64decode(data))).convert("RGB"), int)
    absolute, relative = (np.abs(seen[how, 32] - seen[how, 48]).mean() for how in (False, True))
    assert absolute > 1, "the drivers differ"
    assert relative < 0.1 * absolute, "neither has moved since its beginning"


@pytest.mark.slow
@in_browser
def test_what_cannot_be_used_is_told(tab: Tab, tmp_path: Path) -> None:
    for place in ("source", "driver"):
        (tmp_path / f"{place}.txt").write_text("no picture")
        tab.choose(f"#{place}-file", tmp_path / f"{place}.txt")
        tab.wait(f"document.getElementById('told').textContent.startsWith('{place}.txt')")
    tab.run("document.getElementById('webcam').click()")
    tab.wait("document.getElementById('told').textContent.startsWith('No webcam: ')")
    tab.run("document.getElementById('pause').click(); document.getElementById('example').click()")
    tab.wait("document.getElementById('told').textContent.includes('frames per second')")


@pytest.mark.slow
@in_browser
def test_a_folder_that_was_not_uploaded_whole_is_told(page: Path, tmp_path: Path) -> None:
    part = tmp_path / "part"
    part.mkdir()
    for file in (*page.iterdir(), *(page / "runtime").iterdir()):
        target = part / file.relative_to(page)
        if file.name != "render.onnx":
            target.mkdir() if file.is_dir() else target.symlink_to(file)
    with served(part) as address:
        tab = Tab(tmp_path / "profile")
        try:
            tab.open(f"{address}/index.html")
            tab.wait("document.getElementById('told').textContent.includes('render.onnx is missing (404)')")
        finally:
            tab.close()
