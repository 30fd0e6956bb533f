"""A page that animates faces in the browser, beside the graphs of an exported model.

ONNX Runtime Web (https://onnxruntime.ai/docs/get-started/with-javascript/web.html) runs them, by WebGPU or WebAssembly.
"""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from sfdkit.errors import ConfigError
from sfdkit.export.manifest import PERSON, Manifest
from sfdkit.files import write_picture
from sfdkit.puppets.clips import make_clip

RUNTIME = "ort.webgpu.min.mjs"
"""The module of onnxruntime-web that has both WebGPU and WebAssembly."""
FOLDER = "runtime"
EXAMPLE_FRAMES = 25
"""Frames of the driver that the page begins with, at 12.5 a second."""
REMEDY = (
    "give the folder of the npm package (npm install onnxruntime-web, then --runtime node_modules/onnxruntime-web), or "
    "the https address of a folder that holds its dist files, from which every visitor's browser will load them"
)


@dataclass(frozen=True)
class WebPage:
    """The page: index.html, animator.js, two example puppets, the model's card and ONNX Runtime Web.

    Args:
        runtime: Folder of the npm package onnxruntime-web, whose files are copied; or an https address.

    Raises:
        ConfigError: ``runtime`` is neither.
    """

    runtime: str

    def __post_init__(self) -> None:
        if self._is_address():
            if not urlsplit(self.runtime).hostname or not self.runtime.startswith("https://"):
                raise ConfigError(f"runtime: {self.runtime} is no https address; {REMEDY}")
        elif not (self._dist() / RUNTIME).is_file():
            raise ConfigError(f"runtime: {self.runtime} holds no dist/{RUNTIME}; {REMEDY}")

    def _is_address(self) -> bool:
        return "://" in self.runtime

    def _dist(self) -> Path:
        folder = Path(self.runtime)
        return folder / "dist" if (folder / "dist").is_dir() else folder

    def write(self, folder: Path, manifest: Manifest, card: str) -> None:
        """Write the page's files into the folder of an exported model; ``card`` says what is known of it."""
        address = self.runtime.rstrip("/") + "/" if self._is_address() else f"{FOLDER}/"
        if self._is_address():
            parts = urlsplit(address)
            host, origin = f"{parts.scheme}://{parts.netloc}", f"ONNX Runtime Web is loaded from {address}."
        else:
            host, origin = "", f"`{FOLDER}/` is {self._copy_runtime(folder / FOLDER)} (MIT licence, Microsoft)."
        title = f"sfdkit: faces of {manifest.resolution} pixels"
        environment = Environment(
            loader=PackageLoader("sfdkit.export"),
            autoescape=select_autoescape(["html"]),
            undefined=StrictUndefined,
            keep_trailing_newline=True,
        )
        known = {
            "title": title,
            "resolution": manifest.resolution,
            "host": host,
            "runtime": address,
            "card": card,
            "person": PERSON in manifest.graphs,
            "origin": origin,
        }
        for name in ("index.html", "README.md"):
            (folder / name).write_text(environment.get_template(name).render(known), encoding="utf-8")
        shutil.copyfile(Path(__file__).parent / "templates/animator.js", folder / "animator.js")
        side = manifest.resolution
        source, driver = (
            make_clip(person, "test", 0, frames, side)[0].permute(0, 2, 3, 1).numpy()
            for person, frames in ((14, 1), (19, EXAMPLE_FRAMES))
        )
        write_picture(folder / "source.jpg", np.ascontiguousarray(source[0]))
        write_picture(folder / "driver.jpg", np.concatenate(list(driver)))

    def _copy_runtime(self, target: Path) -> str:
        """Copy the module and what it loads; return its name and version."""
        dist = self._dist()
        target.mkdir()
        names = [RUNTIME]
        for name in names:  # which grows: modules name what they load
            if name.endswith(".mjs"):
                found = re.findall(r"ort-wasm[\w.-]+\.(?:mjs|wasm)", (dist / name).read_text(encoding="utf-8"))
                names += [other for other in dict.fromkeys(found) if other not in names and (dist / other).is_file()]
            shutil.copyfile(dist / name, target / name)
        try:
            package = json.loads((dist.parent / "package.json").read_text(encoding="utf-8"))
            return f"{package['name']} {package['version']}"
        except (OSError, ValueError, KeyError):
            return "onnxruntime-web"
