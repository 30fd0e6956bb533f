"""The page, put together."""

from __future__ import annotations

from typing import get_args

import gradio as gr

from sfdkit.errors import SfdkitError
from sfdkit.media.crop import CropMethod
from sfdkit.page.about_tab import AboutTab
from sfdkit.page.animate_tab import AnimateTab
from sfdkit.page.desk import Desk
from sfdkit.page.edit_tab import EditTab
from sfdkit.page.examples import Examples
from sfdkit.page.interpolate_tab import InterpolateTab
from sfdkit.page.models import Models, is_of_puppets
from sfdkit.page.motion_tab import MotionTab
from sfdkit.page.widgets import LIGHT, Parts

_SANS, _MONO = ["system-ui", "sans-serif"], ["ui-monospace", "monospace"]
LOOK = gr.themes.Default(font=_SANS, font_mono=_MONO, primary_hue="blue", spacing_size="sm")
"""Fonts of the system: none is loaded."""
STYLE = """
.sliders { max-height: 660px; overflow-y: auto; flex-wrap: nowrap; }
.axes .form { display: grid !important; grid-template-columns: repeat(auto-fill, minmax(210px, 1fr)); }
.axes .form { background: none; }
.picture img { width: 100%; height: 100%; object-fit: contain; }
.clip video { max-height: 240px; }
.clip button[aria-label^="Trim"] { display: none; }
.report { width: 100%; height: 80vh; border: 1px solid #8884; background: white; }
"""


def build(models: Models, desk: Desk, examples: Examples, crop: CropMethod) -> gr.Blocks:
    """Return the page.

    Args:
        models: Those on offer; the first is chosen.
        desk: Where files lie and work is done.
        examples: Faces to begin with.
        crop: How faces are cut out, to begin with.
    """
    with gr.Blocks(title="sfdkit", analytics_enabled=False) as blocks:
        with gr.Row(equal_height=True):
            model = gr.Dropdown(models.names, value=models.names[0], label="Model", interactive=True, elem_id="model")
            cut = gr.Dropdown(
                list(get_args(CropMethod)),
                value=crop,
                label="Crop",
                info="how faces are cut out, as in the training data; examples are cut already",
                elem_id="crop",
            )
        facts = gr.HTML(elem_id="facts")
        parts = Parts(models, desk, model, cut)
        with gr.Tabs() as tabs:
            with gr.Tab("Animate", id="animate"):
                animate = AnimateTab(parts, examples)
            with gr.Tab("Edit", id="edit"):
                EditTab(parts, examples)
            with gr.Tab("Interpolate", id="interpolate"):
                InterpolateTab(parts, examples)
            with gr.Tab("Motion", id="motion"):
                MotionTab(parts, examples, animate, tabs)
            with gr.Tab("About", id="about") as about:
                AboutTab(parts, about)

        def tell(name: str) -> str:
            try:
                chosen = models[name]
            except SfdkitError as error:
                return desk.plain(str(error))
            runner = chosen.loaded.runner
            size = f"{runner.resolution} x {runner.resolution} pixels, on {runner.device}."
            if is_of_puppets(chosen):
                return f"{size} Trained on puppets, as the examples are: it knows no real face."
            return f"{size} The examples are puppets, and this model may know other faces: judge it by files of yours."

        gr.on([blocks.load, model.change], tell, model, facts, **LIGHT)

        def leave(request: gr.Request) -> None:
            desk.leave(request.session_hash)

        blocks.unload(leave)
    return blocks
