"""The tab Edit: a slider for each axis of the model, and the picture that they make."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import gradio as gr
import numpy as np

from sfdkit.apply.axes import raw_step
from sfdkit.apply.axes_file import BLOCKS, Block
from sfdkit.apply.edit import edited
from sfdkit.apply.runner import Coefficients
from sfdkit.errors import SfdkitError
from sfdkit.media.crop import CropMethod
from sfdkit.media.draw import enlarge
from sfdkit.page.examples import Examples
from sfdkit.page.models import Model
from sfdkit.page.widgets import HEIGHT, LIGHT, Parts, picture

REACH = 3.0
"""Standard deviations of its direction to which a slider goes, where the unit has no range of its own."""
VECTORS = 16
"""Sliders of a block of a model without named axes."""
_RANGE = re.compile(r"of (-?\d+) to (\d+)")
_LIVE: dict[str, Any] = {"concurrency_id": "edit", "show_progress": "hidden", "api_visibility": "private"}
"""Options of the events that draw the picture anew."""
_TITLES: dict[Block, str] = {"motion": "Motion: pose and expression", "identity": "Identity: who it is"}


class Slider(NamedTuple):
    """What a slider moves."""

    axis: str
    """As in ``sfdkit edit --axis``."""
    title: str
    most: float
    """It goes as far to either side; 0 is the source."""


class EditTab:
    """The tab; to be built inside of ``gr.Tab``.

    Args:
        parts: What the tabs share.
        examples: Faces to begin with.
    """

    def __init__(self, parts: Parts, examples: Examples) -> None:
        self.parts = parts
        with gr.Row():
            with gr.Column(scale=2):
                self.result = gr.Image(
                    label="Result",
                    interactive=False,
                    height=HEIGHT,
                    format="png",
                    buttons=["download", "fullscreen"],
                    elem_id="edited",
                    elem_classes="picture",
                )
                self.source = picture("Picture", "edit-source")
                with gr.Row():
                    example = gr.Button("Example", elem_id="edit-example")
                    self.reset = gr.Button("Reset the sliders", elem_id="reset")
            with gr.Column(scale=3, elem_classes="sliders"):
                gr.render([parts.model], show_progress="hidden")(self._sliders)
        example.click(lambda: examples.source, None, self.source, **LIGHT)
        unmoved = parts.told(lambda *values: self.show([], *values))
        parts.model.change(unmoved, [parts.model, parts.crop, self.source], self.result, **_LIVE)

    def _sliders(self, name: str) -> None:
        """Build the sliders of a model."""
        try:
            model = self.parts.models[name]
            blocks = {block: sliders_of(model, block) for block in BLOCKS}
        except SfdkitError as error:
            gr.HTML(self.parts.desk.plain(str(error)))
            return
        if model.axes is None or not model.axes.names():
            gr.Markdown("This model names no axes, which `sfdkit evaluate` on puppets writes: sliders move vectors.")
        built: dict[str, gr.Slider] = {}
        for block, sliders in blocks.items():
            with gr.Accordion(_TITLES[block], open=block == "motion", elem_id=f"axes-{block}"):
                if not sliders:
                    gr.Markdown("This model was not trained to change who is seen (`code_share`).")
                with gr.Row(elem_classes="axes"):
                    for axis, title, most in sliders:
                        made = gr.Slider(-most, most, value=0, step=most / 50, label=title, buttons=[], min_width=200)
                        built[axis] = made
        moved = list(built.values())
        shown = self.parts.told(lambda *values: self.show(list(built), *values))
        inputs = [self.parts.model, self.parts.crop, self.source, *moved]
        triggers = [*(each.input for each in moved), self.source.change, self.parts.crop.input]
        gr.on(triggers, shown, inputs, self.result, trigger_mode="always_last", **_LIVE)
        back = self.reset.click(lambda: [0] * len(moved), None, moved, **LIGHT)
        back.then(shown, inputs, self.result, **_LIVE)

    def show(self, names: list[str], model: str, crop: CropMethod, source: str | None, *amounts: float) -> Any:
        """Return the picture with its face moved along axes; None without a picture.

        Raises:
            SfdkitError: The picture cannot be read, or holds no face.
        """
        if source is None:
            return None
        cut, moved = self.parts.crop_for(crop, source), dict(zip(names, amounts, strict=True))
        made = edit(self.parts.models[model], source, cut, moved)
        return enlarge(made, made.shape[0] * -(-HEIGHT // made.shape[0]))


def sliders_of(model: Model, block: Block) -> list[Slider]:
    """Return the sliders of a block: its named axes, or else basis vectors.

    Raises:
        SfdkitError: The axes cannot be read.
    """
    runner, axes = model.loaded.runner, model.axes
    if block == "identity" and not model.changes_people:
        return []
    if axes is None or not getattr(axes, block).directions:
        size = runner.motion_size if block == "motion" else runner.identity_size
        return [Slider(f"{block}:{k}", f"{block} {k}", REACH) for k in range(min(size, VECTORS))]
    made = []
    for name, direction in getattr(axes, block).directions.items():
        ends = _RANGE.fullmatch(direction.unit)
        title = f"{name.replace('_', ' ')}" + ("" if ends else f" ({direction.unit})")
        most = max(abs(float(end)) for end in ends.groups()) if ends else REACH / axes.sigmas(f"{block}:{name}")
        made.append(Slider(f"{block}:{name}", title, float(f"{most:.2g}")))
    return made


def edit(model: Model, source: str, crop: CropMethod, amounts: dict[str, float]) -> np.ndarray:
    """Return a picture's face moved along several axes at once, R R 3 uint8.

    Raises:
        SfdkitError: The picture cannot be read, holds no face, or there is no such axis.
    """
    runner, face = model.loaded.runner, model.face(source, crop)
    total = Coefficients(np.zeros(runner.identity_size, np.float32), np.zeros(runner.motion_size, np.float32))
    for axis, amount in amounts.items():
        if amount:
            sizes = runner.identity_size, runner.motion_size
            step = raw_step(axis, amount, *sizes) if model.axes is None else model.axes.step(axis, amount)
            total = Coefficients(total.identity + step.identity, total.motion + step.motion)
    return edited(runner, face, Coefficients(total.identity[None], total.motion[None]))[0]
