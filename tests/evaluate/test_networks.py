from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sfdkit.errors import CheckpointError, ConfigError
from sfdkit.evaluate.networks import READ, open_networks
from sfdkit.face_networks.types import MeasureSettings

CPU = torch.device("cpu")


def test_what_measures_is_opened_or_said_to_be_missing(tmp_path: Path) -> None:
    nothing = open_networks(MeasureSettings(regressor="none", lpips="none"), 32, True, CPU)
    assert (nothing.measurer, nothing.lpips, nothing.features) == (None, None, None)
    assert set(nothing.missing) == {f"{what.capitalize()}, read by a network" for what in READ} | {
        "LPIPS",
        "FID and KID",
    }
    with pytest.raises(CheckpointError, match=r"regressor .*gone\.safetensors does not exist"):
        open_networks(MeasureSettings(regressor=str(tmp_path / "gone.safetensors"), lpips="none"), 32, True, CPU)
    with pytest.raises(ConfigError, match=r"lpips: .*gone\.pth is no file"):
        open_networks(MeasureSettings(regressor="none", lpips=str(tmp_path / "gone.pth")), 32, True, CPU)
