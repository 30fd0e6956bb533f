"""The tab Motion: a clip's motion in a file."""

from __future__ import annotations

from pathlib import Path

import gradio as gr

from sfdkit.apply.extract import Extract
from sfdkit.media.crop import CropMethod
from sfdkit.page.animate_tab import TRACK, AnimateTab
from sfdkit.page.examples import Examples
from sfdkit.page.widgets import HEAVY, LIGHT, Parts, clip, wanted


class MotionTab:
    """The tab; to be built inside of ``gr.Tab``.

    Args:
        parts: What the tabs share.
        examples: Faces to begin with.
        animate: The tab that uses what is made here.
        tabs: All tabs; that of ``animate`` has the id ``animate``.
    """

    def __init__(self, parts: Parts, examples: Examples, animate: AnimateTab, tabs: gr.Tabs) -> None:
        self.parts = parts
        with gr.Row():
            driving = clip("Clip", "motion-clip")
            with gr.Column():
                bits = gr.Dropdown(
                    [2, 3, 4, 5, 6, 7, 8, 32], value=32, label="Bits per coefficient", info="32 keeps them as they are"
                )
                fps = gr.Number(0, label="Frames per second", info="0 keeps the clip's", minimum=0)
                track = gr.File(label="Motion file", interactive=False, elem_id="made-track")
        with gr.Row():
            example = gr.Button("Example", elem_id="motion-example")
            go = gr.Button("Extract", variant="primary", elem_id="extract")
            cancel = gr.Button("Cancel")
            use = gr.Button("Use in Animate", interactive=False, elem_id="use")
        said = gr.HTML(elem_id="motion-said")
        inputs = [parts.model, parts.crop, driving, bits, fps]
        event = go.click(parts.told(self.run), inputs, [track, use, said], show_progress_on=[track], **HEAVY)
        parts.cancel(cancel, event)
        example.click(lambda: examples.clip, None, driving, **LIGHT)
        kept = gr.State()
        track.change(lambda path: path, track, kept, **LIGHT)
        use.click(
            lambda path: (path, TRACK, gr.Tabs(selected="animate")), kept, [animate.track, animate.by, tabs], **LIGHT
        )

    def run(
        self,
        name: str,
        crop: CropMethod,
        driving: str | None,
        bits: int,
        fps: float | None,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(track_tqdm=True),  # noqa: B008
    ) -> tuple[str, gr.Button, str]:
        """Extract; returns the file, the button to use it, and what was said.

        Raises:
            SfdkitError: What the command raises.
        """
        given = wanted(driving, "a clip")

        def work(folder: Path) -> str:
            target = folder / f"{Path(given).stem}.safetensors"
            options = {"driving": given, "output": str(target), "bits": bits, "fps": fps or None}
            cut = self.parts.crop_for(crop, given)
            self.parts.models[name].command(Extract, crop=cut, **options).run()
            return str(target)

        made, said = self.parts.desk.run(request.session_hash, work)
        return made, gr.Button(interactive=True), said
