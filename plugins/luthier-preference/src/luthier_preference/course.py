"""What goes on beside trl's training loop: the budget, the schedule, progress, validation, checkpoints."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from luthier import InputError
from luthier_preference.checkpoints import seal
from luthier_preference.rewards import mean
from luthier_tune.budget import known_steps, learning_rate, settled_total, steps_left
from luthier_tune.checkpoint import Progress
from luthier_tune.divergence import diverged

if TYPE_CHECKING:
    from luthier import Context
    from luthier_preference.options import Training
    from luthier_preference.rewards import RewardMeter, Rewards

ENDLESS = 1_000_000_000
"""What trl takes for the number of steps as long as it is not known."""


class Course(TrainerCallback):
    """Watches a training step by step, and says when it ends.

    Args:
        settings: the configuration.
        ctx: progress, log and checkpoints.
        examples: how many there are to train on.

    Attributes:
        progress: how far it is; its curve has the rewards of the batches besides.
        meter: measures the validation examples; None where there are none.
        last: what was measured last.
    """

    def __init__(self, settings: Training, ctx: Context, *, examples: int) -> None:
        self._settings = settings
        self._ctx = ctx
        per_epoch = math.ceil(examples / settings.batch_size)
        total = known_steps(settings.max_steps, settings.max_epochs, settings.max_minutes, per_epoch)
        self.progress = Progress(total=total)
        self.meter: RewardMeter | None = None
        self.last: Rewards | None = None
        self._clock = self._saved = self._step_began = time.monotonic()
        self._tokens = 0.0

    @property
    def steps(self) -> int:
        """How many steps trl is to do at the most."""
        return ENDLESS if self.progress.total is None else self.progress.total

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0, as a share of the peak."""
        return learning_rate(step, self.progress.total, peak=1.0, warmup_steps=self._settings.warmup_steps)

    def begin(self, progress: Progress | None) -> None:
        """Start, or go on from there."""
        self._clock = time.monotonic() - (progress.seconds if progress else 0.0)
        if progress:
            self.progress = progress
            self._ctx.log.info("resumed at step %d", progress.step)
        else:
            self.validate()

    def validate(self) -> None:
        """Measure the validation examples, and note it."""
        if self.meter is None:
            return
        started = time.monotonic()
        self.last = self.meter.measure()
        record = {"step": float(self.progress.step), "reward_margin": self.last.margin}
        record["reward_accuracy"] = mean(self.last.wins)
        self.progress.validation.append({**record, "seconds": time.monotonic() - started})

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Trl counts tokens from here on, also where training goes on."""
        self._saved = time.monotonic()
        self._tokens = 0.0

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Note when."""
        self._step_began = time.monotonic()

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """After each step: note it, and decide what comes next.

        Raises:
            InputError: if training diverges.
        """
        if "loss" not in logs:
            return  # The summary at the end.
        self._note(state.global_step, logs)
        progress, settings = self.progress, self._settings
        if settings.evaluate_every and progress.step % settings.evaluate_every == 0 and progress.step != progress.total:
            self.validate()
        settled = progress.total is None and self._settle()
        due = time.monotonic() - self._saved >= 60 * settings.checkpoint_minutes
        ended = progress.step == progress.total
        control.should_training_stop |= ended
        # After the last step there is nothing to go on with.
        control.should_save = (settled or due) and not ended

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Seal the checkpoint, with what is known of its step."""
        self.progress.seconds = time.monotonic() - self._clock
        seal(Path(args.output_dir), self.progress)
        self._saved = time.monotonic()

    def _note(self, step: int, logs: Mapping[str, float]) -> None:
        loss, norm = logs["loss"], float(logs.get("grad_norm", math.nan))
        seconds, tokens = time.monotonic() - self._step_began, logs["num_tokens"] - self._tokens
        self._tokens = logs["num_tokens"]
        rate = self._settings.learning_rate * self.rate(step - 1)
        record = {"step": step, "loss": loss, "learning_rate": rate, "seconds": seconds, "tokens": tokens}
        rewards = {"reward_margin": logs.get("rewards/margins", math.nan)}
        self.progress.step = step
        self.progress.curve.append({**record, "gradient_norm": norm, **rewards})
        how = diverged(self.progress.curve, [])
        if how:
            raise InputError(
                f"training diverged at step {step}: {how}",
                f"Lower the learning rate (it is {self._settings.learning_rate:g}), or check the model's weights.",
            )
        shown = {name: value for name, value in rewards.items() if math.isfinite(value)}
        self._ctx.progress(step, self.progress.total, loss=loss, learning_rate=rate, **shown)

    def _settle(self) -> bool:
        """Turn a budget in minutes into steps, as soon as the fall of the learning rate takes all that is left."""
        progress = self.progress
        left = steps_left(
            progress.curve,
            progress.validation,
            minutes=self._settings.max_minutes or 0.0,
            elapsed=time.monotonic() - self._clock,
            tokens_per_step=mean([record["tokens"] for record in progress.curve]),
        )
        progress.total = settled_total(progress.step, left)
        return progress.total is not None
