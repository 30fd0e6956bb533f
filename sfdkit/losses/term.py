"""What all loss terms share: they compute in float32, whatever precision the networks run in."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sfdkit.model.blocks import full_precision


class LossTerm(nn.Module):
    """A loss term: under autocast it computes as it would without, in float32.

    Autocast would run the convolutions and matrix products of a term in bfloat16. The structural similarity of two
    equal flat pictures is then off by up to 2, as the variances in it are small differences of large numbers.
    """

    def __call__(self, *arguments: Any) -> Tensor:
        """Call ``forward`` without autocast, with floating tensors in float32."""
        floats = [
            value.float() if isinstance(value, Tensor) and value.is_floating_point() else value for value in arguments
        ]
        device = next((value for value in arguments if isinstance(value, Tensor)), torch.empty(0))
        with full_precision(device):
            return super().__call__(*floats)
