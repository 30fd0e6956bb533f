"""The tab Animate: a picture moved by a clip or by a motion file."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import gradio as gr

from sfdkit.apply.animate import Animate
from sfdkit.apply.steering import REGIONS, REST
from sfdkit.media.video_writer import Codec
from sfdkit.page.examples import Examples
from sfdkit.page.models import Model
from sfdkit.page.widgets import HEAVY, HEIGHT, LIGHT, Parts, clip, file, picture, wanted

CLIP, TRACK = "a clip", "a motion file"
LEAST = 256
"""Pixels to which a face is enlarged, so that a person can see it."""


class AnimateTab:
    """The tab; to be built inside of ``gr.Tab``.

    Args:
        parts: What the tabs share.
        examples: Faces to begin with.
    """

    def __init__(self, parts: Parts, examples: Examples) -> None:
        self.parts = parts
        with gr.Row():
            self.source = picture("Picture: the face to move", "source")
            with gr.Column(min_width=160) as clips:
                self.driving = clip("Driving clip: its motion", "driving")
            with gr.Column(min_width=160, visible=False) as tracks:
                self.track = file("Motion file, of the same model", ".safetensors", "track")
            result = gr.Video(
                label="Result", interactive=False, height=HEIGHT, autoplay=True, loop=True, buttons=[], elem_id="result"
            )
        self.by = gr.Radio([CLIP, TRACK], value=CLIP, label="Moved by", elem_id="by")
        with gr.Row():
            example = gr.Button("Example", elem_id="example")
            go = gr.Button("Animate", variant="primary", elem_id="animate")
            cancel = gr.Button("Cancel", elem_id="cancel")
            download = gr.DownloadButton("Download", interactive=False, elem_id="download")
        said = gr.HTML(elem_id="said")
        with gr.Accordion("Options", open=False, elem_id="options"):
            self.options = _options()
        inputs = {parts.model, parts.crop, self.source, self.driving, self.track, self.by, *self.options.values()}
        event = go.click(parts.told(self.run), inputs, [result, download, said], show_progress_on=[result], **HEAVY)
        parts.cancel(cancel, event)
        example.click(
            lambda: (examples.source, examples.clip, CLIP), None, [self.source, self.driving, self.by], **LIGHT
        )
        self.by.change(
            lambda by: (gr.Column(visible=by == CLIP), gr.Column(visible=by == TRACK)),
            self.by,
            [clips, tracks],
            **LIGHT,
        )

    def run(
        self,
        given: dict[Any, Any],
        request: gr.Request,
        progress: gr.Progress = gr.Progress(track_tqdm=True),  # noqa: B008
    ) -> tuple[str, gr.DownloadButton, str]:
        """Animate; returns the video, the button to download it, and what was said.

        Raises:
            SfdkitError: What the command raises.
        """
        source = wanted(given[self.source], "a picture")
        by_clip = given[self.by] == CLIP
        moved_by = wanted(given[self.driving if by_clip else self.track], "a driving clip" if by_clip else "a track")
        values = {name: given[option] for name, option in self.options.items()}

        def work(folder: Path) -> str:
            model = self.parts.models[given[self.parts.model]]
            crop = given[self.parts.crop]
            options = {
                "source": source,
                "driving" if by_clip else "motion": moved_by,
                "output": str(folder / "animation.mp4"),
                "crop": self.parts.crop_for(crop, moved_by),
                "source_crop": self.parts.crop_for(crop, source),
            }
            return str(model.command(Animate, **options, **_values(model, values)).run().output)

        made, said = self.parts.desk.run(request.session_hash, work)
        return made, gr.DownloadButton(value=made, interactive=True), said


def _options() -> dict[str, Any]:
    """Build the inputs for options of ``sfdkit animate``; returns them by their names."""
    with gr.Row():
        made: dict[str, Any] = {
            "mode": gr.Radio(
                ["absolute", "relative"],
                value="absolute",
                label="Mode",
                info="absolute: the driver's pose and expression; relative: their change, added to the picture's own",
            ),
            "reference": gr.Radio(
                ["first", "auto"],
                value="first",
                label="Reference of relative motion",
                info="the first driving frame, or the one whose pose is nearest to the picture's",
            ),
            "regions": gr.CheckboxGroup(
                list(REGIONS), label="Regions", info="parts that move; all there is where none is chosen"
            ),
        }
    with gr.Row():
        made |= {
            "strength": gr.Slider(0, 2, value=1, step=0.05, label="Strength", info="a factor on the motion"),
            "smooth": gr.Checkbox(label="Smooth", info="a still head keeps still"),
            "side_by_side": gr.Checkbox(label="Side by side", info="source, driver and result"),
            "loop": gr.Number(1, label="Loop", info="how often it is played", precision=0, minimum=1),
        }
    with gr.Row():
        made |= {
            _strength_of(region): gr.Slider(
                0, 2, value=1, step=0.05, label=f"Strength of {region}", info="times the strength above"
            )
            for region in REGIONS
        }
    with gr.Row():
        made |= {
            "paste": gr.Checkbox(label="Paste", info="put the face back into the whole picture"),
            "face": gr.Dropdown(
                ["largest", "all", 1, 2, 3, 4], value="largest", label="Face", info="which moves, from the left"
            ),
            "follow": gr.Radio(
                ["shot", "head"], value="shot", label="Follow", info="the crop stays for a shot, or goes with the head"
            ),
        }
    with gr.Row():
        made |= {
            "from_": gr.Textbox(label="From", info="seconds, or 1:05", placeholder="0"),
            "to": gr.Textbox(label="To", info="seconds, or 1:05", placeholder="the end"),
            "fps": gr.Number(0, label="Frames per second", info="0 keeps the clip's", minimum=0),
            "size": gr.Number(
                0, label="Height in pixels", info=f"0 enlarges faces to at least {LEAST}", precision=0, minimum=0
            ),
        }
    with gr.Row():
        made |= {
            "audio": gr.Radio(["driving", "source", "none"], value="driving", label="Sound of"),
            "codec": gr.Radio(list(get_args(Codec)), value="h264", label="Codec", info="h264 plays everywhere"),
            "crf": gr.Slider(1, 51, value=18, step=1, label="CRF", info="1 is the best quality"),
        }
    return made


def _strength_of(region: str) -> str:
    """Return the name of the input for a region's strength, which is no option of the command."""
    return f"strength of {region}"


def _values(model: Model, given: dict[str, Any]) -> dict[str, Any]:
    """Return options for the command: what is empty on the page is left out."""
    whole, moving = given["strength"], given["regions"] or REGIONS
    each = {region: whole * given[_strength_of(region)] for region in REGIONS}
    changed = {region: strength for region, strength in each.items() if strength != whole and region in moving}
    own = {_strength_of(region) for region in REGIONS} | {"strength"}
    values = {k: v for k, v in given.items() if k not in own and v}
    values["strength"] = changed | {REST: whole} if changed else whole
    if "size" not in values and not values.get("paste"):
        resolution = model.loaded.runner.resolution
        values["size"] = resolution * -(-LEAST // resolution)
    return values
