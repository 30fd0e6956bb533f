from __future__ import annotations

import logging
import os
import platform
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest
import torch
from PIL import Image

from sfdkit import __version__
from sfdkit.cli import COMMANDS, TRAINER_COMMANDS, main
from sfdkit.points import FACE31
from sfdkit.train.command import build
from tests.running import EXPERIMENTS, SLOTS, config, fit, logging_to, make_data, small


def test_module_and_help() -> None:
    done = subprocess.run([sys.executable, "-m", "sfdkit", "--help"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert all(command in done.stdout for command in COMMANDS)
    lines = done.stdout.splitlines()
    assert len(lines) <= 24 and max(map(len, lines)) <= 80  # one screen


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert __version__ in capsys.readouterr().out


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
@pytest.mark.parametrize(("given", "kept"), [({}, True), ({"MALLOC_TRIM_THRESHOLD_": "131072"}, False)])
def test_freed_memory_is_kept(given: dict[str, str], kept: bool) -> None:
    """Without, each round below faults 64 MB in again."""
    program = """if True:
        import resource
        import numpy as np
        from sfdkit.cli import main
        main(["--version"])
        for _ in range(3):
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            arrays = [np.ones(2**20) for _ in range(8)]
            del arrays
        print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    made = subprocess.run(
        [sys.executable, "-c", program], env=environment | given, capture_output=True, text=True, check=True, timeout=60
    )
    faults = int(made.stdout.split()[-1])
    assert faults < 20 if kept else faults > 20


def test_unknown_command_suggests_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["animat"]) == 1
    assert "Did you mean 'animate'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["animate"],
        ["edit"],
        ["interpolate"],
        ["motion", "extract"],
        ["evaluate"],
        ["shards", "pack", "videos"],
        ["shards", "check"],
        ["puppets", "sheet"],
    ],
)
def test_each_command_explains_itself(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([*words, "--help"])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    assert "--folder" in out if words[-1] == "check" else "--output" in out


def test_help_of_model_summary_names_both_ways(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["model", "summary", "--help"])
    usage = capsys.readouterr().out.splitlines()[:2]
    assert "--config FILE" in usage[0] and usage[1].strip() == "or: sfdkit model summary --checkpoint C"


def test_model_summary(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["model", "summary", *config(*SLOTS), "--data.init_args.resolution=128"]) == 0
    out = capsys.readouterr().out
    assert "GMAC" in out and "driven frame at 128" in out


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("--model.animator.init_args.encoder.init_args.name=resnet_18", "Did you mean 'resnet18'"),
        ("--model.weights.l3=1", "there is no loss term 'l3'"),
        ("--model.animator.init_args.generator.init_args.latent_size=64", "latent_size 128, generator has 64"),
        ("--data.init_args.resolution=48", "resolution must be 32, 64"),
        ("--model.weights.adversarial=1", "no discriminator"),
        ("--model.weights.feature_matching=1", "without which no discriminator learns"),
        ("--data.init_args.root=/no/such/shards", "/no/such/shards"),
        ("--trainer.accumulate_grad_batches=2", "set model.accumulate_grad_batches"),
        ("--trainer.gradient_clip_val=1", "set model.gradient_clip_norm"),
        ("--trainer.enable_checkpointing=false", "set checkpoint.save_last"),
        ("--model.optimizer.init_args.lr=-1", "model.optimizer: Invalid learning rate: -1.0"),
        ("--trainer.accelerator=gpu", "--trainer.accelerator auto takes what there is"),
        ("--trainer.accelerator=gqu", "accelerator='gqu'"),
        ("--trainer.strategy=dpp", "strategy='dpp'"),
        ("--trainer.max_time=soon", "DD:HH:MM:SS"),
        ("--trainer.val_check_interval=1000", "val_check_interval"),
        ("--trainer.logger=WandbLogger", "pip install -U 'wandb"),
        ("--trainer.check_val_every_n_epoch=0", "set trainer.limit_val_batches to 0"),
        ("--trainer.logger.init_args.save_dir=/proc/none", "/proc/none: No such file or directory"),
        ("--checkpoint.dirpath=/proc/none", "checkpoint.dirpath /proc/none cannot be made"),
        ("--ckpt_path=memory://none.ckpt", "memory://none.ckpt does not exist"),
        ("--ckpt_path=nowhere.ckpt", "checkpoint nowhere.ckpt does not exist"),
        ("--ckpt_path=puppets64", "no training that could go on; begin one with --model.start_from puppets64"),
        ("--ckpt_path=mine.safetensors", "begin one with --model.start_from mine.safetensors"),
    ],
)
def test_bad_values_are_one_line(override: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = make_data(tmp_path / "shards")
    logger = "--trainer.logger=TensorBoardLogger" if "save_dir" in override else "--trainer.logger=false"
    arguments = [*config(*SLOTS), *small(data, tmp_path), logger, override]
    assert main(["fit", *arguments]) == 1
    err = capsys.readouterr().err.strip().splitlines()[-1]
    assert err.startswith("sfdkit: error: ") and words in err


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("shards"), points=FACE31)


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that a command says before it leaves."""
    try:
        assert main(words) == 1
    except SystemExit as stop:
        assert stop.code == 2
    output = capsys.readouterr()
    (line,) = (output.out + output.err).strip().splitlines()
    assert line.startswith("sfdkit: error: ")
    return line.removeprefix("sfdkit: error: ")


ENCODER = "model.animator.init_args.encoder"
BASIS = "model.animator.init_args.descriptors.init_args"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--modle.warmup_steps", "3"], "no option --modle.warmup_steps. Did you mean --model.warmup_steps?"),
        (["--model.warmup_step", "3"], "no option --model.warmup_step. Did you mean --model.warmup_steps?"),
        (["--max_steps", "3"], "Did you mean --trainer.max_steps?"),
        (["--batch_size=3"], "Did you mean --data.init_args.batch_size?"),
        (["other.yaml"], "Did you mean --config other.yaml?"),
        ([f"--{ENCODER}.init_args.nam=x"], f"{ENCODER}.init_args: sfdkit.model.encoders.TimmEncoder has no argument"),
        ([f"--{ENCODER}.class_path=TimmEncodr"], "Did you mean TimmEncoder?"),
        ([f"--{ENCODER}.class_path=nowhere.Mine"], "there is no module 'nowhere' for nowhere.Mine"),
        ([f"--{ENCODER}.class_path=sfdkit.model.encoders.TimEncoder"], "Did you mean TimmEncoder?"),
        (["--model.warmup_steps=soon"], "model.warmup_steps: 'soon' is no whole number"),
        (["--model.cross_share=3"], "model.cross_share: 3 is out of range"),
        (["--model.gradient_clip_factor=-1"], "model.gradient_clip_factor: -1 is out of range; give 0 or more"),
        (["--ema.decay=1.5"], "ema.decay: 1.5 is out of range; give 0 to 1"),
        (["--pictures.every=0"], "pictures.every: 0 is out of range; give more than 0"),
        ([f"--{BASIS}.motion_size=0"], f"{BASIS}.motion_size: 0 is out of range; give more than 0"),
        (["--trainer.precision=bf61"], "trainer.precision: 'bf61' will not do; it takes"),
        (
            ["--model.optimizer.init_args.lr=fast"],
            "model.optimizer.init_args.lr: 'fast' will not do; it takes a number",
        ),
        (["--model.optimizer.init_args.lrr=1"], "torch.optim.Adam has no argument 'lrr'. Did you mean lr?"),
        (["--trainer=/bin/sh"], "a file of the command line is no text in UTF-8"),
        (["--config"], "--config needs a file"),
    ],
)
def test_what_the_parser_refuses_is_one_line(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert said in refused(["fit", *config(*SLOTS), *words], capsys)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["shards"], "sfdkit shards needs one of pack, ls, copy, check"),
        (["shards", "pakc"], "there is no sfdkit shards 'pakc'. Did you mean pack?"),
        (["shards", "pack", "puppet"], "Did you mean puppets?"),
        (["shards", "pack", "puppets"], "sfdkit shards pack puppets needs --output"),
        (["shards", "pack", "puppets", "--output=o", "--resolutoin=64"], "Did you mean --resolution?"),
        (["shards", "pack", "puppets", "--output=o", "--resolution=big"], "resolution: 'big' is no whole number"),
        (["animate"], "sfdkit animate needs --source and --output"),
        (["animate", "--chekpoint", "x"], "Did you mean --checkpoint?"),
        (["animate", "--checkpoint"], "--checkpoint needs a value"),
        (["animate", "x"], "can do nothing with 'x'"),
        (["animate", "--config", "no.yaml"], "config file no.yaml cannot be read"),
        (["study", "run"], "sfdkit study run needs FOLDER"),
        (["model", "sumary"], "there is no sfdkit model 'sumary'. Did you mean summary?"),
        (["model", "pack"], "sfdkit model pack needs --checkpoint and --output"),
        (["fit"], "sfdkit fit needs a configuration, for example: sfdkit fit --config experiments/quickstart.yaml"),
        (["test", "--trainer.max_steps=3"], "sfdkit test needs a configuration"),
        (["fit", "mine.yaml"], "sfdkit fit --config mine.yaml"),
        (["model", "summary"], "sfdkit model summary needs a configuration"),
    ],
)
def test_careless_words_are_one_line(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert said in refused(words, capsys)


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
@pytest.mark.parametrize("words", [["fit"], ["animate"]])
def test_a_config_in_another_encoding(
    encoding: str, words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.yaml").write_text("# größe\ntrainer: {max_steps: 1}\n", encoding=encoding)
    line = refused([*words, "--config", str(tmp_path / "mine.yaml")], capsys)
    assert "mine.yaml is no text in UTF-8" in line and "save it in UTF-8" in line


@pytest.mark.parametrize("command", TRAINER_COMMANDS)
@pytest.mark.parametrize("name", ["none", "picture", "zip", "empty", "folder", "half", "other", "objects"])
def test_what_is_no_checkpoint(
    name: str, command: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / name
    whole = tmp_path / "whole"
    torch.save({"a": torch.zeros(1000)}, whole)
    if name == "picture":
        Image.new("RGB", (8, 8)).save(path, "PNG")
    elif name == "zip":
        with ZipFile(path, "w") as archive:
            archive.writestr("a.txt", "a")
    elif name == "empty":
        path.touch()
    elif name == "folder":
        path.mkdir()
    elif name == "half":
        path.write_bytes(whole.read_bytes()[:2000])
    elif name == "other":
        whole.replace(path)
    elif name == "objects":
        torch.save(torch.nn.Linear(2, 2), path)
    given = [a for a in small(data, tmp_path) if command == "fit" or "max_steps" not in a]
    lines = [refused([command, *config(*SLOTS), *given, f"--ckpt_path={path}"], capsys)]
    if command == "fit":
        lines.append(
            refused(["animate", f"--checkpoint={path}", "--source=s", "--driving=d", "--output=o.mp4"], capsys)
        )
    for line in lines:
        assert str(path) in line and "sfdkit fit w" in line and "weights_only" not in line


@pytest.mark.parametrize("file", sorted(p.name for p in EXPERIMENTS.glob("*.yaml") if p.name != "base.yaml"))
@pytest.mark.parametrize("above", [(), ("trainer/gpu.yaml",), ("trainer/ddp.yaml",)])
def test_a_summary_needs_no_accelerator(
    file: str, above: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sfdkit.train.command.summary_table", lambda animator: f"{type(animator).__name__} is built")
    small_parts = ["--model.animator.init_args.generator.init_args.width=4", "--model.discriminator=null"]
    off = ["--model.weights.adversarial=0", "--model.weights.feature_matching=0"]
    given = [*small_parts, *off, f"--{ENCODER}.init_args.pretrained=false"]
    assert main(["model", "summary", *config(file, *above), *given]) == 0
    assert "FaceAnimator is built" in capsys.readouterr().out


COUNTS = ["limit_train_batches", "limit_val_batches", "limit_test_batches", "limit_predict_batches"]


@pytest.mark.parametrize(("written", "meant"), [("1", int), ("1.0", float), ("0.5", float), ("3", int)])
def test_one_batch_is_not_all_of_them(written: str, meant: type, data: Path, tmp_path: Path) -> None:
    keys = [*COUNTS, "overfit_batches", "val_check_interval"]
    (tmp_path / "mine.yaml").write_text("trainer:\n" + "".join(f"  {key}: {written}\n" for key in keys))
    given = [*config(*SLOTS), *small(data, tmp_path), "--trainer.logger=false"]
    by_file = build([*given, "--config", str(tmp_path / "mine.yaml")])
    by_hand = build([*given, *(f"--trainer.{key}={written}" for key in keys)])
    for cli in (by_file, by_hand):
        for key in keys:
            value = cli.config.trainer[key]
            assert type(value) is meant and value == float(written), key
        assert type(cli.trainer.limit_val_batches) is meant


def test_an_encoder_of_the_current_folder(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Found after what is installed, when training and when a checkpoint is loaded."""
    code = "from sfdkit.model.encoders import TimmEncoder\n\n\nclass Mine(TimmEncoder):\n    pass\n"
    (tmp_path / "own_encoder_here.py").write_text(code)
    Image.new("RGB", (32, 32)).save(tmp_path / "face.png")
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p])
    monkeypatch.delitem(sys.modules, "own_encoder_here", raising=False)
    animate = ["animate", "--source=face.png", "--driving=face.png", "--crop=none", "--output=o.png"]
    own = f"--{ENCODER}.class_path=own_encoder_here.Mine"
    assert "no module 'own_encoder_here'" in refused(["fit", *config(*SLOTS), own], capsys)
    monkeypatch.chdir(tmp_path)
    checkpoint = fit(data, tmp_path / "run", own)
    assert sys.path[-1] == str(tmp_path)
    assert "--trust [own_encoder_here]" in refused([*animate, f"--checkpoint={checkpoint}"], capsys)
    assert main([*animate, f"--checkpoint={checkpoint}", "--trust=[own_encoder_here]"]) == 0
    assert (tmp_path / "o.png").is_file()


def test_a_training_prints_what_a_user_needs(data: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.extend(record.getMessage().splitlines())  # type: ignore[method-assign]
    logger = logging.getLogger("lightning.pytorch")
    logger.addHandler(handler)
    try:
        fit(data, tmp_path)
    finally:
        logger.removeHandler(handler)
    assert any(line.startswith("parameters: animator ") for line in lines)
    assert f"logs and config.yaml in {tmp_path}/logs; checkpoints in {tmp_path}/checkpoints" in lines


def test_a_training_prints_no_more(data: Path, tmp_path: Path) -> None:
    words = ["fit", *config(*SLOTS), *small(data, tmp_path), *logging_to(tmp_path)]
    done = subprocess.run([sys.executable, "-m", "sfdkit", *words], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0
    text = done.stdout + done.stderr
    for noise in (
        "TPU",
        "GPU",
        "FLOPs",
        "Flops",
        "eval mode",
        "litlogger",
        "Warning",
        "site-packages",
        "exists and is",
    ):
        assert noise not in text
    assert len(text.splitlines()) <= 8


@pytest.mark.parametrize("words", [["fit"], ["predict"], ["model", "summary"]])
def test_help_of_the_trainer_fits_a_few_screens(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([*words, "--help"])
    out = capsys.readouterr().out
    assert stop.value.code == 0 and len(out.splitlines()) <= 120
    for key in ("model.weights", "data.init_args.root", "checkpoint.dirpath", "trainer.max_steps", "help_all"):
        assert f"--{key}" in out
    assert "`" not in out and "Args:" not in out


@pytest.mark.parametrize(
    "words", [["fit", "--help_all"], ["animate", "--help"], ["shards", "pack", "puppets", "--help"]]
)
def test_whole_help_has_no_markup(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(words)
    out = capsys.readouterr().out
    assert stop.value.code == 0
    assert "``" not in out and ":class:" not in out and "[options]" not in out
    assert words[0] != "fit" or "--trainer.reload_dataloaders_every_n_epochs" in out


def test_output_that_nobody_reads_is_no_error() -> None:
    command = f"set -o pipefail; {sys.executable} -m sfdkit fit --help_all | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert "Traceback" not in done.stderr and done.stdout.startswith("usage: sfdkit fit")


def test_misspelt_key_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.yaml").write_text("model: {warmup_step: 3}\n")
    with pytest.raises(SystemExit) as stop:
        main(["fit", *config(*SLOTS), "--config", str(tmp_path / "mine.yaml")])
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "mine.yaml: there is no key 'model.warmup_step'. Did you mean model.warmup_steps?" in line


def test_missing_config_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--config", "no/such.yaml"]) == 1
    assert "no/such.yaml cannot be read" in capsys.readouterr().err
