"""What goes on beside the steps of a training: resources, the clock, validation, the best weights, the end."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import torch

from luthier import InputError
from luthier_models.memory import available_bytes
from luthier_tune.budget import RECENT_STEPS, known_steps, settled_total, steps_left, total_with_cooldown_at
from luthier_tune.checkpoint import Progress, check_space
from luthier_tune.distributed import Group
from luthier_tune.divergence import diverged
from luthier_tune.memory import estimate, explained, shortage
from luthier_tune.validation import BestWeights, Measured, steps_between

if TYPE_CHECKING:
    from torch.nn import Parameter

    from luthier import Context
    from luthier_tune.objective import Loss
    from luthier_tune.options import Training

Example = TypeVar("Example")

NOTICEABLE = 1e-3
"""By what share the validation loss must have risen to be warned of; another seed makes more of a difference."""


class Course(Generic[Measured]):
    """Watches a training step by step: the budget, validation, the best weights, divergence.

    Its clock runs from when it is made.

    Args:
        settings: the configuration.
        ctx: the log, and the directory of checkpoints.
        parameters: what is trained, by name.
        train: the number of training examples.
        valid: the number of validation examples; may be 0.
        tokens_per_step: of a mean step; that of the steps done, if not given.
        measure: measures the validation examples.
        kind: the class of what it gives.
        aside: seconds that the caller measured for before, and will again after the training; they count.
        group: the processes of the training.
        device: where they tell each other numbers.

    Attributes:
        progress: how far the training is.
        last: what was measured last; None before that, and in a run that goes on until it measures.
        expected_total: about how many steps there will be, where it is not settled yet.

    Raises:
        InputError: if `patience` is given, and there is nothing to measure.
    """

    def __init__(
        self,
        settings: Training,
        ctx: Context,
        parameters: Mapping[str, Parameter],
        *,
        train: int,
        valid: int,
        measure: Callable[[], Measured],
        kind: type[Measured],
        tokens_per_step: float | None = None,
        aside: float = 0.0,
        group: Group = Group(),  # noqa: B008 - immutable
        device: torch.device = torch.device("cpu"),  # noqa: B008 - immutable
    ) -> None:
        if settings.patience is not None and not valid:
            raise InputError(
                "`patience` waits for a better validation loss, and there are no examples to measure it on",
                "Let the formatter put some into the split `valid`, or leave `patience` out.",
            )
        self.progress = Progress()
        self.last: Measured | None = None
        self.expected_total: int | None = None
        self._settings, self._ctx = settings, ctx
        self._steps_per_epoch = math.ceil(train / settings.batch_size)
        self._valid, self._measure = valid, measure
        self._parameters = parameters
        self._tokens_per_step, self._aside = tokens_per_step, aside
        self._group, self._device = group, device
        self._evaluate_every = steps_between(settings, train=train, valid=valid)
        kept = valid and settings.keep == "best"
        self._best = BestWeights(ctx.checkpoint, parameters, kind) if kept else None
        self._checkpointed_best: set[float] = set()
        self._process_began = self._began = time.monotonic() - aside
        self._starting = True

    @property
    def kept_step(self) -> float:
        """The step whose weights are the result."""
        best = self.progress.best
        return best["step"] if self._best and best else self.progress.step

    @property
    def is_finished(self) -> bool:
        """Whether the budget or the patience is used up."""
        progress = self.progress
        return self._is_out_of_patience or (progress.total is not None and progress.step >= progress.total)

    @property
    def _is_out_of_patience(self) -> bool:
        return self._settings.patience is not None and self.progress.since_best >= self._settings.patience

    def check_resources(self, objective: Loss[Example, Any] | None, examples: Sequence[Example]) -> None:
        """Refuse or warn of what memory and disk will not hold, before the work.

        Args:
            objective: what is minimised; None if its memory cannot be estimated.
            examples: those to train on.

        Raises:
            LuthierError: if the memory or the disk does not suffice.
        """
        check_space(self._ctx.checkpoint, self._parameters, best=self._best is not None)
        if objective is None:
            return
        with explained("in a first forward pass", self._settings):
            of_each = math.ceil(self._settings.batch_size / self._group.size)
            need = estimate(objective, self._parameters, examples, of_each)
        available = available_bytes(objective.device)
        if objective.device.type == "cpu":
            available //= self._group.size  # they take from the same
        warning = shortage(need, available, self._settings)
        if warning:
            self._ctx.log.warning("%s", warning)

    def begin(self, resumed: Progress | None) -> None:
        """Start with a first measurement, or go on from there.

        Raises:
            InputError: if what is measured is no number.
        """
        if resumed:
            self._began -= resumed.seconds
            self.progress = resumed
            self._checkpointed_best = self._best_step
            self._ctx.log.info("resumed at step %d", resumed.step)
            return
        settings = self._settings
        self.progress.total = known_steps(
            settings.max_steps, settings.max_epochs, settings.max_minutes, self._steps_per_epoch
        )
        self._warn_of_short_budget()
        self._validate()

    def starts_step(self) -> None:
        """To be called before each step: what was before the first is no speed of steps."""
        if self._starting:
            self.progress.before += time.monotonic() - self._process_began
            self._starting = False

    def note(self, record: dict[str, float]) -> bool:
        """Note a step that was done, and decide what comes next; says whether a checkpoint is due at once.

        Args:
            record: of the step: `step`, `loss`, `learning_rate`, `seconds`, `tokens`, `gradient_norm`, and others.

        Raises:
            InputError: if training diverges.
        """
        progress = self.progress
        progress.step += 1
        progress.curve.append(record)
        self._refuse_divergence(diverged(progress.curve, progress.validation))
        due = self._evaluate_every and progress.step % self._evaluate_every == 0
        if due and progress.step != progress.total:
            self._validate()
        # The number is kept at once: a run that is killed must go on with the same one.
        return progress.total is None and self._settle()

    def checkpointed(self) -> None:
        """To be called after a checkpoint with the progress: older best weights are not needed any more."""
        if self._best:
            self._checkpointed_best = self._best_step
            self._best.keep_only(self._checkpointed_best)

    def count_seconds(self) -> None:
        """Bring the seconds of the progress up to date."""
        self.progress.seconds = time.monotonic() - self._began

    def finish(self) -> None:
        """After the last step: settle the number of steps, and measure the last weights."""
        progress = self.progress
        if self._is_out_of_patience:
            if progress.total is None:
                progress.total = total_with_cooldown_at(progress.step)
            self._ctx.log.info(
                "stopped at step %d: the last %d validation losses are no better than that of step %d; "
                "max_steps: %d with the same patience gives the same again",
                progress.step,
                progress.since_best,
                max(self._best_step),
                progress.total,
            )
        if self._valid and progress.validation[-1]["step"] != progress.step:
            self._validate()
        elif self._valid and self.last is None:
            # A run that was killed measured it. All processes are still there to measure together.
            self.last = self._measure()

    def choose_weights(self, whole: Mapping[str, Parameter] | None = None) -> None:
        """Let the parameters, and `last`, be those that `keep` asks for; after `finish`.

        Args:
            whole: what gets their values, if the parameters are parts of a model that is cut.
        """
        if not self._valid:
            return
        progress, best = self.progress, self.progress.best
        if self._best and best and best["step"] != progress.step:
            self.last = self._best.restore(best["step"], self._parameters if whole is None else whole)
            self._ctx.log.info("the weights of step %d are the best, and are kept", best["step"])
        assert self.last is not None
        first, loss = progress.validation[0], self.last.summary()["loss"]
        if first["step"] == 0 and loss > first["loss"] * (1 + NOTICEABLE):
            self._ctx.log.warning(
                "training made the validation loss worse (%.4g, from %.4g): lower the learning rate, or see whether "
                "the validation examples are like those of training",
                loss,
                first["loss"],
            )

    def _validate(self) -> None:
        """Measure, note it, and keep the weights if they are the best and training goes on."""
        if not self._valid:
            return
        progress = self.progress
        self._ctx.log.info("measuring the loss of %d validation examples", self._valid)
        started = time.monotonic()
        with explained("in the validation", self._settings):
            self.last = self._measure()
        summary = self.last.summary()
        if not math.isfinite(summary["loss"]):
            self._refuse_divergence(f"the validation loss is {summary['loss']}")
        progress.validation.append({"step": progress.step, **summary, "seconds": time.monotonic() - started})
        best = self._best_step
        if self._best and progress.step in best and progress.step != progress.total:
            self._best.save(progress.step, self.last, leads=self._group.leads)
            if self._group.leads:
                self._best.keep_only(best | self._checkpointed_best)

    def _settle(self) -> bool:
        """Settle the total of a budget in minutes, as soon as the fall of the rate takes all that is left."""
        progress = self.progress
        tokens = [record["tokens"] for record in progress.curve]
        left = steps_left(
            progress.curve,
            minutes=self._settings.max_minutes or 0.0,
            elapsed=time.monotonic() - self._began,
            before=progress.before,
            after=self._aside + (progress.validation[-1]["seconds"] if progress.validation else 0.0),
            tokens_per_step=self._tokens_per_step or math.fsum(tokens) / len(tokens),
        )
        left = self._group.first(left, self._device)
        progress.total = settled_total(progress.step, left)
        if progress.total is None:
            if progress.step >= RECENT_STEPS:
                self.expected_total = progress.step + int(left)
            return False
        self._warn_of_short_budget()
        return True

    def _warn_of_short_budget(self) -> None:
        total, warmup = self.progress.total, self._settings.warmup_steps
        if total is not None and 0 < total <= warmup:
            self._ctx.log.warning(
                "the budget allows %d steps and the learning rate rises for %d: little will be learnt; "
                "give it more, or lower warmup_steps",
                total,
                warmup,
            )

    def _refuse_divergence(self, how: str) -> None:
        if not how:
            return
        remedy = f"Lower the learning rate (it is {self._settings.learning_rate:g}), or check the base model's weights."
        best = self.progress.best
        if self._best and best:
            remedy += f" The best weights, of step {int(best['step'])}, are kept in {self._best.path(best['step'])}."
        raise InputError(f"training diverged at step {self.progress.step}: {how}", remedy)

    @property
    def _best_step(self) -> set[float]:
        """The step of the best validation loss; empty before the first in training."""
        return {self.progress.best["step"]} if self.progress.best else set()
