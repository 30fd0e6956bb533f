"""Base class of the loss terms."""

from __future__ import annotations

from torch import nn

from sfdkit.model.blocks import in_float32


class LossTerm(nn.Module):
    """A loss term: it computes in float32, whatever precision the networks run in."""

    __call__ = in_float32(nn.Module.__call__)
