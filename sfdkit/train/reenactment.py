"""Measuring an animator in self-reenactment: the commands validate, test and predict."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import lightning as L
import torch
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor
from torchmetrics import MeanAbsoluteError, Metric, MetricCollection
from torchmetrics.image import PeakSignalNoiseRatio, StructuralSimilarityIndexMeasure

from sfdkit.config.renamed import rename_weight
from sfdkit.errors import CheckpointError, ConfigError
from sfdkit.model.animator import FaceAnimator
from sfdkit.model.blocks import in_float32
from sfdkit.train.forward import render
from sfdkit.types import FrameBatch, Generated

_UNUSED = "find_unused_parameters"
PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")


class Reenactment(L.LightningModule):
    """Renders driving frames of the source's own clip, and measures L1, PSNR and SSIM to them.

    Args:
        animator: The model.
    """

    val_metrics: MetricCollection
    test_metrics: MetricCollection

    def __init__(self, animator: FaceAnimator) -> None:
        super().__init__()
        self.animator = animator.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.val_metrics, self.test_metrics = _metrics("val/"), _metrics("test/")

    def forward(self, source: Tensor, driving: Tensor) -> Generated:
        """Animate B 3 R R sources with B 3 R R driving frames."""
        return self.animator(source, driving)

    def render(self, batch: FrameBatch) -> tuple[Generated, Tensor, Tensor]:
        """Render a batch, see :func:`sfdkit.train.forward.render`."""
        return render(self.animator, batch)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load weights. The state of a loss term is loaded only where both trainings have the term.

        Raises:
            CheckpointError: They belong to another model.
        """
        of_terms = {name: value for name, value in self.state_dict().items() if name.startswith("objective.")}
        stored = {rename_weight(name): value for name, value in state_dict.items()}
        known = {n: v for n, v in stored.items() if not n.startswith("objective.") or n in of_terms}
        try:
            return super().load_state_dict({**of_terms, **known}, strict, assign)
        except RuntimeError as error:
            raise CheckpointError(
                "the checkpoint belongs to another model than the configuration describes: "
                f"{str(error).splitlines()[1].strip()} Use the config.yaml that lies beside the checkpoint's run"
            ) from error

    def setup(self, stage: str) -> None:
        """Refuse a precision or strategy in which the method does not work.

        Raises:
            ConfigError: Weights in half or double precision; in training ``16-mixed`` as well, and a strategy that
                expects a gradient of each weight in each step.
        """
        precision = str(self.trainer.precision)
        if precision not in PRECISIONS:
            raise ConfigError(
                f"trainer.precision: {precision} keeps weights, bases and coordinates in another type than the float32 "
                "that they need; use bf16-mixed or 32-true"
            )
        if precision == "16-mixed" and stage == "fit":
            raise ConfigError(
                "trainer.precision: 16-mixed needs loss scaling, which two optimisers cannot share; use bf16-mixed"
            )
        strategy = self.trainer.strategy
        if stage == "fit" and isinstance(strategy, DDPStrategy) and not strategy._ddp_kwargs.get(_UNUSED):
            raise ConfigError(
                "trainer.strategy: not every step has a gradient of every weight, which plain ddp waits for; add "
                "--config trainer/ddp.yaml, or --trainer.strategy ddp_find_unused_parameters_true"
            )

    def _measure(self, batch: FrameBatch, metrics: MetricCollection) -> None:
        result, _, target = self.render(batch)
        in_float32(metrics.update)(result.image.clamp(0, 1).contiguous(), target)  # as torchmetrics needs it

    def validation_step(self, batch: FrameBatch, batch_idx: int) -> None:
        """Measure a batch of the validation split."""
        self._measure(batch, self.val_metrics)

    def test_step(self, batch: FrameBatch, batch_idx: int) -> None:
        """Measure a batch of the test split."""
        self._measure(batch, self.test_metrics)

    def predict_step(self, batch: FrameBatch, batch_idx: int) -> Generated:
        """Return the results for the batch, B*K rows."""
        return self.render(batch)[0]

    def on_validation_epoch_end(self) -> None:
        """Log the metrics of the validation split over all processes."""
        self._log_metrics(self.val_metrics)

    def on_test_epoch_end(self) -> None:
        """Log the metrics of the test split over all processes."""
        self._log_metrics(self.test_metrics)

    def _log_metrics(self, metrics: MetricCollection) -> None:
        self.log_dict(metrics.compute(), prog_bar=True)  # torchmetrics reduces over processes
        metrics.reset()


def _metrics(prefix: str) -> MetricCollection:
    metrics: dict[str, Metric | MetricCollection] = {
        "l1": MeanAbsoluteError(),
        "psnr": PeakSignalNoiseRatio(data_range=1.0, dim=(1, 2, 3), reduction="elementwise_mean"),
        "ssim": StructuralSimilarityIndexMeasure(data_range=1.0),
    }
    return MetricCollection(metrics, prefix=prefix, compute_groups=False)
