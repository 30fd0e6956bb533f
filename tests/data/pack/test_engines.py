"""Encoding on a Ray cluster."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import pytest

from sfdkit.data.pack.engines import engine
from sfdkit.data.pack.sources import ClipSettings
from sfdkit.data.pack.video_source import VideoSource
from sfdkit.errors import ConfigError, DataError
from sfdkit.media.crop import CropRule
from tests.plain import contents, pack_plain, plain_sources


def test_without_ray_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    imported = builtins.__import__

    def without_ray(name: str, *arguments: Any, **values: Any) -> Any:
        if name == "ray":
            raise ImportError(name)
        return imported(name, *arguments, **values)

    monkeypatch.setattr(builtins, "__import__", without_ray)
    with pytest.raises(ConfigError, match=r"pip install 'sfdkit\[cluster\]'"):
        pack_plain(tmp_path / "out", engine="ray")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.timeout(180)  # Ray sets itself no limit
def test_two_nodes_share_the_work_and_the_shards_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray", reason="the extra cluster is not installed")
    from ray.cluster_utils import Cluster

    notes = tmp_path / "notes"
    notes.mkdir()
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 80_000_000})
    try:
        cluster.add_node(num_cpus=1, object_store_memory=80_000_000)
        monkeypatch.setenv("RAY_ADDRESS", cluster.address)
        pack_plain(tmp_path / "ray", plain_sources(notes=notes, pause=0.1), engine="ray")
        settings = ClipSettings(32, CropRule("none", 0.0), 8, 2, 25.0)
        absent = VideoSource(tmp_path / "a.mp4", "a", "a.mp4", "a", "plain", "CC0-1.0", settings)
        with pytest.raises(DataError, match=r"has no .*a\.mp4: mount the folder"), engine("ray", 1) as encode:
            list(encode([(0, absent)], tmp_path))
    finally:
        cluster.shutdown()
    nodes = [path.name.split("@")[1] for path in notes.iterdir()]
    assert len(nodes) == 24 and len(set(nodes)) == 2
    pack_plain(tmp_path / "here")
    assert contents(tmp_path / "ray") == contents(tmp_path / "here")


def test_a_cluster_that_does_not_answer_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray", reason="the extra cluster is not installed")
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(DataError, match=r"no Ray cluster answers at .*0\.1:1' \(Connection refused\)"):
        pack_plain(tmp_path / "out", engine="ray")
