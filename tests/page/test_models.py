from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sfdkit.apply.animate import Animate
from sfdkit.apply.edit import Edit, Interpolate
from sfdkit.apply.options import AnimatorOptions
from sfdkit.errors import CheckpointError, ConfigError, DataError
from sfdkit.page import models as page_models
from sfdkit.page.command import Page
from sfdkit.page.models import Models, is_of_puppets


def test_a_model_is_loaded_when_first_used_and_a_few_are_kept(
    models: Models, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[str] = []
    plain = AnimatorOptions.load

    def load(self: AnimatorOptions) -> Any:
        loads.append(Path(str(self.checkpoint)).parent.parent.name)
        return plain(self)

    monkeypatch.setattr(AnimatorOptions, "load", load)
    monkeypatch.setattr(page_models, "KEPT_MODELS", 1)
    assert models["run"] is models["run"]
    out = files / "strip.png"
    models["run"].command(
        Interpolate, source=str(files / "face.png"), target=str(files / "face.png"), output=str(out)
    ).run()
    assert loads == ["run"] and out.exists()
    assert models["other"].loaded.runner.basis != models["run"].loaded.runner.basis
    assert loads == ["run", "other", "run"]
    with pytest.raises(CheckpointError, match=r"gone\.ckpt does not exist"):
        models["gone"]
    with pytest.raises(ConfigError, match="there is no 'x' on this page"):
        models["x"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"size": 100_000}, "size"),
        ({"loop": 0}, "loop"),
        ({"crf": 70}, "crf"),
        ({"codec": "copy"}, "codec"),
        ({"batch_size": "many"}, "batch_size"),
    ],
)
def test_options_are_checked_as_on_the_command_line(models: Models, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        models["run"].command(Animate, source="a.png", driving="b.mp4", output="c.mp4", **options)
    assert "\n" not in str(caught.value)


def test_faces_are_encoded_once(models: Models, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = models["run"]
    runner, made = model.loaded.runner, []
    plain = runner.source
    monkeypatch.setattr(runner, "source", lambda picture: made.append(1) or plain(picture))
    monkeypatch.setattr(page_models, "KEPT_FACES", 1)
    for name in ("face", "face", "grey", "face"):
        model.face(str(files / f"{name}.png"), "none")
    assert len(made) == 3
    with pytest.raises(DataError, match="no face was found"):
        model.face(str(files / "grey.png"), "face")


def test_sliders_make_what_the_command_makes(models: Models, files: Path, tmp_path: Path) -> None:
    edit_tab = pytest.importorskip("sfdkit.page.edit_tab", exc_type=ImportError)
    model, face = models["run"], str(files / "face.png")
    sliders = edit_tab.sliders_of(model, "motion")
    assert [(each.axis, each.title) for each in sliders] == [
        ("motion:yaw", "yaw (degrees)"),
        ("motion:mouth_open", "mouth open (of its range)"),
    ]
    assert sliders[0].most == pytest.approx(3 / np.hypot(0.05 / 1.0, 0.02 / 0.5), rel=0.05)
    assert len(edit_tab.sliders_of(model, "identity")) == 12, "no axis of it has a name"
    amounts = {"motion:yaw": 20.0, "motion:mouth_open": 0.0}
    shown = edit_tab.edit(model, face, "none", amounts)
    still = edit_tab.edit(model, face, "none", {})
    assert np.abs(shown.astype(int) - still).max() > 5
    out = tmp_path / "frames"
    model.command(Edit, source=face, axis="yaw", from_=0.0, to=20.0, steps=2, size=32, fps=25.0, output=str(out)).run()
    last = np.asarray(Image.open(sorted(out.iterdir())[1])).astype(int)
    places = np.lib.stride_tricks.sliding_window_view(last, shown.shape).reshape(-1, *shown.shape)
    assert min(np.abs(place - shown).max() for place in places) <= 1


def test_models_without_names_get_vectors_and_without_code_share_no_people(models: Models, files: Path) -> None:
    edit_tab = pytest.importorskip("sfdkit.page.edit_tab", exc_type=ImportError)
    other = models["other"]
    assert [each.axis for each in edit_tab.sliders_of(other, "motion")] == [f"motion:{k}" for k in range(4)]
    assert other.changes_people
    other.__dict__["changes_people"] = False
    assert edit_tab.sliders_of(other, "identity") == []


def test_models_of_puppets_are_known() -> None:
    shipped = Models({"puppets64": {"checkpoint": "puppets64", "device": "cpu"}})["puppets64"]
    assert is_of_puppets(shipped) and shipped.changes_people


def test_others_are_not_taken_for_them(models: Models, files: Path) -> None:
    assert not is_of_puppets(models["run"])
    (files / "other/config.yaml").write_text("data: {class_path: datamodules.puppets.PuppetsDataModule}")
    assert is_of_puppets(models["other"])


def test_what_is_not_there_is_said_before_the_page_opens(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"checkpoint \S+/gone\.ckpt does not exist; sfdkit fit writes them"):
        Page(checkpoint=["puppets64", str(tmp_path / "gone.ckpt")]).models()
    assert set(Page(checkpoint=["puppets64", "hf://user/name"]).models()) == {"puppets64", "hf://user/name"}
