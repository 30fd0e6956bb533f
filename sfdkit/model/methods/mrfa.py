"""The generator of MRFA, motion refinement for face animation (https://arxiv.org/abs/2310.13912).

Legend: ``B`` batch, ``C r r`` feature map, ``R`` resolution, ``D`` latent dimensions, ``P`` key points, ``m`` size of
the maps that are matched, ``q`` size at which a step looks matches up.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jsonargparse.typing import PositiveInt
from torch import Tensor, nn

from sfdkit.errors import ConfigError
from sfdkit.model.blocks import call, full_precision, identity_grid, level_sizes, resize, warp
from sfdkit.model.key_points import DenseMotion, Hourglass, KeyPoints, convolution
from sfdkit.model.methods.fomm import SCALE, OfKeyPoints
from sfdkit.types import Generated

START = 8
RADIUS = 3
"""Cells round the present match that are looked up, in both directions."""
LEVELS = 2
"""Of correlations, each half as fine as the one before."""
MOST_MATCHED = 32
"""The most height and width of maps that are matched, unless asked otherwise."""


class Matches(nn.Module):
    """Correlations of where the key points are in the driving picture with what the source shows.

    The driving side is made of the key points alone, so that no appearance of the driver is matched.

    Args:
        points: ``P``.
        size: ``m``.
        channels: Of the maps that are matched.
        width: Channels of the hourglasses at their full size.
    """

    def __init__(self, points: int, size: int, channels: int, width: int) -> None:
        super().__init__()
        self.size = size
        self.driving, self.source = (
            nn.Sequential(glass, nn.Conv2d(glass.outputs, channels, 3, padding=1))
            for glass in (Hourglass(inputs, size, width, channels, depth=3) for inputs in (points, points + 3))
        )

    def forward(self, image: Tensor, driving: KeyPoints, source: KeyPoints) -> tuple[Tensor, Tensor]:
        """Return the maps to match, B C m m each: of the driving points, and of the source B 3 R R with its points."""
        small = resize(image, self.size)
        seen = torch.cat([source.regions(self.size), small * 2 - 1], 1)
        return self.driving(driving.regions(self.size)), self.source(seen)

    @staticmethod
    def correlate(driving: Tensor, source: Tensor, size: int) -> Tensor:
        """Return how well each of ``size`` x ``size`` places, B q q, fits each of the source: B q*q m m float32."""
        with full_precision(driving):
            driving, source = resize(driving.float(), size).flatten(2), source.float()
            fits = torch.einsum("bck,bcn->bkn", driving, source.flatten(2)) * driving.shape[1] ** -0.5
            return fits.unflatten(2, source.shape[2:])

    @staticmethod
    def look_up(fits: Tensor, flow: Tensor) -> Tensor:
        """Return the fits round the places that a flow, B 2 q q, leads to: B L*(2r+1)² q q, coarse levels last."""
        batch, places, height, width = fits.shape
        size = flow.shape[2]
        around = torch.arange(-RADIUS, RADIUS + 1, device=flow.device, dtype=torch.float32)
        window = torch.stack(torch.meshgrid(around, around, indexing="xy"), -1)
        centre = (identity_grid(size, size, flow) + flow).flatten(2).transpose(1, 2).reshape(batch * places, 1, 1, 2)
        level, found = fits.reshape(batch * places, 1, height, width), []
        for number in range(LEVELS):
            level = level if number == 0 else F.avg_pool2d(level, 2)
            cell = 2 ** (number + 1) / width
            grid = centre + cell * window
            sampled = F.grid_sample(level, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
            found.append(sampled.view(batch, size, size, window.shape[0] * window.shape[1]))
        return torch.cat(found, 3).permute(0, 3, 1, 2)


class Update(nn.Module):
    """What all steps share: reads looked up matches, flow, occlusion and warped features, and says how to change them.

    Args:
        width: Channels of its maps, and of the warped features.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        matches = LEVELS * (2 * RADIUS + 1) ** 2
        self.matches = nn.Sequential(nn.Conv2d(matches + 3, width, 1), nn.ReLU())
        self.layers = nn.Sequential(
            nn.Conv2d(2 * width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1), nn.ReLU()
        )
        self.change = nn.Conv2d(width, 3, 3, padding=1)
        nn.init.normal_(self.change.weight, std=1e-3)
        nn.init.zeros_(self.change.bias)  # type: ignore[arg-type]

    def forward(
        self, matches: Tensor, flow: Tensor, seen: Tensor, context: Tensor, cells: int
    ) -> tuple[Tensor, Tensor]:
        """Return the changes of the flow, B 2 q q in cells of the matched maps, and of the occlusion's logit."""
        read = self.matches(torch.cat([matches, flow * (cells / 2), seen], 1))
        change = self.change(self.layers(torch.cat([read, context.to(read.dtype)], 1))).float()
        return change[:, :2] * (2 / cells), change[:, 2:]


class BlendingLevel(nn.Module):
    """One scale of the generator: painted where the source does not show it, and corrected by the prior's view.

    Args:
        inputs: Channels of the hidden state that comes from the coarser level; 0 for the first.
        channels: Channels of this level and of the source's features at it.
        given: Maps of features, 1 or 2: as the refined flow warps them, and as the prior does.
    """

    def __init__(self, inputs: int, channels: int, given: int) -> None:
        super().__init__()
        self.enter = convolution(inputs, channels) if inputs else None
        self.merge = convolution(given * channels, channels)

    def forward(self, hidden: Tensor | None, warped: list[Tensor], seen: Tensor) -> Tensor:
        """Merge hidden B inputs r/2 r/2 and features B C r r, shown by the share ``seen`` B 1 r r, into B C r r."""
        blended = warped[0] * seen
        if self.enter is not None:
            assert hidden is not None
            blended = blended + self.enter(F.interpolate(hidden, scale_factor=2, mode="nearest")) * (1 - seen)
        return self.merge(torch.cat([blended, *warped[1:]], 1))


class MrfaGenerator(OfKeyPoints):
    """Refines a flow from key points by matching structure, and paints from features warped by both flows.

    As in the paper and its authors' code (https://github.com/JialeTao/MRFA): key points give a prior flow and occlusion
    as in FOMM; maps made of the driver's key points alone are correlated with maps of the source; over steps from 8 x 8
    to the picture's size one shared network looks up correlations round the place that the flow leads to (two levels,
    radius 3), sees the source's features as the flow warps them, and says what to add to flow and occlusion. At each
    scale of the generator features warped by the refined flow are blended with what is painted, beside those warped by
    the prior; the picture is blended with the warped source.

    What differs: key points are read from an encoder's maps, features are the encoder's through the animator's adapter,
    layers are narrower, there is no position embedding, and above ``matching_size`` a step's change is made at that
    size. The identity coefficients play no part.

    Args:
        resolution: ``R``, a power of two.
        latent_size: ``D``: the animator's key points are read from latent codes.
        points: ``P``; 10 in the paper.
        width: Channels at R; they double with each coarser level.
        max_channels: The most channels.
        motion_width: Channels of the prior's hourglass at its full size.
        matching: Channels of the maps that are matched; 256 in the paper.
        matching_size: ``m``: a quarter of the resolution, as in the paper, but by default at most 32.
        prior_only: Leave out matching and refinement: its own baseline.

    Raises:
        ConfigError: A resolution that is no power of two from 32 to 1024, or a matching size that is none from 8 to
            the resolution.
    """

    activation_checkpointing = False

    def __init__(
        self,
        resolution: int = 256,
        latent_size: int = 64,
        points: PositiveInt = 10,
        width: PositiveInt = 32,
        max_channels: PositiveInt = 256,
        motion_width: PositiveInt = 64,
        matching: PositiveInt = 256,
        matching_size: PositiveInt | None = None,
        prior_only: bool = False,
    ) -> None:
        super().__init__(latent_size, points)
        self.resolution = resolution
        self.sizes = tuple(level_sizes(resolution, START, resolution // 2))
        self.channels = tuple(min(max_channels, width * resolution // size) for size in self.sizes)
        self.motion = DenseMotion(points, resolution // SCALE, motion_width, 4 * max_channels)
        self.matches = self.motion_update = None
        if not prior_only:
            size = matching_size or min(resolution // SCALE, MOST_MATCHED)
            if size not in level_sizes(resolution, START, resolution):
                raise ConfigError(
                    f"generator: matching_size must be a power of two from {START} to the resolution, {resolution}, "
                    f"got {size}"
                )
            self.matches = Matches(points, size, matching, motion_width // 2 or 1)
            width_of = matching // 2 or 1
            taken = [own for own, side in zip(self.channels, self.sizes, strict=True) if side <= size]
            self.context = nn.ModuleList(nn.Conv2d(own, width_of, 1) for own in taken)
            self.motion_update = Update(width_of)
        self.levels = nn.ModuleList(
            BlendingLevel(before, own, 1 if prior_only else 2)
            for before, own in zip((0, *self.channels), self.channels, strict=False)
        )
        self.finish = convolution(self.channels[-1], width)
        self.last = nn.Conv2d(width, 3, 7, padding=3)

    def forward(self, latent: Tensor, source_latent: Tensor, features: list[Tensor], image: Tensor) -> Generated:
        """Render, see :class:`~sfdkit.model.generator_like.GeneratorLike`."""
        again = self.activation_checkpointing
        driving, source = self.reader(latent), self.reader(source_latent)
        prior = call(self.motion, resize(image, self.motion.size), driving, source, checkpointing=again)
        fields = self._refine(prior, features, image, driving, source)
        hidden: Tensor | None = None
        for level, feature, field in zip(self.levels, features, fields, strict=False):
            flows = [field[0]] if self.matches is None else [field[0], resize(prior[0], feature.shape[2])]
            warped = [warp(feature.float(), flow) for flow in flows]
            hidden = call(level, hidden, warped, torch.sigmoid(field[1]), checkpointing=again)
        assert hidden is not None
        flow, seen = fields[-1][0], torch.sigmoid(fields[-1][1])
        doubled = F.interpolate(hidden, scale_factor=2, mode="nearest")
        painted = torch.sigmoid(self.last(call(self.finish, doubled, checkpointing=again)).float())
        shown = warp(image.float(), flow)
        return Generated(seen * shown + (1 - seen) * painted, flow, seen, shown)

    def _refine(
        self,
        prior: tuple[Tensor, Tensor],
        features: list[Tensor],
        image: Tensor,
        driving: KeyPoints,
        source: KeyPoints,
    ) -> list[tuple[Tensor, Tensor]]:
        """Return flow and occlusion at each size, 8 to R: the prior's, and the sum of all changes so far."""
        sizes = (*self.sizes, self.resolution)
        fields = [(resize(prior[0], size), resize(prior[1], size)) for size in sizes]
        if self.matches is None or self.motion_update is None:
            return fields
        wanted, shown = self.matches(image, driving, source)
        fits, fitted = None, 0
        moved, more = (torch.zeros_like(each) for each in fields[0])
        for number, size in enumerate(sizes):
            moved, more = resize(moved, size), resize(more, size)
            flow, seen = fields[number][0] + moved, fields[number][1] + more
            looked = min(size, self.matches.size)
            if looked != fitted:
                fits, fitted = self.matches.correlate(wanted, shown, looked), looked
            assert fits is not None
            now = resize(flow, looked)
            level = self.sizes.index(min(looked, self.sizes[-1]))
            context = self.context[level](warp(resize(features[level], looked).float(), now))
            found = self.matches.look_up(fits, now)
            change, change_seen = self.motion_update(found, now, resize(seen, looked), context, self.matches.size)
            moved, more = moved + resize(change, size), more + resize(change_seen, size)
            fields[number] = fields[number][0] + moved, fields[number][1] + more
        return fields
