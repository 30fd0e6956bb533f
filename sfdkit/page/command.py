"""The command ``sfdkit page``: a page of this machine for trying trained models."""

from __future__ import annotations

import signal
import threading
import webbrowser
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from jsonargparse.typing import PositiveInt

from sfdkit.config.command import Command, Port
from sfdkit.errors import CheckpointError, ConfigError
from sfdkit.media.crop import CropMethod
from sfdkit.media.detect import OPENCV
from sfdkit.weights.shipped import find_weights


@dataclass(kw_only=True)
class Page(Command):
    """Try trained models on a page of this machine: animate, edit, interpolate, extract motion.

    Pictures and clips come from files, from a webcam or from the examples, puppets that are drawn at the start. They
    are kept in a temporary folder, and removed after an hour without use and at the end. Stop with Ctrl-C.

    Args:
        checkpoint: One or several of what the other commands take: --checkpoint [runs/a/checkpoints/last.ckpt,
            hf://user/name]; puppets64 where neither a checkpoint nor a model is given.
        model: Folders that sfdkit export wrote, likewise.
        crop: How to cut faces out, as in the training data: face, union or aligned (detected), centre (largest square)
            or none (the whole picture). The page can change it.
        margin: Share of the detected face's size to add on each side, as in the training data; by default what suits
            --crop.
        detector: What finds faces, as in the training data: opencv, or the ONNX file of YuNet.
        device: auto, cpu, cuda, cuda:1, mps.
        trust: Packages besides sfdkit whose classes checkpoints may name: --trust [mypackage].
        host: Address to listen at. Another than 127.0.0.1 lets others use the page, without a password.
        port: Of the address; 0 takes a free one.
        limit_mb: The largest file that may be uploaded, in megabytes.
        open: Open the page in the browser.
    """

    checkpoint: list[str] | str | None = None
    model: list[str] | str | None = None
    crop: CropMethod = "face"
    margin: float | None = None
    detector: str = OPENCV
    device: str = "auto"
    trust: list[str] | None = None
    host: str = "127.0.0.1"
    port: Port = 7860  # type: ignore[valid-type]
    limit_mb: PositiveInt = 200
    open: bool = False

    def run(self) -> None:
        """Serve the page until Ctrl-C.

        Raises:
            CheckpointError: A checkpoint is missing.
            ConfigError: Gradio is not installed, or the port is taken.
        """
        _require_gradio()
        from sfdkit.page.server import LOOPBACK, serving

        ended = threading.Event()
        earlier = signal.signal(signal.SIGTERM, lambda *_: ended.set())
        try:
            with serving(self.models(), self.crop, self.host, int(self.port), self.limit_mb) as address:
                if self.host not in LOOPBACK:
                    print(f"warning: whoever reaches {self.host} can use this page: it has no password")
                print(f"look at {address}; Ctrl-C ends it", flush=True)
                if self.open:
                    webbrowser.open(address)
                ended.wait()
        except KeyboardInterrupt:
            print()
        finally:
            signal.signal(signal.SIGTERM, earlier)

    def models(self) -> dict[str, dict[str, Any]]:
        """Return name to the options of :class:`sfdkit.apply.options.AnimatorOptions` of each model that is offered.

        Raises:
            ConfigError: Nothing is left of the lists.
        """
        shared = {"crop": self.crop, "margin": self.margin, "detector": self.detector, "device": self.device}
        given = {"checkpoint": self.checkpoint, "model": self.model}
        if self.checkpoint is None and self.model is None:
            given["checkpoint"] = "puppets64"
        lists = {key: [value] if isinstance(value, str) else value or [] for key, value in given.items()}
        own = {"checkpoint": {"trust": self.trust}, "model": {}}  # an exported model names no classes
        offered = {name: {key: name, **shared, **own[key]} for key, names in lists.items() for name in names}
        if not offered:
            raise ConfigError("checkpoint and model are empty lists; give one, or neither for puppets64")
        for name in lists["checkpoint"]:
            if "://" not in name and not find_weights(name).is_file():
                raise CheckpointError(f"checkpoint {name} does not exist; sfdkit fit writes them to <run>/checkpoints")
        return offered


def _require_gradio() -> None:
    """Check that Gradio 6 is there, without importing it.

    Raises:
        ConfigError: It is not.
    """
    try:
        version = metadata.version("gradio")
    except metadata.PackageNotFoundError:
        version = ""
    if int(version.partition(".")[0] or 0) < 6:
        there = f"; this is {version}" if version else ""
        raise ConfigError(f"the page needs Gradio 6 or newer{there}: pip install 'sfdkit[page]'")
