"""Distances between sets of pictures or videos by the features of a network: FID, KID, FVD.

torchmetrics computes them; here is only where the network comes from. Figures depend on the network, the size of the
pictures and their number, so all three belong beside the figure. https://arxiv.org/abs/1706.08500 (FID),
https://arxiv.org/abs/1801.01401 (KID), https://arxiv.org/abs/1812.01717 (FVD: FID of features of whole videos).
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from sfdkit.face_networks.conventions import Convention
from sfdkit.face_networks.third_party import NetworkFile
from sfdkit.metrics.exact import place_for_exact
from sfdkit.model.encoders import PooledTimm
from sfdkit.ranks import ranks

_TIMM = "timm:"
_BATCH = 64

KID_SUBSET = 100
"""Pictures of each subset of KID."""


class FileFeatures(nn.Module):
    """Features by a network in a local .onnx or TorchScript file: pictures F 3 H W in [0, 1] to F Z.

    A YAML beside it says what pictures it wants, see :class:`sfdkit.face_networks.conventions.Convention`. By default
    299 x 299 on [-1, 1], as Inception v3 wants them.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__()
        self.network = NetworkFile("features", path, Convention(299, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)))

    def forward(self, images: Tensor) -> Tensor:
        """Return the features."""
        return self.network(images.float()).flatten(1).float()


def load_features(what: str, pretrained: bool = True) -> nn.Module:
    """Return a feature network, which maps pictures F 3 H W in [0, 1] to F Z.

    Args:
        what: A local .onnx or TorchScript file, or ``timm:NAME`` for a model of timm, without its classifier, with the
            weights that timm downloads and caches. The literature's FID uses Inception v3 as pytorch-fid ships it, so
            only figures of the same file compare.
        pretrained: Load timm's weights; a random network's distances mean little, and serve tests.

    Raises:
        ConfigError: It cannot be had.
    """
    if what.startswith(_TIMM):
        return PooledTimm(what.removeprefix(_TIMM), pretrained)
    return FileFeatures(what)


def fid(features: nn.Module, shape: tuple[int, ...] = (3, 299, 299)) -> FrechetInceptionDistance:
    """Return FID by a feature network; update with pictures F 3 H W in [0, 1] and whether they are real.

    Args:
        features: Maps pictures to F Z. With a network of videos, F T 3 H W to F Z, the same is FVD.
        shape: Of one picture, or of one video, that the network can take; it is tried on noise to find Z.
    """
    return FrechetInceptionDistance(feature=features, normalize=True, input_img_size=shape)  # type: ignore[arg-type]


def kid(features: nn.Module, subset: int = 1000) -> KernelInceptionDistance:
    """Return KID by a feature network: mean and standard deviation over subsets of so many pictures."""
    return KernelInceptionDistance(feature=features, normalize=True, subset_size=subset)


class SetDistances:
    """Collects pictures pair by pair and compares results with what they should be, as sets.

    Args:
        features: Maps pictures F 3 H W in [0, 1] to F Z.
        device: Where it runs.
    """

    def __init__(self, features: nn.Module, device: torch.device) -> None:
        self.features, self.device, self.place = features, device, place_for_exact(device)
        self.metrics: tuple[FrechetInceptionDistance, KernelInceptionDistance] | None = None
        self.frames = 0
        self.width: tuple[int, ...] | None = None

    def add(self, result: Tensor, wanted: Tensor) -> None:
        """Add K results and as many pictures that they are compared with, K 3 R R in [0, 1] each."""
        for pictures, real in ((wanted, True), (result, False)):
            for some in pictures.split(_BATCH):
                with torch.no_grad():
                    found = self.features(some.to(self.device))
                if self.metrics is None:
                    self.width = tuple(found.shape[1:])
                    self.metrics = self._make(self.width, self.place)
                for metric in self.metrics:
                    metric.update(found.to(self.place), real=real)
        self.frames += len(result)

    @staticmethod
    def _make(width: tuple[int, ...], device: torch.device) -> tuple[FrechetInceptionDistance, KernelInceptionDistance]:
        as_they_are = nn.Identity()  # the network runs once for both: they see its features as they are
        return fid(as_they_are, width).to(device), kid(as_they_are, KID_SUBSET).to(device)

    def compute(self) -> dict[str, float]:
        """Return ``fid``, ``kid`` (a mean over subsets, where there are enough pictures) and ``fid_frames``.

        Over the pictures of all processes, all of which have to call it.
        """
        where = ranks()
        everybody = where.gather({where.rank: (self.frames, self.width)})
        frames = sum(count for count, _ in everybody)
        width = next((width for _, width in everybody if width), None)
        if width is None or frames < 2:
            return {}
        metrics = self.metrics or self._make(width, self.place)
        values = {"fid": float(metrics[0].compute()), "fid_frames": float(frames)}
        if frames >= KID_SUBSET:
            for side in ("real_features", "fake_features"):  # one tensor a process: they are gathered one by one
                parts = getattr(metrics[1], side) or [torch.zeros(0, *width, device=self.place)]
                setattr(metrics[1], side, [torch.cat(parts)])
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)  # KID draws subsets: the same pictures give the same figure
                values["kid"] = float(metrics[1].compute()[0])
        return values
