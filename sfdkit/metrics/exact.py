"""Calculations in float64: on the CPU, since not every device has it (Apple's has none)."""

from __future__ import annotations

import torch
from torch import Tensor


def exact(values: Tensor) -> Tensor:
    """Return values in float64 on the CPU, without gradient: brought there first, then converted."""
    return values.detach().cpu().double()


def place_for_exact(device: torch.device) -> torch.device:
    """Return the device itself where it has float64, else the CPU."""
    return torch.device("cpu") if device.type == "mps" else device
