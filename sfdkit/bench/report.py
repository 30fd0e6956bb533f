"""Tables of speed on the screen, and their figures in a file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from sfdkit.errors import ConfigError
from sfdkit.files import atomic_write, make_folder

SCHEMA = "sfdkit.bench/1"

Figures: TypeAlias = dict[str, Any]
"""Of one animator or experiment, as they go into the file."""

PEERS = {"LIA": 30.7, "FOMM": 55.0, "PIRenderer": 62.0, "TPSMM": 140.0}
"""GMAC per driven frame at 256 pixels, counted on the published code of others (arXiv 2203.09043, 2003.00196,
2109.08379, 2203.14367)."""


def print_figures(machine: Mapping[str, Any], figures: Sequence[Figures], whole: str) -> None:
    """Print a table for each animator; ``whole`` is the stage whose rate counts."""
    about = [f"{name} {machine[name]}" for name in ("torch", "onnxruntime") if name in machine]
    print(f"{machine['name']}, {machine['threads']} threads, {', '.join(about)}")
    for each in figures:
        print(
            f"\n{each['name']}: {each['resolution']} px, {each['precision']} on {each['device']}, "
            f"{each['gmac']:.3g} GMAC and {each['moved_mb']:.3g} MB moved per driven frame"
        )
        print_stages(each["seconds"])
        roof = each["roofline"]
        psnr = each["psnr_to_float32"]
        print(
            f"{each['frames_per_second']:.1f} driven frames/s; {100 * roof['share']:.0f} % of the roofline "
            f"({roof['gflops']:.0f} GFLOP/s, {roof['gigabytes_per_second']:.1f} GB/s here); "
            f"{'the same pictures as' if psnr is None else f'{psnr:.1f} dB to'} the model in float32"
        )
        if each["resolution"] == 256:
            seconds = each["seconds"][whole]["median"] / each["batch_size"]
            others = ", ".join(
                f"{name} {gmac:g} GMAC, {gmac * seconds / each['gmac']:.2g} s" for name, gmac in PEERS.items()
            )
            print(f"others at 256, had they this model's rate: {others}")


def print_stages(seconds: Mapping[str, Mapping[str, float]]) -> None:
    """Print median and quartiles of each stage in milliseconds."""
    print(f"{'part':16}{'ms':>10}{'quartiles':>20}")
    for name, spread in seconds.items():
        low, high = 1000 * spread["low"], 1000 * spread["high"]
        print(f"{name:16}{1000 * spread['median']:>10.2f}{f'{low:.2f} to {high:.2f}':>20}")


def print_ratios(found: Mapping[str, Mapping[str, float]], one: str, other: str) -> None:
    """Print how many times as long the second animator takes."""
    print(f"\n{other} takes, in turn with {one}, times as long")
    for name, spread in found.items():
        print(f"{name:16}{spread['median']:>10.3f}{'{low:.3f} to {high:.3f}'.format(**spread):>20}")


def write_report(output: str | None, report: Mapping[str, Any]) -> None:
    """Write the figures to a .json file; None: nowhere.

    Raises:
        ConfigError: Another suffix.
        DataError: The folder cannot be created.
    """
    if output is None:
        return
    path = check_json(output)
    with atomic_write(path) as part:
        part.write_text(json.dumps({"schema": SCHEMA, **report}, indent=1) + "\n", encoding="utf-8")
    print(f"wrote {path}")


def check_json(output: str) -> Path:
    """Return the path of a .json file that is to be written; its folder is created.

    Raises:
        ConfigError: Another suffix.
        DataError: The folder cannot be created.
    """
    path = Path(output)
    if path.suffix.lower() != ".json":
        raise ConfigError(f"output: {path} has the suffix {path.suffix!r}; use .json")
    make_folder(path.parent)
    return path
