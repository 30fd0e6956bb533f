"""What a GPU would be waited for is found on a CPU, by the calls that wait."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sfdkit.points import FACE31
from tests.running import make_data
from tests.train.test_training import WITH_GAN
from tests.train.waiting import _Watch, waits

CROSSED = ("--model.weights.reencode=0.1", "--model.weights.cycle=0.1", "--trainer.enable_progress_bar=true")
POINTS = (
    *(f"--model.weights.{term}=0.1" for term in ("parts", "points", "proportions")),
    "--data.init_args.augmentation.joint_tps=0.02",
)


@pytest.mark.parametrize("extra", [(), (*WITH_GAN, *CROSSED, *POINTS)], ids=["as it is", "with all there is"])
def test_a_step_that_is_not_logged_waits_for_nothing(extra: tuple[str, ...], tmp_path: Path) -> None:
    data = make_data(tmp_path / "data", (20, 20), FACE31)
    assert waits(data, tmp_path, "cpu", *extra) == []


def test_the_watch_sees_what_waits() -> None:
    value = torch.tensor([1.0, 2.0])
    with _Watch() as watch:
        float(value[0])
        value[value > 1]
        torch.tensor(1.0, device="cpu")
        bool(value.sum() > 1)
        value[torch.tensor([0])].mul_(2).clamp(max=1)
    assert [call.split(" ")[0] for call in watch.calls] == ["__float__", "__getitem__", "tensor", "__bool__"]
