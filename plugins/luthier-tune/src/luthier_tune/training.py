"""The training loop: packed batches, a budget, checkpoints, the learning curve."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from luthier import InputError
from luthier_models.packing import Pair, Row
from luthier_tune.budget import MEASURED_STEPS, known_steps, learning_rate, steps_for
from luthier_tune.checkpoint import Progress, load_checkpoint, save_checkpoint
from luthier_tune.examples import batch_of_step, random_for
from luthier_tune.loss import summed_loss, target_losses

if TYPE_CHECKING:
    from torch.nn import Parameter

    from luthier import Context
    from luthier_models.packing import PackedModel

ROW_TOKENS = 512
"""A batch longer than this becomes several rows, whose gradients are added up: products of matrices gain
nothing from longer ones, and the memory for activations stays bounded."""


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """The configuration of a training run; see `luthier_tune.lora`."""

    learning_rate: float = 5e-4
    warmup_steps: int = 5
    weight_decay: float = 0.0
    max_gradient_norm: float = 1.0
    batch_size: int = 4
    max_length: int = 512
    max_steps: int | None = None
    max_epochs: float | None = None
    max_minutes: float | None = None
    evaluate_every: int | None = None
    valid_examples: int = 64
    checkpoint_minutes: float = 1.0


@dataclass(frozen=True)
class Losses:
    """Validation losses: the mean loss of each example's targets, and how many those are."""

    means: list[float] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)

    @property
    def mean(self) -> float:
        """The mean over all targets, in nats."""
        return math.fsum(m * n for m, n in zip(self.means, self.sizes, strict=True)) / sum(self.sizes)


class Trainer:
    """Trains the parameters that require gradients; the same seed gives the same bytes.

    Args:
        packed: the model.
        parameters: what is trained, by name.
        train: the training pairs.
        valid: the validation pairs; may be empty.
        settings: the configuration.
        ctx: seed, checkpoints and progress.
    """

    def __init__(
        self,
        packed: PackedModel,
        parameters: Mapping[str, Parameter],
        train: Sequence[Pair],
        valid: Sequence[Pair],
        *,
        settings: TrainingSettings,
        ctx: Context,
    ) -> None:
        self.packed = packed
        self.parameters = dict(parameters)
        self.train = train
        self.valid = valid
        self.settings = settings
        self.ctx = ctx
        self.optimizer = torch.optim.AdamW(
            list(self.parameters.values()),
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
            fused=packed.device.type in ("cpu", "cuda"),
        )
        self.progress = Progress()
        self.last_validation = Losses()
        self._clock = 0.0

    def run(self) -> Progress:
        """Train until the budget is used up, from the last checkpoint if there is one.

        Raises:
            InputError: if the loss is no finite number any more.
        """
        settings = self.settings
        resumed = load_checkpoint(self.ctx.checkpoint, self.parameters, self.optimizer)
        self._clock = time.monotonic() - (resumed.seconds if resumed else 0.0)
        if resumed:
            self.progress = resumed
            self.ctx.log.info("resumed at step %d", resumed.step)
        else:
            per_epoch = math.ceil(len(self.train) / settings.batch_size)
            self.progress.total = known_steps(settings.max_steps, settings.max_epochs, settings.max_minutes, per_epoch)
            self._warn_of_short_budget()
            self._validate()
        saved = time.monotonic()
        while self.progress.total is None or self.progress.step < self.progress.total:
            self._advance()
            if time.monotonic() - saved >= 60 * settings.checkpoint_minutes:
                self._checkpoint()
                saved = time.monotonic()
        if self.valid and (not self.last_validation.sizes or self._validated_at() != self.progress.step):
            self._validate()
        return self.progress

    def train_on(self, pairs: Sequence[Pair]) -> tuple[float, float]:
        """One optimizer step on a batch: its mean loss per target, and the norm of the gradient."""
        targets = sum(len(labels) for _, labels in pairs)
        total = 0.0
        self.optimizer.zero_grad(set_to_none=True)
        for _, row in self.packed.rows(pairs, ROW_TOKENS):
            loss = summed_loss(self.packed, row) / targets
            loss.backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
        norm = torch.nn.utils.clip_grad_norm_(self.parameters.values(), self.settings.max_gradient_norm)
        if math.isfinite(total) and math.isfinite(float(norm)):
            self.optimizer.step()
        return total, float(norm)

    def losses(self, pairs: Sequence[Pair]) -> Losses:
        """The losses of pairs, in their order, without training."""
        self.packed.model.train(False)
        means, sizes = [0.0] * len(pairs), [0] * len(pairs)
        for members, row in self.packed.rows(pairs, ROW_TOKENS):
            for member, values in zip(members, self._split_losses(row), strict=True):
                means[member], sizes[member] = float(values.double().mean()), len(values)
        return Losses(means, sizes)

    def _split_losses(self, row: Row) -> tuple[torch.Tensor, ...]:
        parts: tuple[torch.Tensor, ...] = torch.split(target_losses(self.packed, row), list(row.sizes))
        return parts

    def _advance(self) -> None:
        """Do one step and note it."""
        progress, settings = self.progress, self.settings
        step = progress.step
        started = time.monotonic()
        rate = learning_rate(step, progress.total, peak=settings.learning_rate, warmup_steps=settings.warmup_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        batch = [self.train[i] for i in batch_of_step(step, len(self.train), settings.batch_size, self.ctx.seed)]
        self.packed.model.train()
        # Dropout's randomness comes from the seed and the step, whatever ran before in this process.
        with torch.random.fork_rng(devices=[self.packed.device] if self.packed.device.type == "cuda" else []):
            torch.manual_seed(random_for(self.ctx.seed, f"step {step}").getrandbits(63))
            loss, norm = self.train_on(batch)
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise InputError(
                f"training diverged at step {step + 1}: the loss is {loss}, the norm of its gradient {norm}",
                f"Lower the learning rate (it is {settings.learning_rate:g}), or check the base model's weights.",
            )
        tokens = sum(len(given) + len(targets) for given, targets in batch)
        seconds = time.monotonic() - started
        progress.step += 1
        progress.seconds = time.monotonic() - self._clock
        progress.curve.append(
            {
                "step": progress.step,
                "loss": loss,
                "learning_rate": rate,
                "seconds": seconds,
                "tokens": tokens,
                "examples": len(batch),
                "gradient_norm": norm,
            }
        )
        if progress.total is None and progress.step == MEASURED_STEPS:
            self._settle_total()
        self.ctx.progress(
            progress.step, progress.total, loss=loss, learning_rate=rate, tokens_per_second=tokens / seconds
        )
        due = settings.evaluate_every and progress.step % settings.evaluate_every == 0
        if due and progress.step != progress.total:
            self._validate()

    def _settle_total(self) -> None:
        """Turn a budget in minutes into steps: by the time a token took, and the tokens of a mean step."""
        curve = self.progress.curve
        per_token = sum(record["seconds"] for record in curve) / sum(record["tokens"] for record in curve)
        tokens = sum(len(given) + len(targets) for given, targets in self.train)
        per_step = per_token * tokens / math.ceil(len(self.train) / self.settings.batch_size)
        measured = self.progress.validation[-1]["seconds"] if self.progress.validation else 0.0
        if self.settings.evaluate_every:
            per_step += measured / self.settings.evaluate_every
        left = 60 * (self.settings.max_minutes or 0.0) - self.progress.seconds - measured
        self.progress.total = steps_for(left, done=self.progress.step, seconds_per_step=per_step)
        self._warn_of_short_budget()
        # The number is kept at once: a run that is killed must go on with the same one.
        self._checkpoint()

    def _warn_of_short_budget(self) -> None:
        total, warmup = self.progress.total, self.settings.warmup_steps
        if total is not None and 0 < total <= warmup:
            self.ctx.log.warning(
                "the budget allows %d steps and the learning rate rises for %d: little will be learnt; "
                "give it more, or lower warmup_steps",
                total,
                warmup,
            )

    def _validate(self) -> None:
        if not self.valid:
            return
        self.ctx.log.info("measuring the loss of %d validation examples", len(self.valid))
        started = time.monotonic()
        self.last_validation = self.losses(self.valid)
        self.progress.validation.append(
            {"step": self.progress.step, "loss": self.last_validation.mean, "seconds": time.monotonic() - started}
        )

    def _validated_at(self) -> int:
        return int(self.progress.validation[-1]["step"]) if self.progress.validation else -1

    def _checkpoint(self) -> None:
        self.progress.seconds = time.monotonic() - self._clock
        save_checkpoint(self.ctx.checkpoint, self.parameters, self.optimizer, self.progress)
