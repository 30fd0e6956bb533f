"""Models on the hub: saved, pushed and loaded again, against a stand-in for its HTTP interface."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

from sfdkit.checkpoint import adopt_weights, load_animator
from sfdkit.cli import main
from sfdkit.errors import ConfigError
from sfdkit.weights.hub import HubAddress
from tests.servers.hub import GATED, READER, TOKEN, Hub, Repository, serve_hub
from tests.tiny import tiny_animator
from tests.written import known_axes, lively_animator, write_checkpoint


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder, and the run that it was saved from."""
    folder = tmp_path_factory.mktemp("saved")
    (folder / "run/checkpoints").mkdir(parents=True)
    checkpoint = write_checkpoint(folder / "run/checkpoints/last.ckpt", lively_animator())
    known_axes().save(folder / "run/axes.json")
    assert main(["model", "save", "--checkpoint", str(checkpoint), "--output", str(folder / "mine")]) == 0
    return folder / "mine"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub that huggingface_hub, which has read its environment by now, is pointed to."""
    with serve_hub() as made:
        monkeypatch.setattr(constants, "ENDPOINT", made.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", made.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield made


def pushed(saved: Path, *words: str) -> int:
    return main(["model", "push", str(saved), "hf://ann/puppets", *words])


def error(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert main(words) == 1
    (line,) = (x for x in capsys.readouterr().err.splitlines() if x.startswith("sfdkit: error: "))
    return line


def test_what_is_pushed_is_loaded_again(saved: Path, hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    (saved / "secret.txt").write_text("not to be uploaded")
    capsys.readouterr()
    assert pushed(saved) == 0
    commit = hub.repositories["ann/puppets"].branches["main"]
    out = capsys.readouterr()
    assert out.out == f"hf://ann/puppets: {hub.url}/ann/puppets/commit/{commit}\n" and TOKEN not in out.out + out.err
    files = hub.repositories["ann/puppets"].commits[commit]
    assert set(files) == {".gitattributes", "README.md", "axes.json", "model.json", "model.safetensors"}

    loaded = load_animator("hf://ann/puppets")
    digest = json.loads((saved / "model.json").read_text())["sha256"]["model.safetensors"]
    assert capsys.readouterr().err.count(f"hf://ann/puppets: commit {commit}, sha256 {digest}\n") == 1
    assert loaded.axes == (saved / "axes.json").read_text()
    whole = load_animator(saved.parent / "run/checkpoints/last.ckpt")
    for name, value in whole.animator.state_dict().items():
        torch.testing.assert_close(loaded.animator.state_dict()[name], value, rtol=2**-11, atol=2**-25)
    assert loaded.train == whole.train and loaded.experiment == whole.experiment
    assert not any("README" in line or "secret" in line for line in hub.asked if line.startswith("GET"))
    target = tiny_animator(32, seed=1)
    assert adopt_weights(target, "hf://ann/puppets").left == []


def test_a_command_asks_once_and_a_second_time_nothing_is_downloaded(
    saved: Path, hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pushed(saved) == 0
    words = ["model", "pack", "--checkpoint", "hf://ann/puppets", "--output", str(tmp_path / "o.safetensors")]
    downloads = []
    for _ in range(2):
        hub.asked.clear()
        capsys.readouterr()
        assert main(words) == 0
        assert capsys.readouterr().err.count("commit ") == 1
        downloads.append([line for line in hub.asked if line.startswith("GET")])
        assert sum("HEAD" in line and "model.json" in line for line in hub.asked) == 1
    assert len(downloads[0]) == 3 and downloads[1] == []
    assert load_animator(tmp_path / "o.safetensors").axes is not None


def test_branches_commits_and_folders(saved: Path, hub: Hub) -> None:
    assert pushed(saved, "--revision", "trial") == 0 and pushed(saved, "--revision", "trial") == 0
    repository = hub.repositories["ann/puppets"]
    assert "model.json" not in repository.commits[repository.branches["main"]]
    commit = repository.branches["trial"]
    below = {f"small/it/{name}": content for name, content in repository.commits[commit].items()}
    repository.commit("dev/one", below)
    for address in ("hf://ann/puppets@trial", f"hf://ann/puppets@{commit}", "hf://ann/puppets@dev%2Fone/small/it"):
        assert load_animator(address).animator.resolution == 32


def test_the_cache_serves_when_the_hub_is_away(saved: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    assert pushed(saved) == 0
    load_animator("hf://ann/puppets")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert load_animator("hf://ann/puppets").animator.resolution == 32


def test_private_means_private(
    saved: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pushed(saved, "--private", "true") == 0 and hub.repositories["ann/puppets"].private
    load_animator("hf://ann/puppets")
    hub.repositories["ann/puppets"].private = False
    before = len(hub.repositories["ann/puppets"].commits)
    words = ["model", "push", str(saved), "hf://ann/puppets", "--private", "true"]
    assert "exists and is public" in error(words, capsys)
    assert len(hub.repositories["ann/puppets"].commits) == before


@pytest.mark.parametrize(
    ("token", "said"),
    [(None, "access is refused (status 401); log in"), (READER, "access is refused (status 403); log in")],
)
def test_who_may_not_push(
    token: str | None,
    said: str,
    saved: Path,
    hub: Hub,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("HF_TOKEN") if token is None else monkeypatch.setenv("HF_TOKEN", token)
    line = error(["model", "push", str(saved), "hf://ann/puppets"], capsys)
    assert said in line and READER not in line and not hub.repositories


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("hf://ann/nothing", "there is no hf://ann/nothing on http://127.0.0.1"),
        ("hf://ann/private", "or it is private: check the name, or log in"),
        (f"hf://{GATED}", "asks for consent"),
        ("hf://ann/other", "is no model folder: it lacks model.json"),
        ("hf://ann/other@nowhere", "has no such revision"),
        ("hf://ann/export", "it describes an exported model, which --model takes"),
        ("hf://ann/half", "is no model folder: it lacks model.safetensors"),
        ("hf://ann/changed", "files disagree: sha256 of model.safetensors is "),
    ],
)
def test_what_cannot_be_loaded_is_one_line(
    address: str,
    said: str,
    saved: Path,
    hub: Hub,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("HF_TOKEN", READER)
    about = (saved / "model.json").read_bytes()
    for name in ("private", "gated", "other", "export", "half", "changed"):
        hub.repositories[f"ann/{name}"] = Repository(name == "private")
    hub.repositories["ann/export"].commit("main", {"model.json": b'{"schema": "sfdkit.export/1"}'})
    hub.repositories["ann/half"].commit("main", {"model.json": about})
    axes = (saved / "axes.json").read_bytes()
    files = {"model.json": about, "axes.json": axes, "model.safetensors": b"another"}
    hub.repositories["ann/changed"].commit("main", files)
    assert said in error(["model", "summary", "--checkpoint", address], capsys)


def test_no_network_is_one_line(
    saved: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    summary, push = (
        ["model", "summary", "--checkpoint", "hf://ann/puppets"],
        ["model", "push", str(saved), "hf://ann/puppets"],
    )
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "cannot be reached (HF_HUB_OFFLINE is set), and model.json is not in the cache" in error(summary, capsys)
    assert "offline mode is enabled" in error(push, capsys)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.file_download._ETAG_RETRY_TIMEOUT", 0.1)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", "http://127.0.0.1:9/{repo_id}/{revision}/{filename}")
    assert "http://127.0.0.1:9 cannot be reached (" in error(summary, capsys)
    assert "check the network" in error(push, capsys)


@pytest.mark.parametrize(
    "address",
    [
        "hf://ann",
        "hf://",
        "hf:///x/y",
        "hf://ann/b/../c",
        "hf://ann/x@",
        "hf://ann/x@a/b@c",
        "hf://a b/c",
        "hf://ann/..",
    ],
)
def test_an_address_of_another_form_is_one_line(
    address: str, saved: Path, hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in (["summary", "--checkpoint", address], ["push", str(saved), address]):
        assert "is no address on the hub; write hf://user/name" in error(["model", *words], capsys)
    assert not hub.asked


def test_addresses() -> None:
    assert HubAddress.parse("hf://a/b") == ("a/b", None, "")
    assert HubAddress.parse("hf://a/b@v1.0/c/d/") == ("a/b", "v1.0", "c/d")
    assert str(HubAddress.parse("hf://a/b@v1.0/c/d")) == "hf://a/b@v1.0/c/d"
    with pytest.raises(ConfigError):
        HubAddress.parse("HF://a/b")


@pytest.mark.parametrize("address", ["hf://ann/puppets@main", "hf://ann/puppets/below"])
def test_push_takes_a_repository_alone(address: str, saved: Path, hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    assert "is more than a repository" in error(["model", "push", str(saved), address], capsys)
    assert not hub.asked


def test_push_takes_model_folders_alone(
    saved: Path, hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in (tmp_path, saved.parent / "run", tmp_path / "nowhere"):
        assert "is no model folder: model.json cannot be read" in error(
            ["model", "push", str(folder), "hf://ann/puppets"], capsys
        )
    assert not hub.asked


def test_the_environment_names_the_hub(saved: Path, hub: Hub, tmp_path: Path) -> None:
    """Another process, as a user would start it."""
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HUB_CACHE": str(tmp_path / "other"), "HF_HUB_OFFLINE": "0"}
    assert pushed(saved) == 0
    words = [sys.executable, "-m", "sfdkit", "model", "card", "--checkpoint", "hf://ann/puppets"]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "pixels:      32" in done.stdout, done.stderr
    assert (tmp_path / "other/models--ann--puppets").is_dir()
