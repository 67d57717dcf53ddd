"""The training loop: batches of an objective, a budget, checkpoints, the best weights, the learning curve."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import torch
from torch import distributed

from luthier import InputError
from luthier_tune.budget import (
    RECENT_STEPS,
    known_steps,
    learning_rate,
    settled_total,
    steps_left,
    total_with_cooldown_at,
)
from luthier_tune.checkpoint import Progress, check_space, load_checkpoint, save_checkpoint
from luthier_tune.distributed import Finished, Group
from luthier_tune.divergence import diverged
from luthier_tune.examples import batch_of_step, random_for
from luthier_tune.memory import available_bytes, estimate, explained, shortage
from luthier_tune.validation import BestWeights, Losses, steps_between

if TYPE_CHECKING:
    from torch.nn import Parameter

    from luthier import Context
    from luthier_tune.objective import Objective
    from luthier_tune.options import Training

Example = TypeVar("Example")


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
        self._expected_total: int | None = None
        self._evaluate_every = steps_between(settings, train=len(train), valid=len(valid))
        self._best = BestWeights(ctx.checkpoint, self.parameters) if valid and settings.keep == "best" else None
        self._checkpointed_best: set[float] = set()
        self._group = Group.current()
        if settings.processes not in (1, self._group.size):
            raise InputError(
                f"`processes` is {settings.processes}, and {self._group.size} are there",
                "Leave it out, or run the step from a recipe, which starts them.",
            )
        if distributed.is_torchelastic_launched() and not distributed.is_initialized():
            raise InputError("several processes were started, and this tuner trains in one", "Run it without torchrun.")

    def run(self) -> Progress:
        """Train until the budget or the patience is used up, from the last checkpoint if there is one.

        Afterwards the parameters, and `last_validation`, are those that `keep` asks for.

        Raises:
            InputError: if training diverges.
            LuthierError: if the memory or the disk does not suffice.
            Finished: in the processes but the first, when training is done.
        """
        self._check_resources()
        self._begin()
        saved = time.monotonic()
        while not self._is_finished():
            self._advance()
            if time.monotonic() - saved >= 60 * self.settings.checkpoint_minutes:
                self._checkpoint()
                saved = time.monotonic()
        if self.valid:
            self._measure_last()
        if not self._group.leads:
            raise Finished
        self._group = Group()
        if self.valid:
            self._choose_weights()
        return self.progress

    def train_on(self, examples: Sequence[Example]) -> tuple[float, float]:
        """One optimizer step: the mean loss per term, and the norm of the gradient."""
        terms = sum(map(self.objective.terms, examples))
        total = 0.0
        self.optimizer.zero_grad(set_to_none=True)
        own = self._group.share(examples)
        for _, batch in self.objective.batches(own) if own else ():
            loss = self.objective.loss(batch) / terms
            loss.backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
        self._add_up_gradients()
        (total,) = self._group.sums([total], self.objective.device)
        norm = torch.nn.utils.clip_grad_norm_(self.parameters.values(), self.settings.max_gradient_norm)
        if math.isfinite(total) and math.isfinite(float(norm)):
            self.optimizer.step()
        return total, float(norm)

    def losses(self, examples: Sequence[Example]) -> Losses:
        """The losses of examples, in their order, without training."""
        self.objective.module.train(False)
        means, sizes = [0.0] * len(examples), [0.0] * len(examples)
        numbers = self._group.share(range(len(examples)))
        own = [examples[number] for number in numbers]
        for members, batch in self.objective.batches(own) if own else ():
            for member, values in zip(members, self.objective.losses(batch), strict=True):
                means[numbers[member]], sizes[numbers[member]] = float(values.double().mean()), len(values)
        together = self._group.sums([*means, *sizes], self.objective.device)
        return Losses(together[: len(examples)], [int(size) for size in together[len(examples) :]])

    def _add_up_gradients(self) -> None:
        """Let each process have the gradients of all; one without examples has none of its own."""
        if self._group.size == 1:
            return
        for parameter in self.parameters.values():
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        self._group.add_up(parameter.grad for parameter in self.parameters.values() if parameter.grad is not None)

    def _check_resources(self) -> None:
        """Refuse or warn of what memory and disk will not hold, before the work."""
        check_space(self.ctx.checkpoint, self.parameters, best=self._best is not None)
        with explained("in a first forward pass", self.settings):
            of_each = math.ceil(self.settings.batch_size / self._group.size)
            need = estimate(self.objective, self.parameters, self.train, of_each)
        available = available_bytes(self.objective.device)
        if self.objective.device.type == "cpu":
            available //= self._group.size  # they take from the same
        warning = shortage(need, available, self.settings)
        if warning:
            self.ctx.log.warning("%s", warning)

    def _begin(self) -> None:
        """Go on from the last checkpoint, or start."""
        settings = self.settings
        resumed = load_checkpoint(self.ctx.checkpoint, self.parameters, self.optimizer, self._configuration())
        self._clock = time.monotonic() - (resumed.seconds if resumed else 0.0)
        self._check_same_place(resumed.step if resumed else 0)
        if resumed:
            self.progress = resumed
            self.ctx.log.info("resumed at step %d", resumed.step)
            self._checkpointed_best = self._best_step()
        else:
            per_epoch = math.ceil(len(self.train) / settings.batch_size)
            self.progress.total = known_steps(settings.max_steps, settings.max_epochs, settings.max_minutes, per_epoch)
            self._warn_of_short_budget()
            self._validate()

    def _check_same_place(self, step: int) -> None:
        """See that all processes go on from the same checkpoint.

        Raises:
            InputError: if not all of them found the same one.
        """
        (steps,) = self._group.sums([step], self.objective.device)
        if self._group.first(step, self.objective.device) * self._group.size != steps:
            raise InputError(
                "the processes of the training go on from different checkpoints",
                "Give all of them the same checkpoint directory.",
            )

    def _configuration(self) -> dict[str, Any]:
        """What a checkpoint is of: all that the weights depend on, but the model and the content of the examples."""
        examples = {
            "seed": self.ctx.seed,
            "examples": len(self.train),
            "tokens": sum(map(self.objective.tokens, self.train)),
            "measured examples": len(self.valid),
        }
        without = {name: value for name, value in asdict(self.settings).items() if name != "checkpoint_minutes"}
        return without | examples

    def _is_finished(self) -> bool:
        progress, patience = self.progress, self.settings.patience
        if progress.total is not None and progress.step >= progress.total:
            return True
        if patience is None or progress.since_best < patience:
            return False
        if progress.total is None:
            progress.total = total_with_cooldown_at(progress.step)
        self.ctx.log.info(
            "stopped at step %d: the last %d validation losses are no better than that of step %d; "
            "max_steps: %d with the same patience gives the same again",
            progress.step,
            progress.since_best,
            max(self._best_step()),
            progress.total,
        )
        return True

    def _advance(self) -> None:
        """Do one step and note it."""
        progress, settings = self.progress, self.settings
        step = progress.step
        started = time.monotonic()
        rate = learning_rate(step, progress.total, peak=settings.learning_rate, warmup_steps=settings.warmup_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["rate_factor"]
        batch = [self.train[i] for i in batch_of_step(step, len(self.train), settings.batch_size, self.ctx.seed)]
        tokens = sum(map(self.objective.tokens, batch))
        self.objective.module.train()
        # Dropout's randomness comes from the seed and the step, whatever ran before in this process.
        with (
            torch.random.fork_rng(devices=[self.objective.device] if self.objective.device.type == "cuda" else []),
            explained(f"at step {step + 1}, of {len(batch)} examples with {tokens} tokens", settings),
        ):
            torch.manual_seed(random_for(self.ctx.seed, self._purpose(step)).getrandbits(63))
            loss, norm = self.train_on(batch)
        seconds = time.monotonic() - started
        progress.step += 1
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
        self._refuse_divergence(diverged(progress.curve, progress.validation))
        due = self._evaluate_every and progress.step % self._evaluate_every == 0
        if due and progress.step != progress.total:
            self._validate()
        if progress.total is None:
            self._watch_clock()
        self.ctx.progress(
            progress.step,
            progress.total or self._expected_total,
            loss=loss,
            learning_rate=rate,
            tokens_per_second=tokens / max(seconds, 1e-9),
        )

    def _purpose(self, step: int) -> str:
        """What the randomness of a step is named by: each process drops other things."""
        return f"step {step}" if self._group.leads else f"step {step}, process {self._group.rank}"

    def _watch_clock(self) -> None:
        """Settle the total of a budget in minutes as soon as the fall of the rate takes all that is left."""
        progress = self.progress
        left = steps_left(
            progress.curve,
            progress.validation,
            minutes=self.settings.max_minutes or 0.0,
            elapsed=time.monotonic() - self._clock,
            tokens_per_step=self._tokens_per_step,
        )
        left = self._group.first(left, self.objective.device)
        progress.total = settled_total(progress.step, left)
        if progress.total is None:
            if progress.step >= RECENT_STEPS:
                self._expected_total = progress.step + int(left)
            return
        self._warn_of_short_budget()
        # The number is kept at once: a run that is killed must go on with the same one.
        self._checkpoint()

    @cached_property
    def _tokens_per_step(self) -> float:
        tokens = sum(map(self.objective.tokens, self.train))
        return tokens / math.ceil(len(self.train) / self.settings.batch_size)

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
        """Measure the validation loss, note it, and keep the weights if they are the best and training goes on."""
        if not self.valid:
            return
        progress = self.progress
        self.ctx.log.info("measuring the loss of %d validation examples", len(self.valid))
        started = time.monotonic()
        with explained("in the validation", self.settings):
            self.last_validation = self.losses(self.valid)
        loss = self.last_validation.mean
        if not math.isfinite(loss):
            self._refuse_divergence(f"the validation loss is {loss}")
        progress.validation.append({"step": progress.step, "loss": loss, "seconds": time.monotonic() - started})
        best = self._best_step()
        if self._best and self._group.leads and progress.step in best and progress.step != progress.total:
            self._best.save(progress.step, self.last_validation)
            self._best.keep_only(best | self._checkpointed_best)

    def _measure_last(self) -> None:
        """Validate the last weights, unless it was done."""
        if self.progress.validation[-1]["step"] != self.progress.step:
            self._validate()

    def _choose_weights(self) -> None:
        """Let the parameters and `last_validation` be those of the result."""
        progress = self.progress
        best = progress.best
        if self._best and best and best["step"] != progress.step:
            self.last_validation = self._best.restore(best["step"])
            self.ctx.log.info("the weights of step %d are the best, and are kept", best["step"])
        elif not self.last_validation.sizes:
            self.last_validation = self.losses(self.valid)
        first = progress.validation[0]
        if first["step"] == 0 and self.last_validation.mean > first["loss"]:
            self.ctx.log.warning(
                "training made the validation loss worse (%.3g, from %.3g): lower the learning rate, or see whether "
                "the validation examples are like those of training",
                self.last_validation.mean,
                first["loss"],
            )

    def _refuse_divergence(self, how: str) -> None:
        if not how:
            return
        remedy = f"Lower the learning rate (it is {self.settings.learning_rate:g}), or check the base model's weights."
        best = self.progress.best
        if self._best and best:
            remedy += f" The best weights, of step {int(best['step'])}, are kept in {self._best.path(best['step'])}."
        raise InputError(f"training diverged at step {self.progress.step}: {how}", remedy)

    def _best_step(self) -> set[float]:
        """The step of the best validation loss; empty before the first in training."""
        return {self.progress.best["step"]} if self.progress.best else set()

    def _checkpoint(self) -> None:
        self.progress.seconds = time.monotonic() - self._clock
        if not self._group.leads:
            return
        save_checkpoint(self.ctx.checkpoint, self.parameters, self.optimizer, self.progress, self._configuration())
        if self._best:
            self._checkpointed_best = self._best_step()
            self._best.keep_only(self._checkpointed_best)


def _groups(parameters: Mapping[str, Parameter], rate_of: Callable[[str], float] | None) -> list[dict[str, Any]]:
    """The optimizer's groups: parameters that learn at the same rate, in their order."""
    groups: dict[float, list[Parameter]] = {}
    for name, parameter in parameters.items():
        groups.setdefault(rate_of(name) if rate_of else 1.0, []).append(parameter)
    return [{"params": members, "rate_factor": factor} for factor, members in groups.items()]
