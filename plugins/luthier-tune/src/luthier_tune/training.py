"""The training loop: batches of an objective, a budget, checkpoints, the learning curve."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import torch

from luthier import InputError
from luthier_tune.budget import MEASURED_STEPS, known_steps, learning_rate, steps_for
from luthier_tune.checkpoint import Progress, load_checkpoint, save_checkpoint
from luthier_tune.examples import batch_of_step, random_for

if TYPE_CHECKING:
    from torch.nn import Parameter

    from luthier import Context
    from luthier_tune.objective import Objective
    from luthier_tune.options import Training

Example = TypeVar("Example")


@dataclass(frozen=True)
class Losses:
    """Validation losses: the mean loss of each example's terms, and how many those are."""

    means: list[float] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)

    @property
    def mean(self) -> float:
        """The mean over all terms."""
        return math.fsum(m * n for m, n in zip(self.means, self.sizes, strict=True)) / sum(self.sizes)


class Trainer(Generic[Example]):
    """Trains parameters until an objective's budget is used up; the same seed gives the same bytes.

    Args:
        objective: what is minimised.
        parameters: what is trained, by name.
        train: the training examples.
        valid: the validation examples; may be empty.
        settings: the configuration.
        ctx: seed, checkpoints and progress.
        rate_of: how many times the learning rate the parameter of a name learns at; once, if not given.
    """

    def __init__(
        self,
        objective: Objective[Example, Any],
        parameters: Mapping[str, Parameter],
        train: Sequence[Example],
        valid: Sequence[Example],
        *,
        settings: Training,
        ctx: Context,
        rate_of: Callable[[str], float] | None = None,
    ) -> None:
        self.objective = objective
        self.parameters = dict(parameters)
        self.train = train
        self.valid = valid
        self.settings = settings
        self.ctx = ctx
        self.optimizer = torch.optim.AdamW(
            _groups(self.parameters, rate_of),
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
            fused=objective.device.type in ("cpu", "cuda"),
        )
        self.progress = Progress()
        self.last_validation = Losses()
        self._clock = 0.0

    def run(self) -> Progress:
        """Train until the budget is used up, from the last checkpoint if there is one.

        Raises:
            InputError: if the training or validation loss is no finite number any more.
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

    def train_on(self, examples: Sequence[Example]) -> tuple[float, float]:
        """One optimizer step: the mean loss per term, and the norm of the gradient."""
        terms = sum(map(self.objective.terms, examples))
        total = 0.0
        self.optimizer.zero_grad(set_to_none=True)
        for _, batch in self.objective.batches(examples):
            loss = self.objective.loss(batch) / terms
            loss.backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
        norm = torch.nn.utils.clip_grad_norm_(self.parameters.values(), self.settings.max_gradient_norm)
        if math.isfinite(total) and math.isfinite(float(norm)):
            self.optimizer.step()
        return total, float(norm)

    def losses(self, examples: Sequence[Example]) -> Losses:
        """The losses of examples, in their order, without training."""
        self.objective.module.train(False)
        means, sizes = [0.0] * len(examples), [0] * len(examples)
        for members, batch in self.objective.batches(examples):
            for member, values in zip(members, self.objective.losses(batch), strict=True):
                means[member], sizes[member] = float(values.double().mean()), len(values)
        return Losses(means, sizes)

    def _advance(self) -> None:
        """Do one step and note it."""
        progress, settings = self.progress, self.settings
        step = progress.step
        started = time.monotonic()
        rate = learning_rate(step, progress.total, peak=settings.learning_rate, warmup_steps=settings.warmup_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["rate_factor"]
        batch = [self.train[i] for i in batch_of_step(step, len(self.train), settings.batch_size, self.ctx.seed)]
        self.objective.module.train()
        # Dropout's randomness comes from the seed and the step, whatever ran before in this process.
        with torch.random.fork_rng(devices=[self.objective.device] if self.objective.device.type == "cuda" else []):
            torch.manual_seed(random_for(self.ctx.seed, f"step {step}").getrandbits(63))
            loss, norm = self.train_on(batch)
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise InputError(
                f"training diverged at step {step + 1}: the loss is {loss}, the norm of its gradient {norm}",
                f"Lower the learning rate (it is {settings.learning_rate:g}), or check the base model's weights.",
            )
        tokens = sum(map(self.objective.tokens, batch))
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
        tokens = sum(map(self.objective.tokens, self.train))
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
        if not math.isfinite(self.last_validation.mean):
            raise InputError(
                f"training diverged by step {self.progress.step}: the validation loss is {self.last_validation.mean}",
                f"Lower the learning rate (it is {self.settings.learning_rate:g}), or check the base model's weights.",
            )
        self.progress.validation.append(
            {"step": self.progress.step, "loss": self.last_validation.mean, "seconds": time.monotonic() - started}
        )

    def _validated_at(self) -> int:
        return int(self.progress.validation[-1]["step"]) if self.progress.validation else -1

    def _checkpoint(self) -> None:
        self.progress.seconds = time.monotonic() - self._clock
        save_checkpoint(self.ctx.checkpoint, self.parameters, self.optimizer, self.progress)


def _groups(parameters: Mapping[str, Parameter], rate_of: Callable[[str], float] | None) -> list[dict[str, Any]]:
    """The optimizer's groups: parameters that learn at the same rate, in their order."""
    groups: dict[float, list[Parameter]] = {}
    for name, parameter in parameters.items():
        groups.setdefault(rate_of(name) if rate_of else 1.0, []).append(parameter)
    return [{"params": members, "rate_factor": factor} for factor, members in groups.items()]
