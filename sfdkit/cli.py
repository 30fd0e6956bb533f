"""The command line: ``sfdkit fit | validate | test | predict`` by LightningCLI, and the kit's own commands.

The only place where model, data and trainer meet.
"""

from __future__ import annotations

import ctypes
import logging
import os
import re
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from sfdkit.errors import SfdkitError, did_you_mean

GROUPS = {
    "use": {
        "animate": "move faces of a picture or video as a clip's face moves",
        "live": "move a face by a camera, or by a video as one",
        "page": "try models on a page of this machine",
        "edit": "move a face along named axes: turn, smile, glasses, age ...",
        "interpolate": "go from one face to another",
        "motion": "keep a clip's motion in a file: motion extract",
        "model": "weights and sharing: list, card, pack, save, push, summary",
        "export": "graphs for ONNX Runtime, torch.export and web browsers",
    },
    "train": {
        "fit": "train an animator",
        "validate": "measure self-reenactment on the validation split",
        "test": "measure self-reenactment on the test split",
        "predict": "render the test split and write pictures",
    },
    "measure": {
        "evaluate": "figures, probes and a report of a checkpoint on shards",
        "study": "compare variants over seeds: study run, report, sheet",
        "bench": "speed: bench inference, training, pipeline",
        "measure": "train the network that measures puppets: measure train",
    },
    "data": {
        "prepare": "pack a published data set: voxceleb, hdtf, celebv, clips",
        "crop": "see what would be cut out of videos: crop preview",
        "shards": "pack, list, copy and check shards: pack, ls, copy, check",
        "puppets": "draw the synthetic faces: sheet, render, train-perceptual",
    },
}
"""Groups of the commands; in each, command to what it does."""
COMMANDS = {name: about for group in GROUPS.values() for name, about in group.items()}
TRAINER_COMMANDS = GROUPS["train"]
"""Those of LightningCLI."""
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""glibc's numbers of these parameters, malloc.h."""
_TRIM_VARIABLE = "MALLOC_TRIM_THRESHOLD_"
"""With it a user says the first."""


def main(args: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        args: Arguments as on the command line; ``None`` takes those of the process.

    Returns:
        The exit status: 0, or 1 after an error that is printed as one line.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # torch on Linux takes large pages: trainings are 15 % faster
    if _TRIM_VARIABLE not in os.environ:
        _keep_memory()
    arguments = list(sys.argv[1:] if args is None else args)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_usage())
        return 0
    if arguments[0] == "--version":
        from sfdkit import __version__

        print(f"sfdkit {__version__}")
        return 0
    try:
        _dispatch(arguments)
    except SfdkitError as error:
        print(f"sfdkit: error: {error}", file=sys.stderr)
        return 1
    return 0


def _keep_memory() -> None:
    """Let glibc keep what is freed: else each step of a training gives its memory back, and faults it in again."""
    with suppress(AttributeError, OSError, TypeError):  # another C library
        libc = ctypes.CDLL(None)
        libc.mallopt(_TRIM_THRESHOLD, 2**31 - 1)
        libc.mallopt(_MMAP_THRESHOLD, 2**25)  # the most that glibc takes


def entry() -> None:
    """Run the command line of the process and leave with its status."""
    try:
        status = main()
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read the output, such as head, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 1
    except KeyboardInterrupt:
        print("sfdkit: interrupted", file=sys.stderr)
        status = 128 + signal.SIGINT
    raise SystemExit(status)


def _usage() -> str:
    lines = ["usage: sfdkit COMMAND [OPTIONS]    (sfdkit COMMAND --help lists the options)"]
    for group, commands in GROUPS.items():
        for number, (name, about) in enumerate(commands.items()):
            lines.append(f"{'' if number else group:8}{name:12}{about}")
    return "\n".join(lines)


def _dispatch(arguments: list[str]) -> None:
    command = arguments[0]
    if command not in COMMANDS:
        raise SfdkitError(
            f"there is no command {command!r}.{did_you_mean(command, COMMANDS)} The commands are {', '.join(COMMANDS)}"
        )
    _quiet()
    _look_here()
    if command in TRAINER_COMMANDS:
        from sfdkit.train.command import run

        run(arguments)
        return
    if _summarises_configuration(arguments):
        from sfdkit.train.command import summary

        summary(arguments[2:])
        return
    from jsonargparse import auto_cli

    from sfdkit.config.command import Command
    from sfdkit.config.compose import config_files, read_config
    from sfdkit.config.parser import OneLineParser

    for file in config_files(arguments):
        read_config(Path(file))
    positional = command == "study"  # its one argument without a default is the folder
    made = auto_cli(
        {command: _component(command, *arguments[1:2])},
        args=arguments,
        as_positional=positional,
        parser_class=OneLineParser,
        return_instance=True,
    )
    if isinstance(made, Command):
        made.run()


def _summarises_configuration(arguments: Sequence[str]) -> bool:
    """Return whether this is ``sfdkit model summary`` of a configuration, with the trainer's keys; not of weights."""
    if list(arguments[:2]) != ["model", "summary"]:
        return False
    return "--checkpoint" not in {word.partition("=")[0] for word in arguments[2:]}


def _component(command: str, word: str = "") -> dict[str, Any] | Callable[..., Any]:
    """Return the functions behind a command; imported only now, since each pulls in its own libraries."""
    if command == "animate":
        from sfdkit.apply.animate import Animate

        return Animate
    if command == "live":
        from sfdkit.live.command import Live

        return Live
    if command == "page":
        from sfdkit.page.command import Page

        return Page
    if command == "edit":
        from sfdkit.apply.edit import Edit

        return Edit
    if command == "interpolate":
        from sfdkit.apply.edit import Interpolate

        return Interpolate
    if command == "export":
        from sfdkit.export.command import Export

        return Export
    if command == "bench":
        from sfdkit.bench.inference import BenchInference
        from sfdkit.bench.pipeline import BenchPipeline
        from sfdkit.bench.training import BenchTraining

        return {"inference": BenchInference, "training": BenchTraining, "pipeline": BenchPipeline}
    if command == "motion":
        from sfdkit.apply.extract import Extract

        return {"extract": Extract}
    if command == "evaluate":
        from sfdkit.evaluate.command import evaluate

        return evaluate
    if command == "study":
        from sfdkit.study import commands as study

        return {"run": study.run, "report": study.report, "sheet": study.sheet}
    if command == "measure":
        from sfdkit.face_networks.commands import train

        return {"train": train}
    if command == "prepare":
        from sfdkit.data.pack.prepare import commands

        return commands(word)
    if command == "crop":
        from sfdkit.data.pack.preview import Preview

        return {"preview": Preview}
    if command == "shards":
        from sfdkit.data.pack.commands import PackImages, PackPuppets, PackVideos, check, copy, ls

        packs = {"puppets": PackPuppets, "videos": PackVideos, "images": PackImages}
        return {"pack": packs, "ls": ls, "copy": copy, "check": check}
    if command == "model":
        from sfdkit.weights.commands import Card, Pack, Summary, list_shipped
        from sfdkit.weights.sharing import Push, Save

        own = {"list": list_shipped, "card": Card, "pack": Pack, "save": Save, "push": Push, "summary": Summary}
        return own
    from sfdkit.face_networks.commands import train_perceptual
    from sfdkit.puppets.commands import render_file, sheet

    return {"sheet": sheet, "render": render_file, "train-perceptual": train_perceptual}


def _look_here() -> None:
    """Let classes of one's own be found in the current folder, after all that is installed."""
    with suppress(OSError):  # the folder is gone
        here = os.getcwd()
        if not {"", here} & set(sys.path):
            sys.path.append(here)


_NOISE = re.compile(r"litlogger|^(?:GPU|TPU|HPU) available: False|You are using a CUDA device", re.IGNORECASE)
"""Lines of Lightning's log that are of no use here."""


def _quiet() -> None:
    """Silence what a user can do nothing about, and show the rest plainly."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # torch is not imported yet
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(lambda r: not _NOISE.search(r.getMessage()))
    for message in (
        "LightningCLI.s args parameter.*",  # main(args) hands them over on purpose
        ".*does not have many workers.*",  # decoding needs less than one core here
        ".*isinstance.treespec, LeafSpec.*",  # Lightning's own use of torch
        "Checkpoint directory .* exists and is not empty",  # a training that is resumed; another one is refused
        "The dirpath has changed from",  # a training that is resumed in another folder
        "The number of training batches .* is smaller than the logging interval",  # steps count over epochs
        "find_unused_parameters=True was specified",  # generator and discriminator take turns
    ):
        warnings.filterwarnings("ignore", message=message)
    warnings.formatwarning = lambda message, *_: f"sfdkit: warning: {message}\n"  # without where in which library
    if not sys.warnoptions:
        for category in (FutureWarning, DeprecationWarning, PendingDeprecationWarning):
            warnings.filterwarnings("ignore", category=category)  # libraries among themselves
