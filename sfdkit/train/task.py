"""The training task: an animator learns from frames of one clip, with or without a discriminator.

Legend: ``B`` sources, ``K`` driving frames per source, ``R`` resolution.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from jsonargparse.typing import ClosedUnitInterval, NonNegativeFloat, NonNegativeInt, PositiveInt
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor, nn

from sfdkit.checkpoint import EMA_KEY, KEY, NO_NOISE, NOISE, adopt_weights, other_method
from sfdkit.device import prepare
from sfdkit.errors import CheckpointError, ConfigError, TrainingError
from sfdkit.losses import TERMS, Objective, Step
from sfdkit.losses.adversarial import (
    AdversarialKind,
    discriminator_loss,
    feature_matching,
    generator_loss,
    r1_penalty,
)
from sfdkit.model.animator import FaceAnimator
from sfdkit.model.blocks import full_precision
from sfdkit.model.discriminator import Discriminator
from sfdkit.points import FACE31
from sfdkit.points import point_set as point_set_of
from sfdkit.train.forward import training_forward
from sfdkit.train.gradients import BatchStatistics, GradientClipping, skip_unless_finite
from sfdkit.train.parameter_groups import fit_state, parameter_groups, settable
from sfdkit.train.reenactment import Reenactment
from sfdkit.train.schedule import Progress, cosine_with_warmup, logs_step
from sfdkit.types import FrameBatch


def adam(parameters: Any) -> torch.optim.Optimizer:
    """Return the default optimiser: fused Adam, lr 1e-3, betas 0.5 and 0.99."""
    return torch.optim.Adam(parameters, lr=1e-3, betas=(0.5, 0.99), fused=True)


class AnimationTask(Reenactment):
    """Self-supervised training: a source frame and the motion of another frame of its clip must give that frame.

    Generator and discriminator alternate under manual optimisation. ``trainer.global_step`` counts generator steps
    only, so that ``max_steps`` means the same with and without a discriminator.

    Args:
        animator: The model.
        weights: Loss term to weight, see :data:`sfdkit.losses.TERMS`, and adversarial, feature_matching and r1. A
            weight of 0 switches a term off.
        starts: Loss term to the step from which it counts, or below 1 to the share of the training after which it does;
            terms that are not named count from the first step.
        networks: Loss term to its network. ``identity``: the local file of a face recognition network
            (see :func:`sfdkit.face_networks.embedder.load_embedder`). ``perceptual``: puppets (a small network that the
            kit brings along), vgg19 (the default), or the file of a narrow VGG-19
            (see :func:`sfdkit.face_networks.feature_network.load_features`).
        point_set: Named points of the face that the shards carry, for the terms parts and points; see
            :mod:`sfdkit.points`.
        cross_share: Fraction of the rows that another row's person drives as well, for the terms reencode and cycle.
        discriminator: Needed when the weight ``adversarial`` is not 0.
        adversarial: Form of the adversarial loss.
        r1_every: Steps between two R1 penalties (lazy regularisation); each counts that many times.
        optimizer: Of the animator.
        discriminator_optimizer: Of the discriminator.
        basis_lr_factor: Factor on the learning rate of the basis. All other layers read coefficients on it, and cannot
            follow a basis that turns quickly.
        warmup_steps: Steps over which the learning rate rises; afterwards it falls along a cosine until ``max_steps``
            or ``max_time``.
        gradient_clip_norm: Largest norm of the gradient; 0 for no limit.
        gradient_clip_factor: Largest norm of the gradient as a multiple of its running mean; 0 for no limit. Adam
            divides by the recent size of gradients: one that is many times larger moves every weight by many times the
            learning rate, after which a model may not recover.
        max_skipped_steps: Steps whose gradient is not finite are skipped, counted and logged; this many in a row end
            the training with an error. The count is read every so many steps.
        accumulate_grad_batches: Batches per step.
        activation_checkpointing: Compute the generator's maps once more in the backward pass in place of keeping them:
            much less memory, for large pictures or batches, and more time.
        compile: Compile the generator (``torch.compile``): its small operations become few. The first step takes a
            minute or more. The discriminator is not compiled, as r1 differentiates its gradient.
        start_from: What --checkpoint takes, such as a checkpoint, puppets64 or hf://user/name, whose weights a new
            training begins with, where this model has weights of the same name and shape, for example one of half the
            resolution and twice the width; the others stay random.

    Raises:
        ConfigError: A weight for an unknown term, or an adversarial weight without a discriminator.
    """

    def __init__(
        self,
        animator: FaceAnimator,
        weights: Mapping[str, float],
        starts: Mapping[str, NonNegativeFloat] | None = None,
        networks: Mapping[str, str] | None = None,
        point_set: str = FACE31.name,
        cross_share: ClosedUnitInterval = 0.5,
        discriminator: Discriminator | None = None,
        adversarial: AdversarialKind = "nonsaturating",
        r1_every: PositiveInt = 16,
        optimizer: OptimizerCallable = adam,
        discriminator_optimizer: OptimizerCallable = adam,
        basis_lr_factor: NonNegativeFloat = 0.02,
        warmup_steps: NonNegativeInt = 100,
        gradient_clip_norm: NonNegativeFloat = 1.0,
        gradient_clip_factor: NonNegativeFloat = 2.0,
        max_skipped_steps: PositiveInt = 20,
        accumulate_grad_batches: PositiveInt = 1,
        activation_checkpointing: bool = False,
        compile: bool = False,
        start_from: str | None = None,
    ) -> None:
        super().__init__(animator)
        self.automatic_optimization = False
        layer = animator.descriptors
        self.points = point_set_of(point_set, "model.point_set")
        sizes = layer.identity_size, layer.motion_size
        self.objective = Objective(weights, starts, networks, self.points, sizes)
        if animator.key_points and basis_lr_factor:
            raise ConfigError(
                f"model.basis_lr_factor is {basis_lr_factor:g}, and key points are read on the basis as it begins: "
                "set it to 0, as methods/fomm.yaml does"
            )
        if "equivariance" in self.objective.weights and not animator.key_points:
            raise ConfigError(
                "weights: equivariance is for key points; set model.animator.init_args.key_points to true, as "
                "methods/fomm.yaml does, or the weight to 0"
            )
        self.cross_share = cross_share
        if "kl" not in self.objective.weights:  # unlimited information: no noise
            animator.motion_head.log_noise.data.fill_(NO_NOISE)
        self.adversarial_weight = float(weights.get("adversarial", 0.0))
        self.matching_weight = float(weights.get("feature_matching", 0.0))
        self.r1_weight = float(weights.get("r1", 0.0))
        if self.adversarial_weight and discriminator is None:
            raise ConfigError("weights: adversarial is not 0, but there is no discriminator; give model.discriminator")
        if self.matching_weight and not self.adversarial_weight:
            raise ConfigError(
                "weights: feature_matching is not 0, but adversarial is, without which no discriminator learns; give "
                "it a small weight, such as 0.01, or set feature_matching to 0"
            )
        self.discriminator = discriminator if self.adversarial_weight else None
        self.adversarial = adversarial
        self.r1_every = r1_every
        self.optimizer = optimizer
        self.discriminator_optimizer = discriminator_optimizer
        self.basis_lr_factor = float(basis_lr_factor)  # a plain one: the optimiser keeps it in checkpoints
        self.warmup_steps = warmup_steps
        self.clipping = GradientClipping(gradient_clip_norm, gradient_clip_factor)
        self.discriminator_clipping = GradientClipping(gradient_clip_norm, gradient_clip_factor)
        self.statistics = BatchStatistics(self.animator)
        self.max_skipped_steps = max_skipped_steps
        self.accumulate_grad_batches = accumulate_grad_batches
        self.animator.generator.activation_checkpointing = activation_checkpointing
        self.compiles = compile
        self.summed_batches = 0
        self.start_from = start_from
        self.experiment: dict[str, Any] = {}
        self.base_lrs: list[float] = []
        self.options: list[list[dict[str, Any]]] = []
        self.progress = Progress()
        self.reported_skipped = 0
        self.last_motion: Tensor | None = None

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """Build the optimisers; the schedule scales their configured learning rates, not a checkpoint's."""
        optimizers = [self.optimizer(self._groups())]
        if self.discriminator is not None:
            optimizers.append(self.discriminator_optimizer(self.discriminator.parameters()))
        self.base_lrs = [float(o.param_groups[0]["lr"]) for o in optimizers]
        self.options = [settable(optimizer) for optimizer in optimizers]
        return optimizers

    def _groups(self) -> list[dict[str, Any]]:
        return parameter_groups(self.animator, self.objective, self.basis_lr_factor)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Bring the first optimiser's state, and the coefficients' noise, to the loss terms of this training.

        Raises:
            CheckpointError: It is of another model or method.
        """
        stored = checkpoint.get(KEY, {}).get("animator")  # a Trainer of one's own writes none
        if stored and (method := other_method(stored, self.animator)):
            raise CheckpointError(
                f"the checkpoint is of another method: its generator is {method}, that of the configuration "
                f"{type(self.animator.generator).__name__}. Use the config.yaml that lies beside the checkpoint's run"
            )
        if states := checkpoint.get("optimizer_states"):
            states[0] = fit_state(states[0], self._groups())
        if "kl" in self.objective.weights:  # newly, where the checkpoint knows no noise
            for part, name in (("state_dict", f"animator.{NOISE}"), (EMA_KEY, f"module.{NOISE}")):
                if (noise := checkpoint.get(part, {}).get(name)) is not None and float(noise.max()) <= NO_NOISE:
                    noise.copy_(self.animator.motion_head.log_noise.detach())

    @property
    def learners(self) -> nn.ModuleList:
        """What the first optimiser trains: the animator, and the heads of loss terms."""
        return nn.ModuleList([self.animator, self.objective])

    def on_fit_start(self) -> None:
        """Set up the device, and load the weights of ``start_from``.

        Raises:
            CheckpointError: ``start_from`` cannot be read, or nothing in it fits.
        """
        prepare(self.device)
        self.summed_batches = 0
        self.statistics = BatchStatistics(self.animator)  # trainer.sync_batchnorm has replaced layers by now
        if self.start_from is not None and self.trainer.ckpt_path is None:
            adopted = adopt_weights(self.animator, self.start_from)
            rank_zero_info(
                f"{len(adopted.taken)} weights from {self.start_from}, {len(adopted.left)} begin at random"
                + (f", the first of them {adopted.left[0]}" if adopted.left else "")
                + (f"; they are of another method, with the generator {adopted.method}" if adopted.method else "")
            )
        if self.compiles:
            self.animator.generator.compile()

    def on_train_start(self) -> None:
        """Count the steps of the training, which the schedule needs; options of optimisers are those given now."""
        for optimizer, options in zip(self._optimizers(), self.options, strict=True):
            for group, given in zip(optimizer.param_groups, options, strict=True):
                group.update(given)
        self.progress.begin(self.trainer, self.accumulate_grad_batches)
        self.reported_skipped = self._skipped()

    def training_step(self, batch: FrameBatch, batch_idx: int) -> None:
        """One batch: generator phase, then discriminator phase; both optimisers step together.

        Raises:
            TrainingError: Too many steps in a row were skipped.
        """
        optimizers, step = self._optimizers(), self.global_step
        discriminating = self.discriminating
        stepping = (batch_idx + 1) % self.accumulate_grad_batches == 0 or self.trainer.is_last_batch
        self.progress.read_clock(self.trainer)
        self.objective.progress = self.progress.at(step)
        self._require_points(batch)
        self._set_lr(optimizers)
        if not self.summed_batches:
            self.statistics.save()
        self.summed_batches += 1
        with nullcontext() if stepping else self._no_reduction():
            made = self.take_step(batch, self._noise_generator())
            loss, values = self.objective(made, step)
            self._generator_phase(made, loss, values, optimizers[0], stepping)
            if discriminating:
                penalised = step % self.r1_every == 0
                each = batch["driving"].shape[1]  # one result of each source is enough, and faster
                fake, real = made.image.detach()[::each], made.target[::each]
                self._discriminator_phase(fake, real, optimizers[1], stepping, penalised)
        self.last_motion = made.motion.detach()
        if stepping:
            self.summed_batches = 0
            self._check_skipped_steps()

    def take_step(self, batch: FrameBatch, generator: torch.Generator | None = None) -> Step:
        """Render a batch for this step's loss terms, see :func:`sfdkit.train.forward.training_forward`."""
        return training_forward(self.animator, self.objective, batch, self.global_step, self.cross_share, generator)

    def _require_points(self, batch: FrameBatch) -> None:
        """Check that a batch brings the points that the terms read, those included that count only later.

        Raises:
            ConfigError: It brings none, or those of another set.
        """
        wanting = [name for name in self.objective.weights if TERMS[name].needs == "points"]
        if wanting and (brought := batch.get("point_set")) != self.points.name:
            raise ConfigError(
                f"model.weights.{wanting[0]} reads the points {self.points.name} of the face, and the shards bring "
                f"{brought or 'no points'}: set model.point_set to theirs, or data.points to true, or pack the shards "
                "with points, or set the weight to 0"
            )

    def _no_reduction(self) -> AbstractContextManager[None]:
        """Return a context without exchange of gradients between processes, which the last batch of a step does."""
        return getattr(self.trainer.strategy, "block_backward_sync", nullcontext)()

    def _noise_generator(self) -> torch.Generator:
        """Return a generator seeded by process and batch, so that a resumed training draws the same noise."""
        seed = f"{self.experiment.get('seed')}/{self.global_rank}/{self.trainer.fit_loop.total_batch_idx}"
        return torch.Generator(self.device).manual_seed(random.Random(seed).getrandbits(63))

    def _check_skipped_steps(self) -> None:
        """Warn about skipped steps, and end a training that skips one after the other.

        Raises:
            TrainingError: Too many steps in a row were skipped.
        """
        if self.global_step % self.max_skipped_steps:  # reading the count makes the host wait for the GPU
            return
        skipped = self._skipped()
        in_a_row = max(int(clipping.skipped_in_a_row) for clipping in (self.clipping, self.discriminator_clipping))
        if skipped > self.reported_skipped:
            rank_zero_warn(f"step {self.global_step}: the gradient was not finite; steps left out so far: {skipped}")
        self.reported_skipped = skipped
        if in_a_row >= self.max_skipped_steps:
            raise TrainingError(
                f"the gradient was not finite in the last {in_a_row} steps before step {self.global_step}; they "
                "were left out, so the checkpoints hold good weights. Resume from the last one with --ckpt_path and "
                "a lower learning rate, or look for broken pictures in the data"
            )

    def _skipped(self) -> int:
        """Return how many steps were skipped so far, of both networks."""
        return int(self.clipping.skipped) + int(self.discriminator_clipping.skipped)

    def _optimizers(self) -> list[LightningOptimizer]:
        optimizers = self.optimizers()
        return optimizers if isinstance(optimizers, list) else [optimizers]  # type: ignore[list-item]

    @property
    def discriminating(self) -> bool:
        """Whether the adversarial term counts now."""
        return self.discriminator is not None and self.objective.started("adversarial", self.global_step)

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
            features = self.discriminator.features(made.image)
            values["adversarial"] = generator_loss(self.discriminator.judge(features), self.adversarial)
            share = self.objective.share("adversarial", self.global_step)
            loss = loss + share * self.adversarial_weight * values["adversarial"]
            if self.matching_weight:
                with torch.no_grad():
                    wanted = self.discriminator.features(made.target)
                values["feature_matching"] = feature_matching(features, wanted)
                loss = loss + share * self.matching_weight * values["feature_matching"]
        self._backward(loss)
        values["mask"] = made.mask.mean()
        if made.points is not None:
            values["without_points"] = made.points.isnan().any(2).any(1).float().mean()
        if stepping:
            values["gradient_norm"], finite = self.clipping.clip(self.learners, self.summed_batches)
            values["skipped_steps"] = (self.clipping.skipped + self.discriminator_clipping.skipped).float()
            self.statistics.reduce(finite)
            skip_unless_finite(optimizer.optimizer, finite)
            optimizer.step()
            optimizer.zero_grad()
        else:
            self.statistics.reduce()
        self._tell({f"train/{name}": value for name, value in values.items()})
        self.log("loss", loss.detach(), on_step=True, on_epoch=False)

    def _discriminator_phase(
        self, fake: Tensor, real: Tensor, optimizer: LightningOptimizer, stepping: bool, penalised: bool
    ) -> None:
        assert self.discriminator is not None
        self.discriminator.requires_grad_(True)
        loss = discriminator_loss(self.discriminator(real), self.discriminator(fake), self.adversarial)
        self._tell({"train/discriminator": loss})
        if self.r1_weight and penalised:
            penalty = r1_penalty(self.discriminator, real)
            loss = loss + self.r1_weight * self.r1_every * penalty
            self._tell({"train/r1": penalty})
        self._backward(loss)
        if stepping:
            _, finite = self.discriminator_clipping.clip(self.discriminator, self.summed_batches)
            skip_unless_finite(optimizer.optimizer, finite)
            optimizer.optimizer.step()  # not Lightning's wrapper, which would count this step as well
            optimizer.optimizer.zero_grad()

    def _backward(self, loss: Tensor) -> None:
        """Compute gradients in the types of the forward pass: autocast would make those of float32 parts bfloat16."""
        with full_precision(loss):
            self.manual_backward(loss)

    def _set_lr(self, optimizers: list[LightningOptimizer]) -> None:
        factor = cosine_with_warmup(self.global_step, self.warmup_steps, self.progress.at(self.global_step))
        for optimizer, lr in zip(optimizers, self.base_lrs, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = lr * factor * group.get("scale", 1.0)
        self._tell({"train/lr": torch.tensor(self.base_lrs[0] * factor)})

    def _tell(self, values: Mapping[str, Tensor]) -> None:
        """Log values at the steps that are logged; at each step it would cost a thirtieth of a small training."""
        if logs_step(self.trainer):
            self.log_dict({name: value.detach() for name, value in values.items()}, on_step=True, on_epoch=False)
