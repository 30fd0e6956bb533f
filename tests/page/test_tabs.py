"""What the tabs do with what a browser sends, called without one."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sfdkit.apply.animate import Animate
from sfdkit.media.video_reader import read_frames
from sfdkit.page.desk import Desk
from sfdkit.page.examples import draw_examples
from sfdkit.page.models import Models

gr = pytest.importorskip("gradio")

from sfdkit.page.about_tab import AboutTab, describe  # noqa: E402
from sfdkit.page.animate_tab import CLIP, TRACK, AnimateTab  # noqa: E402
from sfdkit.page.build import build  # noqa: E402
from sfdkit.page.edit_tab import EditTab  # noqa: E402
from sfdkit.page.interpolate_tab import STRIP, VIDEO, InterpolateTab  # noqa: E402
from sfdkit.page.motion_tab import MotionTab  # noqa: E402
from sfdkit.page.widgets import Parts, picture  # noqa: E402

ASKED: Any = SimpleNamespace(session_hash="one")


@pytest.fixture
def sent(desk: Desk, files: Path) -> Callable[[str], str]:
    """Upload one of the files, and give its path on the server."""

    def send(name: str) -> str:
        target = desk.folder / ("0f" * 32) / name
        target.parent.mkdir(exist_ok=True)
        return str(shutil.copyfile(files / name, target))

    return send


@pytest.fixture
def tabs(models: Models, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(desk.folder))
    examples = draw_examples(desk.examples)
    with gr.Blocks(analytics_enabled=False):
        parts = Parts(models, desk, gr.Dropdown(models.names), gr.Dropdown(["none", "face"]))
        with gr.Tabs() as all_tabs, gr.Tab() as tab:
            animate, about = AnimateTab(parts, examples), AboutTab(parts, tab)
            motion = MotionTab(parts, examples, animate, all_tabs)
            edit, interpolate = EditTab(parts, examples), InterpolateTab(parts, examples)
    return SimpleNamespace(
        parts=parts, animate=animate, about=about, motion=motion, edit=edit, interpolate=interpolate, examples=examples
    )


@pytest.fixture
def animate(tabs: SimpleNamespace, sent: Callable[[str], str]) -> Callable[..., Any]:
    """Press Animate; arguments go before what is chosen by default."""

    def press(model: str = "run", crop: str = "none", track: str | None = None, **changed: Any) -> Any:
        tab = tabs.animate
        given = {option: option.value for option in tab.options.values()}
        names = {"source": tab.source, "driving": tab.driving, **tab.options}
        given |= {tab.source: sent("face.png"), tab.driving: sent("clip.mp4"), tab.track: track}
        given |= {tab.by: CLIP if track is None else TRACK, tabs.parts.model: model, tabs.parts.crop: crop}
        given |= {names[name]: value for name, value in changed.items()}
        return tabs.parts.told(tab.run)(given, ASKED)

    return press


def frames(path: str | Path) -> np.ndarray:
    return np.stack([frame for frame, _ in read_frames(Path(path))]).astype(int)


def test_animate_makes_what_the_command_makes(animate: Callable[..., Any], files: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "mode": "relative",
        "regions": ["pose"],
        "smooth": True,
        "size": 64,
        "from_": "0.2",
        "side_by_side": True,
    }
    made, download, said = animate(**options)
    assert download.value["path"] == made and said.startswith("wrote animation.mp4: 10 frames")
    given = {name: str(files / file) for name, file in (("source", "face.png"), ("driving", "clip.mp4"))}
    out = tmp_path / "out.mp4"
    checkpoint = str(files / "run/checkpoints/last.ckpt")
    Animate(**given, **options, checkpoint=checkpoint, crop="none", device="cpu", output=str(out)).run()
    assert Path(made).read_bytes() == out.read_bytes()
    assert not np.array_equal(frames(animate(size=64, side_by_side=True, from_=0.2)[0]), frames(out))


def test_each_region_has_a_strength_of_its_own(animate: Callable[..., Any], files: Path, tmp_path: Path) -> None:
    made, _, _ = animate(**{"strength": 0.5, "strength of mouth": 2.0, "size": 32})
    given = {name: str(files / file) for name, file in (("source", "face.png"), ("driving", "clip.mp4"))}
    given |= {"checkpoint": str(files / "run/checkpoints/last.ckpt"), "output": str(tmp_path / "out.mp4")}
    Animate(**given, size=32, crop="none", device="cpu", strength={"mouth": 1.0, "rest": 0.5}).run()
    assert Path(made).read_bytes() == (tmp_path / "out.mp4").read_bytes()
    still, _, _ = animate(**{"regions": ["pose"], "strength of mouth": 2.0, "size": 32})
    assert np.array_equal(frames(still), frames(animate(regions=["pose"], size=32)[0])), "the mouth does not move"


def test_faces_are_enlarged_and_whole_pictures_are_not(animate: Callable[..., Any]) -> None:
    assert frames(animate()[0]).shape[1:3] == (256, 256)
    assert frames(animate(paste=True)[0]).shape[1:3] == (48, 48)


def test_examples_are_cut_already(tabs: SimpleNamespace, animate: Callable[..., Any], files: Path) -> None:
    examples = tabs.examples
    made, _, _ = animate(crop="face", source=examples.source, driving=examples.clip)
    assert len(frames(made)) == 50
    parts = tabs.parts
    assert parts.crop_for("face", examples.source) == "none" and parts.crop_for("face", str(files / "x")) == "face"
    assert parts.crop_for("face", examples.source, str(files / "face.png")) == "face" == parts.crop_for("face", None)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"source": "text.png"}, "cannot read text.png as a picture"),
        ({"source": "large.png"}, "large.png has 30000x30000 pixels, 900 megapixels: make it smaller than 400"),
        ({"source": "grey.png", "crop": "face"}, "grey.png: no face was found; use crop centre or crop none"),
        ({"driving": "grey.mp4", "crop": "face", "source": "grey.png"}, "no face was found"),
        ({"driving": "text.png"}, "text.png"),
        ({"source": ""}, "give a picture first, or press Example"),
        ({"driving": ""}, "give a driving clip first, or press Example"),
        ({"regions": ["brows"]}, "region brows is moved by brows, and its axes name yaw, mouth_open"),
        ({"model": "other", "regions": ["mouth"]}, "and it has no named axes"),
        ({"model": "gone"}, "gone.ckpt does not exist; sfdkit fit writes them to &lt;run&gt;/checkpoints"),
        ({"size": 100_000}, "size"),
        ({"from_": "soon"}, "'soon' is no time"),
        ({"to": "0.1", "from_": "5"}, "5"),
        ({"reference": "auto"}, "reference: auto is for relative motion"),
    ],
)
def test_errors_are_messages(
    animate: Callable[..., Any], desk: Desk, sent: Callable[[str], str], changed: dict[str, Any], words: str
) -> None:
    named = {name: changed[name] and sent(changed[name]) for name in ("source", "driving") if name in changed}
    with pytest.raises(gr.Error) as caught:
        animate(**changed | named)
    assert words in caught.value.message and "Traceback" not in caught.value.message
    assert not caught.value.print_exception
    assert str(desk.folder) not in caught.value.message and "0f0f" not in caught.value.message
    assert not [path for path in (desk.folder / "results").rglob("*") if path.is_file()]


def test_a_driver_without_a_face_is_told(
    animate: Callable[..., Any], tabs: SimpleNamespace, sent: Callable[[str], str]
) -> None:
    with pytest.raises(gr.Error, match=r"^.grey\.mp4: no face was found"):
        animate(source=tabs.examples.source, driving=sent("grey.mp4"), crop="face")


def test_names_of_files_are_text_in_messages(animate: Callable[..., Any], desk: Desk, files: Path) -> None:
    uploaded = shutil.copyfile(files / "text.png", desk.folder / "my <b>face.png")
    with pytest.raises(gr.Error) as caught:
        animate(source=str(uploaded))
    assert caught.value.message.startswith("cannot read my &lt;b&gt;face.png as a picture")


def test_motion_is_extracted_and_moves_a_picture(
    tabs: SimpleNamespace, animate: Callable[..., Any], files: Path, tmp_path: Path
) -> None:
    press = tabs.parts.told(tabs.motion.run)
    track, _, said = press("run", "none", str(files / "clip.mp4"), 32, 0, ASKED)
    assert Path(track).name == "clip.safetensors" and "12 frames" in said and "kbit/s" in said
    np.testing.assert_array_equal(frames(animate(track=track)[0]), frames(animate()[0]))
    with pytest.raises(gr.Error, match="by another model"):
        animate(model="other", track=track)
    (tmp_path / "text.safetensors").write_text("no track")
    with pytest.raises(gr.Error, match=r"text\.safetensors"):
        animate(track=str(tmp_path / "text.safetensors"))
    with pytest.raises(gr.Error, match="give a clip first"):
        press("run", "none", None, 32, 0, ASKED)


def test_interpolate_gives_a_strip_or_a_video(tabs: SimpleNamespace, sent: Callable[[str], str]) -> None:
    press, face, grey = tabs.parts.told(tabs.interpolate.run), sent("face.png"), sent("grey.png")
    strip, video, said = press("run", "none", face, grey, "motion", STRIP, 5, ASKED)
    assert strip.visible and not video.visible and said.startswith("wrote interpolation.png: motion of face.png")
    strip, video, _ = press("run", "none", face, grey, "both", VIDEO, 5, ASKED)
    assert video.visible and len(frames(video.value["path"])) == 8
    with pytest.raises(gr.Error, match="give two pictures first"):
        press("run", "none", face, None, "motion", STRIP, 5, ASKED)


def test_edit_shows_the_picture_and_its_errors(tabs: SimpleNamespace, sent: Callable[[str], str]) -> None:
    show = tabs.parts.told(tabs.edit.show)
    face = sent("face.png")
    still, moved = (show(["motion:yaw"], "run", "none", face, amount) for amount in (0, 20))
    assert still.shape == (320, 320, 3) and np.abs(still.astype(int) - moved).max() > 5
    assert show([], "run", "none", None) is None
    with pytest.raises(gr.Error, match=r"cannot read text\.png"):
        show([], "run", "none", sent("text.png"))


def test_about_tells_what_lies_beside_the_run(tabs: SimpleNamespace, models: Models, files: Path, desk: Desk) -> None:
    told, download, frame = tabs.about.show("run")
    assert "7 steps" in told and "generator" in told and "Figures" not in told and not frame and not download.visible
    for name, text in (("metrics.json", '{"self/psnr": 21.5}'), ("report.html", "<script>alert('&')</script>")):
        (files / "run" / name).write_text(text)
    told, download, frame = tabs.about.show("run")
    assert "21.5" in told and 'sandbox=""' in frame and "&lt;script&gt;alert(&#x27;&amp;&#x27;)" in frame
    assert desk.folder in Path(download.value["path"]).parents
    (files / "run/metrics.json").write_text("{")
    assert "metrics.json is no json" in tabs.about.show("run")[0]
    for name in ("metrics.json", "report.html"):
        (files / "run" / name).unlink()
    assert "gone.ckpt does not exist" in tabs.about.show("gone")[0]
    assert "puppets" in describe(Models({"puppets64": {"checkpoint": "puppets64", "device": "cpu"}})["puppets64"])


def test_inputs_hand_over_files_unopened(files: Path, tmp_path: Path) -> None:
    uploaded = Path(shutil.copyfile(files / "text.png", tmp_path / "text.png"))
    with gr.Blocks(analytics_enabled=False):
        made = picture("Picture", "x")
    assert made.preprocess(SimpleNamespace(path=str(uploaded), orig_name="text.png", url=None)) == str(uploaded)
    assert made.preprocess(None) is None


def test_no_event_has_a_name_for_programs(models: Models, desk: Desk) -> None:
    blocks = build(models, desk, draw_examples(desk.examples), "none")
    assert len(blocks.fns) > 10
    assert "public" not in {fn.api_visibility for fn in blocks.fns.values()}
