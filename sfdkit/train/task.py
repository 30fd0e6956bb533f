"""The training task: how an animator learns from frames of one clip.

Legend: ``B`` sources, ``K`` driving frames per source, ``R`` resolution.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import lightning as L
import torch
from jsonargparse.typing import ClosedUnitInterval, NonNegativeInt, PositiveInt
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor
from torchmetrics import MeanAbsoluteError, Metric, MetricCollection
from torchmetrics.image import PeakSignalNoiseRatio, StructuralSimilarityIndexMeasure

from sfdkit.checkpoint import NO_NOISE, adopt_weights
from sfdkit.device import prepare
from sfdkit.errors import CheckpointError, ConfigError, TrainingError
from sfdkit.losses import Crossed, Objective, Step
from sfdkit.losses.adversarial import AdversarialKind, discriminator_loss, generator_loss, r1_penalty
from sfdkit.model.animator import FaceAnimator, SourceState
from sfdkit.model.blocks import in_float32
from sfdkit.model.discriminator import Discriminator
from sfdkit.train.gradients import BatchStatistics, GradientGuard, prepare_step
from sfdkit.train.schedule import cosine_with_warmup, logs_step
from sfdkit.types import FrameBatch, Generated

NOISE_RATE = 5.0
"""Factor on the learning rate of the logarithm of the motion coefficients' noise, which has some units to go."""
CLOCK_EVERY = 10
"""Steps between two looks of the processes at the first one's clock."""
PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")


def adam(parameters: Any) -> torch.optim.Optimizer:
    """Return the default optimiser: fused Adam, learning rate 1e-3, betas 0.5 and 0.99."""
    return torch.optim.Adam(parameters, lr=1e-3, betas=(0.5, 0.99), fused=True)


class AnimationTask(L.LightningModule):
    """Self-supervised training: a source frame and the motion of another frame of its clip must give that frame.

    Generator and discriminator take turns under manual optimisation. ``trainer.global_step`` counts generator steps
    only, so ``max_steps`` means what it says with and without a discriminator.

    Args:
        animator: The model.
        weights: Loss term to weight, see :data:`sfdkit.losses.TERMS`, and adversarial and r1. A weight of 0 switches a
            term off.
        starts: Loss term to the step from which it counts; terms that are not named count from the first step.
        networks: Loss term to the local file of the network that it judges by: ``identity``, a face recognition network
            (see :func:`sfdkit.face_networks.embedder.load_embedder`).
        cross_share: Share of the rows that are driven by another row's person as well, for the terms reencode and
            cycle. Where both have no weight nothing is crossed.
        discriminator: Needed when the weight ``adversarial`` is not 0.
        adversarial: Form of the adversarial loss.
        r1_every: The R1 penalty is taken every so many steps, and scaled up by as much.
        optimizer: Of the animator.
        discriminator_optimizer: Of the discriminator.
        basis_rate: Factor on the learning rate of the basis. A basis that turns quickly leaves behind all that reads
            the latent code.
        warmup_steps: Steps over which the learning rate rises; afterwards it falls along a cosine until ``max_steps``
            or ``max_time``.
        gradient_clip: Largest norm of the gradient; 0 for no limit.
        gradient_surge: Largest norm of the gradient as a multiple of its running mean; 0 for no limit. Adam divides by
            what gradients were like lately: one that is many times larger moves every weight by many times the learning
            rate, after which a model may not come back.
        max_skipped: A step whose gradient is not finite is left out, counted and logged. Every so many steps the count
            is looked at, and where so many in a row were left out the training ends with an error.
        accumulate: Batches per step.
        start_from: A checkpoint whose weights a new training begins with, where this model has weights of the same name
            and shape, for example one of half the resolution and twice the width; the others stay random.

    Raises:
        ConfigError: A weight for an unknown term, or an adversarial weight without a discriminator.
    """

    def __init__(
        self,
        animator: FaceAnimator,
        weights: Mapping[str, float],
        starts: Mapping[str, int] | None = None,
        networks: Mapping[str, str] | None = None,
        cross_share: ClosedUnitInterval = 0.5,
        discriminator: Discriminator | None = None,
        adversarial: AdversarialKind = "nonsaturating",
        r1_every: PositiveInt = 16,
        optimizer: OptimizerCallable = adam,
        discriminator_optimizer: OptimizerCallable = adam,
        basis_rate: float = 0.02,
        warmup_steps: NonNegativeInt = 100,
        gradient_clip: float = 1.0,
        gradient_surge: float = 2.0,
        max_skipped: PositiveInt = 20,
        accumulate: PositiveInt = 1,
        start_from: str | None = None,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.animator = animator.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.objective = Objective(weights, starts, networks)
        self.cross_share = cross_share
        if "rate" not in self.objective.weights:  # without a price there is no noise
            animator.motion_head.log_noise.data.fill_(NO_NOISE)
        self.adversarial_weight = float(weights.get("adversarial", 0.0))
        self.r1_weight = float(weights.get("r1", 0.0))
        if self.adversarial_weight and discriminator is None:
            raise ConfigError("weights: adversarial is not 0, but there is no discriminator; give model.discriminator")
        self.discriminator = discriminator if self.adversarial_weight else None
        self.adversarial = adversarial
        self.r1_every = r1_every
        self.optimizer = optimizer
        self.discriminator_optimizer = discriminator_optimizer
        self.basis_rate = basis_rate
        self.warmup_steps = warmup_steps
        self.guard = GradientGuard(gradient_clip, gradient_surge)
        self.discriminator_guard = GradientGuard(gradient_clip, gradient_surge)
        self.statistics = BatchStatistics(self.animator)
        self.max_skipped = max_skipped
        self.accumulate = accumulate
        self.summed_batches = 0
        self.start_from = start_from
        self.experiment: dict[str, Any] = {}
        self.base_rates: list[float] = []
        self.total_steps = float("inf")
        self.time_share = 0.0
        self.clocked = False
        self.told_skipped = 0
        self.last_motion: Tensor | None = None
        for stage in ("val", "test"):
            metrics: dict[str, Metric | MetricCollection] = {
                "l1": MeanAbsoluteError(),
                "psnr": PeakSignalNoiseRatio(data_range=1.0, dim=(1, 2, 3), reduction="elementwise_mean"),
                "ssim": StructuralSimilarityIndexMeasure(data_range=1.0),
            }
            setattr(self, f"{stage}_metrics", MetricCollection(metrics, prefix=f"{stage}/", compute_groups=False))

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load weights; what loss terms remember, where the checkpoint's training had the same terms.

        Raises:
            CheckpointError: They belong to another model.
        """
        of_terms = {name: value for name, value in self.state_dict().items() if name.startswith("objective.")}
        known = {n: v for n, v in state_dict.items() if not n.startswith("objective.") or n in of_terms}
        try:
            return super().load_state_dict({**of_terms, **known}, strict, assign)
        except RuntimeError as error:
            raise CheckpointError(
                "the checkpoint belongs to another model than the configuration describes: "
                f"{str(error).splitlines()[1].strip()} Use the config.yaml that lies beside the checkpoint's run"
            ) from error

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """Build the optimisers; their configured rates, not a checkpoint's, are what the schedule scales."""
        basis, noise = self.animator.descriptors.weight, self.animator.motion_head.log_noise
        others = [p for p in self.animator.parameters() if p is not basis and p is not noise]
        groups = [
            {"params": others, "scale": 1.0},
            {"params": [basis], "scale": self.basis_rate},
            {"params": [noise], "scale": NOISE_RATE},
        ]
        optimizers = [self.optimizer(groups)]
        if self.discriminator is not None:
            optimizers.append(self.discriminator_optimizer(self.discriminator.parameters()))
        self.base_rates = [float(o.param_groups[0]["lr"]) for o in optimizers]
        return optimizers

    def forward(self, source: Tensor, driving: Tensor) -> Generated:
        """Animate B 3 R R sources with B 3 R R driving frames."""
        return self.animator(source, driving)

    def setup(self, stage: str) -> None:
        """Refuse a precision in which the method does not work.

        Raises:
            ConfigError: Weights in half or double precision; in training ``16-mixed`` as well.
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

    def on_fit_start(self) -> None:
        """Set up the device, and take over the weights of ``start_from``.

        Raises:
            CheckpointError: ``start_from`` cannot be read, or nothing in it fits.
        """
        prepare(self.device)
        self.summed_batches = 0
        if self.start_from is not None and self.trainer.ckpt_path is None:
            adopted = adopt_weights(self.animator, self.start_from)
            rank_zero_info(
                f"{len(adopted.taken)} weights from {self.start_from}, {len(adopted.left)} begin at random"
                + (f", the first of them {adopted.left[0]}" if adopted.left else "")
            )

    def on_train_start(self) -> None:
        """Note the length of the training, which the schedule needs."""
        batches, epochs = self.trainer.num_training_batches, self.trainer.max_epochs
        steps = float("inf") if self.trainer.max_steps == -1 else float(self.trainer.max_steps)
        if epochs is not None and epochs > 0 and math.isfinite(batches):  # the trainer knows nothing of accumulation
            steps = min(steps, float(math.ceil(batches / self.accumulate) * epochs))
        self.total_steps, self.time_share, self.clocked = steps, 0.0, False
        self.told_skipped = self._skipped()

    def training_step(self, batch: FrameBatch, batch_idx: int) -> None:
        """One batch: generator phase, then discriminator phase; both optimisers step together.

        Raises:
            TrainingError: Too many steps in a row had to be left out.
        """
        optimizers, step = self._optimizers(), self.global_step
        discriminating = self.discriminating
        stepping = (batch_idx + 1) % self.accumulate == 0 or self.trainer.is_last_batch
        self._look_at_clock()
        self._set_rates(optimizers)
        if not self.summed_batches:
            self.statistics.keep()
        self.summed_batches += 1
        with nullcontext() if stepping else self._no_reduction():
            made = self.take_step(batch, self._noise_draws())
            loss, values = self.objective(made, step)
            self._generator_phase(made, loss, values, optimizers[0], stepping)
            if discriminating:
                penalised = step % self.r1_every == 0
                self._discriminator_phase(made.image.detach(), made.target, optimizers[1], stepping, penalised)
        self.last_motion = made.motion.detach()
        if stepping:
            self.summed_batches = 0
            self._give_up_in_time()

    def _no_reduction(self) -> AbstractContextManager[None]:
        """Return a context in which processes do not exchange gradients: they do so at the last batch of a step."""
        return getattr(self.trainer.strategy, "block_backward_sync", nullcontext)()

    def _noise_draws(self) -> torch.Generator:
        """Return what draws the noise: other numbers on each process and in each batch, the same after a resume."""
        seed = f"{self.experiment.get('seed')}/{self.global_rank}/{self.trainer.fit_loop.total_batch_idx}"
        return torch.Generator(self.device).manual_seed(random.Random(seed).getrandbits(63))

    def _give_up_in_time(self) -> None:
        """Tell of steps that were left out, and end a training that does not come back.

        Raises:
            TrainingError: Too many steps in a row had to be left out.
        """
        if self.global_step % self.max_skipped == 0:  # not each time: a GPU is waited for
            skipped = self._skipped()
            in_a_row = max(int(guard.in_a_row) for guard in (self.guard, self.discriminator_guard))
            if skipped > self.told_skipped:
                rank_zero_warn(
                    f"step {self.global_step}: the gradient was not finite; steps left out so far: {skipped}"
                )
            self.told_skipped = skipped
            if in_a_row >= self.max_skipped:
                raise TrainingError(
                    f"the gradient was not finite in the last {in_a_row} steps before step {self.global_step}; they "
                    "were left out, so the checkpoints hold good weights. Go on from the last one with --ckpt_path and "
                    "a lower learning rate, or look for broken pictures in the data"
                )

    def _skipped(self) -> int:
        """Return how many steps were left out so far, of both networks."""
        return int(self.guard.skipped) + int(self.discriminator_guard.skipped)

    def _optimizers(self) -> list[LightningOptimizer]:
        optimizers = self.optimizers()
        return optimizers if isinstance(optimizers, list) else [optimizers]  # type: ignore[list-item]

    @property
    def discriminating(self) -> bool:
        """Whether the adversarial term counts now."""
        return self.discriminator is not None and self.global_step >= self.objective.starts.get("adversarial", 0)

    def read(self, batch: FrameBatch) -> tuple[Tensor, SourceState]:
        """Read a batch: the motion coefficients of source and driving views, B 1+K M, and the sources."""
        source, driving = batch["source"], batch["driving"]
        views = batch.get("driving_view", driving)
        faces = torch.cat([source[:, None], views], 1)
        motion = self.animator.motion(faces.flatten(0, 1)).unflatten(0, faces.shape[:2])
        return motion, self.animator.source_state(source, motion[:, 0])

    def render(self, batch: FrameBatch) -> tuple[Generated, Tensor, Tensor]:
        """Render a batch.

        Returns:
            The results (B*K rows), the motion coefficients of source and driving frames (B 1+K M), and the targets
            (B*K 3 R R).
        """
        motion, state = self.read(batch)
        driving = batch["driving"]
        result = self.animator.generate(state.expand(driving.shape[1]), motion[:, 1:].flatten(0, 1))
        return result, motion, driving.flatten(0, 1)

    def take_step(self, batch: FrameBatch, draws: torch.Generator | None = None) -> Step:
        """Render a batch for training, with all that the loss terms of this step want to judge.

        Args:
            batch: With ``driving_view``, where the motion branch sees another view.
            draws: What draws the noise of the motion coefficients.
        """
        with self.animator.descriptors.kept():
            return self._take_step(batch, draws)

    def _take_step(self, batch: FrameBatch, draws: torch.Generator | None) -> Step:
        source, driving = batch["source"], batch["driving"]
        frames, now = driving.shape[1], self.global_step
        motion, state = self.read(batch)
        sent = motion[:, 1:].flatten(0, 1)
        if self.objective.needs("noise", now):
            sent = self.animator.motion_head.noisy(sent, self.objective.share("rate", now), draws)
        result = self.animator.generate(state.expand(frames), sent)
        people, numbers = None, {name: number for number, name in enumerate(batch["identity"])}
        identity: Tensor | None = None
        if self.objective.needs("identity", now):
            people = to_device([numbers[name] for name in batch["identity"]], source.device)
            other = self.animator.identity(driving[:, -1])
            identity = torch.stack([state.descriptors.identity, other], 1)
        crossed: Crossed | None = None
        if self.objective.needs("crossed", now) or self.objective.needs("restored", now):
            crossed = self._cross(batch, motion, state)
        return Step(
            image=result.image,
            target=driving.flatten(0, 1),
            source=source,
            motion=motion,
            log_noise=self.animator.motion_head.log_noise,
            flow=result.flow,
            mask=result.mask,
            warped=result.warped,
            identity=identity,
            people=people,
            crossed=crossed,
        )

    def _cross(self, batch: FrameBatch, motion: Tensor, state: SourceState) -> Crossed | None:
        """Drive rows by another person's first driving frame and read the results; that teaches the readers nothing."""
        pairs = cross_rows(batch["identity"], self.cross_share)
        if not pairs:
            return None
        who, whose = (to_device(rows, motion.device) for rows in zip(*pairs, strict=True))
        driver_motion = motion[whose, 1].detach()
        image = self.animator.generate(state.rows(who), driver_motion).image
        with frozen(self.animator.reading_parts()):
            read = self.animator.describe(image)
        restored = None
        if self.objective.needs("restored", self.global_step):
            restored = self.animator.generate(state.rows(whose), read.motion).image
        return Crossed(
            image=image,
            source_identity=state.descriptors.identity[who].detach(),
            driver_motion=driver_motion,
            identity=read.identity,
            motion=read.motion,
            restored=restored,
            driver=batch["driving"][whose, 0],
            source=batch["source"][who],
        )

    def _generator_phase(
        self,
        made: Step,
        loss: Tensor,
        values: dict[str, Tensor],
        optimizer: LightningOptimizer,
        stepping: bool,
    ) -> None:
        if self.discriminating:
            assert self.discriminator is not None
            self.discriminator.requires_grad_(False)
            values["adversarial"] = generator_loss(self.discriminator(made.image), self.adversarial)
            loss = loss + self.adversarial_weight * values["adversarial"]
        self.manual_backward(loss)
        values["mask"] = made.mask.mean()
        if stepping:
            values["gradient_norm"], finite = self.guard.limit(self.animator, self.summed_batches)
            values["skipped_steps"] = (self.guard.skipped + self.discriminator_guard.skipped).float()
            self.statistics.settle(finite)
            prepare_step(optimizer.optimizer, finite)
            optimizer.step()
            optimizer.zero_grad()
        else:
            self.statistics.settle()
        self.log_dict({f"train/{name}": value.detach() for name, value in values.items()}, on_step=True, on_epoch=False)
        self.log("loss", loss.detach(), on_step=True, on_epoch=False)

    def _discriminator_phase(
        self, fake: Tensor, real: Tensor, optimizer: LightningOptimizer, stepping: bool, penalised: bool
    ) -> None:
        assert self.discriminator is not None
        self.discriminator.requires_grad_(True)
        loss = discriminator_loss(self.discriminator(real), self.discriminator(fake), self.adversarial)
        self.log("train/discriminator", loss.detach(), on_step=True, on_epoch=False)
        if self.r1_weight and penalised:
            penalty = r1_penalty(self.discriminator, real)
            loss = loss + self.r1_weight * self.r1_every * penalty
            self.log("train/r1", penalty.detach(), on_step=True, on_epoch=False)
        self.manual_backward(loss)
        if stepping:
            _, finite = self.discriminator_guard.limit(self.discriminator, self.summed_batches)
            prepare_step(optimizer.optimizer, finite)
            optimizer.optimizer.step()  # the bare optimiser: Lightning would count this step as well
            optimizer.optimizer.zero_grad()

    def _set_rates(self, optimizers: list[LightningOptimizer]) -> None:
        factor = cosine_with_warmup(self.global_step, self.warmup_steps, self.progress())
        for optimizer, rate in zip(optimizers, self.base_rates, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = rate * factor * group.get("scale", 1.0)
        if logs_step(self.trainer):
            self.log("train/learning_rate", self.base_rates[0] * factor, on_step=True, on_epoch=False)

    def progress(self) -> float:
        """Return the share of the training that is done, 0 … 1, by steps or by time, whichever is further."""
        return max(self.global_step / self.total_steps, self.time_share)

    def _look_at_clock(self) -> None:
        """Note the share of ``max_time`` that is over; all processes have to call it at the same steps.

        The time is the first process's: with clocks of their own the processes would learn at different rates, and
        their weights would part.
        """
        timers = [c for c in self.trainer.callbacks if isinstance(c, Timer)]  # type: ignore[attr-defined]
        left = timers[0].time_remaining("train") if timers else None
        if left is None:
            return
        if self.trainer.world_size == 1 or self.trainer.fit_loop.total_batch_idx % CLOCK_EVERY == 0 or not self.clocked:
            spent = timers[0].time_elapsed("train")
            self.time_share = self.trainer.strategy.broadcast(spent / max(1e-6, spent + left))
            self.clocked = True

    def _evaluate(self, batch: FrameBatch, metrics: MetricCollection) -> None:
        result, _, target = self.render(batch)
        in_float32(metrics.update)(result.image.clamp(0, 1), target)

    def validation_step(self, batch: FrameBatch, batch_idx: int) -> None:
        """Self-reenactment: driving frames of the source's own clip."""
        self._evaluate(batch, self.val_metrics)  # type: ignore[arg-type]

    def test_step(self, batch: FrameBatch, batch_idx: int) -> None:
        """Self-reenactment on the test split."""
        self._evaluate(batch, self.test_metrics)  # type: ignore[arg-type]

    def on_validation_epoch_end(self) -> None:
        """Log the metrics; they are reduced over ranks by torchmetrics, so uneven data counts right."""
        self._log_metrics(self.val_metrics)  # type: ignore[arg-type]

    def on_test_epoch_end(self) -> None:
        """Log the metrics of the test split."""
        self._log_metrics(self.test_metrics)  # type: ignore[arg-type]

    def _log_metrics(self, metrics: MetricCollection) -> None:
        self.log_dict(metrics.compute(), prog_bar=True)
        metrics.reset()

    def predict_step(self, batch: FrameBatch, batch_idx: int) -> Generated:
        """Return the results for the batch, B*K rows."""
        return self.render(batch)[0]


def cross_rows(identities: Sequence[str], share: float) -> list[tuple[int, int]]:
    """Pair rows of different people: each of the first ``share`` of the rows with the next one of somebody else.

    Returns:
        Pairs of row numbers, who gives the identity and who the motion; none where there is one person only.
    """
    count = len(identities)
    pairs = []
    for row in range(round(share * count)):
        others = (other % count for other in range(row + 1, row + count))
        other = next((o for o in others if identities[o] != identities[row]), None)
        if other is not None:
            pairs.append((row, other))
    return pairs


def to_device(numbers: Sequence[int], device: torch.device) -> Tensor:
    """Return whole numbers as a tensor on a device that is not waited for."""
    made = torch.tensor(numbers)
    return made.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else made.to(device)


@contextmanager
def frozen(modules: Sequence[torch.nn.Module]) -> Iterator[None]:
    """Use modules as they are: what is done inside changes neither parameters nor batch statistics.

    Gradients pass through to the inputs; batch normalisation takes its running statistics, as it will when the model
    is used, so that a single row can be read as well.
    """
    parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
    training = [part for module in modules for part in module.modules() if part.training]
    for parameter in parameters:
        parameter.requires_grad_(False)
    for part in training:
        part.training = False
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)
        for part in training:
            part.training = True
