from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sfdkit.apply.axes import Axes, BlockAxes, Direction, VectorFactor, raw_step
from sfdkit.errors import CheckpointError, ConfigError, DataError
from sfdkit.model.descriptors import DescriptorLayer
from sfdkit.model.fingerprints import basis_fingerprint


def layer(seed: int = 0, **options: Any) -> DescriptorLayer:
    torch.manual_seed(seed)
    return DescriptorLayer(**{"identity_size": 5, "motion_size": 3, **options})


def some_axes(descriptors: DescriptorLayer | None = None) -> Axes:
    motion = BlockAxes(
        np.array([0.1, -0.2, 1 / 3], np.float32),
        np.array([0.5, 0.25, 2.0], np.float32),
        (VectorFactor(0, "yaw", 0.93, 0.88), VectorFactor(2, None, 0.01, 0.02)),
        {
            "yaw": Direction(np.array([0.02, 0.01, 0.0], np.float32), "degrees"),
            "smile": Direction(np.array([0.0, 0.0, 0.7], np.float32), "of its range"),
        },
    )
    identity = BlockAxes(
        np.zeros(5, np.float32),
        np.array([1.0, 2.0, 0.0, 1.0, 1.0], np.float32),
        (),
        {"age": Direction(np.arange(5, dtype=np.float32), "of its range")},
    )
    return Axes(basis_fingerprint(descriptors or layer()), motion, identity)


def test_a_file_gives_back_what_was_written(tmp_path: Path) -> None:
    written = some_axes()
    written.save(tmp_path / "axes.json")
    read = Axes.load(tmp_path / "axes.json", basis_fingerprint(layer()))
    assert read.basis == written.basis
    for one, other in ((read.motion, written.motion), (read.identity, written.identity)):
        assert (one.mean == other.mean).all() and (one.std == other.std).all()
        assert one.vectors == other.vectors
        assert list(one.directions) == list(other.directions)
        for name, direction in one.directions.items():
            assert (direction.vector == other.directions[name].vector).all()
            assert direction.unit == other.directions[name].unit
    assert [p.name for p in tmp_path.iterdir()] == ["axes.json"]


def test_the_file_has_the_keys_of_its_schema(tmp_path: Path) -> None:
    some_axes().save(tmp_path / "axes.json")
    content = json.loads((tmp_path / "axes.json").read_text())
    assert set(content) == {"schema", "basis", "motion", "identity"} and content["schema"] == "sfdkit.apply.axes/1"
    assert set(content["motion"]) == {"mean", "std", "vectors", "directions"}
    assert content["motion"]["vectors"][0] == {"index": 0, "factor": "yaw", "explains": 0.93, "share": 0.88}
    assert content["motion"]["vectors"][1]["factor"] is None
    assert content["motion"]["directions"]["yaw"] == {"vector": [0.02, 0.01, 0.0], "unit": "degrees"}


def test_the_fingerprint_knows_weights_and_switches_and_nothing_else() -> None:
    own = basis_fingerprint(layer())
    assert re.fullmatch("[0-9a-f]{16}", own)
    assert basis_fingerprint(layer().eval()) == own == basis_fingerprint(layer().double())
    nudged = layer()
    with torch.no_grad():
        nudged.weight[0, 0] += 1e-3
    others = [layer(1), nudged, layer(orthogonal=False), layer(identity_size=4, motion_size=4)]
    assert len({own, *map(basis_fingerprint, others)}) == 5


def test_a_factor_moves_in_its_unit() -> None:
    step = some_axes().step("yaw", -10.0)
    assert np.allclose(step.motion, np.array([-0.2, -0.1, 0.0], np.float32))
    assert not step.identity.any()
    assert some_axes().step("motion:yaw", -10.0).motion.tolist() == step.motion.tolist()
    age = some_axes().step("age", 0.5)
    assert age.identity.tolist() == [0.0, 0.5, 1.0, 1.5, 2.0] and not age.motion.any()


def test_sigma_is_the_distance_in_standard_deviations() -> None:
    axes = some_axes()
    step = axes.step("yaw", 1.0, sigma=True).motion
    assert float(np.square(step / axes.motion.std).sum()) == pytest.approx(1.0)
    assert np.allclose(step / step[1], np.array([2.0, 1.0, 0.0], np.float32))
    assert axes.step("smile", 1.5, sigma=True).motion.tolist() == pytest.approx([0, 0, 3.0])  # 1.5 times a std of 2
    age = axes.step("age", 1.0, sigma=True).identity  # the coefficient that never moves does not count
    assert float(np.square((age / np.maximum(axes.identity.std, 1e-9))[[0, 1, 3, 4]]).sum()) == pytest.approx(1.0)


def test_a_basis_vector_moves_in_its_standard_deviation() -> None:
    assert some_axes().step("motion:1", 3.0).motion.tolist() == [0.0, 0.75, 0.0]
    assert some_axes().step("identity:1", -1.0).identity.tolist() == [0.0, -2.0, 0.0, 0.0, 0.0]
    assert some_axes().unit("motion:1") == "sigma" == some_axes().unit("yaw", sigma=True)
    assert some_axes().unit("yaw") == "degrees"


def test_without_a_file_a_basis_vector_moves_in_raw_coefficients() -> None:
    assert raw_step("motion:1", 3.0, 5, 3).motion.tolist() == [0.0, 3.0, 0.0]
    assert raw_step("identity:4", 0.5, 5, 3).identity.tolist() == [0.0, 0.0, 0.0, 0.0, 0.5]
    with pytest.raises(ConfigError, match=r"'yaw' is a name, and names need an axes\.json; give --axes FILE"):
        raw_step("yaw", 1.0, 5, 3)
    with pytest.raises(ConfigError, match=r"motion:3 does not exist: there are 3 motion vectors, motion:0 to 2"):
        raw_step("motion:3", 1.0, 5, 3)


@pytest.mark.parametrize(
    ("axis", "words"),
    [
        ("yew", r"there is no 'yew'\. Did you mean 'yaw'\? The axes are yaw, smile, age, and motion:0 to motion:2"),
        ("motion:smil", r"there is no 'motion:smil'\. Did you mean 'smile'"),
        ("motion:age", "there is no 'motion:age'"),
        ("motion:3", "motion:3 does not exist: there are 3 motion vectors"),
        ("identity:-1", "there is no 'identity:-1'"),
        ("3", "there is no '3'"),
    ],
)
def test_axes_that_do_not_exist(axis: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        some_axes().step(axis, 1.0)


def test_a_factor_of_both_blocks_needs_its_block() -> None:
    axes = some_axes()
    both = Axes(
        axes.basis,
        axes.motion,
        BlockAxes(axes.identity.mean, axes.identity.std, (), {"yaw": Direction(np.ones(5, np.float32), "x")}),
    )
    with pytest.raises(ConfigError, match="write motion:yaw or identity:yaw"):
        both.step("yaw", 1.0)
    assert both.step("identity:yaw", 2.0).identity.tolist() == [2.0] * 5


def test_a_direction_that_moves_nothing_has_no_sigma() -> None:
    axes = some_axes()
    still = BlockAxes(axes.motion.mean, axes.motion.std, (), {"blink": Direction(np.zeros(3, np.float32), "x")})
    with pytest.raises(ConfigError, match="'blink' moves no coefficient that varies"):
        Axes(axes.basis, still, axes.identity).step("blink", 1.0, sigma=True)


def test_axes_of_another_model_are_refused(tmp_path: Path) -> None:
    some_axes().save(tmp_path / "axes.json")
    with pytest.raises(
        CheckpointError, match=r"axes\.json were measured on another model \(basis [0-9a-f]{16}, this one"
    ):
        Axes.load(tmp_path / "axes.json", basis_fingerprint(layer(1)))


def broken(content: dict[str, Any], where: str, value: Any) -> dict[str, Any]:
    target: Any = content
    *path, last = [int(key) if key.isdecimal() else key for key in where.split(".")]
    for key in path:
        target = target[key]
    if value is None:
        del target[last]
    else:
        target[last] = value
    return content


@pytest.mark.parametrize(
    ("where", "value", "words"),
    [
        ("schema", "sfdkit.apply.axes/2", "schema is 'sfdkit.apply.axes/2', this sfdkit reads 'sfdkit.apply.axes/1'"),
        ("basis", 7, "basis must be a text, it is 7"),
        ("identity", None, "the file lacks keys or has unknown ones: identity"),
        ("motion.std", None, "motion lacks keys or has unknown ones: std"),
        ("motion.std", [0.5, 0.25], "motion.std has 2 numbers, the block has 3 coefficients"),
        ("motion.std", [0.5, 0.25, -1.0], "motion.std holds a negative number"),
        ("motion.mean", [0.1, float("nan"), 0.0], "motion.mean must be a finite number, it is nan"),
        ("motion.mean", [0.1, "x", 0.0], "motion.mean must be a finite number, it is 'x'"),
        ("motion.vectors.0.index", 3, r"motion.vectors\[0\].index must be a whole number from 0 to 2, it is 3"),
        ("motion.vectors.1.index", 0, "motion.vectors names a coefficient twice"),
        ("motion.vectors.0.share", "a", r"motion.vectors\[0\].share must be a finite number"),
        ("motion.directions.yaw.unit", None, "motion.directions.yaw lacks keys or has unknown ones: unit"),
        ("motion.directions.yaw.vector", [1.0], "motion.directions.yaw.vector has 1 numbers"),
        (
            "motion.directions.a:b",
            {"vector": [1.0] * 3, "unit": "x"},
            "motion.directions has the name 'a:b', which no axis can have",
        ),
    ],
)
def test_what_is_wrong_in_a_file_is_named(tmp_path: Path, where: str, value: Any, words: str) -> None:
    path = tmp_path / "axes.json"
    some_axes().save(path)
    path.write_text(json.dumps(broken(json.loads(path.read_text()), where, value)))
    with pytest.raises(DataError, match=rf"axes\.json: {words}"):
        Axes.load(path)


def test_files_that_are_no_axes(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"axes .*gone\.json cannot be read: No such file"):
        Axes.load(tmp_path / "gone.json")
    (tmp_path / "cut.json").write_text('{"schema": "sfdkit.ax')
    with pytest.raises(DataError, match=r"cut\.json is no json"):
        Axes.load(tmp_path / "cut.json")


def test_what_could_not_be_read_back_is_not_written(tmp_path: Path) -> None:
    axes = some_axes()
    wrong = Axes(
        axes.basis, BlockAxes(np.zeros(3, np.float32), np.array([1.0, float("inf"), 1.0], np.float32)), axes.identity
    )
    with pytest.raises(ValueError, match=r"motion\.std must be a finite number"):
        wrong.save(tmp_path / "axes.json")
    assert not list(tmp_path.iterdir())
