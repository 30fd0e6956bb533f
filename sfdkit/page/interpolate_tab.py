"""The tab Interpolate: from one face to another."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import gradio as gr

from sfdkit.apply.edit import STRIP_STEPS, Interpolate
from sfdkit.apply.runner import What
from sfdkit.media.crop import CropMethod
from sfdkit.page.examples import Examples
from sfdkit.page.widgets import HEAVY, HEIGHT, LIGHT, Parts, picture, wanted

STRIP, VIDEO = "a strip of pictures", "a video, there and back"


class InterpolateTab:
    """The tab; to be built inside of ``gr.Tab``.

    Args:
        parts: What the tabs share.
        examples: Faces to begin with.
    """

    def __init__(self, parts: Parts, examples: Examples) -> None:
        self.parts = parts
        with gr.Row():
            start = picture("From this face", "from-face")
            end = picture("To this face", "to-face")
        with gr.Row(equal_height=True):
            what = gr.Radio(list(get_args(What)), value="motion", label="What changes")
            form = gr.Radio([STRIP, VIDEO], value=STRIP, label="As")
            steps = gr.Slider(2, 60, value=STRIP_STEPS, step=1, label="Steps", buttons=[])
        with gr.Row():
            example = gr.Button("Example", elem_id="interpolate-example")
            go = gr.Button("Interpolate", variant="primary", elem_id="interpolate")
            cancel = gr.Button("Cancel")
        with gr.Column(elem_id="between"):
            strip = gr.Image(show_label=False, interactive=False, visible=False, buttons=["download", "fullscreen"])
            video = gr.Video(
                label="Result",
                interactive=False,
                visible=False,
                height=HEIGHT,
                autoplay=True,
                loop=True,
                buttons=["download"],
            )
        said = gr.HTML()
        inputs = [parts.model, parts.crop, start, end, what, form, steps]
        event = go.click(parts.told(self.run), inputs, [strip, video, said], show_progress_on=[said], **HEAVY)
        parts.cancel(cancel, event)
        example.click(lambda: (examples.source, examples.other), None, [start, end], **LIGHT)

    def run(
        self,
        name: str,
        crop: CropMethod,
        start: str | None,
        end: str | None,
        what: What,
        form: str,
        steps: int,
        request: gr.Request,
    ) -> tuple[gr.Image, gr.Video, str]:
        """Interpolate; returns the strip, the video, one of which is shown, and what was said.

        Raises:
            SfdkitError: What the command raises.
        """
        source, target = wanted(start, "two pictures"), wanted(end, "two pictures")
        suffix = ".png" if form == STRIP else ".mp4"

        def work(folder: Path) -> str:
            model = self.parts.models[name]
            cut = self.parts.crop_for(crop, source, target)
            options = {"source": source, "target": target, "what": what, "steps": steps, "crop": cut}
            return str(model.command(Interpolate, output=str(folder / f"interpolation{suffix}"), **options).run())

        made, said = self.parts.desk.run(request.session_hash, work)
        is_strip = form == STRIP
        return (
            gr.Image(value=made if is_strip else None, visible=is_strip),
            gr.Video(value=None if is_strip else made, visible=not is_strip),
            said,
        )
