"""The tab About: what a model is, and what its evaluation found."""

from __future__ import annotations

import html
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import gradio as gr

from sfdkit.errors import DataError, SfdkitError
from sfdkit.page.models import Model
from sfdkit.page.widgets import HEAVY, Parts

MOST_BYTES = 20_000_000
"""Of a report that is shown; a larger one is only to download."""


class AboutTab:
    """The tab; to be built inside of ``gr.Tab``.

    Args:
        parts: What the tabs share.
        tab: The tab itself: what it shows is made when somebody looks.
    """

    def __init__(self, parts: Parts, tab: gr.Tab) -> None:
        self.parts = parts
        told = gr.Markdown(elem_id="about")
        download = gr.DownloadButton("Download report.html", visible=False, elem_id="report")
        frame = gr.HTML()
        gr.on(
            [tab.select, parts.model.change],
            self.show,
            parts.model,
            [told, download, frame],
            show_progress="minimal",
            **HEAVY,
        )

    def show(self, name: str) -> tuple[str, gr.DownloadButton, str]:
        """Return what is known of a model, its report to download, and the same in a frame without scripts."""
        try:
            model = self.parts.models[name]
            told = describe(model)
        except SfdkitError as error:
            return self.parts.desk.plain(str(error)), gr.DownloadButton(visible=False), ""
        report = _beside(model, "report.html")
        if report is None:
            return told, gr.DownloadButton(visible=False), ""
        copy = Path(tempfile.mkdtemp(dir=self.parts.desk.folder)) / report.name
        shutil.copyfile(report, copy)
        large = copy.stat().st_size > MOST_BYTES
        text = "" if large else html.escape(copy.read_text(encoding="utf-8", errors="replace"), quote=True)
        frame = f'<iframe sandbox="" title="the report" class="report" srcdoc="{text}"></iframe>' if text else ""
        return told, gr.DownloadButton(value=str(copy), visible=True), frame


def describe(model: Model) -> str:
    """Return what is known of a model, as Markdown.

    Raises:
        SfdkitError: Its files cannot be read.
    """
    from sfdkit.weights.model_card import figures

    metrics = _beside(model, "metrics.json")
    parts = [f"### {model.name}", _facts(model)]
    if metrics is not None:
        try:
            content: dict[str, Any] = json.loads(metrics.read_text(encoding="utf-8"))
        except ValueError as error:
            raise DataError(f"{metrics} is no json ({error}); write it again with sfdkit evaluate") from error
        parts.append(f"### Figures\n\n{figures(content)}")
    return "\n\n".join(parts)


def _facts(model: Model) -> str:
    """Return the card and the summary of a checkpoint, or what an exported model says of itself."""
    runner, file = model.loaded.runner, model.loaded.file
    if file.is_dir():
        from sfdkit.export.manifest import Manifest

        about = Manifest.read(file)
        rows = {
            "pixels": runner.resolution,
            "descriptors": f"{runner.identity_size} of identity, {runner.motion_size} of motion",
            "format": f"{about.format}, {about.precision}, for {about.target}",
            "runs on": runner.device,
        }
        return _code("\n".join(f"{name + ':':13}{value}" for name, value in rows.items()))
    from sfdkit.apply.torch_runner import TorchRunner
    from sfdkit.checkpoint import LoadedAnimator, read_animator
    from sfdkit.model.summary import summary_table
    from sfdkit.weights.commands import describe

    assert isinstance(runner, TorchRunner)
    stored = read_animator(file)
    loaded = LoadedAnimator(runner.animator, stored.train, stored.config, stored.axes)
    return f"{_code(describe(loaded, file))}\n\n### Parts\n\n{_code(summary_table(runner.animator))}"


def _code(text: str) -> str:
    return f"```text\n{text.replace('```', '')}\n```"


def _beside(model: Model, name: str) -> Path | None:
    """Return a file of the run that a checkpoint belongs to, if it is there."""
    file = model.loaded.file
    path = file.resolve().parent.parent / name
    return path if file.suffix == ".ckpt" and path.is_file() else None
