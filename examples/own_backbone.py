"""A backbone of one's own: a subclass of Encoder, trained a few steps and loaded again.

python own_backbone.py --steps 200 --output runs/own_backbone

On the command line its class_path is own_backbone.Pyramid, from the folder of this file.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from train import PIXELS, animator, options, part, puppets, train

from sfdkit.checkpoint import load_animator
from sfdkit.model.encoders import Encoder


class Pyramid(Encoder):
    """Convolutions that halve the picture four times; the maps of all but the first are given.

    Args:
        resolution: Height and width of its input.
        width: Channels of the first map.
    """

    def __init__(self, resolution: int = PIXELS, width: int = 16) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(4)]
        self.resolution = resolution
        self.channels = tuple(widths[1:])
        self.sizes = tuple(resolution // 2 ** (level + 1) for level in range(1, 4))
        self.levels = nn.ModuleList(
            nn.Sequential(nn.Conv2d(before, after, 3, stride=2, padding=1), nn.GroupNorm(4, after), nn.SiLU())
            for before, after in zip([3, *widths], widths, strict=False)
        )

    def forward(self, image: Tensor) -> list[Tensor]:
        """Map B 3 R R in [0, 1] to feature maps, finest first."""
        maps = [image * 2 - 1]
        for level in self.levels:
            maps.append(level(maps[-1]))
        return maps[2:]


if __name__ == "__main__":
    given = options(__doc__)
    trust = ("own_backbone",)  # this file; nothing outside sfdkit is built unless it is named
    config = animator(part("own_backbone.Pyramid", width=16))
    checkpoint = train(config, puppets(given.output / "shards"), given.steps, given.output, trust)
    loaded = load_animator(checkpoint, trust=trust).animator
    frame = loaded(torch.rand(1, 3, PIXELS, PIXELS), torch.rand(1, 3, PIXELS, PIXELS)).image
    print(f"{checkpoint}: {type(loaded.encoder).__name__}, frames {tuple(frame.shape)}; load it with trust={trust}")
