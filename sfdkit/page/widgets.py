"""Parts of the tabs: inputs whose files the kit's own readers open, events that show the kit's errors as messages."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import gradio as gr

from sfdkit.errors import DataError, SfdkitError
from sfdkit.media.crop import CropMethod
from sfdkit.page.desk import Desk
from sfdkit.page.job import Stopped
from sfdkit.page.models import Models

W = TypeVar("W", bound=gr.components.Component)

HEAVY: Mapping[str, Any] = {"concurrency_id": "work", "concurrency_limit": 1, "api_visibility": "private"}
"""Options of an event that works for long."""
LIGHT: Mapping[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
"""Options of an event that does not."""
HEIGHT = 300
"""Pixels of pictures and videos on the page."""


class Parts:
    """What the tabs share.

    Args:
        models: Those on offer.
        desk: Where files lie and work is done.
        model: The input that names the model.
        crop: The input that says how faces are cut out.
    """

    def __init__(self, models: Models, desk: Desk, model: gr.Dropdown, crop: gr.Dropdown) -> None:
        self.models, self.desk, self.model, self.crop = models, desk, model, crop

    def crop_for(self, crop: CropMethod, *files: str | None) -> CropMethod:
        """Return how to cut files: the examples are cut already."""
        given = [Path(file) for file in files if file]
        return "none" if given and all(self.desk.examples in file.parents for file in given) else crop

    def told(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap what an event calls: errors of the kit become messages of the page."""

        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            try:
                return function(*args, **kwargs)
            except SfdkitError as error:
                message = self.desk.plain(str(error))
                raise gr.Error(message, title="", duration=None, print_exception=False) from error
            except Stopped as error:
                raise gr.Error("stopped", title="", duration=3, print_exception=False) from error

        return call

    def cancel(self, button: gr.Button, *events: Any) -> None:
        """Let a button stop work, or take it out of the queue."""

        def stop(request: gr.Request) -> None:
            stopped = self.desk.stop(request.session_hash)
            gr.Info("Stopped. Nothing was kept." if stopped else "Nothing is under way.", title="", duration=5)

        button.click(stop, cancels=list(events), **{**LIGHT, "queue": True, "concurrency_limit": None})


def picture(label: str, name: str) -> gr.Image:
    """Return an input for a picture: a file, the webcam or the clipboard; ``name`` is its id."""
    options: dict[str, Any] = {"type": "filepath", "image_mode": None, "height": HEIGHT, "buttons": ["fullscreen"]}
    options |= {"interactive": True, "elem_classes": "picture"}
    return _as_it_is(gr.Image(label=label, elem_id=name, **options))


def clip(label: str, name: str) -> gr.Video:
    """Return an input for a clip: a file or the webcam."""
    options: dict[str, Any] = {"include_audio": True, "height": HEIGHT, "buttons": []}
    options |= {"interactive": True, "elem_classes": "clip"}
    return _as_it_is(gr.Video(label=label, elem_id=name, **options))


def file(label: str, suffix: str, name: str) -> gr.File:
    """Return an input for another file."""
    options: dict[str, Any] = {"file_types": [suffix], "type": "filepath", "height": HEIGHT, "interactive": True}
    return _as_it_is(gr.File(label=label, elem_id=name, **options))


def wanted(value: str | None, what: str) -> str:
    """Return a file that must be given.

    Raises:
        DataError: It is not.
    """
    if not value:
        raise DataError(f"give {what} first, or press Example")
    return value


def _as_it_is(component: W) -> W:
    """Let a component hand over the path of its file: Gradio would open the file itself."""

    def path_of(payload: Any) -> str | None:
        payload = getattr(payload, "root", payload)
        payload = payload[0] if isinstance(payload, list) and payload else payload
        if not payload:
            return None
        with suppress(OSError):
            os.utime(payload.path)  # it is in use
        return str(payload.path)

    component.preprocess = path_of  # type: ignore[method-assign]
    return component
